"""What is made of recorded runs: slopes, agreement, sensitivity, verdicts on advice."""

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.record import Record
from harness.training.agreement import agreements
from harness.training.clock import clock
from harness.training.curves import Curve, curves_of
from harness.training.declare import Trial
from harness.training.sensitivity import sensitivity
from harness.training.setting import Lane, Setting, run_id
from harness.training.trials import DELAYS, HARMS, HELPS, NOTHING, UNMEASURED, judge_trial
from harness.verdict import Verdict

NAIVE = Setting("toy", "naive", "fp16")
STABLE = replace(NAIVE, path="torch")
STEPS = 1000


def run(setting: Setting, rate: float, seed: int, *, steps: int = STEPS, **outcome: Any) -> Record:
    """A record; without a first bad step it ended with a loss of 0.1."""
    bad = outcome.get("first_bad_step")
    data = {
        **{"workload": setting.workload, "precision": setting.precision, "learning_rate": rate},
        **{"seed": seed, "optimizer": setting.optimizer, "steps": steps, "initial_loss": 2.3},
        **({"final_loss": 0.1, "diverged": False} if bad is None else {"diverged": True}),
    }
    name = run_id(setting, "cross_entropy", steps, Lane(rate, seed))
    verdict = Verdict.OK if bad is None else Verdict.NAN
    return Record(name, "training", "cross_entropy", setting.path, "fp16", verdict, data | outcome)


def clocked() -> list[Record]:
    """A naive cost that breaks at 3 / rate, two steps late, and torch's, equal to it until then."""
    steps = list(range(20))
    losses = [2.0 / (1 + step) for step in steps]
    broke = {
        **{"phase": "forward", "module": "cost", "op": "aten.log", "cause": "log_of_zero"},
        "history": {"step": steps, "loss": [*losses[:5], *[None] * 15]},
    }
    pairs = [(rate, seed) for rate in (0.03, 0.1, 0.3) for seed in (0, 1)]
    return [
        *(run(NAIVE, r, s, steps=400, first_bad_step=round(3 / r) + 2, **broke) for r, s in pairs),
        *(run(STABLE, r, s, steps=400, history={"step": steps, "loss": losses}) for r, s in pairs),
    ]


def only(records: list[Record]) -> Curve:
    (curve,) = curves_of(records).values()
    return curve


def test_a_clock_has_slope_minus_one() -> None:
    """Steps of 30 / rate, with some noise between seeds, give -1 within the interval."""
    records = [
        run(NAIVE, rate, seed, first_bad_step=round((30 + seed) / rate))
        for rate in (0.1, 0.3, 1.0)
        for seed in range(3)
    ]
    found = clock(only(records))
    assert found is not None
    assert found.verdict == "clock"
    assert found.low < -1.0 < found.high
    assert found.slope == pytest.approx(-1.0, abs=0.05)


def test_a_cliff_is_where_the_line_says_so_and_nothing_breaks() -> None:
    """Rates just below that should have broken at 100 of 1000 steps, and did not, are a cliff."""
    broke = [
        run(NAIVE, rate, s, first_bad_step=round(30 / rate)) for rate in (1.0, 3.0) for s in (0, 1)
    ]
    fine = [run(NAIVE, 0.3, s) for s in (0, 1)]
    found = clock(only(broke + fine))
    assert found is not None
    assert (found.verdict, found.cliff_at) == ("cliff", 0.3)
    # The same where there were too few steps to see it break: no cliff.
    short = [
        run(
            NAIVE,
            each["learning_rate"],
            each["seed"],
            steps=120,
            first_bad_step=each.get("first_bad_step"),
        )
        for each in broke + fine
    ]
    short = [
        each if each.get("first_bad_step") else run(NAIVE, 0.3, each["seed"], steps=120)
        for each in short
    ]
    again = clock(only(short))
    assert again is not None
    assert again.cliff_at is None


def test_a_line_that_could_be_anything_is_no_cliff() -> None:
    """Steps of 5 and 200 at each of two rates fit a line of any slope: unclear."""
    broke = [
        run(NAIVE, rate, s, first_bad_step=step)
        for rate in (1.0, 3.0)
        for s, step in enumerate((5, 200))
    ]
    found = clock(only([*broke, run(NAIVE, 0.3, 0), run(NAIVE, 0.3, 1)]))
    assert found is not None
    assert (found.verdict, found.cliff_at) == ("unclear", None)


def test_nothing_is_fitted_to_one_rate() -> None:
    """Two rates at least, of steps late enough: the first update says nothing of the way."""
    assert clock(only([run(NAIVE, 1.0, s, first_bad_step=50) for s in range(4)])) is None
    early = [run(NAIVE, rate, s, first_bad_step=1) for rate in (1.0, 10.0) for s in range(3)]
    assert clock(only(early)) is None


def test_sensitivity_counts_nan_as_untrained() -> None:
    """By hand: losses 0.1, 0.5 and NaN, untrained 2.3, so ((0 + 0.4 + 2.2) / 3)."""
    records = [run(NAIVE, 0.1, 0), run(NAIVE, 1.0, 0, final_loss=0.5)]
    records += [run(NAIVE, 10.0, 0, first_bad_step=3)]
    found = sensitivity(only(records))
    assert found is not None
    assert found.value == pytest.approx((0.4 + 2.2) / 3)
    assert (found.best_rate, found.best_at_edge) == (0.1, True)
    assert found.diverged == pytest.approx(1 / 3)
    # A loss beyond the untrained one counts as that, too, not as itself.
    worse = sensitivity(only([*records[:2], run(NAIVE, 10.0, 0, final_loss=1e9, diverged=True)]))
    assert worse is not None
    assert worse.value == pytest.approx(found.value)


def test_pairs_agree_until_the_break() -> None:
    """Equal losses at steps 0 to 3, a break at 4: zero difference, then the stable run's loss."""
    history = {"step": [0, 1, 2, 3, 4], "loss": [2.0, 1.0, 0.5, 0.25, None]}
    whole = {"step": [0, 1, 2, 3, 4], "loss": [2.0, 1.0, 0.5, 0.25, 0.125]}
    records = [
        run(NAIVE, 1.0, 0, first_bad_step=4, history=history),
        run(STABLE, 1.0, 0, history=whole, final_loss=0.01),
    ]
    (found,) = agreements(curves_of(records))
    assert (found.compared, found.same_until, found.largest_difference) == (4, 3, 0.0)
    assert found.loss_before == pytest.approx((2.0 + 1.0 + 0.5 + 0.25) / 4)
    assert found.loss_after == pytest.approx((2.0 + 1.0 + 0.5 + 0.25 + 0.125) / 5)
    apart = {"step": [0, 1, 2, 3], "loss": [2.0, 1.0, 0.6, 0.25]}
    (other,) = agreements(curves_of([records[0], run(STABLE, 1.0, 0, history=apart)]))
    assert other.same_until == 1
    assert other.largest_difference == pytest.approx(1 / 6)


TRIAL = Trial(NAIVE, STABLE, (0.1, 1.0), STEPS)
SEEDS = range(5)


def verdict(control: dict[str, Any], treatment: dict[str, Any], trial: Trial = TRIAL) -> str:
    records = [run(trial.control, rate, s, **control) for rate in trial.rates for s in SEEDS]
    records += [
        run(
            trial.treatment,
            rate * trial.rate_factor,
            s,
            steps=STEPS * trial.steps_factor,
            **treatment,
        )
        for rate in trial.rates
        for s in SEEDS
    ]
    return judge_trial(trial, curves_of(records)).verdict


def test_verdicts() -> None:
    """Cured, delayed, untouched, made worse, and learning less although finite."""
    broke, fine = {"first_bad_step": 10}, dict[str, Any]()
    assert verdict(broke, fine) == HELPS
    assert verdict(fine, broke) == HARMS
    assert verdict(broke, {"first_bad_step": 100}) == DELAYS
    assert verdict(broke, {"first_bad_step": 11}) == NOTHING
    assert verdict(fine, {"final_loss": 0.11}) == NOTHING
    assert verdict(fine, {"final_loss": 1.0}) == HARMS
    # Finite, and worse than untrained: that is no cure.
    assert verdict(broke, {"diverged": True, "final_loss": 9.0}) == NOTHING


def test_a_slower_rate_is_given_the_same_way() -> None:
    """Pairs are found at a tenth of the rate and ten times the steps, where it breaks again."""
    slower = Trial(NAIVE, NAIVE, (1.0,), STEPS, rate_factor=0.1, steps_factor=10)
    assert verdict({"first_bad_step": 30}, {"first_bad_step": 300}, slower) == DELAYS


def test_what_was_not_run_is_not_measured() -> None:
    """No treatment, or fewer seeds than declared: no verdict."""
    control = [run(NAIVE, rate, s, first_bad_step=9) for rate in TRIAL.rates for s in SEEDS]
    assert judge_trial(TRIAL, curves_of(control)).verdict == UNMEASURED
    few = [run(STABLE, rate, 0) for rate in TRIAL.rates]
    assert judge_trial(TRIAL, curves_of([*control[:1], *few])).verdict == UNMEASURED


def test_an_interval_over_seeds() -> None:
    """Of five seeds four are cured: mean 0.8, half-width t(0.975, 4) * 0.447 / sqrt(5) = 0.555."""
    trial = replace(TRIAL, rates=(1.0,))
    records = [run(NAIVE, 1.0, s, first_bad_step=9) for s in SEEDS]
    records += [run(STABLE, 1.0, s, **({"first_bad_step": 9} if s == 0 else {})) for s in SEEDS]
    found = judge_trial(trial, curves_of(records))
    assert found.share is not None
    assert found.share.value == pytest.approx(0.8)
    assert found.share.low == pytest.approx(0.8 - 2.7764 * math.sqrt(0.2) / math.sqrt(5), abs=1e-3)
    assert found.verdict == HELPS
