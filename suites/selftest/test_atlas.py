"""The atlas of a run whose breaks are known beforehand: rows, words, escaping, reproduction."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest
import torch
import typer
from torch import Tensor

from harness import cli
from harness.atlas import Entry, Kind, Origin, Place, reproduce, survey
from harness.case import PASSES
from harness.errors import InputError
from harness.formats import FORMATS
from harness.magnitudes import grid
from harness.operation import Path
from harness.plan import Item
from harness.record import Record
from harness.render_atlas import atlas_markdown, code
from harness.store import Run
from harness.sweep import sweep_item
from harness.verdict import Verdict
from suites.selftest.toy import HONEST, LIMIT, RAISING, TOY

FP16 = FORMATS["fp16"]


def _shrinking(input: Tensor) -> Tensor:
    """Silently zero below 1/LIMIT, and half a percent off at LIMIT and above."""
    off = torch.where(input.abs() >= LIMIT, input * 0.995, input)
    return torch.where(input.abs() < 1 / LIMIT, input * 0.0, off)


def _absent(input: Tensor) -> Tensor:
    raise NotImplementedError("this | library `is` not installed")


def _fragile(input: Tensor) -> Tensor:
    return torch.where(input.abs() > LIMIT, torch.nan, input)


SHIPPED = Path("planted_nan", _fragile, package="planted")
SHRINKING = Path("shrinking", _shrinking, package="planted")
FORMULA = Path("own_formula", _fragile)
ABSENT = Path("absent", _absent, package="missing")
PATHS = (SHIPPED, SHRINKING, FORMULA, ABSENT, replace(HONEST, name="ours"), RAISING)

ENVIRONMENT: dict[str, Any] = {
    "seed": 0,
    "device": {"name": "cpu-interpreter", "model": "toy"},
    "versions": {"torch": "9.9", "planted": "1.2.3"},
    "packages": {f"toy/{each.name}": each.package for each in PATHS if each.package},
    "started": "2026-01-01T00:00:00+00:00",
    "asked": {"catalog": "suites.selftest.toy", "quick": False},
    "complete": True,
}


def run_of(records: tuple[Record, ...], **environment: Any) -> Run:
    return Run(File("results/planted"), ENVIRONMENT | environment, records)


@pytest.fixture(scope="module")
def planted() -> Run:
    """The planted paths, really swept and bisected, in fp16."""
    records: list[Record] = []
    for path in PATHS:
        for regime in TOY.regimes:
            points = tuple(grid(FP16, regime.magnitudes(FP16)))
            item = Item(TOY.with_paths(path), path, FP16, regime, points, PASSES)
            records += sweep_item(item, seed=0, device="cpu")
    return run_of(tuple(records))


def entry(run: Run, origin: Origin, path: str) -> Entry:
    (found,) = [each for each in survey(run).entries[origin] if each.path == path]
    return found


def test_a_planted_overflow_stands_in_its_row_with_its_neighbours(planted: Run) -> None:
    """The NaN above LIMIT is found upwards, between LIMIT and the next float, and nowhere else."""
    found = entry(planted, Origin.SHIPPED, "planted_nan")
    assert {each.place for each in found.breaks} == {Place.UP}
    (only,) = [each for each in found.breaks if each.kind is Kind.NOT_FINITE]
    assert (only.until, only.record["magnitude"]) == (LIMIT, 100.0625)
    assert only.record.verdict is Verdict.NAN
    lines = atlas_markdown(planted, File("results")).splitlines()
    row = next(line for line in lines if "100.0625" in line and "not finite" in line)
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells[:4] == ["`fp16`", "not finite, upwards", "100", "100.0625"]
    assert "--regime constant" in row


def test_a_lost_answer_and_an_inaccurate_one_are_told_apart(planted: Run) -> None:
    """Zeros downwards are *lost*; half a percent off upwards is inaccurate."""
    found = {each.kind: each for each in entry(planted, Origin.SHIPPED, "shrinking").breaks}
    assert set(found) == {Kind.LOST, Kind.INACCURATE}
    assert found[Kind.LOST].place is Place.DOWN
    assert found[Kind.LOST].record["magnitude"] < 1 / LIMIT <= (found[Kind.LOST].until or 0.0)
    assert found[Kind.INACCURATE].place is Place.UP
    assert found[Kind.INACCURATE].record["magnitude"] == LIMIT


def test_a_path_that_changes_its_inputs_has_no_error_to_tell() -> None:
    """Right numbers from inputs that it overwrites: a row, with a dash where an error would be."""

    def overwriting(input: torch.Tensor) -> torch.Tensor:
        out = input * 1.0
        input.data.mul_(2.0)
        return out

    path = Path("overwriting", overwriting, package="planted")
    item = Item(TOY.with_paths(path), path, FP16, TOY.regimes[0], (1.0, 2.0), ("forward",))
    records = tuple(sweep_item(item, seed=0, device="cpu"))
    run = run_of(records, packages={"toy/overwriting": "planted"})
    assert entry(run, Origin.SHIPPED, "overwriting").worst_ulp is None
    lines = atlas_markdown(run, File("results")).splitlines()
    assert any("| mutated_input | – |" in line for line in lines)


def test_sound_paths_are_not_accused(planted: Run) -> None:
    """A path that is right everywhere has no break; it claims, so it stands with ours: 0 wrong."""
    found = entry(planted, Origin.CLAIMED, "ours")
    assert (found.wrong, found.breaks) == (0, ())
    assert f"| `ours` | `fp16` | {found.cases} | 0 of {found.cases} |" in atlas_markdown(
        planted, File("results")
    )


def test_paths_stand_in_the_table_of_whoever_wrote_them(planted: Run) -> None:
    """Packaged paths ship, the others are formulas; a package's version stands beside its path."""
    atlas = survey(planted)
    assert {each.path for each in atlas.entries[Origin.SHIPPED]} == {"planted_nan", "shrinking"}
    assert {each.path for each in atlas.entries[Origin.FORMULA]} == {"own_formula", "raising"}
    assert "`planted_nan` (`planted 1.2.3`)" in atlas_markdown(planted, File("results"))
    older = {key: value for key, value in planted.environment.items() if key != "packages"}
    named = replace(planted, environment=older | {"versions": {"own-formula-kernels": "2"}})
    assert {each.path for each in survey(named).entries[Origin.SHIPPED]} == {"own_formula"}


def test_what_raises_has_no_result_and_what_is_absent_is_not_measured(planted: Run) -> None:
    """An exception is a row with its reason; NotImplementedError is no break but a reason."""
    raising = entry(planted, Origin.FORMULA, "raising")
    assert {each.record.verdict for each in raising.breaks} == {Verdict.ERROR}
    (absent,) = survey(planted).unmeasured
    assert (absent.path, absent.scope) == ("absent", "everything")
    assert absent.reason == "NotImplementedError: this | library `is` not installed"
    text = atlas_markdown(planted, File("results"))
    assert "no result, at 1" in text
    assert "absent" not in text[: text.index("## Not measured")]


def test_one_dtype_refused_is_named_alone(planted: Run) -> None:
    """A path that takes everything but one dtype is not measured in that dtype, and says which."""
    some = [record for record in planted.records if record.path == "planted_nan"]
    no = {"reason": "no"}
    refused = [
        replace(record, dtype="fp64", verdict=Verdict.UNSUPPORTED, data=record.data | no)
        for record in some
    ]
    (told,) = survey(run_of((*some, *refused))).unmeasured
    assert (told.scope, told.reason, told.cases) == ("dtype fp64", "no", len(some))


def test_the_same_run_gives_the_same_bytes(planted: Run) -> None:
    """The page depends on the records alone: not on their order in the file, nor on the clock."""
    text = atlas_markdown(planted, File("results"))
    assert text == atlas_markdown(planted, File("results"))
    assert "[`" not in text
    assert str(File.cwd()) not in text  # no absolute path: the page is the same in every checkout


# Breaks of every place: at 0 (a case without neighbours), at 1, upwards (neighbours), downwards.
def test_every_command_is_one_that_the_command_line_takes(planted: Run) -> None:
    """Each reproduction is parsed by the command's own parser, with the run's catalog in it."""
    zero = replace(
        planted.records[0],
        path="own_formula",
        verdict=Verdict.NAN,
        data=planted.records[0].data | {"regime": "zeros", "magnitude": 0.0, "claimed": False},
    )
    run = run_of((*planted.records, zero))
    kinds = set()
    for entries in survey(run).entries.values():
        for found in (each for one in entries for each in one.breaks):
            words = shlex.split(reproduce(found, run))
            assert words[0] == "stability"
            kinds.add((words[1], found.place))
            parameters = parsed(words[1:])
            assert parameters["catalog"] == "suites.selftest.toy"
    assert {place for _, place in kinds} == set(Place)
    assert {command for command, _ in kinds} == {"run", "frontier"}


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line, parsed by the real one and not run."""
    group: Any = typer.main.get_command(cli.app)
    command = group.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        return dict(context.params)


def test_a_quick_run_is_reproduced_case_by_case(planted: Run) -> None:
    """Where the two magnitudes are no neighbours, the search would show another row: not used."""
    coarse = tuple(record for record in planted.records if not record.get("refined"))
    run = run_of(coarse, asked=ENVIRONMENT["asked"] | {"quick": True})
    found = entry(run, Origin.SHIPPED, "planted_nan").breaks[0]
    assert reproduce(found, run).startswith("stability run --operation toy --path planted_nan")
    assert "points of the grid" in atlas_markdown(run, File("results"))


HOSTILE = (
    "a|b",
    "`code`",
    "<img src=x onerror=alert(1)>",
    "x\n## heading",
    "[link](javascript:alert(1))",
    "--help",
    "\x1b[31mred",
    "a\\|b",
    "",
    "$(touch pwned)",
)


# Names that end a table's cell, a code span or a line, that are HTML, a link, an option of the
# command line, an escape sequence of a terminal, or a shell's substitution.
@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_a_catalog_are_data(name: str, planted: Run) -> None:
    """No name forms a cell, a heading, a tag or a link; its command is still one that parses."""
    records = tuple(
        replace(record, operation=name, path=name, data=record.data | {"regime": name})
        for record in planted.records
        if record.path == "own_formula" and record["regime"] == "constant"
    )
    run = run_of(records, asked={"catalog": name})
    text = atlas_markdown(run, File("results"))
    outside = re.sub(r"`[^`\n]*`|<code>[A-Za-z0-9&#; ]*</code>", "@", text)
    assert not re.search(r"[`<>\x1b]|\]\(", outside), outside
    header = next(line for line in text.splitlines() if line.startswith("| dtype |"))
    for line in text.splitlines():
        if line.startswith("| `fp16`"):
            assert line.count("|") == header.count("|")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert not any("heading" in line and "x" not in line for line in headings)
    for one in survey(run).entries[Origin.FORMULA]:
        for found in one.breaks:
            words = shlex.split(reproduce(found, run))
            assert name in words
            assert parsed(words[1:])["seed"] == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_a_code_span_says_its_text_and_nothing_else(text: str) -> None:
    """A span is one span on one line without a pipe, and printable text reads back from it."""
    span = code(text)
    assert "|" not in span
    assert span.isprintable()
    inner = re.fullmatch(r"`([^`]+)`|<code>([A-Za-z0-9&#; ]*)</code>", span)
    assert inner is not None
    told = inner[1] or re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), inner[2] or "")
    assert told == "".join(each if each.isprintable() else "?" for each in text)


def test_a_run_of_another_suite_has_no_atlas(planted: Run) -> None:
    """Records without a magnitude axis are not mistaken for a sweep's."""
    other = tuple(replace(record, suite="speed") for record in planted.records)
    with pytest.raises(InputError, match="no records of the stability suite"):
        atlas_markdown(run_of(other), File("results"))


def test_the_command_writes_and_checks(
    planted: Run,
    tmp_path: File,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`stability atlas` writes the page; --check is 0 then and 1 after a change, and only reads."""
    saved = stored(planted, tmp_path / "run")
    page = tmp_path / "results" / "ATLAS.md"
    call = invoker(monkeypatch)
    assert call("atlas", str(saved), "-o", str(page), "--check") == cli.Exit.BROKEN
    assert not page.exists()
    assert call("atlas", str(saved), "-o", str(page)) == cli.Exit.OK
    assert "`../run`" in page.read_text(encoding="utf-8")
    assert call("atlas", str(saved), "-o", str(page), "--check") == cli.Exit.OK
    page.write_bytes(page.read_bytes() + b"x")
    assert call("atlas", str(saved), "-o", str(page), "--check") == cli.Exit.BROKEN
    assert page.read_bytes().endswith(b"x")
    capsys.readouterr()
    assert call("atlas", str(saved), "-o", "-") == cli.Exit.OK
    assert capsys.readouterr().out.startswith("# Atlas")
    assert call("atlas", str(tmp_path / "nowhere")) == cli.Exit.USAGE


def stored(run: Run, directory: File) -> File:
    """The run as files."""
    import json

    directory.mkdir()
    (directory / "run.json").write_text(json.dumps({"schema": 1} | run.environment))
    lines = "".join(record.to_json() + "\n" for record in run.records)
    (directory / "records.jsonl").write_text(lines)
    return directory


def invoker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls the command line in this process and gives its exit code."""

    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["stability", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)  # type: ignore[arg-type]

    return call
