"""The atlas as Markdown: what broke where in a few lines, then tables to look things up in.

Names and reasons come from catalogs and libraries. They are shown in code spans, in which Markdown
and HTML mean nothing, and can neither end their table's cell nor their line.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.atlas import Atlas, Break, Entry, Kind, Origin, Place, reproduce, survey
from harness.case import decimal
from harness.errors import InputError
from harness.operation import ALL_CLAIMS
from harness.safe_text import printable
from harness.store import Run
from harness.verdict import Verdict

_COLUMNS = ("dtype", "breaks", "last that holds", "first that does not", "verdict")
_MORE = ("worst", "regime", "pass", "also in", "see it again")
_PLACES = {
    Place.AT_ZERO: "on zeros",
    Place.AT_ONE: "at 1",
    Place.UP: "upwards",
    Place.DOWN: "downwards",
}
_READING = """\
Magnitudes scale a regime's inputs. The search starts at 1 and goes upwards to the dtype's largest
float and downwards to its smallest subnormal. *The last that holds* and *the first that does not*
are floats of the dtype, neighbours wherever the command is `stability frontier`. Of all regimes and
both passes a row shows the break nearest to 1; the others of its kind stand in *also in*. *At 1*:
the layout itself is too much, before any magnitude. *Lost*: a zero where a number should be, or a
number where a NaN or infinity should be. *Worst*: the largest finite error of any case in that
dtype. Each command runs from a checkout and shows its row.
"""


def atlas_markdown(run: Run, seen_from: Path) -> str:
    """The whole page; the same run gives the same bytes. `seen_from` is the folder it lies in.

    Raises:
        InputError: if the run has no records of the stability suite.
    """
    atlas = survey(run)
    if not any(atlas.entries.values()) and not atlas.unmeasured:
        raise InputError(f"{run.directory} has no records of the stability suite to draw from")
    lines = ["# Atlas: where each implementation breaks", "", *_provenance(run, seen_from)]
    lines += ["", "## What broke where", "", *_in_words(atlas, run)]
    for title, origin in (
        ("## Shipping implementations", Origin.SHIPPED),
        ("## Formulas people write", Origin.FORMULA),
    ):
        if atlas.entries[origin]:
            lines += ["", title, *_tables(atlas, atlas.entries[origin], run)]
    lines += _claimed(atlas.entries[Origin.CLAIMED], atlas, run)
    lines += ["", "## Not measured", "", *_not_measured(atlas)]
    lines += ["", "## How to read it", "", *_legend(run)]
    return "\n".join(lines) + "\n"


def _provenance(run: Run, seen_from: Path) -> Iterator[str]:
    environment = run.environment
    place = os.path.relpath(run.directory.resolve(), seen_from.resolve())
    yield f"Written by `stability atlas` from the run {code(Path(place).as_posix())}; do not edit."
    yield ""
    device, versions = _table_of(environment, "device"), _table_of(environment, "versions")
    git = _table_of(environment, "git")
    dirty = " with uncommitted changes" if git.get("dirty") is True else ""
    facts = {
        "device": " ".join(str(device[key]) for key in ("name", "model") if device.get(key)),
        "driver": device.get("driver"),
        "python": environment.get("python"),
        **{str(name): version for name, version in versions.items()},
        "seed": environment.get("seed"),
        "cases": len(run.records),
        "started": environment.get("started"),
        "commit": f"{git['commit']}{dirty}" if git.get("commit") else None,
    }
    yield from _table(
        ("of the run", ""),
        ([code(name), code(str(it))] for name, it in facts.items() if it is not None),
    )
    if not run.complete:
        yield ""
        yield "**This run is not complete.**"
    for problem in run.problems:
        yield f"Problem: {code(problem)}"
    if _table_of(environment, "asked").get("quick"):
        yield ""
        yield "A quick run: its limits are points of the grid, not neighbouring floats."


def _in_words(atlas: Atlas, run: Run) -> Iterator[str]:
    """A line for each shipping path and verdict: in which dtypes, and from where on."""
    shipped = atlas.entries[Origin.SHIPPED]
    if not shipped:
        yield "No shipping implementation was measured."
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in shipped:
        groups.setdefault((entry.operation, entry.path), []).append(entry)
    for (operation, path), entries in groups.items():
        cases, wrong = sum(e.cases for e in entries), sum(e.wrong for e in entries)
        yield f"- {code(operation)}, {_path(atlas, run, operation, path)}: " + (
            f"{wrong} of {cases} cases are not right."
            if wrong
            else f"nothing broke in {cases} cases."
        )
        for verdict in Verdict:
            told = [place for entry in entries if (place := _told(entry, verdict))]
            if told:
                yield f"  - {verdict.word}: {', '.join(told)}. {verdict.meaning}"


def _told(entry: Entry, verdict: Verdict) -> str:
    """In one dtype: where the verdict begins, or how far off the inaccurate ones are."""
    alike = [each for each in entry.breaks if each.record.verdict is verdict]
    if verdict is Verdict.INACCURATE and entry.worst_ulp:
        return f"{code(entry.dtype)} by up to {entry.worst_ulp:.2g} ulp"
    return f"{code(entry.dtype)} {' and '.join(map(_where, alike))}" if alike else ""


def _where(each: Break) -> str:
    value = f"{each.record['magnitude']:.4g}"
    words = {
        Place.UP: f"from {value} up",
        Place.DOWN: f"from {value} down",
        Place.AT_ONE: "at 1 already",
        Place.AT_ZERO: "on zeros",
    }
    return f"{words[each.place]} ({code(str(each.record['regime']))})"


def _tables(atlas: Atlas, entries: Sequence[Entry], run: Run) -> Iterator[str]:
    operation: str | None = None
    path: str | None = None
    for entry in entries:
        if entry.operation != operation:
            operation, path = entry.operation, None
            yield from ("", f"### {code(operation)}")
        if entry.path != path:
            path = entry.path
            yield from ("", f"{_path(atlas, run, operation, path)}", "")
            yield from _table((*_COLUMNS, *_MORE), ())
        yield from map(_row, _cells(entry, run))


def _size(ulp: float | None) -> str:
    """None where no case is inaccurate by itself, as of a path that changed its inputs."""
    return "–" if ulp is None else f"{ulp:.2g} ulp"


def _cells(entry: Entry, run: Run) -> Iterator[list[str]]:
    if not entry.breaks:
        # Wrong without a break: between magnitudes that hold, by an unlucky rounding.
        told = f"nothing in {entry.cases} cases" if not entry.wrong else f"{entry.wrong} strays"
        yield [code(entry.dtype), told, *[""] * (len(_COLUMNS) + len(_MORE) - 2)]
    for each in entry.breaks:
        record = each.record
        kind = "no result" if record.verdict.is_fault else each.kind.value
        error = record.get("max_ulp") if each.kind is Kind.INACCURATE else None
        reason = f": {code(str(record['reason']))}" if record.get("reason") else ""
        yield [
            code(entry.dtype),
            f"{kind}, {_PLACES[each.place]}",
            "–" if each.until is None else decimal(each.until),
            decimal(record["magnitude"]),
            record.verdict.word + (f", {error:.3g} ulp" if error else "") + reason,
            _size(entry.worst_ulp) if each.kind is Kind.INACCURATE else "–",
            code(str(record["regime"])),
            str(record["pass"]),
            ", ".join(map(code, each.also)) or "–",
            code(reproduce(each, run)),
        ]


def _claimed(entries: Sequence[Entry], atlas: Atlas, run: Run) -> Iterator[str]:
    """Paths that promise something, ours: how many cases are not right, for comparison."""
    if not entries:
        return
    yield from ("", "## Paths that claim to hold: ours", "")
    yield "What a path may claim, here over every regime, magnitude and pass measured:"
    yield "; ".join(claim.name for claim in ALL_CLAIMS) + "."
    yield ""
    yield from _table(
        ("operation", "path", "dtype", "cases", "wrong"),
        (
            [
                code(e.operation),
                code(e.path),
                code(e.dtype),
                str(e.cases),
                f"{e.wrong} of {e.cases}",
            ]
            for e in entries
        ),
    )
    broken = [entry for entry in entries if entry.breaks]
    if broken:
        yield from _tables(atlas, broken, run)


def _not_measured(atlas: Atlas) -> Iterator[str]:
    if not atlas.unmeasured:
        yield "Every path took every case."
        return
    yield "Not installed, or not made for this device, dtype or option; each says why itself:"
    yield ""
    yield from _table(
        ("operation", "path", "what", "cases", "reason"),
        (
            [code(e.operation), code(e.path), code(e.scope), str(e.cases), code(e.reason)]
            for e in atlas.unmeasured
        ),
    )


def _legend(run: Run) -> Iterator[str]:
    yield _READING
    seen = {record.verdict for record in run.records}
    for verdict in sorted(seen, key=lambda each: each.precedence):
        yield f"- **{verdict.word}**: {verdict.meaning} {verdict.next_step}"


def _path(atlas: Atlas, run: Run, operation: str, path: str) -> str:
    package = atlas.packages.get((operation, path))
    if package is None:
        return code(path)
    version = _table_of(run.environment, "versions").get(package, "version unknown")
    return f"{code(path)} ({code(f'{package} {version}')})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield "|" + "---|" * len(header)
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(text: str) -> str:
    """Text from a file as a code span: shown as it is, meaning nothing to Markdown or HTML.

    A code span in a table cannot hold a pipe, and none can hold a backtick; text with either, or
    none at all, is spelled in character references instead.
    """
    plain = printable(text)
    if plain.strip() and not set("`|\\") & set(plain):
        return f"`{plain}`"
    spelled = re.sub(r"[^A-Za-z0-9 ]", lambda found: f"&#{ord(found[0])};", plain)
    return f"<code>{spelled}</code>"


def _table_of(environment: dict[str, Any], key: str) -> dict[str, Any]:
    found = environment.get(key)
    return found if isinstance(found, dict) else {}
