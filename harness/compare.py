"""Two runs side by side: which cases lost a claim, got worse or better, are new or missing."""

from dataclasses import dataclass

from harness.errors import InputError
from harness.record import Record
from harness.render_common import printable
from harness.store import Run
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """A case in both runs whose verdict differs."""

    id: str
    base: Verdict
    new: Verdict
    claimed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed. `regressions` decide the exit code; the rest is told."""

    regressions: tuple[Change, ...]
    improvements: tuple[Change, ...]
    changes: tuple[Change, ...]  # neither better nor worse, such as nan to inf
    missing: tuple[str, ...]  # in base alone
    new: tuple[str, ...]
    same: int
    environment: tuple[tuple[str, str, str], ...]  # (name, base, new) where they differ


def compare_runs(base: Run, new: Run, *, any_device: bool = False) -> Comparison:
    """Compare verdicts case by case.

    Only grid cases are matched one by one. A frontier's own neighbours move with it, so refined
    cases that one run lacks are not reported as missing: what they would say, the grid says.

    Raises:
        InputError: if the runs come from different devices or seeds and this was not allowed.
    """
    differences = environment_differences(base, new)
    told = {name: (first, second) for name, first, second in differences}
    for name in ("device", "seed"):
        if name in told and not any_device:
            raise InputError(
                f"the runs differ in {name}: {told[name][0]} against {told[name][1]};"
                " compare them all the same with --any-device"
            )
    before = {record.id: record for record in base.records}
    after = {record.id: record for record in new.records}
    if before.keys().isdisjoint(after):
        raise InputError(
            f"{base.directory} and {new.directory} have no case in common; nothing can be compared"
        )
    worse: list[Change] = []
    better: list[Change] = []
    other: list[Change] = []
    same = 0
    for id_, old in before.items():
        if id_ not in after:
            continue
        now = after[id_]
        if now.verdict is old.verdict:
            same += 1
            continue
        change = Change(id_, old.verdict, now.verdict, bool(now.get("claimed")))
        rank = _badness(now.verdict) - _badness(old.verdict)
        (worse if rank > 0 else better if rank < 0 else other).append(change)
    return Comparison(
        tuple(worse),
        tuple(better),
        tuple(other),
        tuple(id_ for id_, record in before.items() if id_ not in after and _on_grid(record)),
        tuple(id_ for id_, record in after.items() if id_ not in before and _on_grid(record)),
        same,
        differences,
    )


def _on_grid(record: Record) -> bool:
    return not record.get("refined")


def _badness(verdict: Verdict) -> int:
    """0 right, 1 finite but wrong, 2 not finite, 3 did not run: what a user would call worse."""
    if verdict.is_accurate:
        return 0
    if verdict is Verdict.UNSUPPORTED or verdict.is_fault:
        return 3
    return 1 if verdict.is_finite_enough else 2


def environment_differences(base: Run, new: Run) -> tuple[tuple[str, str, str], ...]:
    """What the runs were measured with, where it differs."""
    first, second = _facts(base), _facts(new)
    return tuple(
        (name, first.get(name, "-"), second.get(name, "-"))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    )


def _facts(run: Run) -> dict[str, str]:
    environment = run.environment
    facts = {}
    device = environment.get("device")
    if isinstance(device, dict):
        facts["device"] = str(device.get("name"))
        facts["device model"] = str(device.get("model"))
    for name in ("seed", "python", "platform"):
        facts[name] = str(environment.get(name))
    for section in ("versions", "switches"):
        values = environment.get(section)
        if isinstance(values, dict):
            facts |= {str(key): str(value) for key, value in values.items() if value != ""}
    return facts


def to_text(comparison: Comparison, *, markdown: bool) -> str:
    """The comparison in words, regressions first."""
    bullet, mark = ("- ", "`") if markdown else ("  ", "")
    lines = [
        ("**" if markdown else "")
        + f"{len(comparison.regressions)} regressions, {len(comparison.improvements)} improvements,"
        f" {len(comparison.changes)} other changes, {comparison.same} cases the same,"
        f" {len(comparison.missing)} missing, {len(comparison.new)} new"
        + ("**" if markdown else "")
    ]

    def section(title: str, entries: list[str]) -> None:
        if entries:
            lines.extend(["", f"{title}:", *([""] if markdown else [])])
            lines.extend(bullet + printable(entry) for entry in entries)

    section(
        "environment",
        [f"{name}: {first} -> {second}" for name, first, second in comparison.environment],
    )
    for title, changes in (
        ("regressions", comparison.regressions),
        ("other changes", comparison.changes),
        ("improvements", comparison.improvements),
    ):
        section(
            title,
            [
                f"{mark}{each.id}{mark}: {each.base.word} -> {each.new.word}"
                + (" (claimed)" if each.claimed else "")
                for each in changes
            ],
        )
    section("missing", _grouped(comparison.missing))
    section("new", _grouped(comparison.new))
    return "\n".join(lines) + "\n"


def _grouped(ids: tuple[str, ...]) -> list[str]:
    """So many cases of an operation, path and dtype; `--format json` has each id."""
    groups: dict[str, int] = {}
    for each in ids:
        where = "/".join(each.split("/")[:3])
        groups[where] = groups.get(where, 0) + 1
    return [f"{where}: {count} grid cases" for where, count in groups.items()]


def to_plain(comparison: Comparison) -> dict[str, object]:
    """The comparison as data for JSON."""

    def plain(changes: tuple[Change, ...]) -> list[dict[str, object]]:
        return [
            {"id": c.id, "base": c.base.word, "new": c.new.word, "claimed": c.claimed}
            for c in changes
        ]

    return {
        "schema": 1,
        "regressions": plain(comparison.regressions),
        "improvements": plain(comparison.improvements),
        "changes": plain(comparison.changes),
        "missing": list(comparison.missing),
        "new": list(comparison.new),
        "same": comparison.same,
        "environment": [
            {"name": name, "base": first, "new": second}
            for name, first, second in comparison.environment
        ],
    }
