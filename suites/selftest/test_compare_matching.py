"""Which case is which: missing and new ones are listed, renamed ones recognised, never guessed."""

import json
from dataclasses import replace
from pathlib import Path

from harness import Run, Verdict
from harness.compare import Comparison, compare_runs
from harness.record import Record
from suites.selftest.conftest import Stability
from suites.selftest.written_runs import HEAD, id_at, judged, write

OK, NAN, UNSUPPORTED = Verdict.OK, Verdict.NAN, Verdict.UNSUPPORTED
COMMON = judged(id_at(16, "torch"))


def compared(base: list[Record], new: list[Record]) -> Comparison:
    return compare_runs(
        Run(Path("base"), HEAD, (COMMON, *base)), Run(Path("new"), HEAD, (COMMON, *new))
    )


def axis(path: str, worst: float = 2.5) -> list[Record]:
    """Five magnitudes, the last NaN, with numbers of their own."""
    verdicts = {1: OK, 2: OK, 4: OK, 8: OK, 16: NAN}
    return [judged(id_at(m, path), v, max_ulp=worst * m, bad=0) for m, v in verdicts.items()]


def test_missing_and_new_cases_are_listed(tmp_path: Path, stability: Stability) -> None:
    """By id in JSON; by operation, path and dtype in the forms for people."""
    base = write(tmp_path / "base", [COMMON, judged(id_at(2, "old"))])
    new = write(tmp_path / "new", [COMMON, judged(id_at(2, "other"), NAN)])
    said = json.loads(stability("compare", base, new, "--format", "json").out)
    assert (said["missing"], said["added"]) == ([id_at(2, "old")], [id_at(2, "other")])
    for form in ("text", "markdown"):
        told = stability("compare", base, new, "--format", form).out
        assert "1 missing, 1 new" in told
        assert all(f"cross_entropy/{path}/fp16" in told for path in ("old", "other"))


def test_what_only_a_bisection_visited_is_neither_missing_nor_new() -> None:
    """A frontier's neighbours move with it."""
    found = compared([judged(id_at(3), OK, refined=True)], [judged(id_at(5), NAN, refined=True)])
    assert (found.missing, found.added) == ((), ())


def test_a_renamed_path_is_recognised() -> None:
    """Every case with the verdict and the numbers that it had under the old name."""
    found = compared(axis("clamped"), axis("clipped"))
    assert [(each.axis, each.base, each.new, each.cases) for each in found.renamed] == [
        ("path", "clamped", "clipped", 5)
    ]
    assert (found.missing, found.added) == ((), ())


def test_a_renamed_path_that_changed_is_no_rename() -> None:
    """Another number, another verdict, a case more or too few cases: missing and new, as it is."""
    base = axis("clamped")
    changed = [replace(each, verdict=NAN) for each in axis("clipped")]
    for other in (axis("clipped", worst=2.6), changed, axis("clipped")[:4]):
        found = compared(base, other)
        assert (found.renamed, len(found.missing), len(found.added)) == ((), 5, len(other))
    assert compared(base[:3], axis("clipped")[:3]).renamed == ()


def test_an_ambiguous_rename_is_none() -> None:
    """Two new names that fit one old one: nobody can tell which it was."""
    found = compared(axis("clamped"), [*axis("clipped"), *axis("cut")])
    assert (found.renamed, len(found.missing), len(found.added)) == ((), 5, 10)


def test_a_name_that_stays_was_not_renamed() -> None:
    """A path that lost some cases and is still there did not become another one."""
    kept = judged(id_at(64, "clamped"))
    found = compared([*axis("clamped"), kept], [kept, *axis("clipped")])
    assert (found.renamed, len(found.missing)) == ((), 5)


def test_paths_that_never_ran_are_not_renamed() -> None:
    """All unsupported on both sides is what any two absent libraries have in common."""
    absent = [[replace(each, verdict=UNSUPPORTED) for each in axis(p)] for p in ("one", "two")]
    assert compared(*absent).renamed == ()


def test_a_renamed_regime_is_recognised_by_its_verdicts() -> None:
    """Its inputs are drawn anew under the new name: numbers differ, verdicts need not."""

    def of(regime: str, worst: float) -> list[Record]:
        return [
            replace(
                each,
                id=each.id.replace("/peak@", f"/{regime}@"),
                data=dict(each.data) | {"regime": regime},
            )
            for each in axis("naive", worst)
        ]

    (found,) = compared(of("spike", 2.5), of("needle", 2.7)).renamed
    assert (found.axis, found.base, found.new) == ("regime", "spike", "needle")


def test_a_library_that_is_not_installed_is_missing_not_worse() -> None:
    """ok -> unsupported of a path without claims is missing; of one with claims it fails."""
    was, now = judged(id_at(2)), judged(id_at(2), UNSUPPORTED)
    found = compared([was], [now])
    assert (found.stability.failures, found.missing) == (0, (id_at(2),))
    assert compared([now], [was]).added == (id_at(2),)
    claimed = [replace(each, data=dict(each.data) | {"claimed": True}) for each in (was, now)]
    assert compared(claimed[:1], claimed[1:]).stability.failures > 0
