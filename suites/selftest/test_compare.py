"""`stability compare` as a whole: its forms, its exit codes, what it refuses to compare."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness import InputError, Verdict, load
from harness.cli_options import Exit
from harness.compare import KINDS, compare_runs, exit_code, kinds_named
from harness.record import Record
from suites.selftest.conftest import Stability
from suites.selftest.written_runs import HEAD, id_at, judged, timed, trained, write

STEADY = [1e-3 * (1 + 1e-3 * (k % 7)) for k in range(30)]
SLOWER = [1.1 * each for each in STEADY]
WIDE = [1e-3 * 1.5 ** ((k * 7 % 11) - 5) for k in range(12)]  # a factor of 7 either way

# One finding of each kind, and the pair of records that shows it.
FINDINGS: dict[str, tuple[list[Record], list[Record]]] = {
    "stability": ([judged(id_at(1))], [judged(id_at(1), Verdict.NAN)]),
    "speed": ([timed("torch", STEADY)], [timed("torch", SLOWER)]),
    "training": ([trained(0.1)], [trained(0.1, first_bad=35)]),
    "missing": ([judged(id_at(2))], []),
    "unclear": ([timed("torch", WIDE)], [timed("torch", WIDE)]),
}
COMMON = judged(id_at(16))


def strict(text: str) -> Any:
    """Parse JSON and refuse the literals that only Python calls JSON."""

    def refuse(literal: str) -> NoReturn:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def both(tmp_path: Path, kind: str, **options: Any) -> tuple[Path, Path]:
    first, second = FINDINGS[kind]
    return (
        write(tmp_path / "base", [COMMON, *first]),
        write(tmp_path / "new", [COMMON, *second], **options),
    )


def test_the_same_run_twice_is_nothing(small_run: Path, stability: Stability) -> None:
    """A real run against itself: every case the same, nothing to tell, exit code 0."""
    run = load(small_run)
    found = compare_runs(run, run)
    assert found.stability.same == len(run.records) > 0
    assert found.stability.failures == len(found.stability.moves) == 0
    assert not any((found.missing, found.added, found.renamed, found.environment))
    done = stability("compare", small_run, small_run, "--fail-on", "any")
    assert (done.code, done.err) == (0, "")
    assert f"{len(run.records)} the same" in done.out


# By default regressions fail and what is missing or unclear does not; asked for, each has its code.
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_fails_when_asked_for(tmp_path: Path, stability: Stability, kind: str) -> None:
    """Exit code 1, or 2 for an unclear timing; 0 when all other kinds are asked for but this."""
    base, new = both(tmp_path, kind)
    code = 2 if kind == "unclear" else 1
    others = ",".join(set(KINDS) - {kind} | {"none"})
    assert stability("compare", base, new, "--fail-on", kind).code == code
    assert stability("compare", base, new, "--fail-on", "any").code == code
    assert stability("compare", base, new, "--fail-on", others).code == 0
    assert stability("compare", base, new, "--fail-on", "none").code == 0
    default = kind in ("stability", "speed", "training")
    assert stability("compare", base, new).code == (1 if default else 0)


def test_fail_on_takes_commas_and_repeats() -> None:
    """Both ways name the same kinds; none is none; nothing named is the default."""
    assert kinds_named(["speed,missing"]) == kinds_named(["speed", "missing"])
    assert kinds_named(["none"]) == frozenset()
    assert kinds_named(["any"]) == KINDS.keys()
    assert kinds_named([]) == {"stability", "speed", "training"}
    with pytest.raises(InputError, match=r"unknown kind to fail on 'fast'; choose from: .*speed"):
        kinds_named(["fast"])


def test_an_incomplete_run_does_not_pass(tmp_path: Path, stability: Stability) -> None:
    """Nothing worse so far and not all of it there: exit code 3, of either run; and it says so."""
    whole = write(tmp_path / "whole", [COMMON])
    part = write(tmp_path / "part", [COMMON], complete=False)
    for base, new in ((whole, part), (part, whole)):
        done = stability("compare", base, new)
        assert done.code == 3
        assert "part is not complete" in done.err


def test_a_regression_counts_before_the_run_is_complete(tmp_path: Path) -> None:
    """What got worse stays worse whatever else would come: 1, not 3."""
    base, new = both(tmp_path, "stability", complete=False)
    assert exit_code(compare_runs(load(base), load(new))) is Exit.BROKEN


def test_an_unread_line_is_not_a_pass(tmp_path: Path, stability: Stability) -> None:
    """A record that cannot be read may have been the regression: exit code 3, the line named."""
    base = write(tmp_path / "base", [COMMON])
    new = write(tmp_path / "new", [COMMON])
    with (new / "records.jsonl").open("a") as stream:
        stream.write('{"id": "half\n')
    done = stability("compare", base, new)
    assert done.code == 3
    assert "records.jsonl line 2 skipped" in done.err


# Numbers from another device, or another draw, are other numbers; of two GPUs of one short name,
# and of CPUs where something was timed, the model counts as well.
CUDA = {"kind": "cuda", "name": "nvidia-h100", "model": "NVIDIA H100 PCIe"}


@pytest.mark.parametrize(
    ("name", "base_head", "new_head", "records"),
    [
        ("device", HEAD, HEAD | {"device": CUDA}, [COMMON]),
        ("seed", HEAD, HEAD | {"seed": 1}, [COMMON]),
        (
            "device model",
            HEAD | {"device": CUDA},
            HEAD | {"device": CUDA | {"model": "NVIDIA H100 80GB HBM3"}},
            [COMMON],
        ),
        (
            "device model",
            HEAD,
            HEAD | {"device": {"kind": "cpu", "name": "cpu-interpreter", "model": "other"}},
            [timed("torch", STEADY)],
        ),
    ],
)
def test_another_device_or_seed_is_refused_unless_allowed(
    tmp_path: Path,
    stability: Stability,
    name: str,
    base_head: dict[str, object],
    new_head: dict[str, object],
    records: list[Record],
) -> None:
    """Exit code 4 with both sides named; with --any-device the comparison is made."""
    base = write(tmp_path / "base", records, head=base_head)
    new = write(tmp_path / "new", records, head=new_head)
    with pytest.raises(InputError, match=f"differ in {name}: .* against .* --any-device"):
        compare_runs(load(base), load(new))
    refused = stability("compare", base, new)
    assert (refused.code, refused.out, refused.err.count("\n")) == (4, "", 1)
    assert stability("compare", base, new, "--any-device").code == 0


def test_the_interpreter_computes_the_same_on_every_cpu(tmp_path: Path) -> None:
    """Another model of CPU is told, not refused, where nothing was timed."""
    other = HEAD | {"device": {"kind": "cpu", "name": "cpu-interpreter", "model": "other"}}
    base = write(tmp_path / "base", [COMMON])
    new = write(tmp_path / "new", [COMMON], head=other)
    found = compare_runs(load(base), load(new))
    assert [(e.name, e.base, e.new) for e in found.environment] == [
        ("device model", "any", "other")
    ]


def test_what_differs_in_the_environment_is_told(tmp_path: Path, stability: Stability) -> None:
    """Another torch and another commit are no reason to refuse, but one to know, in every form."""
    head = HEAD | {"versions": {"torch": "2.12.0"}, "git": {"commit": "f" * 40, "dirty": True}}
    base = write(tmp_path / "base", [COMMON])
    new = write(tmp_path / "new", [COMMON], head=head)
    found = compare_runs(load(base), load(new))
    assert {(e.name, e.base, e.new) for e in found.environment} == {
        ("torch", "2.13.0", "2.12.0"),
        ("commit", "0123456789ab", "ffffffffffff with local changes"),
    }
    for form in ("text", "markdown", "json"):
        done = stability("compare", base, new, "--format", form)
        assert done.code == 0
        assert "2.13.0" in done.out
        assert "2.12.0" in done.out


# All forms: a regression must not be lost in one of them.
@pytest.mark.parametrize("form", ["text", "markdown", "json"])
@pytest.mark.parametrize("kind", ["stability", "speed", "training"])
def test_every_form_names_the_regression(
    tmp_path: Path, stability: Stability, form: str, kind: str
) -> None:
    """The id and what became of it; in text within 80 columns, in JSON without NaN."""
    base, new = both(tmp_path, kind)
    done = stability("compare", base, new, "--format", form)
    assert done.code == 1
    name, words = {
        "stability": (id_at(1), "ok -> nan"),
        "speed": (FINDINGS["speed"][0][0].id, "+10.0%"),
        "training": ("digits/cross_entropy/naive/fp16", "stable to 0.1 -> no rate"),
    }[kind]
    if form == "json":
        said = strict(done.out)
        assert (said["schema"], said["exit_code"]) == (1, 1)
        assert {each for each, count in said["failures"].items() if count} == {kind}
        assert name in json.dumps(said[kind])
        return
    assert name in done.out
    assert words in done.out
    if form == "text":
        assert max(len(line) for line in done.out.splitlines()[1:]) <= 80
    else:
        assert done.out.startswith("### ❌")


def test_the_comparison_goes_to_a_file(tmp_path: Path, stability: Stability) -> None:
    """`-o` writes what would have been printed; the exit code stays; no folder is one sentence."""
    base, new = both(tmp_path, "stability")
    printed = stability("compare", base, new, "--format", "json")
    written = stability("compare", base, new, "--format", "json", "-o", tmp_path / "out.json")
    assert (written.code, written.out) == (1, "")
    assert (tmp_path / "out.json").read_text() == printed.out
    refused = stability("compare", base, new, "-o", tmp_path / "nowhere" / "out.json")
    assert (refused.code, refused.err.count("\n")) == (4, 1)


def test_runs_without_a_common_case_are_refused(tmp_path: Path, stability: Stability) -> None:
    """A run that measured nothing, or something else, is no proof that nothing got worse."""
    base = write(tmp_path / "base", [judged(id_at(1))])
    new = write(tmp_path / "new", [judged(id_at(2))])
    assert stability("compare", base, new).code == 4


@pytest.mark.parametrize("share", ["0", "100", "-3", "nan"])
def test_a_least_change_is_a_share(tmp_path: Path, stability: Stability, share: str) -> None:
    """Nothing at or below 0%, nor 100% and more, is a smallest change: exit code 4."""
    base = write(tmp_path / "base", [COMMON])
    done = stability("compare", base, base, "--least-change", share)
    assert (done.code, done.err.count("\n")) == (4, 1)
