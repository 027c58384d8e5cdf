"""The composite action's scripts, run as a runner runs them: what passes, fails and is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Verdict
from harness.record import Record
from suites.selftest.conftest import ROOT, Done
from suites.selftest.written_runs import id_at, judged, write

ACTION = ROOT / ".github" / "actions" / "stability"
COMMON = judged(id_at(16))


def step(name: str, tmp_path: Path, **settings: str) -> Done:
    """A script of the action, from the repository's root, with its inputs as variables."""
    inputs = {
        "PYTHON": sys.executable,
        "SUITES": "stability",
        "ARGS": "",
        "BASELINES": str(tmp_path / "baselines"),
        "FAIL_ON": "stability,speed,training",
        "OUT": str(tmp_path / "ci"),
    } | settings
    done = subprocess.run(
        [ACTION / name],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        | {f"STABILITY_{key}": value for key, value in inputs.items()}
        | {"GITHUB_STEP_SUMMARY": f"{tmp_path}/summary", "GITHUB_OUTPUT": f"{tmp_path}/outputs"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_action_hands_each_script_what_it_reads() -> None:
    """Every STABILITY_ variable of a script is set by the step that calls it, from an input."""
    text = (ACTION / "action.yml").read_text()
    steps = text.split("    - name: ")[1:]
    inputs = set(re.findall(r"^  ([a-z-]+):$", text.split("outputs:")[0], re.MULTILINE))
    called = 0
    for each in steps:
        for script in re.findall(r"GITHUB_ACTION_PATH/(\w+\.sh)", each):
            called += 1
            read = set(re.findall(r"STABILITY_\w+", (ACTION / script).read_text()))
            given = dict(re.findall(r"(STABILITY_\w+): \$\{\{ inputs\.([a-z-]+) \}\}", each))
            assert read == given.keys(), script
            assert set(given.values()) <= inputs
            assert os.access(ACTION / script, os.X_OK)
    assert called == 3
    # In a script's own text an input would be code.
    assert not [line for line in text.splitlines() if "run:" in line and "${{" in line]


# What a comparison may come to; the job fails with the command's own code.
@pytest.mark.parametrize(
    ("new", "complete", "code", "result"),
    [
        ([COMMON], True, 0, "ok"),
        ([judged(id_at(16), Verdict.NAN)], True, 1, "regression"),
        ([COMMON], False, 3, None),
    ],
)
def test_the_comparison_decides(
    tmp_path: Path, new: list[Record], complete: bool, code: int, result: str | None
) -> None:
    """Its table is in the summary whatever it says, and its answer is the step's output."""
    write(tmp_path / "baselines" / "cpu-interpreter", [COMMON])
    write(tmp_path / "ci", new, complete=complete)
    done = step("compare.sh", tmp_path)
    assert done.code == code, done.err
    assert "| verdicts |" in (tmp_path / "summary").read_text()
    outputs = tmp_path / "outputs"
    said = outputs.read_text() if outputs.exists() else ""
    assert said == (f"result={result}\n" if result else "")


def test_without_a_baseline_the_job_passes_and_says_what_to_do(tmp_path: Path) -> None:
    """The command that it prints makes the baseline with which the next comparison passes."""
    write(tmp_path / "ci", [COMMON])
    done = step("compare.sh", tmp_path)
    assert (done.code, (tmp_path / "outputs").read_text()) == (0, "result=no-baseline\n")
    (command,) = re.findall(r"^stability (baseline .*)$", (tmp_path / "summary").read_text(), re.M)
    words = command.replace("DOWNLOADED", str(tmp_path / "ci")).split()
    subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT, check=True, timeout=120)
    again = step("compare.sh", tmp_path)
    assert again.code == 0
    assert (tmp_path / "outputs").read_text().splitlines()[-1] == "result=ok"


def test_a_broken_claim_is_left_to_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 of the run is a warning, any other the step's own; words stay words."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nexit "$STUB"\n')
    stub.chmod(0o755)
    for code, expected in ((0, 0), (1, 0), (3, 3), (4, 4)):
        monkeypatch.setenv("STUB", str(code))
        given = {"PYTHON": str(stub), "SUITES": "stability speed", "ARGS": "--path * --quick"}
        done = step("measure.sh", tmp_path, **given)
        assert done.code == expected
        words = ("-m", "harness", "run", "stability", "speed", "--path", "*", "--quick", "--out")
        assert tuple(done.out.splitlines()[:9]) == words
        assert ("::warning" in done.out) is (code == 1)
