"""Comparing runs: what got worse fails, what got better is told, the same is nothing."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import InputError, Verdict, load
from harness.case import parse_case
from harness.compare import compare_runs
from harness.record import Record
from harness.store import Writer
from suites.selftest.conftest import Stability

HEAD = {
    "seed": 0,
    "device": {"kind": "cpu", "name": "cpu-interpreter", "model": "any"},
    "versions": {"torch": "2.13.0"},
}
OK, NAN, INF = Verdict.OK, Verdict.NAN, Verdict.INF
INACCURATE, ERROR, UNREPRESENTABLE = Verdict.INACCURATE, Verdict.ERROR, Verdict.UNREPRESENTABLE


def id_at(magnitude: int, path: str = "naive") -> str:
    return f"cross_entropy/{path}/fp16/peak@{magnitude}/4x64/forward"


def write(
    directory: Path,
    verdicts: Mapping[str, Verdict],
    *,
    head: Mapping[str, object] = HEAD,
    **fields: object,
) -> Path:
    """A run directory with a record for each id."""
    writer = Writer.start(directory, {}, dict(head), resume=False)
    for id_, verdict in verdicts.items():
        case = parse_case(id_)
        axes = {"regime": case.regime, "magnitude": case.magnitude, "pass": case.pass_}
        writer.append(
            [
                Record(
                    id_, "stability", case.operation, case.path, case.dtype, verdict, axes | fields
                )
            ]
        )
    writer.finish(complete=True)
    return directory


# From better to worse in every step that matters: right, finite but wrong, not finite, did not run.
LADDER = (OK, INACCURATE, NAN, ERROR)


@pytest.mark.parametrize("worse", range(1, len(LADDER)))
def test_a_step_down_is_a_regression_and_a_step_up_an_improvement(
    tmp_path: Path, stability: Stability, worse: int
) -> None:
    """ok -> nan fails the comparison with exit code 1; nan -> ok passes it; both are told."""
    id_ = id_at(8)
    for better in range(worse):
        good = write(tmp_path / f"good{better}", {id_: LADDER[better], id_at(4): OK})
        bad = write(tmp_path / f"bad{better}", {id_: LADDER[worse], id_at(4): OK})
        down, up = compare_runs(load(good), load(bad)), compare_runs(load(bad), load(good))
        assert [(c.id, c.base, c.new) for c in down.regressions] == [
            (id_, LADDER[better], LADDER[worse])
        ]
        assert [change.id for change in up.improvements] == [id_]
        assert (down.same, up.same) == (1, 1)
        assert not any((down.improvements, down.changes, up.regressions, up.changes))
        assert stability("compare", good, bad).code == 1
        assert stability("compare", bad, good).code == 0


def test_the_same_run_twice_is_nothing(small_run: Path, stability: Stability) -> None:
    """A real run against itself: every case the same, nothing to tell, exit code 0."""
    run = load(small_run)
    found = compare_runs(run, run)
    assert found.same == len(run.records) > 0
    assert not any((found.regressions, found.improvements, found.changes, found.missing, found.new))
    assert found.environment == ()
    done = stability("compare", small_run, small_run)
    assert (done.code, done.err) == (0, "")
    assert f"{len(run.records)} cases the same" in done.out


def test_neither_better_nor_worse_is_a_change(tmp_path: Path) -> None:
    """nan -> inf, and ok -> unrepresentable, are told without failing anything."""
    base = write(tmp_path / "base", {id_at(1): NAN, id_at(2): OK})
    new = write(tmp_path / "new", {id_at(1): INF, id_at(2): UNREPRESENTABLE})
    found = compare_runs(load(base), load(new))
    assert [change.id for change in found.changes] == [id_at(1), id_at(2)]
    assert (found.regressions, found.improvements) == ((), ())


def test_missing_and_new_cases_are_listed(tmp_path: Path, stability: Stability) -> None:
    """A renamed path cannot hide: its old cases are missing and its new ones new, by id."""
    base = write(tmp_path / "base", {id_at(1): OK, id_at(2, "old"): OK})
    new = write(tmp_path / "new", {id_at(1): OK, id_at(2, "renamed"): NAN})
    found = compare_runs(load(base), load(new))
    assert found.missing == (id_at(2, "old"),)
    assert found.new == (id_at(2, "renamed"),)
    done = stability("compare", base, new, "--format", "json")
    said = json.loads(done.out)
    assert (said["missing"], said["new"], said["same"]) == (
        [id_at(2, "old")],
        [id_at(2, "renamed")],
        1,
    )
    text = stability("compare", base, new).out
    assert "1 missing, 1 new" in text
    told = [line.strip() for line in text.splitlines()]
    for path in ("old", "renamed"):
        where = "/".join(id_at(2, path).split("/")[:3])
        assert f"{where}: 1 grid cases" in told


def test_a_frontier_that_moved_is_told_by_the_grid(tmp_path: Path) -> None:
    """Magnitudes that only a bisection visited are neither missing nor new."""
    base = write(tmp_path / "base", {id_at(1): OK, id_at(3): OK}, refined=True)
    new = write(tmp_path / "new", {id_at(1): OK, id_at(5): NAN}, refined=True)
    found = compare_runs(load(base), load(new))
    assert (found.missing, found.new) == ((), ())


# Numbers from another device, or another draw, are other numbers.
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("device", HEAD | {"device": {"kind": "cuda", "name": "nvidia-h200", "model": "any"}}),
        ("seed", HEAD | {"seed": 1}),
    ],
)
def test_another_device_or_seed_is_refused_unless_allowed(
    tmp_path: Path, stability: Stability, name: str, head: dict[str, object]
) -> None:
    """Exit code 4 with both sides named; with --any-device the comparison is made."""
    base = write(tmp_path / "base", {id_at(1): OK})
    new = write(tmp_path / "new", {id_at(1): NAN}, head=head)
    with pytest.raises(InputError, match=f"differ in {name}: .* against .* --any-device"):
        compare_runs(load(base), load(new))
    refused = stability("compare", base, new)
    assert (refused.code, refused.out, refused.err.count("\n")) == (4, "", 1)
    allowed = stability("compare", base, new, "--any-device")
    assert allowed.code == 1
    assert id_at(1) in allowed.out


def test_what_differs_in_the_environment_is_told(tmp_path: Path) -> None:
    """Another version of torch is no reason to refuse, but one to know."""
    base = write(tmp_path / "base", {id_at(1): OK})
    new = write(tmp_path / "new", {id_at(1): OK}, head=HEAD | {"versions": {"torch": "2.12.0"}})
    found = compare_runs(load(base), load(new))
    assert found.environment == (("torch", "2.13.0", "2.12.0"),)
    assert not found.regressions


# All forms: a regression must not be lost in one of them.
@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_every_form_names_the_regression(tmp_path: Path, stability: Stability, form: str) -> None:
    """The id with both verdicts, and whether the path had claimed otherwise."""
    base = write(tmp_path / "base", {id_at(1): OK}, claimed=True)
    new = write(tmp_path / "new", {id_at(1): NAN}, claimed=True)
    done = stability("compare", base, new, "--format", form)
    assert done.code == 1
    if form == "json":
        expected = {"id": id_at(1), "base": "ok", "new": "nan", "claimed": True}
        assert json.loads(done.out)["regressions"] == [expected]
    else:
        (line,) = (line for line in done.out.splitlines() if id_at(1) in line)
        assert line.endswith("ok -> nan (claimed)")


def test_runs_without_a_common_case_are_refused(tmp_path: Path, stability: Stability) -> None:
    """A run that measured nothing, or something else, is no proof that nothing got worse."""
    base = write(tmp_path / "base", {id_at(1): OK})
    new = write(tmp_path / "new", {id_at(2): OK})
    assert stability("compare", base, new).code == 4


def test_an_incomplete_run_does_not_pass(tmp_path: Path, stability: Stability) -> None:
    """Nothing worse so far, and not all of it there: exit code 3, and it says so."""
    base = write(tmp_path / "base", {id_at(1): OK, id_at(2): OK})
    new = write(tmp_path / "new", {id_at(1): OK})
    head = json.loads((new / "run.json").read_text())
    (new / "run.json").write_text(json.dumps(head | {"complete": False}))
    done = stability("compare", base, new)
    assert done.code == 3
    assert "is not complete" in done.err
