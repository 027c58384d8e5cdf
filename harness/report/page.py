"""The page put together: sections, style and script in one file that may load nothing."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

from harness.atlas import Kind
from harness.report import environment, frontiers, summary, words
from harness.report.details import as_script, page_data
from harness.report.findings import findings
from harness.report.heatmap import heat_maps
from harness.report.runs import Shown, in_order, shown_runs
from harness.report.speed import speed
from harness.report.static import NUMBERS, Static
from harness.report.training import training
from harness.safe_text import printable
from harness.store import Run
from harness.table import COLUMNS
from harness.training.render import sensitivity_words
from harness.unmeasured import dtype_order
from harness.verdict import Verdict


def build_page(runs: Sequence[Run], *, inspection: Static | None = None) -> str:
    """The whole page as HTML; the same runs give the same bytes.

    Raises:
        InputError: for no run, too many, or one without records.
    """
    from markupsafe import Markup

    shown = shown_runs(runs)
    maps = heat_maps(shown)
    data = page_data(shown, maps)
    dtypes = summary.dtypes_of(shown)
    fates = summary.fates(shown, dtypes)
    claims, claims_broken = summary.broken_claims(shown)
    style, script = _asset("style.css"), _asset("script.js")
    context: dict[str, Any] = {
        "runs": shown,
        "several": len(shown) > 1,
        "dtypes": dtypes,
        "operations": in_order(_named(shown, "operation")),
        "formats": sorted(set(_named(shown, "dtype")), key=dtype_order),
        "tallies": summary.tallies(shown),
        "kinds": [kind.value for kind in Kind],
        "fates": fates,
        "claims": claims,
        "claims_broken": claims_broken,
        "claims_made": sum(t.cases for t in summary.tallies(shown) if t.origin == "with claims"),
        "differences": summary.differences(shown),
        "prices": summary.prices(shown),
        "most_prices": summary.MOST_PRICES,
        "maps": maps,
        "columns": COLUMNS,
        "verdicts": _seen(shown),
        "left_out": data["left_out"],
        "panels": frontiers.panels(shown),
        "training": training(shown),
        "findings": findings(shown),
        "speed": speed(shown),
        "inspection": inspection,
        "static_columns": NUMBERS,
        "fields": environment.fields(shown),
        "words": words,
        # Ours and hashed below: not escaped, since nothing of a run is in them.
        "style": Markup(style),
        "script": Markup(script),
        "data": Markup(as_script(data)),  # JSON without any sign that HTML knows
        "policy": _policy(style, script),
    }
    return str(_environment().get_template("page.html.j2").render(context))


def _named(runs: Sequence[Shown], axis: str) -> Iterator[str]:
    """The names along an axis in all suites, those of the tables first."""
    for shown in runs:
        yield from (getattr(row, axis) for row in shown.folded)
    for shown in runs:
        yield from (getattr(record, axis) for record in shown.run.records)


def _seen(runs: Sequence[Shown]) -> list[tuple[Verdict, int]]:
    """The verdicts that occur, the worst first, and how often."""
    found: dict[Verdict, int] = {}
    for shown in runs:
        for record in shown.of_suite("stability"):
            found[record.verdict] = found.get(record.verdict, 0) + 1
    return sorted(found.items(), key=lambda each: each[0].precedence)


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded; of styles and scripts, the two that the page brings, by their hash."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8").strip()


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    for each in (words.short, words.count, words.many, words.breakable):
        made.filters[each.__name__] = each
    made.filters["sensitivity"] = sensitivity_words
    return made


def _finalize(value: object) -> object:
    """Text of a run file without control characters; what is markup already stays as it is."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value) if plain and isinstance(value, str) else value
