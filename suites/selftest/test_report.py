"""The report's page: its numbers are the run's, a run's names stay text, and nothing is loaded."""

import base64
import hashlib
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.failures import reproduction
from harness.report import build_page, write_whole
from harness.report.details import as_script
from harness.report.runs import where_of
from harness.store import Run, load
from harness.table import COLUMNS, table_rows
from harness.unmeasured import is_measured
from harness.verdict import Verdict
from suites.selftest.conftest import ROOT, Stability
from suites.selftest.markup import Node, data_of, read, table_after
from suites.selftest.synthetic import case, run_of, sweep, timings, trainings
from suites.selftest.test_atlas import stored

PLAIN = run_of(*sweep(), *(case(Verdict.OK, m, path="ours", claimed=True) for m in (0.1, 1.0)))


@pytest.fixture(scope="module")
def baseline() -> tuple[Run, str]:
    """The committed run, whole, and its page."""
    run = load(ROOT / "results" / "baselines" / "cpu-interpreter")
    return run, build_page([run])


def heat_rows(page: str) -> dict[str, list[str]]:
    """The cells of each line of the heat maps, by the line's key."""
    return {
        row.attributes["data-k"]: [cell.text for cell in row.children]
        for row in read(page).all("tr", class_="f")
        if "data-k" in row.attributes
    }


def test_a_row_shows_the_worst_verdict_of_each_column() -> None:
    """Right to 10, inaccurate at 100, NaN at 1000: those glyphs, limits and counts, in place."""
    rows = heat_rows(build_page([PLAIN]))
    naive = next(cells for cells in rows.values() if cells[0] == "naive")
    glyphs = {COLUMNS[k]: sign for k, sign in enumerate(naive[1 : 1 + len(COLUMNS)]) if sign}
    assert glyphs == {-1: ".", 0: ".", 1: ".", 2: "~", 3: "N"}
    assert naive[1 + len(COLUMNS) :] == ["min", "100", "min", "10", "3/10"]


def test_the_script_gets_each_layout_and_the_case_to_run_again() -> None:
    """The data of a line: layouts with their cells, and what is needed to repeat a bad one."""
    data = data_of(build_page([PLAIN]))
    (key,) = [k for k, words in data["words"]["lines"].items() if "--path naive" in words[0]]
    normal, peak = data["layouts"][key]
    place = COLUMNS.index(-1)
    assert (data["regimes"][normal[0]], normal[1][place:]) == ("normal", "...~N")
    assert (data["regimes"][peak[0]], peak[1][place:]) == ("peak", "....N")
    assert (normal[2], normal[3]) == (["100", "1000"], ["5", 0])
    words = data["words"]
    before, after = words["lines"][key]
    command = f"{before} --regime {words['regimes'][normal[0]]} {after} --magnitude {normal[2][1]}"
    expected = reproduction(PLAIN.records[4], seed=0, catalog="suites.selftest.toy")
    assert f"{command} {data['runs']['A'][1]}" == expected


def test_the_overview_tells_the_break_nearest_to_one_with_its_command() -> None:
    """A path's line names the verdict, where it begins, and the command that shows it."""
    page = build_page([PLAIN])
    (row,) = read(page).all("tr", data_p="naive", data_o="toy", data_v="n")
    (mark,) = row.all("td", class_="mark")
    assert mark.text == "N from 1000 up"
    assert mark.attributes["data-told"].startswith("nan from 1000 up in layout normal")
    assert "--magnitude 1000" in mark.attributes["data-cmd"]


def test_a_broken_claim_stands_first() -> None:
    """Held claims are told as held; a broken one is the headline, with its case."""
    (lead,) = read(build_page([PLAIN])).all("p", class_="lead")
    assert lead.text == "✓ Every claim holds, in 2 cases."
    broken = case(Verdict.NAN, 10.0, path="ours", claimed=True, broken=["finite"])
    page = read(build_page([run_of(*PLAIN.records, broken)]))
    (lead,) = page.all("p", class_="lead")
    assert lead.text == "✗ 1 case of 3 breaks a claim."
    (summary,) = page.all("section", id="summary")
    assert broken.id in summary.text


@pytest.mark.full  # 160,956 cases: a minute
def test_the_page_of_the_baseline_is_small_and_its_numbers_are_the_runs(
    baseline: tuple[Run, str],
) -> None:
    """All 160,956 cases in less than 3 MB; cells, limits and counts equal the table's."""
    run, page = baseline
    assert len(page.encode()) < 3_000_000
    rows = table_rows(run.records, by_regime=False, catalog=run.environment["catalog"])
    measured = [row for row in rows if set(row.counts) != {Verdict.UNSUPPORTED}]
    shown = heat_rows(page)
    counted = Counter[object]()
    for record in filter(is_measured, run.records):
        where = (record.operation, record["pass"], record.path, record.dtype)
        counted[where, "cases"] += 1
        counted[where, "wrong"] += not record.verdict.is_accurate
    told = sorted(
        (cells[0], "".join(sign or " " for sign in cells[1:-5]), cells[-1].replace(",", ""))
        for cells in shown.values()
    )
    assert told == sorted(
        (
            row.path,
            "".join(cell.glyph if cell else " " for cell in row.cells),
            "/".join(str(counted[where_of(row), what]) for what in ("wrong", "cases")),
        )
        for row in measured
    )
    legend = {line[0]: line[1] for line in table_after(read(page), "reading")[1:]}
    for verdict in Verdict:
        count = sum(record.verdict is verdict for record in run.records)
        assert (f"{verdict.glyph} {verdict.word}" in legend) is (count > 0)
        assert not count or legend[f"{verdict.glyph} {verdict.word}"] == f"{count:,}"
    assert data_of(page)["left_out"] == 0
    assert_loads_nothing(page)


def test_layouts_beyond_the_pages_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run too large for its details still has its rows, and says how many layouts are left."""
    monkeypatch.setattr("harness.report.details.MOST_LAYOUTS", 1)
    page = build_page([PLAIN])
    assert data_of(page)["left_out"] == 2
    assert len(heat_rows(page)) == 2
    assert "2 layouts of single rows left out here" in read(page).text


def test_the_same_runs_give_the_same_bytes() -> None:
    """In this process and in another with other hashes: no date, no random id, no set's order."""
    page = build_page([PLAIN])
    assert build_page([PLAIN]) == page
    program = (
        "import sys\nfrom harness.report import build_page\n"
        "from suites.selftest.test_report import PLAIN\n"
        "sys.stdout.buffer.write(build_page([PLAIN]).encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=120
    )
    assert done.stdout.decode() == page


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    "$\\frac{1}{0}$",
    "a\x00\x1b[31m\ud800b",
    "\u2028名前",
    "--help",
    "$(touch pwned)",
    "",
)


def hostile_page(word: str) -> str:
    """A page with a word wherever a run file can put one."""
    records = [*sweep(operation=word, path=word, regime=word)]
    records += [case(Verdict.ERROR, 1.0, path="x", reason=word)]
    records += [case(Verdict.NAN, 1.0, path="y", claimed=True, broken=[word])]
    records += [replace(each, path=word, operation=word) for each in (*trainings()[:8], *timings())]
    odd = {"versions": {"torch": word, "package " + word: word}, "device": {"name": word}}
    run = run_of(*records, **odd, argv=["stability", word], asked={"catalog": word})
    return build_page([replace(run, problems=(word,))])


@pytest.fixture(scope="module")
def harmless() -> Counter[tuple[str, ...]]:
    return elements(read(hostile_page("harmless")))


# Names that end a tag, an attribute, a style, a script or a comment; that are a link, a template, a
# formula of matplotlib; that are no text at all; that a shell or a command line would act upon.
@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_a_run_stay_text(name: str, harmless: Counter[tuple[str, ...]]) -> None:
    """Wherever a run file can put a name, the page has the same elements as for a harmless one."""
    page = hostile_page(name)
    assert elements(read(page)) == harmless
    assert_loads_nothing(page)
    data_of(page)
    page.encode()


def elements(node: Node, *above: str) -> Counter[tuple[str, ...]]:
    """How often each element occurs, by the tags it stands in and the names of its attributes.

    Not in their order, which goes by name; nor where a name may be broken into two lines.
    """
    found = Counter[tuple[str, ...]]()
    for child in node.children:
        if child.tag != "wbr":
            found[*above, child.tag, *sorted(child.attributes)] += 1
            found += elements(child, *above, child.tag)
    return found


def test_json_in_the_page_cannot_end_its_element() -> None:
    """No sign that HTML knows is left in the data, and it reads back as it was."""
    import json

    text = as_script({"name": "</script><!--&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"name": "</script><!--&\u2028"}


def assert_loads_nothing(page: str) -> None:
    """No address in any attribute but places in the page; the policy allows these texts alone."""
    document = read(page)
    stack = [document]
    while stack:
        node = stack.pop()
        stack += node.children
        for name, value in node.attributes.items():
            assert not name.startswith("on"), f"<{node.tag} {name}>"
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                assert value.startswith("#"), f"<{node.tag} {name}={value!r}>"
            assert name != "style", f"<{node.tag} style>: the policy forbids it"
        assert node.tag not in ("link", "iframe", "object", "embed", "base", "img")
    (style,), scripts = list(document.all("style")), list(document.all("script"))
    assert "@import" not in style.text
    assert "url(" not in style.text
    # A clip path of a chart is the one url that there is.
    assert not re.search(r"\burl\((?!#)", re.sub(r"<script.*?</script>", "", page, flags=re.S))
    (meta,) = [
        m
        for m in document.all("meta")
        if m.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    policy = meta.attributes["content"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert [s.attributes.get("type") for s in scripts] == ["application/json", None]
    for node in (style, scripts[1]):
        digest = base64.b64encode(hashlib.sha256("".join(node.pieces).encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_an_id_occurs_once_and_every_reference_has_its_target() -> None:
    """Many charts in one page: none shows a part of another."""
    page = build_page([run_of(*sweep(), *sweep(dtype="fp32"), *trainings())])
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert targets
    assert targets <= set(ids)


def test_the_command_writes_a_page(stability: Stability, tmp_path: Path) -> None:
    """`stability report RUN -o FILE` writes it, and over an older one."""
    saved = stored(PLAIN, tmp_path / "run")
    out = tmp_path / "report.html"
    out.write_text("older")
    done = stability("report", saved, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert out.read_text(encoding="utf-8") == build_page([load(saved)])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html", "run"]


def test_bad_input_is_one_sentence_and_leaves_no_file(stability: Stability, tmp_path: Path) -> None:
    """No run, an empty one, a directory or a missing folder for output: exit 4, nothing written."""
    saved = stored(PLAIN, tmp_path / "run")
    empty = stored(run_of(), tmp_path / "empty")
    other = tmp_path / "notes.json"
    other.write_text("[1]")
    for words, message in (
        ((tmp_path / "nowhere", "-o", tmp_path / "a.html"), "no run at"),
        ((empty, "-o", tmp_path / "a.html"), "no records yet"),
        ((saved, "-o", tmp_path), "is a directory"),
        ((saved, "-o", tmp_path / "missing" / "a.html"), "cannot write"),
        ((saved, "-o", tmp_path / "a.html", "--inspect", other), "stability inspect --json"),
        ((saved, "-o", tmp_path / "a.html", "--inspect", tmp_path / "x"), "cannot read"),
    ):
        done = stability("report", *words)
        assert done.code == 4
        assert message in done.err
        assert done.err.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "notes.json", "run"]


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails half-way the old page stands, and no draft beside it."""
    out = tmp_path / "report.html"
    out.write_text("older")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_whole(out, "newer")
    assert out.read_text() == "older"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
