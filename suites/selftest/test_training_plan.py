"""What would run: filters, rates, levels, and somebody's own model."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.magnitudes import parse_range
from harness.plan import Filters
from harness.training.declare import load_declared
from harness.training.plan import rate_grid, training_plan
from harness.training.precision import PRECISIONS
from harness.training.sweep import sweep_curve
from harness.verdict import Verdict
from suites.selftest.conftest import ROOT, Stability

TOY = "suites.selftest.training_toy"


def planned(**filters: object) -> list[str]:
    """Ids of the curves that the toy suite would run."""
    found = training_plan(load_declared(TOY), Filters(**filters), seed=0)  # type: ignore[arg-type]
    return [item.id for item in found]


def test_levels() -> None:
    """--quick runs the quick slices, the default adds its own, --full the advice."""
    assert len(planned(quick=True)) == 2
    assert len(planned()) == 3
    assert len(planned(full=True)) == 3 + 2 - 2  # the advice's curves are the clock's, more rates
    whole = training_plan(load_declared(TOY), Filters(full=True), seed=0)
    assert whole[0].rates == (0.1, 1.0, 300.0, 1000.0)
    assert whole[0].slices == ("clock", "advice")
    assert whole[0].seeds == (0, 1, 2)


def test_filters() -> None:
    """By path, precision and workload, exact or as globs; an unknown name lists the valid ones."""
    assert planned(path=("naive",)) == ["toy/cross_entropy/naive/fp16/optimizer=sgd/steps=30"]
    assert len(planned(precision=("fp*",))) == 2
    assert len(planned(workload=("to*",))) == 3
    for name in ("workload", "path", "precision", "dtype", "operation"):
        with pytest.raises(InputError, match=f"unknown {name} 'nonsense'"):
            planned(**{name: ("nonsense",)})
    with pytest.raises(InputError, match="select nothing"):
        planned(path=("naive",), precision=("tf32",))


def test_rates_of_a_range() -> None:
    """--lr replaces each grid, evenly on a logarithmic axis, both ends among them."""
    assert rate_grid(parse_range("1e-3:1:1")) == [0.001, 0.01, 0.1, 1.0]
    assert rate_grid(parse_range("0.1:1:2")) == [0.1, 0.316, 1.0]
    assert rate_grid(parse_range("0.25")) == [0.25]
    (item, *_) = training_plan(load_declared(TOY), Filters(rate=parse_range("0.1:10:1")), seed=0)
    assert item.rates == (0.1, 1.0, 10.0)
    with pytest.raises(InputError, match="positive"):
        rate_grid(parse_range("0"))


def test_what_cannot_be_had_is_recorded_with_its_reason() -> None:
    """TF32 without a GPU: one record, unsupported."""
    (item,) = training_plan(load_declared(TOY), Filters(precision=("tf32",)), seed=0)
    assert PRECISIONS["tf32"].unsupported("cpu")
    (record,) = sweep_curve(item, device="cpu")
    assert record.verdict is Verdict.UNSUPPORTED
    assert "NVIDIA" in record["reason"]


def test_what_is_declared_for_a_gpu_waits_for_one() -> None:
    """Whole trainings by the Triton kernel are part of --full, and say why they were not run.

    Their control, which other trials need, is run.
    """
    full = training_plan(load_declared(), Filters(full=True), seed=0)
    waiting = [item for item in full if item.gpu]
    assert {"triton"} < {item.setting.path for item in waiting}
    (record,) = sweep_curve(waiting[0], device="cpu")
    assert (record.verdict, record["reason"]) == (Verdict.UNSUPPORTED, "declared for a GPU")
    assert not any(item.gpu for item in training_plan(load_declared(), Filters(), seed=0))
    control = replace(waiting[0].setting, path="naive")
    run_here = [item for item in full if item.setting == control]
    assert run_here
    assert not any(item.gpu for item in run_here)


def test_seeds_follow_the_run() -> None:
    """--seed moves every seed, so that two runs can be independent."""
    (item, *_) = training_plan(load_declared(TOY), Filters(), seed=10)
    assert item.seeds == (10, 11)


def test_the_suite_declares_what_it_can_run() -> None:
    """Every declared setting names a path, precision and normalisation that its workload has."""
    declared = load_declared()
    items = training_plan(declared, Filters(full=True), seed=0)
    for item in items:
        workload = declared.workloads[item.setting.workload]
        assert item.setting.path in workload.costs
        assert item.setting.precision in PRECISIONS
        assert item.setting.normalization in workload.normalizations
    assert {item.setting.workload for item in items} == set(declared.workloads)
    assert all(len(trial.rates) for advice in declared.advice for trial in advice.trials)
    assert all(trial.seeds >= 5 for advice in declared.advice for trial in advice.trials)


# --- somebody's own model -------------------------------------------------------------------------


def test_own_model_is_swept() -> None:
    """make(seed) by its name: the same records, a loss judged in fp64, in each precision."""
    items = training_plan(
        load_declared(TOY),
        Filters(workload=(f"{TOY}:make",), precision=("fp32", "bf16"), rate=parse_range("0.1")),
        seed=0,
    )
    assert [item.setting.precision for item in items] == ["bf16", "fp32"]
    for item in items:
        records = sweep_curve(item, device="cpu")
        assert [record["seed"] for record in records] == [0, 1]
        for record in records:
            assert record.operation == "loss"
            assert record["final_loss"] < record["initial_loss"]
            assert record["history"]["loss"][0] is not None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("make_raising", "raised KeyError: 'dataset'"),
        ("make_without_parameters", "no parameters to train"),
        ("make_with_rows", r"must be a floating scalar tensor, not shape \(20,\)"),
        ("make_nothing", "returned dict; it must return"),
        ("absent", "cannot import the workload"),
    ],
)
def test_own_model_that_is_not_one(function: str, message: str) -> None:
    """The error names what is expected, before anything is trained."""
    with pytest.raises(InputError, match=message):
        planned(workload=(f"{TOY}:{function}",))


def test_own_model_has_the_same_records() -> None:
    """Where it broke and why, the size of what went into its cost, norms, memory, speed."""
    (item,) = training_plan(
        load_declared(TOY),
        Filters(
            workload=(f"{TOY}:make_breaking",), precision=("fp32",), rate=parse_range("100000")
        ),
        seed=0,
    )
    for record in sweep_curve(item, device="cpu"):
        assert (record["phase"], record["module"], record["op"]) == ("forward", "cost", "aten.exp")
        assert record["location"].startswith("training_toy.py:")
        history = record["history"]
        assert history["largest_logit"][0] < 88 < history["largest_logit"][-1]
        assert all(history[name][0] > 0 for name in ("weight_norm", "gradient_norm"))
        assert record["peak_bytes"] > 0
        assert record["steps_per_second"] > 0


def test_the_documented_example_in_a_package_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """suites/training/example.py copied to mypkg/train.py: learns at 0.3, and at 3000 breaks in the
    cost that stands in it, at a line of the copy.
    """
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").write_text("")
    (tmp_path / "mypkg" / "train.py").write_text(
        (ROOT / "suites" / "training" / "example.py").read_text()
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    filters = Filters(
        workload=("mypkg.train:make",), precision=("fp32",), rate=parse_range("0.3:3000:1")
    )
    (item,) = training_plan(load_declared(TOY), filters, seed=0)
    item = replace(item, rates=(item.rates[0], item.rates[-1]))
    records = sweep_curve(item, device="cpu")
    good, bad = ([r for r in records if r["learning_rate"] == rate] for rate in item.rates)
    assert all(r["final_loss"] < r["initial_loss"] for r in good)
    assert all(r["location"].startswith("mypkg/train.py:") for r in bad)


def test_own_model_that_raises_later() -> None:
    """A batch that cannot be had in the middle of a run: each run's record says so."""
    (item,) = training_plan(
        load_declared(TOY),
        Filters(
            workload=(f"{TOY}:make_raising_later",), precision=("fp32",), rate=parse_range("0.1")
        ),
        seed=0,
    )
    records = sweep_curve(item, device="cpu")
    assert [record.verdict for record in records] == [Verdict.ERROR, Verdict.ERROR]
    assert "batch(3) raised IndexError: no more samples" in records[0]["reason"]


def test_the_command_says_so_in_one_sentence(stability: Stability, tmp_path: Path) -> None:
    """Exit 4, and no run directory."""
    out = tmp_path / "run"
    done = stability("run", "training", "--workload", f"{TOY}:make_raising", "--out", out)
    assert done.code == 4
    assert done.err.count("\n") == 1
    assert "KeyError" in done.err
    assert not out.exists()
