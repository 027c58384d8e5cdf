"""Anything at all in a run: an answer or one clear sentence, and nothing but text on any screen."""

import contextlib
import csv
import io
import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness import InputError, load
from harness.report import build_page
from harness.strict_json import parse
from suites.selftest import strange
from suites.selftest.fuzzing import called, fuzz, quiet, stored
from suites.selftest.markup import Node, data_of, read


@fuzz(few=6, many=500)
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


@fuzz(few=3, many=200)
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
