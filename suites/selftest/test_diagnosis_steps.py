"""Steps of every shape: closures, optimisers that break, kernels, unrecorded backward passes."""

import pytest
import torch
from torch import nn

import harness
from harness.diagnosis.finding import Finding
from harness.diagnosis.light import Light
from suites.selftest.diagnosis_programs import PROGRAMS
from suites.selftest.diagnosis_programs.program import Program, linear, normal
from suites.selftest.diagnosis_score import Mark, diagnose

BY_NAME = {program.name: program for program in PROGRAMS}


def first(name: str) -> Finding:
    """The root that is reported of a program's broken form."""
    return diagnose(BY_NAME[name], True).findings[0]


def verdicts(finding: Finding) -> dict[str, tuple[bool | None, str]]:
    """What became of each repair, by its first words."""
    return {
        fix.advice.split(" of ")[0].split(",")[0]: (fix.verified, fix.evidence)
        for fix in finding.fixes
    }


# A step inside of a closure; an optimiser's step that nobody watched; a kernel launched by hand;
# a compiled model; a scaler; several optimisers.
@pytest.mark.parametrize(
    "name",
    [
        *("trainer_closure", "bound_of_quasi_newton", "schedule_to_infinity", "own_optimizer"),
        *("raw_kernel", "compiled_norm", "mixed_precision", "two_losses", "half_adam"),
    ],
)
def test_a_script_is_named_to_the_line_and_its_twin_is_not_accused(name: str) -> None:
    """Operation, cause and line, and nothing said of the repaired twin."""
    program = BY_NAME[name]
    mark = Mark(program, diagnose(program, True), diagnose(program, False))
    assert mark.op_named, mark.broken.findings
    assert mark.cause_named, mark.broken.findings
    assert mark.line_named, mark.broken.findings
    assert not mark.false_alarm
    assert not mark.own_failures


def test_an_unrecorded_backward_pass_is_named_as_a_recorded_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pass that goes bad is made again: same operation, line, cause, numbers and verdicts."""
    unrecorded = first("trainer_closure")
    monkeypatch.setattr(Light, "consider", lambda self, optimizer: None)
    recorded = first("trainer_closure")
    assert unrecorded.phase == "backward"
    assert (unrecorded.op, unrecorded.location) == (recorded.op, recorded.location)
    assert (unrecorded.cause, unrecorded.inputs) == (recorded.cause, recorded.inputs)
    assert unrecorded.fixes == recorded.fixes


def test_backward_passes_are_recorded_where_they_do_not_repeat() -> None:
    """A gradient of a gradient is not what the forward operations alone give."""
    finding = first("gradient_penalty")
    assert (finding.op, finding.phase) == ("aten.sqrt", "backward")


def test_an_optimisers_step_is_run_again_with_repairs() -> None:
    """Adam's epsilon is 0 in fp16: an epsilon that exists holds, a lower rate does not."""
    tried = verdicts(first("half_adam"))
    assert tried["eps=0.0001 instead"][0] is True
    assert tried["weights and state in fp32 instead"][0] is True
    assert tried["a rate"][0] is False
    assert "not finite after the step" in tried["a rate"][1]


def test_a_rate_is_judged_by_steps_from_the_first_weights() -> None:
    """10 times less is still too much here, 100 times less and a clipped norm hold."""
    fixes = {fix.advice: fix for fix in first("exploding_recurrence").fixes}
    assert fixes["a rate of 0.008 instead of 0.08"].verified is False
    assert fixes["a rate of 0.0008 instead of 0.08"].verified is True
    assert fixes["clip the gradient's norm at 1"].verified is True


def test_gradients_that_were_never_set_to_zero_are_found_by_the_same_trial() -> None:
    """With fresh gradients the run's own rate holds."""
    finding = first("forgotten_zero_grad")
    assert finding.fixes[0].advice.startswith("optimizer.zero_grad()")
    assert finding.fixes[0].verified is True


def test_statistics_in_fp32_cure_a_square_in_fp16() -> None:
    """What follows is promoted; the matrix products before stay as they are."""
    tried = verdicts(first("mixed_precision"))
    assert tried["statistics in fp32: from aten.mul on"][0] is True
    assert tried["replace what is not finite after aten.mul (nan_to_num)"] == (
        False,
        "finite, but no gradient is left",
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("clipped_while_scaled", "unscale_ first"),
        ("bf16_master", "a copy"),
        ("double_softmax", "leave out aten._softmax"),
        ("rms_norm_of_zeros_in_half_precision", "statistics in fp32: from aten.pow on"),
        ("dead_rectifiers", "leaky_relu instead"),
    ],
)
def test_repairs_of_silent_defects_are_tried(name: str, advice: str) -> None:
    """With numbers before and after; a verified repair leaves no untried advice beside it."""
    finding = first(name)
    assert finding.kind == "silent"
    verified, evidence = verdicts(finding)[advice]
    assert verified is True
    assert any(character.isdigit() for character in evidence)
    assert all(fix.verified is not None for fix in finding.fixes)


def test_watch_names_the_optimiser_that_spoilt_the_weights() -> None:
    """Seen one step later, in weights that came in as NaN: the optimiser's step is run again."""
    model = linear(4, 2, dtype=torch.float16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8)
    x = normal(8, 4).half()
    x[:, 2] = 0  # a feature that is always 0 has gradient 0
    said: list[Finding] = []
    with harness.watch(model, optimizer, on_finding=said.append):
        for _ in range(3):
            optimizer.zero_grad()
            model(x).float().pow(2).mean().backward()
            optimizer.step()
    (finding,) = said
    assert (finding.step, finding.phase) == (0, "optimizer")
    assert finding.cause == "epsilon_underflow"
    assert any(fix.verified and fix.advice.startswith("eps=") for fix in finding.fixes)


def test_watch_looks_at_each_loss_that_a_closure_makes() -> None:
    """Not before it, when there is no gradient yet."""
    model = nn.Sequential(linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said: list[Finding] = []
    x = normal(6, 3)

    huge = [0.0, 0.0, 0.0, 1e30, 0.0]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - huge[watch.steps]).pow(2).mean()
        loss.backward()
        return loss

    with harness.watch(model, optimizer, on_finding=said.append) as watch:
        for _ in huge:
            optimizer.step(closure)
    (finding,) = said
    assert finding.step == 3


def sound(broken: bool) -> None:
    """Convolution, batch norm, dropout, autocast, a scaler, clipping, a schedule, an average of the
    weights, an LSTM with another optimiser, and an evaluation between the steps."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(144, 5)),
    )
    first = torch.optim.AdamW(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(first, 0.01, total_steps=30)
    scaler = torch.amp.GradScaler("cpu")
    average = {key: each.clone() for key, each in net.state_dict().items()}
    lstm = nn.LSTM(4, 8)
    second = torch.optim.Adagrad(lstm.parameters(), 0.1)
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(torch.rand(6, 1, 8, 8))
            loss = nn.functional.cross_entropy(logits, torch.randint(0, 5, (6,)))
        first.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(first)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(first)
        scaler.update()
        schedule.step()
        for key, each in net.state_dict().items():
            if each.is_floating_point():
                average[key].lerp_(each, 0.01)
        out, _ = lstm(torch.randn(5, 3, 4))
        second.zero_grad()
        out.pow(2).mean().backward()
        second.step()
        net.eval()
        with torch.no_grad():
            net(torch.rand(2, 1, 8, 8)).argmax(1)
        net.train()


def test_a_sound_training_of_many_parts_is_clean() -> None:
    """No finding, and no note of an own failure."""
    diagnosis = diagnose(Program("sound", sound, (), ()), False)
    assert (diagnosis.outcome, diagnosis.notes) == ("clean", ())
