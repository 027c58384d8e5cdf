"""FastNorm: what cannot be inferred is noticed, sound training is not accused, both nets count."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from kernels.weight_norm import attach_fastnorm
from kernels.weight_norm.inference import NormState
from suites.conformance.fastnorm_training import K, N, Training, start

fastnorm = importlib.import_module("kernels.weight_norm.fastnorm")

pytestmark = pytest.mark.usefixtures("formula_unless_routed")

# --- what is hostile ------------------------------------------------------------------------------


def hostile_clip_norm(t: Training) -> None:
    t.backward()
    nn.utils.clip_grad_norm_(t.layer.parameters(), 0.1)
    t.optimizer.step()


def hostile_clip_value(t: Training) -> None:
    t.backward()
    nn.utils.clip_grad_value_(t.layer.parameters(), 0.01)
    t.optimizer.step()


def hostile_scaled_gradient(t: Training) -> None:
    t.backward()
    t.layer.weight_v.grad.mul_(3.0)
    t.optimizer.step()


def hostile_gradient_data(t: Training) -> None:
    t.backward()
    t.layer.weight_v.grad.data.mul_(3.0)
    t.optimizer.step()


def hostile_new_gradient(t: Training) -> None:
    t.backward()
    t.layer.weight_v.grad = t.layer.weight_v.grad * 3.0
    t.optimizer.step()


def hostile_unscale(t: Training) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    t.optimizer.zero_grad()
    scaler.scale(t.loss()).backward()
    scaler.unscale_(t.optimizer)
    scaler.step(t.optimizer)
    scaler.update()


def hostile_scaler_step(t: Training) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    t.optimizer.zero_grad()
    scaler.scale(t.loss()).backward()
    scaler.step(t.optimizer)


def hostile_accumulated(t: Training) -> None:
    t.optimizer.zero_grad()
    t.loss().backward()
    t.loss().backward()
    t.optimizer.step()


def hostile_never_zeroed(t: Training) -> None:
    t.loss().backward()
    t.optimizer.step()


def hostile_zeroed_in_place(t: Training) -> None:
    t.backward()
    t.optimizer.zero_grad(set_to_none=False)
    t.loss().backward()
    t.optimizer.step()


def hostile_shared(t: Training) -> None:
    t.optimizer.zero_grad()
    (t.loss() + t.loss()).backward()
    t.optimizer.step()


def hostile_penalty(t: Training) -> None:
    t.optimizer.zero_grad()
    (t.loss() + t.layer.weight_v.square().mean()).backward()
    t.optimizer.step()


def hostile_retained(t: Training) -> None:
    t.optimizer.zero_grad()
    loss = t.loss()
    loss.backward(retain_graph=True)
    loss.backward()
    t.optimizer.step()


def hostile_create_graph(t: Training) -> None:
    t.optimizer.zero_grad()
    parameters = list(t.layer.parameters())
    gradients = torch.autograd.grad(t.loss(), parameters, create_graph=True)
    sum(g.square().sum() for g in gradients).backward()
    t.optimizer.step()


def hostile_plain_uses_elsewhere(t: Training) -> None:
    t.optimizer.zero_grad()
    direct = (t.batch() @ t.layer.weight_v.t()).square().mean()
    (t.loss() + direct).backward()
    t.optimizer.step()


def hostile_autocast(t: Training) -> None:
    t.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = t.layer(t.batch())
    (y - 1.0).square().mean().backward()
    t.optimizer.step()


def _another_optimizer(t: Training, other: torch.optim.Optimizer, attached: bool) -> None:
    if attached:
        attach_fastnorm(other, t.layer, refresh_every=None)
    t.backward()
    other.step()


def hostile_momentum(t: Training) -> None:
    t.optimizer.param_groups[0].update(momentum=0.9)
    t.step(2)
    t.optimizer.param_groups[0].update(momentum=0.0)


def hostile_nesterov(t: Training) -> None:
    t.optimizer.param_groups[0].update(momentum=0.9, nesterov=True)
    t.step(2)
    t.optimizer.param_groups[0].update(momentum=0.0, nesterov=False)


def hostile_dampening(t: Training) -> None:
    t.optimizer.param_groups[0].update(momentum=0.9, dampening=0.5)
    t.step(2)
    t.optimizer.param_groups[0].update(momentum=0.0, dampening=0.0)


def hostile_adam(t: Training) -> None:
    _another_optimizer(t, torch.optim.Adam(t.layer.parameters(), lr=0.05), True)


def hostile_adamw_unattached(t: Training) -> None:
    _another_optimizer(t, torch.optim.AdamW(t.layer.parameters(), lr=0.05), False)


def hostile_fused_adam_attached(t: Training) -> None:
    _another_optimizer(t, torch.optim.Adam(t.layer.parameters(), lr=0.05, fused=True), True)


def hostile_fused_adam_unattached(t: Training) -> None:
    _another_optimizer(t, torch.optim.Adam(t.layer.parameters(), lr=0.05, fused=True), False)


def hostile_fused_sgd_unattached(t: Training) -> None:
    _another_optimizer(t, torch.optim.SGD(t.layer.parameters(), lr=0.5, fused=True), False)


def hostile_second_optimizer(t: Training) -> None:
    t.backward()
    torch.optim.SGD([t.layer.weight_v], lr=0.5).step()
    t.optimizer.step()


def hostile_subclass(t: Training) -> None:
    class Signed(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = p.grad.sign()
            super().step()

    _another_optimizer(t, Signed(t.layer.parameters(), lr=0.05), True)


def hostile_late_pre_hook(t: Training) -> None:
    def double(optimizer: torch.optim.Optimizer, *_: object) -> None:
        optimizer.param_groups[0]["lr"] *= 2

    hook = t.optimizer.register_step_pre_hook(double)
    t.step()
    hook.remove()
    t.optimizer.param_groups[0]["lr"] /= 2


def hostile_hidden_lr(t: Training) -> None:
    """The rate is doubled after our hook has seen it, and restored before our other hook looks."""
    original = t.optimizer.param_groups[0]["lr"]
    before = t.optimizer.register_step_pre_hook(
        lambda optimizer, *_: optimizer.param_groups[0].update(lr=2 * original)
    )
    after = t.optimizer.register_step_post_hook(
        lambda optimizer, *_: optimizer.param_groups[0].update(lr=original)
    )
    t.optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)
    t.step()
    before.remove()
    after.remove()


def hostile_post_hook(t: Training) -> None:
    def scale(*_: object) -> None:
        with torch.no_grad():
            t.layer.weight_v.mul_(1.5)

    hook = t.optimizer.register_step_post_hook(scale)
    t.step()
    hook.remove()


def hostile_data_edit(t: Training) -> None:
    t.layer.weight_v.data.mul_(1.5)


def hostile_data_element(t: Training) -> None:
    t.layer.weight_v.data[4, 7] += 0.1


def hostile_data_assignment(t: Training) -> None:
    t.layer.weight_v.data = t.layer.weight_v.detach() * 1.5


def hostile_numpy_edit(t: Training) -> None:
    t.layer.weight_v.detach().numpy()[2] *= 1.5


def hostile_in_place(t: Training) -> None:
    with torch.no_grad():
        t.layer.weight_v.clamp_(-0.05, 0.05)


def hostile_copy(t: Training) -> None:
    with torch.no_grad():
        t.layer.weight_v.copy_(torch.randn(N, K, generator=t.generator))


def hostile_edit_between(t: Training) -> None:
    """After the gradient, before the step, without a version."""
    t.backward()
    t.layer.weight_v.data.mul_(1.5)
    t.optimizer.step()


def hostile_load(t: Training) -> None:
    t.layer.load_state_dict({k: v * 1.5 for k, v in t.layer.state_dict().items()})


def hostile_load_assign(t: Training) -> None:
    state = {k: nn.Parameter(v * 1.5) for k, v in t.layer.state_dict().items()}
    t.layer.load_state_dict(state, assign=True)


def hostile_swap(t: Training) -> None:
    t.layer.weight_v = nn.Parameter(t.layer.weight_v.detach() * 1.5)


def hostile_round_trip(t: Training) -> None:
    t.layer.half().float()


def hostile_huge(t: Training) -> None:
    """From tiny rows to huge ones behind the versions' back: the product's scale is stale, too."""
    with torch.no_grad():
        t.layer.weight_v.mul_(2.0**-100)
    t.layer(t.batch())
    t.layer.weight_v.data.mul_(2.0**110).mul_(2.0**110)


HOSTILE = {
    name.removeprefix("hostile_"): function
    for name, function in list(globals().items())
    if name.startswith("hostile_")
}
# Those that move no version counter and no identity: only the checksums can find them.
UNVERSIONED = {
    "gradient_data", "unscale", "scaler_step", "fused_adam_unattached", "fused_sgd_unattached",
    "hidden_lr", "data_edit", "data_element", "numpy_edit", "edit_between", "huge",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "options", [{}, {"fused": True, "weight_decay": 0.02}], ids=["sgd", "fused"]
)
def test_hostile_edits_are_noticed(name: str, options: dict[str, object]) -> None:
    """Whatever was done to the weight, the next forward pass uses its norms, right to 1e-5; plain
    training before and after is inferred.
    """
    training = start(**options)
    training.step(3)
    assert training.layer.norm_statistics.inferred == 3
    HOSTILE[name](training)
    assert training.error() < 1e-5
    statistics = training.layer.norm_statistics
    assert len(statistics.recomputed) + (statistics.repaired_rows > 0) > 1
    if not any(p is training.layer.weight_v for p in training.optimizer.param_groups[0]["params"]):
        return  # no longer the optimizer's
    training.step(2)
    assert training.layer.norm_statistics.inferred >= 5
    assert training.error() < 1e-5


def _innocent(name: str, t: Training) -> None:
    if name == "evaluation":
        with torch.no_grad():
            t.layer.eval()(t.batch(50))
        t.layer.train()
    elif name == "forward_without_backward":
        t.layer(t.batch())
    elif name == "skipped_step":
        t.backward()
        t.optimizer.zero_grad()
    elif name == "no_gradient":
        t.optimizer.zero_grad()
        t.optimizer.step()
    elif name == "schedule":
        schedule = torch.optim.lr_scheduler.ExponentialLR(t.optimizer, 0.7)
        t.step()
        schedule.step()
    elif name == "new_group":
        t.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "lr": 7.0})
    elif name == "closure":

        def closure() -> float:
            t.backward()
            return 0.0

        t.optimizer.step(closure)
    elif name == "momentum_of_others":
        t.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "momentum": 0.9})
    elif name == "functional_call":  # with the layer's own parameters
        t.optimizer.zero_grad()
        arguments = dict(t.layer.named_parameters())
        torch.func.functional_call(t.layer, arguments, (t.batch(),)).square().mean().backward()
        t.optimizer.step()
    elif name == "checkpoint":
        t.optimizer.zero_grad()
        x = t.batch().requires_grad_()
        y = torch.utils.checkpoint.checkpoint(t.layer, x, use_reentrant=False)
        y.square().mean().backward()
        t.optimizer.step()


@pytest.mark.parametrize(
    "name",
    ["evaluation", "forward_without_backward", "skipped_step", "no_gradient", "schedule",
     "new_group", "closure", "momentum_of_others", "functional_call", "checkpoint"],
)  # fmt: skip
def test_sound_training_is_not_accused(name: str) -> None:
    """What leaves the weight alone, or is a plain step by another way, costs no recomputation."""
    training = start()
    training.step(3)
    _innocent(name, training)
    training.step(2)
    statistics = training.layer.norm_statistics
    assert statistics.inferred >= 5
    assert statistics.recomputed == {"first use": 1}
    assert statistics.repaired_rows == 0
    assert training.error() < 1e-6


# --- each net is needed ---------------------------------------------------------------------------


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        NormState, "mismatch", lambda self, measured: torch.zeros_like(self.square).bool()
    )


@pytest.fixture
def no_recognition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step passes for a plain one, and every weight for the one that is known."""
    monkeypatch.setattr(fastnorm, "why_not_plain", lambda optimizer, group: None)
    monkeypatch.setattr(
        fastnorm, "why_not_ours", lambda v, seen, version: None if seen else "no gradient seen"
    )
    monkeypatch.setattr(fastnorm._Known, "is_still", lambda self, weight, version: True)


@pytest.mark.parametrize("name", sorted(UNVERSIONED))
@pytest.mark.usefixtures("no_checksums")
def test_checksums_are_needed(name: str) -> None:
    """Without them, edits that move no version counter go unnoticed, and the norm is wrong."""
    training = start()
    training.step(3)
    HOSTILE[name](training)
    assert not training.error() < 1e-4


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - UNVERSIONED))
@pytest.mark.usefixtures("no_checksums")
def test_recognition_alone_finds_the_rest(name: str) -> None:
    """The others are found without checksums."""
    training = start()
    training.step(3)
    HOSTILE[name](training)
    assert training.error() < 1e-5


# Those whose harm is large at once; other steps' errors are of second order in their size.
@pytest.mark.parametrize(
    "name", ["scaled_gradient", "accumulated", "adamw_unattached", "in_place", "copy", "load"]
)
@pytest.mark.usefixtures("no_checksums", "no_recognition")
def test_without_both_nets_the_norm_is_wrong(name: str) -> None:
    """The edits do harm: nothing else would have caught them."""
    training = start()
    training.step(3)
    HOSTILE[name](training)
    assert training.error() > 1e-4


# Moved or exchanged: then there is no state to be checked, which no switch here turns off.
@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"round_trip"}))
@pytest.mark.usefixtures("no_recognition")
def test_checksums_alone_suffice(name: str) -> None:
    """With recognition switched off every hostile edit is still found by the checksums, to 1e-4:
    the tolerance, times how far a step may lie from the row it moves.
    """
    training = start()
    training.step(3)
    HOSTILE[name](training)
    assert training.error() < 1e-4


def test_small_edits_add_up_to_a_repair() -> None:
    """An unversioned decay of 2e-6 a step, each below the tolerance, is found before it has moved a
    norm by 1e-4.
    """
    training = start(lr=1e-3)
    for _ in range(100):
        training.step()
        training.layer.weight_v.data.mul_(1 - 2e-6)
    assert training.layer.norm_statistics.inferred == 100
    assert training.layer.norm_statistics.repaired_rows > 0
    assert training.layer.drift() < 1e-4


def test_random_edits_are_found() -> None:
    """Of 2000 random edits of a row by 1e-3 of its size, none escapes both checksums."""
    training = start()
    training.step(2)
    training.layer(training.batch())
    state, v = training.layer._state, training.layer.weight_v.detach()
    assert state is not None
    noise = torch.randn(2000, K, generator=training.generator)
    edited = v[:1] + 1e-3 * v[0].norm() * noise / noise.norm(dim=1, keepdim=True)
    units = 2.0 ** float(state.probe_exponent - state.exponent[0])
    measured = (edited @ state.probes.t()) * units
    near = (measured - state.checksum[0]).abs() <= state.tolerance()[0]
    assert int(near.all(dim=1).sum()) == 0
