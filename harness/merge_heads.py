"""Whether runs are parts of one run, and what run.json says of the whole."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.case import decimal
from harness.errors import InputError
from harness.plan import parse_shard


@dataclass(frozen=True, slots=True)
class Part:
    """A run directory to merge, and its run.json."""

    directory: Path
    environment: dict[str, Any]

    def section(self, name: str) -> dict[str, Any]:
        """An object of run.json; empty where there is none."""
        found = self.environment.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def shard(self) -> tuple[int, int]:
        """I and N; raises InputError where run.json says something else."""
        text = self.section("asked").get("shard", "1/1")
        try:
            return parse_shard(text if isinstance(text, str) else repr(text))
        except InputError as error:
            raise InputError(f"{self.directory / 'run.json'}: {error}") from None


# Names that several runs may have been asked for one by one, as by a CI matrix; empty: all.
_AXES = ("suite", "operation", "path", "dtype", "regime", "pass", "workload", "precision")


def merged_head(parts: Sequence[Part]) -> tuple[dict[str, Any], list[str]]:
    """run.json of the whole but for what the records decide; and what is missing to be complete.

    Raises:
        InputError: if the parts are not of one run: another seed, catalog, code, device, version
            or request; or if a shard is given twice.
    """
    for part in parts[1:]:
        _check_same(parts[0], part)
    asked = _asked(parts)
    lacking = [*_missing_shards(parts), *map(_unfinished, filter(_is_unfinished, parts))]
    starts, ends = ([_text(part, name) for part in parts] for name in ("started", "ended"))
    first = parts[0].environment
    head = {
        "schema": first["schema"],
        "started": min(filter(None, starts), default=""),
        "ended": max(filter(None, ends), default=""),
        "asked": asked | {"shard": "1/1"},
        "seed": first.get("seed"),
        "catalog": _catalog(parts),
        "packages": _united(parts, "packages"),
        "versions": _united(parts, "versions"),
        **{name: _common(parts, name) for name in ("device", "switches", "git")},
    }
    for name in ("python", "platform", "node"):
        if len({_text(part, name) for part in parts}) == 1 and name in first:
            head[name] = first[name]
    return head, lacking


def _check_same(first: Part, other: Part) -> None:
    """Raises InputError for the first fact that makes records incomparable."""
    for name, one, two in _facts(first, other):
        if one != two:
            raise InputError(
                f"{first.directory} and {other.directory} are not parts of one run: {name} is"
                f" {_shown(one)} in the first and {_shown(two)} in the second; measure the parts"
                " with the same, or show the runs side by side with stability report"
            )


def _facts(first: Part, other: Part) -> Iterator[tuple[str, Any, Any]]:
    """(what, in the first, in the other) of all that must be the same."""

    def both(name: str, get: Callable[[Part], Any]) -> tuple[str, Any, Any]:
        return name, get(first), get(other)

    yield both("schema", lambda part: part.environment.get("schema"))
    yield both("seed", lambda part: part.environment.get("seed"))
    yield both("catalog", lambda part: part.section("asked").get("catalog"))
    yield both("commit", lambda part: part.section("git").get("commit"))
    yield both("dirty", lambda part: bool(part.section("git").get("dirty")))
    yield both("device", lambda part: part.section("device").get("name"))
    if first.section("device").get("kind") == "cuda":
        # The interpreter computes the same on every CPU; two models of GPU do not.
        for name in ("model", "capability", "driver", "cuda"):
            yield both(f"device {name}", partial(_of_device, name))
    for section in ("versions", "packages"):
        one, two = first.section(section), other.section(section)
        # A package of paths that only one part measured stands in that one alone.
        yield from ((f"{section[:-1]} of {k}", one[k], two[k]) for k in one.keys() & two.keys())
    one, two = _decisive_switches(first), _decisive_switches(other)
    yield from ((f"switch {k}", one.get(k), two.get(k)) for k in sorted({*one, *two}))
    one, two = first.section("asked"), other.section("asked")
    for name in sorted({*one, *two} - {*_AXES, "shard", "catalog"}):
        yield f"asked {name}", one.get(name), two.get(name)
    yield both("python", lambda part: _text(part, "python").rpartition(".")[0])


def _of_device(name: str, part: Part) -> Any:
    return part.section("device").get(name)


def _decisive_switches(part: Part) -> dict[str, Any]:
    """Which GPU of the host, and where caches lie, change no number."""
    return {
        key: value
        for key, value in part.section("switches").items()
        if key != "CUDA_VISIBLE_DEVICES" and not key.endswith(("_DIR", "_PATH", "_HOME"))
    }


def _asked(parts: Sequence[Part]) -> dict[str, Any]:
    """The request that all parts together answer.

    Raises:
        InputError: if they were asked for different names on several axes: then nobody asked for
            all combinations, and the whole would have holes.
    """
    asked = dict(parts[0].section("asked"))
    differing = []
    for axis in _AXES:
        given = [_names(part, axis) for part in parts]
        if all(set(each) == set(given[0]) for each in given):
            continue
        differing.append(axis)
        union = list(dict.fromkeys(name for names in given for name in names))
        everything = not all(given)
        asked[axis] = " ".join(union) if axis == "suite" else [] if everything else union
    if len(differing) > 1 or (differing and {part.shard for part in parts} != {(1, 1)}):
        what = " and ".join([*differing, *(["shard"] if len(differing) == 1 else [])])
        raise InputError(
            f"the parts were asked for different {what}; merge along one axis at a time, all else"
            " the same"
        )
    return asked


def _names(part: Part, axis: str) -> list[str]:
    given = part.section("asked").get(axis)
    if isinstance(given, str):
        return given.split()
    return [str(each) for each in given] if isinstance(given, list) else []


def _missing_shards(parts: Sequence[Part]) -> list[str]:
    given: dict[int, Part] = {}
    count = parts[0].shard[1]
    for part in parts:
        place, of = part.shard
        if of != count:
            raise InputError(
                f"{parts[0].directory} is a shard of {count} and {part.directory} one of {of};"
                " merge the shards of one run"
            )
        if place in given and count > 1:
            raise InputError(
                f"{given[place].directory} and {part.directory} are both shard {place}/{of}; give"
                " each once"
            )
        given[place] = part
    # A run of a billion shards is nobody's: few of the missing ones are named.
    missing = count - len(given)
    some = [str(k) for k in range(1, min(count, 10_000) + 1) if k not in given][:10]
    if not missing:
        return []
    dots = ", ..." if missing > len(some) else ""
    plural = "" if missing == 1 else "s"
    named = f"shard{plural} {', '.join(some)}{dots} of {count}"
    return [f"{named} {'is' if missing == 1 else 'are'} missing; give the run of each"]


def _is_unfinished(part: Part) -> bool:
    return part.environment.get("complete") is not True


def _unfinished(part: Part) -> str:
    return (
        f"{part.directory} is not complete; go on with stability run --resume --out"
        f" {part.directory}"
    )


def describe_part(part: Part, records: int) -> dict[str, Any]:
    """What the merged run.json keeps of one part."""
    kept = ("argv", "started", "ended", "complete", "node", "platform", "python", "device")
    environment = part.environment
    return {
        "directory": part.directory.name,
        "shard": "/".join(map(str, part.shard)),
        "records": records,
        **{name: environment[name] for name in kept if name in environment},
    }


def place_of(part: Part) -> dict[str, str]:
    """The node and the device that a part was measured on, as its records say it."""
    device = part.section("device")
    named = {
        "node": part.environment.get("node"),
        "device": device.get("uuid") or device.get("model") or device.get("name"),
    }
    return {key: str(value)[:200] for key, value in named.items() if value}


def _catalog(parts: Sequence[Part]) -> dict[str, list[str]]:
    """The names that any part planned, in the order that the parts have them in."""
    kinds = dict.fromkeys(kind for part in parts for kind in part.section("catalog"))
    return {kind: _in_order([_listed(part, kind) for part in parts]) for kind in kinds}


def _listed(part: Part, kind: str) -> list[str]:
    names = part.section("catalog").get(kind)
    return [str(each) for each in names] if isinstance(names, list) else []


def _in_order(lists: list[list[str]]) -> list[str]:
    """One order that agrees with all of them, if they agree; else as they come."""
    every = dict.fromkeys(name for names in lists for name in names)
    sorter = TopologicalSorter[str](dict.fromkeys(every, ()))
    for names in lists:
        for before, after in pairwise(names):
            sorter.add(after, before)
    try:
        return list(sorter.static_order())
    except CycleError:
        return list(every)


def _united(parts: Sequence[Part], name: str) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.section(name).items()}


def _common(parts: Sequence[Part], name: str) -> dict[str, Any]:
    """The facts of a section that all parts share."""
    first, *others = (part.section(name) for part in parts)
    return {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}


def _text(part: Part, name: str) -> str:
    found = part.environment.get(name)
    return found if isinstance(found, str) else ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return decimal(value)
    text = "not said" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
