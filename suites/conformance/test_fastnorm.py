"""FastNorm: what it infers is right, it is a module like others, and it trains."""

from __future__ import annotations

import copy
import importlib
import pickle

import pytest
import torch
from torch import Tensor, nn

from kernels.weight_norm import FastNormLinear, WeightNormLinear, attach_fastnorm, reference
from kernels.weight_norm.inference import gram_pays
from suites.conformance.fastnorm_training import K, N, Training, start

fastnorm = importlib.import_module("kernels.weight_norm.fastnorm")

pytestmark = pytest.mark.usefixtures("formula_unless_routed")

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
