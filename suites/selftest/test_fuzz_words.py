"""Any text as a case id, a range, a shard or a command line: read, or one clear sentence."""

import contextlib
import tempfile
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from harness import InputError
from harness.case import Case, parse_case
from harness.magnitudes import parse_range
from harness.plan import parse_shard
from suites.selftest import strange
from suites.selftest.fuzzing import called, fuzz, quiet

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
