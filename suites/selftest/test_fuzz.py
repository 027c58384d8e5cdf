"""Anything at all in a run, an id, a range or a command line: an answer or one clear sentence."""

import contextlib
import csv
import io
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import InputError, cli, load
from harness.case import Case, parse_case
from harness.magnitudes import parse_range
from harness.plan import parse_shard
from harness.report import build_page
from harness.strict_json import parse
from suites.selftest import strange
from suites.selftest.markup import Node, data_of, read

FEW, MANY = 40, 2_000


def fuzz(few: int = FEW, many: int = MANY) -> Callable[[Any], Any]:
    """Run a property on few examples in the sample of the tests, and on many in the full ones."""

    def decorate(check: Any) -> Any:
        slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

        @pytest.mark.parametrize(
            "examples", [few, pytest.param(many, marks=pytest.mark.full)], ids=["few", "many"]
        )
        def run(examples: int) -> None:
            settings(max_examples=examples, suppress_health_check=slow)(check)()

        run.__name__, run.__doc__ = check.__name__, check.__doc__
        return run

    return decorate


@contextlib.contextmanager
def stored(head: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[Path]:
    """A run directory as somebody else may have written it."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        directory.mkdir()
        (directory / "run.json").write_text(json.dumps(head))
        lines = "".join(json.dumps(each) + "\n" for each in records)
        (directory / "records.jsonl").write_text(lines)
        yield directory


def called(*words: str | Path) -> tuple[int, str, str]:
    """`stability WORDS` in this process: exit code, output and errors; it ends by SystemExit."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["stability", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("the command came back")


def quiet(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(each.isprintable() or each == "\n" for each in text)


@fuzz(few=10, many=500)
@given(strange.heads(), strange.records())
def test_any_run_is_read_and_shown(head: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Tables in four forms, each wrong case, comparison with itself: exit codes as documented, no
    control character, valid JSON."""
    with stored(head, records) as run:
        for words in (
            *(["table", run, "--format", form] for form in ("text", "markdown", "csv", "json")),
            ["table", run, "--cases"],
            *(["compare", run, run, "--format", f] for f in ("text", "markdown", "json")),
        ):
            code, out, err = called(*words)
            assert code in (0, 1, 2, 3, 4), (words, err)
            assert quiet(out), words
            assert quiet(err), words
            if "json" in words and code != 4:
                json.loads(out, parse_constant=lambda literal: pytest.fail(literal))


@fuzz(few=5, many=200)
@given(strange.heads(), strange.records())
def test_any_run_becomes_a_page_or_a_sentence(
    head: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    """The report and the atlas: well-formed, or bad input."""
    with stored(head, records) as run:
        code, _, err = called("report", run, "-o", run / "report.html")
        assert code in (0, 4), err
        if code == 0:
            page = (run / "report.html").read_text(encoding="utf-8")
            read(page)
            data_of(page)
        code, out, err = called("atlas", run, "-o", "-")
        assert code in (0, 4), err
        assert quiet(out)


def tags(node: Node) -> Counter[tuple[str, ...]]:
    """How often each tag occurs, with the names of its attributes; where names break, `wbr`s do."""
    found = Counter[tuple[str, ...]]()
    for child in node.children:
        if child.tag != "wbr":
            found[child.tag, *sorted(child.attributes)] += 1
            found += tags(child)
    return found


@fuzz(few=4, many=200)
@given(strange.named_records())
def test_no_name_adds_an_element_to_the_page(records: list[dict[str, Any]]) -> None:
    """Scripts, handlers and links are those of a page of harmless names, wherever a name stands."""
    with stored(strange.HEAD, records) as run:
        page = build_page([load(run)])
    found = tags(read(page))
    assert found["script",] + found["script", "id", "type"] == 2
    assert not [tag for tag, *_ in found if tag in ("img", "iframe", "object", "embed", "base")]
    handlers = [name for _, *names in found for name in names if name.startswith("on")]
    assert not handlers
    outside = re.findall(r'(?:src|href|action)="(?!#)[^"]*"', page)
    assert not outside


@fuzz(few=6, many=300)
@given(strange.named_records())
def test_names_stay_in_their_cell(records: list[dict[str, Any]]) -> None:
    """Markdown: rows of one table have as many cells, nothing hostile outside code. CSV: as many
    fields, none of which a spreadsheet takes for a formula."""
    for suite in ("stability", "speed", "training"):
        with stored(strange.HEAD, [each for each in records if each["suite"] == suite]) as run:
            _, text, _ = called("table", run, "--format", "markdown")
            outside = re.sub(r"`[^`\n]*`", "", text)
            # The empty name and the plain ones stand as they are; marks stand in code alone.
            for sign in ("<", "http", "@everyone", "**b**", "=HYPERLINK"):
                assert sign not in outside, outside
            cells = 0
            for line in outside.splitlines():
                if line.startswith("|---"):
                    cells = line.count("|")
                elif line.startswith("|") and cells:
                    assert line.count("|") == cells, line
                elif not line.startswith("|"):
                    cells = 0
            _, text, _ = called("table", run, "--format", "csv")
            rows = list(csv.reader(io.StringIO(text)))
            assert {len(row) for row in rows} == {len(rows[0])}
            for field in (field for row in rows for field in row):
                number = re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", field)
                assert number or not field.startswith(("=", "+", "-", "@", "\t", "\r"))


@fuzz(few=10, many=500)
@given(st.one_of(strange.heads(), strange.values))
def test_any_run_json_is_an_environment_or_a_sentence(head: Any) -> None:
    """Merged with itself under another name, and as a baseline: never a traceback."""
    with stored(head, strange.STABILITY[:3]) as run:
        with contextlib.suppress(InputError):
            load(run)
        for words in (
            ["merge", run, "-o", run.parent / "m"],
            ["merge", run, run, "-o", run.parent / "n", "--partial"],
            ["baseline", "set", run, "--in", run.parent / "b", "--force"],
            ["baseline", "path", run],
            ["run", "--resume", "--out", run, "--operation", "nope", "--catalog", "no.such"],
        ):
            code, out, err = called(*words)
            assert code in (0, 3, 4), (words, err)
            assert quiet(out)
            assert quiet(err)
        assert not {each.name for each in run.parent.iterdir()} - {"run", "m", "n", "b"}


@fuzz(few=100)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
@example(b'{"id": "x"}')
def test_any_bytes_are_records_or_problems(line: bytes) -> None:
    """Beside a good record each line that is none is one problem."""
    with stored(strange.HEAD, strange.STABILITY[:1]) as run:
        path = run / "records.jsonl"
        path.write_bytes(line.replace(b"\n", b"") + b"\n" + path.read_bytes())
        loaded = load(run)
        assert [each.id for each in loaded.records] == [strange.STABILITY[0]["id"]]
        assert len(loaded.problems) == bool(line.replace(b"\n", b"").strip())


@fuzz(few=100)
@given(strange.values)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    """Sound JSON is what it was; the same with a key twice is refused."""
    try:
        assert parse(json.dumps(value)) == value
    except ValueError as error:
        assert "digits" in str(error)  # noqa: PT017 - beyond 64 bits it may refuse
    if isinstance(value, dict) and value:
        key, rest = json.dumps(next(iter(value))), json.dumps(value)[1:]
        with pytest.raises(ValueError, match=r"twice|digits"):
            parse("{" + f"{key}: 1, {rest}")


numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)


@fuzz(few=100)
@given(
    names,
    names,
    st.sampled_from(["fp16", "bf16", "fp32", "fp64"]),
    names,
    numbers,
    st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    st.sampled_from(["forward", "backward"]),
    st.dictionaries(names, names, max_size=2),
)
def test_an_id_reads_back(
    operation: str,
    path: str,
    dtype: Any,
    regime: str,
    magnitude: float,
    shape: list[int],
    pass_: Any,
    options: dict[str, str],
) -> None:
    """A case is what its id says, for any magnitude that its dtype holds."""
    from harness.formats import format_named

    rounded = format_named(dtype).round(magnitude)
    pairs = tuple(sorted(options.items()))
    case = Case(operation, path, dtype, regime, rounded, tuple(shape), pass_, pairs)
    assert parse_case(case.id) == case


GOOD_ID = "cross_entropy/triton/bf16/peak@9984/8x32000/backward"
edits = st.tuples(
    st.integers(0, len(GOOD_ID)), st.integers(0, 4), st.one_of(strange.texts, st.text())
)


@fuzz(few=100)
@given(st.one_of(st.text(), edits.map(lambda e: GOOD_ID[: e[0]] + e[2] + GOOD_ID[e[0] + e[1] :])))
@example("a/b/fp16/c@1/" + "9" * 5000 + "/forward")
@example("a/b/fp16/c@nan/1/forward")
@example("a/b/fp64/c@1e999/1/forward")
@example("a/b/fp16/c@-1/1/forward")
def test_any_text_is_an_id_or_a_sentence(text: str) -> None:
    """Never another exception; what is read has a finite magnitude that is not negative."""
    try:
        case = parse_case(text)
    except InputError:
        return
    assert 0 <= case.magnitude < float("inf")
    assert parse_case(case.id) == case


range_texts = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[0-9.e+:\-]{0,20}", fullmatch=True),
    st.tuples(numbers, numbers, st.integers(-2, 2000)).map(lambda t: f"{t[0]}:{t[1]}:{t[2]}"),
)


@fuzz(few=100)
@given(range_texts)
@example("1e-400:1")
@example("1:1e400")
@example("nan:nan")
@example("1_0:2_0")
@example("١:٢")
@example("1:2:" + "9" * 5000)
def test_any_text_is_a_range_or_a_sentence(text: str) -> None:
    """What is read is finite, in order, and makes a grid of bounded size."""
    from harness.formats import FORMATS
    from harness.magnitudes import grid

    try:
        found = parse_range(text)
    except InputError:
        return
    assert 0 <= found.low <= found.high < float("inf")
    assert 1 <= found.per_decade <= 1000
    fmt = FORMATS["fp16"]
    points = grid(fmt, (fmt.smallest, fmt.largest), found)
    assert len(points) <= 700_000
    assert points == sorted(set(points))


@fuzz(few=100)
@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,4}/[0-9]{1,4}", fullmatch=True)))
@example("1/" + "9" * 5000)
@example("²/³")
def test_any_text_is_a_shard_or_a_sentence(text: str) -> None:
    """1 <= I <= N, or bad input."""
    try:
        first, count = parse_shard(text)
    except InputError:
        return
    assert 1 <= first <= count


COMMANDS = ("run", "list", "table", "frontier", "compare", "baseline", "report", "atlas", "advice",
            "inspect", "tune", "merge", "doctor", "diagnose")  # fmt: skip
# Those without work behind them: an unknown name ends all that would run something.
options = st.sampled_from(
    ["--operation=no", "--path", "--dtype=fp8", "--magnitude=1:", "--lr=x", "--shard=0/0", "--json",
     "--format=xml", "--seed=x", "--out", "-o", "--resume", "--fail-on=x", "--catalog=no.such",
     "--regime", "--pass=x", "--quick", "--nope", "-", "--", "--profile=x", "--in=/proc/x"]
)  # fmt: skip


@fuzz(few=50, many=1_000)
@given(st.sampled_from(COMMANDS), st.lists(st.one_of(options, strange.texts, st.text(max_size=8))))
def test_any_command_line_is_answered(command: str, words: list[str]) -> None:
    """Exit codes as documented; what is wrong in one line of plain text; never a traceback."""
    # A catalog that does not exist keeps what would run from running.
    if command in ("run", "list", "frontier", "inspect", "tune"):
        words = [*words, "--catalog=no.such.catalog"]
    if command in ("doctor", "diagnose"):
        words = [*words, "--no-such-option"]
    words = [each for each in words if "\0" not in each and max(each, default="") < "\udc80"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        code, _, err = called(command, *words)
        assert code in (0, 1, 2, 3, 4)
        assert "Traceback" not in err
        assert quiet(err)
        if code == 4:
            assert err.count("\n") <= 1
