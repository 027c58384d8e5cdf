"""Comparing runs that strangers wrote: hostile names stay text, damaged records are said to be."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness import Run, Verdict
from harness.compare import Comparison, compare_runs, to_markdown, to_text
from harness.record import record_from_dict
from suites.selftest.conftest import Stability
from suites.selftest.written_runs import HEAD, id_at, judged, timed, trained, write

# Ends of a table's cell, of code, of a line; markup, a mention, a terminal's escape.
HOSTILE = "a|b`c</details><script>alert(1)</script>@everyone\n\x1b[31m[x](http://x)"


def hostile_comparison(tmp_path: Path) -> Comparison:
    base = [
        judged(id_at(1)),
        replace(judged(id_at(2)), id=HOSTILE, path=HOSTILE),
        timed("torch", [1e-3] * 9, options={HOSTILE: HOSTILE}, timer=HOSTILE),
        replace(trained(0.1), data=trained(0.1).data | {"workload": HOSTILE}),
    ]
    new = [
        judged(id_at(1)),
        replace(
            judged(id_at(2), Verdict.NAN, claimed=True, broken=[HOSTILE]), id=HOSTILE, path=HOSTILE
        ),
        timed("torch", [2e-3] * 9, timer=HOSTILE),
        replace(
            trained(0.1, first_bad=3), data=trained(0.1, first_bad=3).data | {"workload": HOSTILE}
        ),
    ]
    heads = [HEAD | {"versions": {HOSTILE: text}} for text in ("1", HOSTILE)]
    return compare_runs(
        Run(tmp_path / HOSTILE, heads[0], tuple(base)), Run(Path("new"), heads[1], tuple(new))
    )


def test_hostile_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """No control character but the newline that ends a line of ours."""
    text = to_text(hostile_comparison(tmp_path))
    assert "script" in text
    assert all(each.isprintable() for each in text.split("\n"))


def test_hostile_names_stay_in_their_cell(tmp_path: Path) -> None:
    """Markdown: every hostile text stands in code, within a row of as many cells as its table."""
    text = to_markdown(hostile_comparison(tmp_path))
    assert "script" in text
    outside = re.sub(r"`[^`\n]*`", "", text)
    for sign in ("script", "@everyone", "http", "\x1b"):
        assert sign not in outside
    assert outside.count("<details") == outside.count("</details>")
    cells = 0
    for line in text.splitlines():
        if line.startswith("|---"):
            cells = line.count("|")
        elif line.startswith("|") and cells:
            assert line.count("|") == cells
        elif not line.startswith("|"):
            cells = 0


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    """Two thousand regressions still fit a job's summary; JSON has every one."""
    ids = [id_at(1 + place / 64) for place in range(2000)]
    base = Run(Path("b"), HEAD, tuple(replace(judged(id_at(1)), id=each) for each in ids))
    new = Run(Path("n"), HEAD, tuple(replace(each, verdict=Verdict.NAN) for each in base.records))
    found = compare_runs(base, new)
    assert len(to_markdown(found)) < 65_536
    assert "1950 more" in to_markdown(found)
    assert "1900 more" in to_text(found)


SPEED = timed("torch", [1e-3, 2e-3]).to_dict()
TRAINING = trained(0.1).to_dict()


# One defect each: absent, of another type, not finite, not positive, none at all, far too many.
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({k: v for k, v in SPEED.items() if k != "samples"}, "needs the field 'samples'"),
        (SPEED | {"samples": 1e-3}, "'samples' must be 1 to 100000 positive finite seconds"),
        (SPEED | {"samples": []}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, "1"]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, None]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, True]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, math.nan]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, math.inf]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, 10**400]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3, 0.0]}, "'samples' must be"),
        (SPEED | {"samples": [-1e-3]}, "'samples' must be"),
        (SPEED | {"samples": [1e-3] * 100_001}, "'samples' must be"),
        (SPEED | {"pass": "sideways"}, "pass"),
        (SPEED | {"median_seconds": math.nan}, "'median_seconds' must be a finite number"),
        (SPEED | {"ratios": {"naive": math.inf}}, "'ratios' must be positive numbers"),
        (SPEED | {"rounds": {"watts": 3}}, "'rounds' must be lists"),
        ({k: v for k, v in TRAINING.items() if k != "learning_rate"}, "'learning_rate'"),
        (TRAINING | {"learning_rate": "0.1"}, "'learning_rate' must be a positive"),
        (TRAINING | {"learning_rate": -0.1}, "'learning_rate' must be a positive"),
        (TRAINING | {"seed": None}, "needs the field 'seed'"),
        (TRAINING | {"first_bad_step": -1}, "'first_bad_step' must be a whole number"),
        (TRAINING | {"first_bad_step": 1.5}, "'first_bad_step' must be a whole number"),
        (TRAINING | {"diverged": "yes"}, "'diverged' must be true or false"),
        (TRAINING | {"history": [1, 2]}, "'history' must be lists"),
    ],
)
def test_a_malformed_record_is_a_problem_and_no_traceback(
    tmp_path: Path, stability: Stability, raw: dict[str, object], says: str
) -> None:
    """The field is named, the rest is compared, and the comparison does not pass: exit code 3."""
    with pytest.raises(ValueError, match=says):
        record_from_dict(raw)
    base = write(tmp_path / "base", [judged(id_at(1))])
    with (base / "records.jsonl").open("a") as stream:
        stream.write(json.dumps(raw) + "\n")
    done = stability("compare", base, base)
    assert done.code == 3
    # A number that no JSON has is refused before anybody asks what it stands for.
    line = json.dumps(raw)
    if re.search(r"NaN|Infinity|\d{30}", line):
        says = "digits" if re.search(r"\d{30}", line) else "is not JSON"
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_case_that_did_not_run_needs_no_samples() -> None:
    """Unsupported, out of memory, or wrong before it was timed: no samples is no damage."""
    bare = {key: value for key, value in SPEED.items() if key != "samples"}
    for verdict in (Verdict.UNSUPPORTED, Verdict.OUT_OF_MEMORY, Verdict.NAN):
        assert record_from_dict(bare | {"verdict": verdict.word}).verdict is verdict
