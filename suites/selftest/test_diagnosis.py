"""The diagnosis on small trainings: what it must find, what it must not accuse, what it tries."""

import json

import pytest
import torch

import harness
from harness.diagnosis.finding import from_plain
from suites.selftest.diagnosis_programs import PROGRAMS
from suites.selftest.diagnosis_programs.program import Program, linear, normal
from suites.selftest.diagnosis_score import Mark, diagnose, marks

# One of each family for the sample; the score of all stands in the nightly run.
SAMPLE = {
    "softmax_then_log",
    "clamp_lost_in_half_precision",
    "gradient_beyond_half_precision",
    "logarithm_behind_where",
    "empty_row_thrown_away_later",
    "every_label_ignored",
    "spread_as_difference_of_means",
    "missing_value_in_a_table",
    "rate_far_too_high",
    "clipping_before_unscaling",
    "rms_norm_of_zeros_in_half_precision",
}
BY_NAME = {program.name: program for program in PROGRAMS}


@pytest.mark.parametrize("name", sorted(SAMPLE))
def test_a_defect_is_named_and_its_repair_is_not_accused(name: str) -> None:
    """Operation, cause and kind are right; the repaired twin has no finding at all."""
    program = BY_NAME[name]
    mark = Mark(program, diagnose(program, True), diagnose(program, False))
    assert mark.op_named
    assert mark.cause_named
    assert mark.broken.findings[0].kind == program.kind
    assert mark.repaired.outcome == "clean"
    assert mark.broken.notes == mark.repaired.notes == ()


@pytest.mark.full
def test_the_score_of_all_programs_holds() -> None:
    """Every defect is reported; operations 95%, causes 90%; no repaired twin is accused."""
    results = marks()
    assert len(results) >= 40
    assert all(each.reported for each in results)
    assert sum(each.op_named for each in results) >= 0.95 * len(results)
    assert sum(each.cause_named for each in results) >= 0.9 * len(results)
    assert [each.program.name for each in results if each.false_alarm] == []
    assert [each.program.name for each in results if not each.line_named] == []
    assert [each.own_failures for each in results if each.own_failures] == []


def test_a_fix_counts_only_if_the_gradients_are_finite_too() -> None:
    """Replacing NaN after the root cures its value and not its gradient: it is reported failed."""
    finding = diagnose(BY_NAME["length_of_a_zero_vector"], True).findings[0]
    verdicts = {fix.advice.split(" (")[0]: fix for fix in finding.fixes}
    inside = next(fix for advice, fix in verdicts.items() if "added inside aten.sqrt" in advice)
    outside = next(fix for advice, fix in verdicts.items() if "after aten.sqrt" in advice)
    assert inside.verified is True
    assert outside.verified is False
    assert "gradient entries are not finite" in outside.evidence


def test_formula_and_format_are_told_apart() -> None:
    """exp of too much is finite in fp64; the slope of a length at zero is infinite there too."""
    overflow = diagnose(BY_NAME["softmax_without_the_maximum"], True).findings[0]
    slope = diagnose(BY_NAME["length_of_a_zero_vector"], True).findings[0]
    assert overflow.finite_in_fp64 is True
    assert slope.finite_in_fp64 is False


def test_a_bad_batch_repeats_with_this_input() -> None:
    """With an earlier batch on the same weights the step is finite."""
    assert diagnose(BY_NAME["missing_value_in_a_table"], True).findings[0].repeatable == "input"


def test_watching_changes_no_number() -> None:
    """The same weights, bit by bit, with and without the tape, dropout included."""

    def train(watched: bool) -> torch.Tensor:
        torch.manual_seed(3)
        model = torch.nn.Sequential(linear(4, 8), torch.nn.Dropout(0.5), linear(8, 2))
        torch.manual_seed(4)

        def run(broken: bool) -> None:
            optimizer = torch.optim.AdamW(model.parameters())
            for _ in range(5):
                optimizer.zero_grad()
                model(normal(16, 4)).pow(2).mean().backward()
                optimizer.step()

        if watched:
            diagnosis = diagnose(Program("dropout", run, (), ()), False)
            assert (diagnosis.outcome, diagnosis.steps) == ("clean", 5)
        else:
            run(False)
        return torch.cat([each.detach().flatten() for each in model.parameters()])

    assert torch.equal(train(True), train(False))


def test_the_document_is_strict_json_and_comes_back() -> None:
    """No NaN literal; reading what was written gives the same diagnosis."""
    diagnosis = diagnose(BY_NAME["entropy_of_a_sure_policy"], True)
    text = json.dumps(diagnosis.to_plain(), allow_nan=False)
    document = json.loads(text)
    assert document["schema"] == 1
    assert from_plain(document).findings[0].fixes == diagnosis.findings[0].fixes


def test_torch_is_as_it_was_afterwards() -> None:
    """No wrapper and no mode stays behind."""
    before = (torch.autograd.backward, torch.optim.Optimizer.__init__, torch.autograd.grad)
    diagnose(BY_NAME["softmax_then_log"], True)
    with harness.watch(linear(2, 2)):
        assert torch.autograd.backward is not before[0]
    assert (torch.autograd.backward, torch.optim.Optimizer.__init__, torch.autograd.grad) == before
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


class Length(torch.nn.Module):
    """Lengths of projected vectors, whose slope at zero is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(4, 3)
        self.layer.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).pow(2).sum(1).sqrt()


def batches() -> list[torch.Tensor]:
    """Five batches, the fourth with a zero row."""
    found = [normal(8, 4, seed=seed) for seed in range(5)]
    found[3][2] = 0
    return found


@pytest.mark.parametrize("wrapped", [True, False], ids=["step", "loop"])
def test_watch_names_the_operation_before_the_weights_are_spoilt(wrapped: bool) -> None:
    """Around a step function and in a plain loop: step 3, sqrt's gradient, a verified fix."""
    model = Length()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said: list[harness.diagnosis.finding.Finding] = []

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()

    with harness.watch(model, optimizer, on_finding=said.append) as watch:
        for x in batches():
            if wrapped:
                watch.step(step, x)
            else:
                step(x)
    (finding,) = said
    assert (finding.step, finding.phase, finding.op) == (3, "backward", "aten.sqrt")
    assert finding.cause == "singular_gradient"
    assert finding.location is not None
    assert finding.location.startswith("test_diagnosis.py:")
    assert any(fix.verified for fix in finding.fixes)


def test_watch_leaves_the_training_as_it_is() -> None:
    """Same weights with and without, the second run of the failing step included."""

    def train(watched: bool) -> torch.Tensor:
        torch.manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Dropout(0.5), Length())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def run() -> None:
            for x in batches():
                optimizer.zero_grad()
                model(x).mean().backward()
                optimizer.step()

        torch.manual_seed(6)
        if watched:
            with harness.watch(model, on_finding=lambda finding: None):
                run()
        else:
            run()
        return next(model.parameters()).detach()

    assert torch.equal(train(True).isnan(), train(False).isnan())
    assert torch.equal(train(True).nan_to_num(), train(False).nan_to_num())


def test_a_scalers_normal_skips_are_no_finding() -> None:
    """Warming up from too large a loss scale is skipped steps, and nothing else."""

    def run(broken: bool) -> None:
        layer = linear(4, 2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
        for _ in range(10):
            optimizer.zero_grad()
            scaler.scale((layer(normal(8, 4)).half() * 30).float().pow(2).mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    assert diagnose(Program("warm_up", run, (), ()), False).outcome == "clean"


def test_several_optimisers_and_accumulation_are_one_step_each() -> None:
    """Two losses, two optimisers, two micro-batches a step: steps are counted once."""

    def run(broken: bool) -> None:
        one, two = linear(4, 4), linear(4, 1)
        first = torch.optim.SGD(one.parameters(), lr=1e-3)
        second = torch.optim.Adam(two.parameters(), lr=1e-3)
        for step in range(4):
            first.zero_grad()
            second.zero_grad()
            for seed in range(2):
                z = two(one(normal(8, 4, seed=seed)))
                (z.pow(2).mean() if step < 3 else torch.sqrt(z - 1e6).mean()).backward()
            first.step()
            second.step()

    finding = diagnose(Program("several", run, (), ()), False).findings[0]
    assert (finding.step, finding.op, finding.cause) == (3, "aten.sqrt", "domain_error")


def test_an_error_of_the_diagnosis_does_not_reach_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a fault planted in the diagnosis the training ends as always, and a note says so."""
    from harness.diagnosis import flow

    def planted(*args: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(flow.Flow, "follow", planted)
    steps = []

    def run(broken: bool) -> None:
        layer = linear(4, 2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for step in range(3):
            layer(normal(8, 4)).pow(2).mean().backward()
            optimizer.step()
            steps.append(step)

    diagnosis = diagnose(Program("planted", run, (), ()), False)
    assert steps == [0, 1, 2]
    assert "the diagnosis itself failed: ValueError: planted" in diagnosis.notes[0]
