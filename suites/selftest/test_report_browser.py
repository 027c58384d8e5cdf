"""The report in a real browser: it renders, asks nobody for anything, filters, sorts and tells."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.failures import reproduction
from harness.report import build_page
from harness.verdict import Verdict
from suites.selftest.browser import Browser, browser, installed
from suites.selftest.synthetic import case, run_of, sweep, timings, trainings
from suites.selftest.test_report import HOSTILE

pytestmark = pytest.mark.skipif(
    installed() is None, reason="no Chromium here; install your system's package `chromium`"
)

OURS = [case(Verdict.OK, m, path="ours", dtype="bf16", claimed=True) for m in (0.1, 1.0, 10.0)]
FIRST = run_of(*sweep(), *sweep(operation="other's", path="a b"), *OURS, *trainings(), *timings())
SECOND = run_of(*sweep(), *OURS, name="second", device={"name": "B200"})


@dataclass(frozen=True)
class Opened:
    """A browser, and the address of a page for it."""

    browser: Browser
    url: str

    def show(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.browser.events.clear()
        # From elsewhere, so that the page is loaded afresh and not only scrolled.
        self.browser.open("about:blank", width=width, height=height)
        self.browser.open(self.url, width=width, height=height, dark=dark)

    def ask(self, expression: str) -> object:
        return self.browser.evaluate(expression)

    def names(self, selector: str) -> list[str]:
        """The texts of the visible elements that a selector finds."""
        found = self.ask(
            f"[...document.querySelectorAll({selector!r})]"
            ".filter(e => e.offsetParent !== null).map(e => e.textContent.trim())"
        )
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "report.html"
    page.write_text(build_page([FIRST, SECOND]), encoding="utf-8")
    executable = installed()
    assert executable
    with browser(executable, folder / "profile") as running:
        yield Opened(running, page.as_uri())


def complaints(page: Browser) -> list[object]:
    """What the console, the policy or an exception said."""
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [event["params"] for event in page.events if event["method"] in kinds]


def requests(page: Browser) -> set[str]:
    """Whatever the page asked for, itself included."""
    return {
        event["params"]["request"]["url"].partition("#")[0]
        for event in page.events
        if event["method"] == "Network.requestWillBeSent"
    } - {"about:blank"}


# The two widths that the page is made for, in both colour schemes.
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_renders_without_complaint_or_request(opened: Opened, width: int, dark: bool) -> None:
    """No error, no request but for itself, no sideways scrolling, and the scheme's own colours."""
    opened.show(width=width, height=844, dark=dark)
    assert opened.ask("document.documentElement.dataset.ready") == "1"
    assert complaints(opened.browser) == []
    assert requests(opened.browser) == {opened.url}
    assert opened.ask("document.documentElement.scrollWidth") == width
    light = opened.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128")
    assert light is not dark
    drawn = opened.ask("document.querySelector('svg.chart').getBoundingClientRect().height > 50")
    assert drawn is True


def test_the_policy_stops_what_would_load(opened: Opened) -> None:
    """An image, a style and a script planted afterwards are refused: the policy is in force."""
    opened.show()
    opened.ask(
        "document.body.insertAdjacentHTML('beforeend', '<img src=https://example.org/x>');"
        "const script = document.createElement('script'); script.text = 'window.p = 1';"
        "document.head.append(script);"
    )
    time.sleep(0.2)
    assert opened.ask("window.p === undefined") is True
    assert any("Content Security Policy" in str(each) for each in complaints(opened.browser))


def test_the_theme_button_and_the_fragment_choose(opened: Opened) -> None:
    """A click turns light to dark and back, whatever the system prefers."""
    opened.show()
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened.ask(background)
    opened.ask("document.querySelector('#theme').click()")
    assert opened.ask(background) != light
    opened.ask("document.querySelector('#theme').click()")
    assert opened.ask(background) == light


def choose(opened: Opened, name: str, value: str) -> None:
    """Set a field of the filters, as typing, choosing or ticking does."""
    opened.ask(
        f"(() => {{ const field = document.querySelector('#filters [name={name}]');"
        f" if (field.type === 'checkbox') field.checked = true; else field.value = {value!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_filters_leave_what_was_asked_for(opened: Opened) -> None:
    """By operation, part of a path, dtype, verdict, what broke and what differs; and back."""
    rows = "table.heat tr.f th"
    opened.show()
    every = opened.names(rows)
    assert sorted(every) == ["a b", "naive", "naive", "ours", "ours"]
    for name, value, left in (
        ("o", "toy", ["naive", "naive", "ours", "ours"]),
        ("p", "OUR", ["ours", "ours"]),
        ("d", "fp16", ["a b", "naive", "naive"]),
        ("v", "n", ["a b", "naive", "naive"]),
        ("broke", "on", ["a b", "naive", "naive"]),
        ("differs", "on", ["a b"]),
    ):
        choose(opened, name, value)
        assert sorted(opened.names(rows)) == left, name
        assert opened.names("#told") == [f"{len(left)} of 5 rows of heat maps"]
        opened.ask("document.querySelector('#filters').reset()")
        opened.ask("new Promise(done => setTimeout(done, 20))")
        assert opened.names(rows) == every


def test_tables_sort_by_number_and_by_name(opened: Opened) -> None:
    """One click sorts upwards, a second downwards, and the head says so."""
    opened.show()
    column = "#fates tbody th"
    opened.ask("document.querySelectorAll('#fates thead button')[1].click()")
    upwards = opened.names(column)
    assert upwards == sorted(upwards)
    opened.ask("document.querySelectorAll('#fates thead button')[1].click()")
    assert opened.names(column) == upwards[::-1]
    assert (
        opened.ask("document.querySelectorAll('#fates thead th')[1].getAttribute('aria-sort')")
        == "descending"
    )
    opened.ask("[...document.querySelectorAll('#fates thead button')].at(-1).click()")
    wrong = [int(each.partition("/")[0]) for each in opened.names("#fates td:last-child")]
    assert wrong == sorted(wrong)
    assert set(wrong) == {0, 3}


def test_a_cell_gives_the_command_that_repeats_its_case(opened: Opened) -> None:
    """A tap shows verdict, range, layouts and the very command; copying selects or copies it."""
    opened.show(width=390, height=844)
    row = '.map[data-o="toy"] tr[data-p="naive"]'
    opened.ask(f"document.querySelector({f'{row} td.n'!r}).click()")
    (told,) = opened.names("#dock-title")
    assert told == "toy naive fp16 forward, run A: nan, magnitude 1000 to 10000"
    assert "In 2 of 2 layouts: normal, peak." in opened.names("#dock-text")[0]
    (command,) = opened.names("#dock-command")
    assert command == reproduction(FIRST.records[4], seed=0, catalog="suites.selftest.toy")
    opened.ask("document.querySelector('#dock-copy').click()")
    opened.ask("new Promise(done => setTimeout(done, 100))")
    (status,) = opened.names("#dock-status")
    assert status in ("Copied.", "Selected: copy it with the keyboard.")
    assert opened.ask("getSelection().toString()") == command


def test_every_command_in_the_page_is_the_one_of_its_record(opened: Opened) -> None:
    """Each bad cell of each layout gives word for word what `stability table --cases` would."""
    opened.show()
    found = opened.ask(
        """(() => { const told = [];
        document.querySelectorAll('.map').forEach(map => { map.open = true; });
        document.querySelectorAll('.more').forEach(more => more.click());
        for (const cell of document.querySelectorAll('tr.layout td.n, tr.layout td.a')) {
          cell.click(); told.push(document.querySelector('#dock-command').textContent); }
        return told; })()"""
    )
    bad = [
        record
        for run in (FIRST, SECOND)
        for record in run.records
        if record.suite == "stability" and not record.verdict.is_accurate
    ]
    assert isinstance(found, list)
    assert sorted(found) == sorted(
        reproduction(record, seed=0, catalog="suites.selftest.toy") for record in bad
    )
    assert len(bad) == 9


def test_the_keyboard_reaches_everything(opened: Opened) -> None:
    """Tab comes to the skip link first; arrows move within a heat map; Enter and Escape work."""
    opened.show()
    opened.browser.press("Tab")
    assert opened.ask("document.activeElement.className") == "skip"
    outlined = opened.ask("getComputedStyle(document.activeElement).outlineStyle")
    assert outlined == "solid"
    focus = "document.querySelector('table.heat td[tabindex=\"0\"]')"
    opened.ask(f"{focus}.focus()")
    before = opened.ask("document.activeElement.cellIndex")
    opened.browser.press("ArrowRight")
    assert opened.ask("document.activeElement.cellIndex") == before + 1  # type: ignore[operator]
    assert (
        opened.ask(
            "document.querySelectorAll('table.heat')[0].querySelectorAll('td[tabindex=\"0\"]').length"
        )
        == 1
    )
    assert opened.names("#tip") != []
    opened.browser.press("Enter")
    assert opened.names("#dock-title") != []
    opened.browser.press("Escape")
    assert opened.names("#dock-title") == []
    unlabelled = opened.ask(
        "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).length"
    )
    assert unlabelled == 0


def test_hostile_names_run_nothing(opened: Opened, tmp_path: Path) -> None:
    """A page full of hostile names: no alert, no error, no request, and the names as text."""
    records = [record for name in HOSTILE for record in sweep(path=name, regime=name)]
    file = tmp_path / "hostile.html"
    file.write_text(build_page([run_of(*records)]), encoding="utf-8")
    hostile = Opened(opened.browser, file.as_uri())
    hostile.show()
    hostile.ask("document.querySelectorAll('.more').forEach(more => more.click())")
    hostile.ask("document.querySelectorAll('td.n').forEach(cell => cell.click())")
    assert complaints(hostile.browser) == []
    assert requests(hostile.browser) == {hostile.url}
    assert "<script>alert(1)</script>" in hostile.names("table.heat tr.f th")
    opening = [e for e in hostile.browser.events if e["method"] == "Page.javascriptDialogOpening"]
    assert opening == []
