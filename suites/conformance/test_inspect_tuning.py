"""`stability tune` decides by its timings, and what it writes is what launches look up."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.inspection import Inspected
from harness.tuning import MARGIN, choose, seconds_on, tune_calls
from kernels import launch, launch_table
from kernels.launch_table import DEFAULTS, USUAL, Entry, Shape
from suites.catalog.shaping import LaunchShapes

ROOT = Path(__file__).resolve().parents[2]
QUESTION = ("normalize_forward", "bf16", "cuda:90", 5000)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's table that is not there yet."""
    file = tmp_path / "deep" / "launch_table.json"
    monkeypatch.setenv("STABILITY_LAUNCH_TABLE", str(file))
    return file


# --- the choice -----------------------------------------------------------------------------------


def test_the_fastest_is_chosen() -> None:
    """Of planted times the smallest wins, wherever it stands."""
    times = {"a": 3.0, "b": 1.0, "c": 2.0}
    choice = choose(list(times), times.__getitem__)
    assert choice.best == "b"
    assert choice.seconds == {"b": 1.0, "c": 2.0}
    assert choice.skipped == {"a": "3.0 times slower than the best"}


def test_equals_go_to_the_simpler_one() -> None:
    """Within the margin of noise the first candidate stays, beyond it it goes."""
    within = {"simple": 1.0, "other": 1.0 - 0.9 * MARGIN}
    beyond = {"simple": 1.0, "other": 1.0 - 1.1 * MARGIN}
    assert choose(list(within), within.__getitem__).best == "simple"
    assert choose(list(beyond), beyond.__getitem__).best == "other"


def test_a_failing_candidate_is_skipped_with_its_reason() -> None:
    """One that raises, or whose time is none, loses to any that runs; all failing chooses none."""

    def time(candidate: str) -> float:
        if candidate == "greedy":
            raise RuntimeError("out of resource: shared memory")
        return {"broken": float("nan"), "slow": 2.0}[candidate]

    choice = choose(["greedy", "broken", "slow"], time)
    assert choice.best == "slow"
    assert choice.skipped["greedy"] == "RuntimeError: out of resource: shared memory"
    assert "nan" in choice.skipped["broken"]
    assert choose(["greedy"], time).best is None


def test_an_outlier_does_not_decide() -> None:
    """The median of interleaved rounds: one slow run, or one fast one, changes nothing."""
    runs = {"a": iter([9.0] + [1.0] * 14), "b": iter([0.1] + [1.5] * 14)}
    assert choose(["a", "b"], lambda each: next(runs[each])).best == "a"


def test_the_hopeless_are_given_up_early() -> None:
    """A candidate more than twice as slow is not timed to the end."""
    calls = {"fast": 0, "slow": 0}

    def time(candidate: str) -> float:
        calls[candidate] += 1
        return {"fast": 1.0, "slow": 5.0}[candidate]

    choice = choose(["slow", "fast"], time)
    assert choice.best == "fast"
    assert calls["slow"] < calls["fast"]
    assert choice.skipped["slow"] == "5.0 times slower than the best"


# --- the search over launches ---------------------------------------------------------------------


class Planted:
    """A catalog's launch shapes with one question of three answers, and which is in force."""

    def __init__(self) -> None:
        self.now = "today"
        self.questions: list[str] | None = None

    @contextmanager
    def asked(self) -> Iterator[list[str]]:
        self.questions = []
        yield self.questions
        self.questions = None

    def candidates(self, question: str) -> list[str]:
        return ["today", "better", "refused"]

    @contextmanager
    def using(self, question: str, candidate: str) -> Iterator[None]:
        before, self.now = self.now, candidate
        try:
            yield
        finally:
            self.now = before

    def save(self, chosen: object, about: object) -> None:
        raise AssertionError("the search does not write")

    def call(self) -> None:
        if self.questions is not None:
            self.questions += ["q", "q"]  # two launches of one kernel ask the same
        if self.now == "refused":
            raise RuntimeError("planted")


def test_each_question_is_tuned_once_with_its_candidate_in_force() -> None:
    """The timer sees each candidate in force, after a call that is not timed."""
    planted = Planted()
    seen: list[str] = []

    def seconds(call: object) -> float:
        seen.append(planted.now)
        return {"today": 2.0, "better": 1.5}[planted.now]

    case = Inspected("operation", "triton", "bf16", 16, 64)
    (one,) = list(tune_calls({"forward": planted.call}, case, planted, seconds))
    assert (one.question, one.pass_, one.choice.best) == ("q", "forward", "better")
    assert one.choice.skipped == {"refused": "RuntimeError: planted"}
    assert seen[:3] == ["today", "better", "today"]
    assert planted.now == "today"


# --- the table ------------------------------------------------------------------------------------


def test_what_is_saved_is_looked_up(table: Path) -> None:
    """A shape holds up to the width it was measured at, the widest one's for any; other questions
    keep the built-in answer.
    """
    narrow, wide = Shape(1024, 8), Shape(8192, 32)
    family, dtype, device, _ = QUESTION
    chosen = {(family, dtype, device, 4096): narrow, (family, dtype, device, 32_000): wide}
    LaunchShapes().save(chosen, {"measured_on": "planted"})
    assert launch_table.lookup(family, dtype, device, 4096) == narrow
    assert launch_table.lookup(family, dtype, device, 4097) == wide
    assert launch_table.lookup(family, dtype, device, 10**6) == wide
    assert launch_table.lookup(family, "fp32", device, 4096) == USUAL
    assert launch_table.lookup(family, dtype, "cuda:80", 4096) == USUAL
    assert json.loads(table.read_text())["measured_on"] == "planted"
    assert [each.name for each in table.parent.iterdir()] == [table.name]


def test_saving_keeps_what_was_not_measured_again(table: Path) -> None:
    """Tuning one family leaves another's entries, and replaces its own whole."""
    other = ("softmax_forward", "bf16", "cuda:90", 64)
    LaunchShapes().save({QUESTION: Shape(1024, 8), other: Shape(2048, 8)}, {})
    LaunchShapes().save({QUESTION: Shape(512, 16)}, {})
    assert launch_table.lookup(*QUESTION) == Shape(512, 16)
    assert launch_table.lookup(*other) == Shape(2048, 8)
    assert len(launch_table.parse(table.read_text())) == 2


@pytest.mark.parametrize(
    # Not JSON; another schema; an entry without its numbers; a tile that is no power of two.
    "text",
    [
        "{",
        '{"schema": 99, "entries": []}',
        '{"schema": 1, "entries": [{"family": "*"}]}',
        '{"schema": 1, "entries": [{"tile": 100, "per_thread": 8}]}',
    ],
)
def test_a_damaged_table_is_told_and_left_aside(table: Path, text: str) -> None:
    """A launch warns once and goes on with the built-in table."""
    table.parent.mkdir()
    table.write_text(text)
    launch_table._measured.cache_clear()
    with pytest.warns(UserWarning, match="left aside"):
        assert launch_table.lookup(*QUESTION) == USUAL
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launch_table.lookup(*QUESTION) == USUAL


def test_candidates_begin_with_todays_shape() -> None:
    """The first, kept in a tie, is what applies now; all are distinct in what they do."""
    candidates = LaunchShapes().candidates(QUESTION)
    assert candidates[0] == launch_table.lookup(*QUESTION)
    assert len(set(candidates)) == len(candidates) > 10
    assert {each.on_chip >= 5000 for each in candidates} == {True, False}


def test_the_defaults_answer_everything() -> None:
    """The last default applies to any launch."""
    assert DEFAULTS[-1] == Entry(USUAL)
    assert launch_table._default("x", "fp64", "hip:gfx942", 10**9).tile > 0


@pytest.mark.parametrize(
    # Elements of a program, lanes of a warp: a full tile, AMD's wide waves, one short row, more
    # than 1,024 threads could share, a row in two pieces (no power of two).
    ("elements", "lanes", "warps"),
    [(4096, 32, 8), (4096, 64, 4), (32, 32, 1), (65_536, 32, 32), (65_536, 64, 16), (5120, 32, 8)],
)
def test_warps_follow_from_elements_a_thread(elements: int, lanes: int, warps: int) -> None:
    """A power of two, at least one, of at most 1,024 threads."""
    assert Shape(4096, 16).warps(elements, lanes) == warps


# --- tiles ----------------------------------------------------------------------------------------


def test_tiles_waste_little() -> None:
    """On a GPU no width from 1,024 on leaves more than a tenth of its lanes idle, looped over or
    held in pieces; the interpreter's tiles stay fat.
    """
    with launch.shaped_as("cuda:90"):
        for columns in (*range(1024, 20_000, 37), 32_000, 50_257, 128_256, 151_936):
            _, block = launch.tile(64, columns)
            covered = -(-columns // block) * block
            assert covered - columns <= 0.1 * covered, columns
            pieces = launch.row_pieces(columns, launch.torch.bfloat16)
            assert sum(pieces) - columns <= 0.1 * sum(pieces), columns


def test_units_divide_rows() -> None:
    """The unit is what of 16 bytes divides every distance, in elements of the tensor."""
    half = launch.torch.zeros(1, dtype=launch.torch.bfloat16)
    double = launch.torch.zeros(1, dtype=launch.torch.float64)
    assert [launch.unit(half, n) for n in (5000, 5004, 5002, 5001, 0)] == [8, 4, 2, 1, 8]
    assert launch.unit(half, 5000, 4) == 4
    assert launch.unit(double, 5000) == 2


# --- the command ----------------------------------------------------------------------------------


def test_a_call_keeps_its_timer() -> None:
    """Tuning times on the clock of the speed suite, every call with one timer of its own."""
    timed: list[object] = []

    class Clock:
        def timer(self, arrange: object, call: object) -> SimpleNamespace:
            timed.append(call)
            return SimpleNamespace(seconds=lambda: 2.0 + len(timed))

    seconds = seconds_on(Clock())  # type: ignore[arg-type]
    first, second = (lambda: None), (lambda: None)
    assert [seconds(first), seconds(second), seconds(first)] == [3.0, 4.0, 4.0]
    assert timed == [first, second]


@pytest.mark.skipif(launch.torch.cuda.is_available(), reason="there is a GPU to tune on")
def test_without_a_gpu_tune_says_so(table: Path) -> None:
    """Exit code 4, one sentence, and no table."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "tune"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert "needs a GPU" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not table.exists()
