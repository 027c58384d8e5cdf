"""FastNorm: what is inferred is right, what cannot be is noticed, and each net is needed."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from kernels import launch
from kernels.weight_norm import FastNormLinear, WeightNormLinear, attach_fastnorm, reference
from kernels.weight_norm.inference import NormState, gram_pays

fastnorm = importlib.import_module("kernels.weight_norm.fastnorm")

K, N, BATCH = 40, 12, 6


@dataclass
class Training:
    """One attached layer, its optimizer, and a stream of batches."""

    layer: FastNormLinear
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    def batch(self, rows: int = BATCH) -> Tensor:
        v = self.layer.weight_v
        x = torch.randn(rows, K, generator=self.generator, dtype=torch.float64)
        return x.to(v.device, v.dtype)

    def loss(self) -> Tensor:
        """Large enough gradients that an unnoticed step shows."""
        y = self.layer(self.batch())
        return (y - 1.0).square().mean()

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()

    def step(self, times: int = 1) -> None:
        """Plain steps."""
        for _ in range(times):
            self.backward()
            self.optimizer.step()

    def error(self) -> float:
        """The larger of the relative errors of the norms and of the output of a forward pass."""
        layer = self.layer
        x = self.batch()
        with torch.no_grad():
            y = layer(x).double()
        parts = (layer.weight_v, layer.weight_g, layer.bias)
        v, g, bias = (p.detach().double() for p in parts)
        true = reference.textbook(x.double(), v, g, bias)
        terms = x.double().norm(dim=1, keepdim=True) * g[:, 0].abs() + bias.abs()
        held = layer.inferred_norms
        assert held is not None
        norms = (held.double() / v.norm(dim=1) - 1).abs().max()
        return max(float(norms), float(((y - true).abs() / terms).max()))


def start(
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    refresh_every: int | None = None,
    infer_half: bool = False,
    **options: object,
) -> Training:
    """A new layer and its optimizer, attached."""
    torch.manual_seed(5)
    layer = FastNormLinear(K, N, dtype=dtype).to(device or torch.device("cpu"))
    optimizer = make(layer.parameters(), **{"lr": 0.5, **options})
    attach_fastnorm(optimizer, layer, refresh_every=refresh_every, infer_half=infer_half)
    return Training(layer, optimizer, torch.Generator().manual_seed(6))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that do not ask for a route take the PyTorch formula on a CPU: an interpreted launch
    costs 20 ms, and what is proved here is the accounting around it.
    """
    if "route" not in request.fixturenames:
        monkeypatch.setattr(launch, "uses_triton", lambda tensor: tensor.is_cuda)


# --- what is inferred -----------------------------------------------------------------------------

# Every form of plain SGD's step.
PLAIN: dict[str, dict[str, object]] = {
    "plain": {},
    "decay": {"weight_decay": 0.02},
    "ascent": {"maximize": True, "weight_decay": 0.02, "lr": 0.01},
    "single": {"foreach": False},
    "foreach": {"foreach": True, "weight_decay": 0.02},
    "fused": {"fused": True, "weight_decay": 0.02},
    "tensor_lr": {"lr": torch.tensor(0.5)},
    "large": {"lr": 1e4},
}


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.usefixtures("route")
def test_plain_steps_are_inferred(options: dict[str, object], device: torch.device) -> None:
    """The norms of fp64 layers follow 10 steps to 1e-13, and nothing was computed again."""
    training = start(torch.float64, device, **options)
    parameters = [training.layer.weight_g, training.layer.bias]
    for p in parameters:  # only v moves, so that steps of any size stay finite
        p.requires_grad_(False)
    training.step(10)
    assert training.error() < 1e-13
    statistics = training.layer.norm_statistics
    assert statistics.inferred == 10
    assert statistics.recomputed == {"first use": 1}
    assert statistics.repaired_rows == 0


# Ranks on both sides of where the batch's Gram matrix stops paying.
@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.usefixtures("route")
def test_batches_of_any_rank(rows: int) -> None:
    """A batch of one, one smaller and one larger than the layer are inferred alike."""
    training = start(torch.float64)
    assert gram_pays(rows, K, N) == (rows < 100)
    for _ in range(5):
        training.optimizer.zero_grad()
        training.layer(training.batch(rows)).square().mean().backward()
        training.optimizer.step()
    assert training.error() < 1e-13
    assert training.layer.norm_statistics.inferred == 5


# fp32 and fp64; weight decay shrinks the norms as well. The thousand steps take some seconds each.
@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.full)])
def test_drift_over_many_steps(name: str, decay: float, steps: int) -> None:
    """Without any refresh inferred steps stay within 16 units in the last place of the exact norms,
    whatever the steps' size; no row needed repair, so the checksums did not help.
    """
    dtype = getattr(torch, name)
    training = start(dtype, weight_decay=decay, lr=0.5)
    for i in range(steps):
        training.optimizer.param_groups[0]["lr"] = 0.5 / (1 + i / 50)
        training.step()
    assert training.layer.norm_statistics.inferred == steps
    assert training.layer.norm_statistics.repaired_rows == 0
    drift = training.layer.drift()
    assert drift <= training.error() + 4 * torch.finfo(dtype).eps
    assert 0 < drift < 16 * torch.finfo(dtype).eps


def test_small_steps_are_not_lost() -> None:
    """Increments below half a unit of the square add up: 300 of 2**-26 each are seen, where a bare
    fp32 sum would still be what it was.
    """
    training = start(lr=1.0)
    training.step()
    state = training.layer._state
    assert state is not None
    before = training.layer.inferred_norms.double()
    relative = 2.0**-26
    step = importlib.import_module("kernels.weight_norm.inference").Step(
        squares=state.square * relative,
        size=torch.zeros_like(state.square),
        along_probes=torch.zeros_like(state.checksum),
        exponent=state.exponent.clone(),
    )
    for _ in range(300):
        state.advance(step, 1.0, 0.0, ascent=False)
    grown = state.norms().double() / before - 1
    torch.testing.assert_close(grown, torch.full_like(grown, 150 * relative), rtol=0.1, atol=6e-8)


def test_the_refresh_period_measures_drift() -> None:
    """Every 25 steps the norms are computed, and the deviation found is kept and small."""
    training = start(refresh_every=25)
    training.step(101)
    statistics = training.layer.norm_statistics
    assert statistics.recomputed == {"first use": 1, "refresh": 4}
    assert 0 < statistics.max_drift < 1e-6


def test_drift_sees_a_wrong_norm() -> None:
    """A norm that is off by 1% is reported as 1%, by `drift` and by the next refresh."""
    training = start(refresh_every=5)
    training.step(5)
    assert training.layer._state is not None
    training.layer._state.square[3] *= 1.01**2
    assert training.layer.drift() == pytest.approx(0.01, rel=1e-3)
    training.step()
    assert training.layer.norm_statistics.max_drift == pytest.approx(0.01, rel=1e-3)
    assert training.error() < 1e-6


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_weights(name: str) -> None:
    """By default their norms are computed at every step. Inferred on request they are off by the
    weights' rounding, here by less than a unit roundoff a step, and the state is fp32.
    """
    dtype = getattr(torch, name)
    exact = start(dtype, lr=0.05)
    exact.step(10)
    assert exact.error() < 4 * torch.finfo(dtype).eps  # the output's own rounding
    assert exact.layer.drift() < 1e-6
    assert exact.layer.norm_statistics.recomputed["half-precision weight"] == 10
    inferred = start(dtype, lr=0.05, infer_half=True)
    inferred.step(10)
    assert inferred.layer.norm_statistics.inferred == 10
    assert inferred.layer.inferred_norms.dtype == torch.float32
    assert 0 < inferred.layer.drift() < 10 * torch.finfo(dtype).eps / 2


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


# --- as a module ----------------------------------------------------------------------------------


def test_copies_start_afresh() -> None:
    """Deep copies, pickles and loaded layers share no state, and give the same output."""
    training = start()
    training.step(3)
    layer = training.layer
    x = training.batch()
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.norm_statistics.inferred == 0
        torch.testing.assert_close(other(x), expected)
        other.weight_v.data.mul_(2.0)
    loaded = FastNormLinear(K, N)
    assert list(layer.state_dict()) == ["weight_g", "weight_v", "bias"]
    loaded.load_state_dict(layer.state_dict())
    torch.testing.assert_close(loaded(x), expected)
    training.step(2)
    assert layer.norm_statistics.inferred == 5
    assert training.error() < 1e-6


def test_removed_hooks_infer_nothing() -> None:
    """After remove() every step is answered by computing the norms."""
    torch.manual_seed(5)
    layer = FastNormLinear(K, N)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    handle = attach_fastnorm(optimizer, layer)
    training = Training(layer, optimizer, torch.Generator().manual_seed(6))
    training.step(2)
    assert handle.layers == (layer,)
    handle.remove()
    training.step(3)
    assert layer.norm_statistics.inferred == 2
    assert training.error() < 1e-6
    assert layer.norm_statistics.recomputed["weight changed"] == 3


def test_unattached_norms_are_kept_while_nothing_changes() -> None:
    """Ten forward passes of a layer compute its norms once."""
    layer = FastNormLinear(K, N)
    for _ in range(10):
        layer(torch.randn(3, K))
    assert layer.norm_statistics.recomputed == {"first use": 1}


def test_what_cannot_be_attached_is_refused() -> None:
    """A model without such a layer, an optimizer of other weights, a period below 1."""
    layer = FastNormLinear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"Linear\) contains no FastNormLinear"):
        attach_fastnorm(optimizer, nn.Linear(3, 2))
    with pytest.raises(ValueError, match="make it from model"):
        attach_fastnorm(torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1), layer)
    with pytest.raises(ValueError, match="at least 1"):
        attach_fastnorm(optimizer, layer, refresh_every=0)


# --- training -------------------------------------------------------------------------------------


class _Naive(WeightNormLinear):
    """The textbook formula as people write it, on the same parameters."""

    def forward(self, input: Tensor) -> Tensor:
        return reference.naive(input, self.weight_v, self.weight_g, self.bias)


def _train(kind: type[WeightNormLinear], lr_of_v: float, steps: int = 60) -> list[float]:
    """The losses of a regression; v's rate is apart, for g and bias know no safe large one."""
    torch.manual_seed(11)
    model = nn.Sequential(kind(20, 32), nn.Tanh(), kind(32, 1))
    directions = [m.weight_v for m in model if isinstance(m, WeightNormLinear)]
    others = [p for p in model.parameters() if all(p is not v for v in directions)]
    optimizer = torch.optim.SGD(
        [{"params": directions, "lr": lr_of_v}, {"params": others}], lr=0.05
    )
    if kind is FastNormLinear:
        attach_fastnorm(optimizer, model)
    x = torch.randn(16, 20)
    target = x[:, :1] * x[:, 1:2]
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_reaches_the_same_loss() -> None:
    """From the same seed, FastNorm's losses are those of computed norms at every step, to 1e-4 or a
    few roundings of the first loss.
    """
    fast, plain = (_train(kind, 0.05) for kind in (FastNormLinear, WeightNormLinear))
    assert fast == pytest.approx(plain, rel=1e-4, abs=1e-6)
    assert fast[-1] < 0.5 * fast[0]


def test_large_learning_rates() -> None:
    """At a rate for v of 1e21 the first step makes rows whose squares overflow fp32: the naive
    formula's weights are zero from then on, FastNorm's losses stay those of fp64's formula in kind.
    """
    fast, naive = _train(FastNormLinear, 1e21), _train(_Naive, 1e21)
    plain = _train(WeightNormLinear, 1e21)
    assert all(value < 10 for value in fast)
    assert fast == pytest.approx(plain, rel=1e-3)
    assert fast[-1] < 0.5 * naive[-1] or not naive[-1] < float("inf")
