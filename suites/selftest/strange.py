"""Strategies for what a stranger's run may hold: records with any field replaced, odd run.json."""

import json
from typing import Any

from hypothesis import strategies as st

from suites.selftest.many_records import HEAD, plain_records
from suites.selftest.synthetic import timings, trainings

# Ends of tags, cells, code, lines; formulas, mentions, links; a terminal's commands; text that runs
# backwards; templates; names of Python; none at all.
SIGNS = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style>", "]]><!--"),
    *("a|b", "`c", "\n# head", "**b**", "[x](http://x)", "@everyone", "www.example.org"),
    *("=1+1", '=HYPERLINK("http://x")', "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1"),
    *("\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\r", "\b", "\x00", "\u202eabc", "\u2028"),
    *("{{ 7*7 }}", "{% raw %}", "%s%n", "$(touch pwned)", "; rm x", "--help", "../../x", ""),
    *("[bold]x[/bold]", "[link=http://x]y[/link]", ":smile:", "__class__", "x" * 300, "名前", "𝕏"),
)

signs = st.sampled_from(SIGNS)
texts = st.one_of(signs, st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
numbers = st.one_of(
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 1, 5e-324, 1.7976931348623157e308, 10**19, -1]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)

STABILITY = [
    {key: value for key, value in each.items() if value is not None} for each in plain_records(60)
]
SPEED = [each.to_dict() for each in timings()]
TRAINING = [each.to_dict() for each in trainings()]
_OPTIONAL = ("options", "reason", "broken", "refined", "first_bad", "history", "ratios", "rounds")


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records of one or more suites, some of whose fields are anything."""
    base: list[dict[str, Any]] = []
    for suite in draw(st.lists(st.sampled_from([STABILITY, SPEED, TRAINING]), min_size=1)):
        base += draw(st.lists(st.sampled_from(suite), min_size=1, max_size=12))
    found = []
    for each in base:
        record = dict(each)
        for name in draw(st.lists(st.sampled_from([*record, *_OPTIONAL]), max_size=2)):
            record[name] = draw(values)
        found.append(record)
    return found


@st.composite
def named_records(draw: st.DrawFn, name: st.SearchStrategy[str] = texts) -> list[dict[str, Any]]:
    """Sound records under strange names: all of them reach the page and the tables."""
    word = {axis: draw(name) for axis in ("operation", "path", "regime", "dtype", "reason")}
    found = []
    for each in [*STABILITY[:20], *SPEED, *TRAINING[:8]]:
        renamed = {**each, "operation": word["operation"], "path": word["path"]}
        if "regime" in each:
            renamed["regime"] = word["regime"]
        renamed |= {"reason": word["reason"], "id": f"{each['id']}{word['path']}"}
        found.append(renamed)
    return found


@st.composite
def heads(draw: st.DrawFn) -> dict[str, Any]:
    """A run.json of the right schema, some of whose facts are anything, at some depth."""
    head: dict[str, Any] = json.loads(json.dumps(HEAD))
    for name in draw(st.lists(st.sampled_from([*HEAD, "switches", "packages", "parts", "ended"]))):
        if name != "schema":
            head[name] = draw(values)
    section = head.get(draw(st.sampled_from(["device", "versions", "asked", "git"])))
    if isinstance(section, dict) and section:
        section[draw(st.sampled_from(sorted(section)))] = draw(values)
    return head
