"""Weight-normalised linear layer: accuracy, gradients and second derivatives against fp64, rows of
any size, transforms, autocast, the state dict.
"""

from __future__ import annotations

import copy
import importlib
import math
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch

from kernels import launch
from kernels.weight_norm import WeightNormLinear, reference
from kernels.weight_norm.fused import project, row_squares, update_row_squares
from kernels.weight_norm.linear import COMPILES, exact_norms

Draw = Callable[..., torch.Tensor]


def make(
    draw: Draw, dtype: torch.dtype, n: int = 7, k: int = 130, size: float = 1.0
) -> WeightNormLinear:
    """A layer with normally distributed v (times size), g and bias."""
    layer = WeightNormLinear(k, n, device=draw(1, dtype=dtype).device, dtype=dtype)
    with torch.no_grad():
        layer.weight_v.copy_(draw(n, k, dtype=dtype, scale=size))
        layer.weight_g.copy_(draw(n, 1, dtype=dtype))
        assert layer.bias is not None
        layer.bias.copy_(draw(n, dtype=dtype))
    return layer


def truth(
    layer: WeightNormLinear, x: torch.Tensor, upstream: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The textbook formula and its gradients (x, v, g, bias) by autograd in fp64.

    Rows of v are first divided by their largest element, which the direction does not feel; the
    gradient of v is divided by it afterwards, so that fp64's range suffices for every dtype.
    """
    v, g, bias = (p.detach().double().cpu() for p in (layer.weight_v, layer.weight_g, layer.bias))
    largest = v.abs().amax(dim=1, keepdim=True)
    inputs = [x.detach().double().cpu(), v / largest, g, bias]
    for each in inputs:
        each.requires_grad_()
    y = reference.textbook(*inputs)
    gradients = list(torch.autograd.grad(y, inputs, upstream.double().cpu()))
    gradients[1] = gradients[1] / largest
    return y.detach(), gradients


def check(layer: WeightNormLinear, x: torch.Tensor, upstream: torch.Tensor) -> None:
    """Output and gradients within 2 ULP and 4 sqrt(K) u of what Cauchy and Schwarz allow the terms.

    The sums of K terms are a matrix product's, whose order is the library's; sums over the batch
    and over the rows are shorter. fp64's truth is computed in fp64 and bears the same error.
    """
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(upstream)
    true_y, true_gradients = truth(layer, x, upstream)
    statistics = launch.statistics_dtype(x.dtype)
    u = torch.finfo(statistics).eps / 2
    unit = torch.finfo(x.dtype).eps
    k = 4 * math.sqrt(max(x.shape[-1], x.shape[0], layer.out_features)) * u
    rows = x.detach().double().cpu().norm(dim=-1, keepdim=True)
    g = layer.weight_g.detach().double().cpu()[:, 0]
    given = upstream.double().cpu()
    norms = layer.weight_v.detach().double().cpu()
    norms = (norms / norms.abs().amax(1, keepdim=True)).norm(dim=1) * norms.abs().amax(1)
    terms_y = rows * g.abs() + layer.bias.detach().double().cpu().abs()
    terms_x = (given.abs() @ g.abs()[:, None]).expand_as(true_gradients[0])
    sent = (given.abs() * rows).sum(dim=0)
    terms_v = (sent * g.abs() / norms)[:, None].expand_as(true_gradients[1])
    pairs = [
        (y, true_y, terms_y),
        (x.grad, true_gradients[0], terms_x),
        (layer.weight_v.grad, true_gradients[1], terms_v),
        (layer.weight_g.grad, true_gradients[2], sent[:, None]),
        (layer.bias.grad, true_gradients[3], given.abs().sum(dim=0)),
    ]
    # On a GPU the products take half-precision operands: one more rounding of each factor.
    coarse = unit if x.is_cuda and x.dtype != statistics else 0.0
    smallest = torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    for actual, true, terms in pairs:
        assert actual is not None
        error = (actual.detach().double().cpu() - true).abs()
        allowed = 2 * unit * true.abs() + (k + coarse) * terms + 2 * smallest
        assert bool((error <= allowed).all()), float((error / allowed).max())
    for parameter in layer.parameters():
        parameter.grad = None


# One element; a tile's width and one more; an odd width over several tiles; batches of one row and
# of more rows than columns.
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (3, 64), (2, 129), (40, 7)])
@pytest.mark.usefixtures("small_tiles", "route")
def test_output_and_gradients(batch: int, k: int, dtype: torch.dtype, draw: Draw) -> None:
    """y, dx, dv, dg and dbias agree with fp64 autograd of the textbook formula."""
    layer = make(draw, dtype, k=k)
    check(layer, draw(batch, k, dtype=dtype), draw(batch, 7, dtype=dtype))


# Sizes from near the smallest normal number to a few below the largest, where every squared norm
# has long overflowed (300 in fp16) or vanished.
SIZES = {
    torch.float16: [1e-3, 300.0, 2e4],
    torch.bfloat16: [1e-30, 1e30, 1e37],
    torch.float32: [1e-37, 1e-30, 1e30, 1e37],
    torch.float64: [1e-300, 1e300],
}


@pytest.mark.usefixtures("small_tiles", "route")
def test_rows_of_any_size(dtype: torch.dtype, draw: Draw) -> None:
    """The direction does not feel the size of v, nor do the gradients but by its inverse."""
    for size in SIZES[dtype]:
        layer = make(draw, dtype, size=size)
        layer.weight_v.data.clamp_(-torch.finfo(dtype).max, torch.finfo(dtype).max)
        # An upstream gradient in proportion to v keeps the gradient of v near 1.
        upstream = draw(4, 7, dtype=torch.float64) * min(
            size, 1e3 if dtype == torch.float16 else size
        )
        small_g = min(1.0, 1 / size) if dtype != torch.float16 else 1.0
        with torch.no_grad():
            layer.weight_g.mul_(small_g)
        check(layer, draw(4, 130, dtype=dtype), upstream.to(dtype))


@pytest.mark.usefixtures("small_tiles", "route")
def test_rows_of_different_sizes(draw: Draw) -> None:
    """Rows of one layer 2**80 apart in size are each accurate."""
    layer = make(draw, torch.float32)
    with torch.no_grad():
        layer.weight_v.mul_(
            2.0 ** torch.linspace(-40, 40, 7, device=layer.weight_v.device)[:, None]
        )
    check(layer, draw(4, 130, dtype=torch.float32), draw(4, 7, dtype=torch.float32))


@pytest.mark.usefixtures("small_tiles", "route")
def test_large_inputs(draw: Draw) -> None:
    """Inputs and weights near 1e37 do not overflow on the way to a finite output."""
    layer = make(draw, torch.float32, size=1e37)
    with torch.no_grad():
        layer.weight_g.mul_(1e-3)
    check(layer, draw(4, 130, dtype=torch.float32) * 1e37, draw(4, 7, dtype=torch.float32))


@pytest.mark.usefixtures("small_tiles", "route")
def test_zero_rows(dtype: torch.dtype, draw: Draw) -> None:
    """A zero row gives the bias and, by policy, gradient zero; its neighbours are untouched."""
    layer = make(draw, dtype)
    with torch.no_grad():
        layer.weight_v[2].zero_()
    x = draw(4, 130, dtype=dtype).requires_grad_()
    y = layer(x)
    assert torch.equal(y[:, 2], layer.bias[2].expand(4))
    y.sum().backward()
    assert not layer.weight_v.grad[2].any()
    assert not layer.weight_g.grad[2].any()
    kept = [0, 1, 3, 4, 5, 6]
    other = copy.deepcopy(layer)
    other.weight_v.data[2] = 1.0
    assert torch.equal(other(x)[:, kept], y[:, kept])
    assert all(bool(torch.isfinite(p.grad).all()) for p in (*layer.parameters(), x))


@pytest.mark.usefixtures("small_tiles", "route")
def test_nonfinite_rows_stay_alone(draw: Draw) -> None:
    """A NaN or an infinity in a row of v makes that output NaN, no other; likewise a row of x."""
    layer = make(draw, torch.float32)
    x = draw(4, 130, dtype=torch.float32)
    clean = layer(x).detach()
    for value in (math.nan, math.inf):
        with torch.no_grad():
            kept = layer.weight_v[3, 5].clone()
            layer.weight_v[3, 5] = value
            y = layer(x)
            layer.weight_v[3, 5] = kept
        assert bool(y[:, 3].isnan().all())
        rest = [0, 1, 2, 4, 5, 6]
        torch.testing.assert_close(y[:, rest], clean[:, rest], rtol=1e-6, atol=1e-6)
        bad = x.clone()
        bad[1, 7] = value
        y = layer(bad).detach()
        assert not bool(torch.isfinite(y[1]).any())
        torch.testing.assert_close(y[[0, 2, 3]], clean[[0, 2, 3]], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("route")
def test_only_selected_rows_are_computed(draw: Draw) -> None:
    """Rows that are not selected keep what they held, and are not read."""
    v = draw(6, 50, dtype=torch.float32)
    exponent, square = row_squares(v)
    spoilt = v.clone()
    spoilt[4] = math.nan
    held_exponent, held = torch.full_like(exponent, 3), torch.full_like(square, 5.0)
    selected = torch.tensor([True, False, True, False, False, True], device=v.device)
    update_row_squares(spoilt, selected, held_exponent, held)
    assert torch.equal(held, torch.where(selected, square, 5.0))
    assert torch.equal(held_exponent, torch.where(selected, exponent, 3))


@pytest.mark.usefixtures("small_tiles", "route")
def test_norms(dtype: torch.dtype, draw: Draw) -> None:
    """Row norms are right to 4 roundings of their dtype over the whole range."""
    info = torch.finfo(dtype)
    scales = [info.smallest_normal, 1.0, info.max / 32]
    v = torch.cat([draw(3, 200, dtype=torch.float64).clamp(-3, 3) * s for s in scales]).to(dtype)
    largest = v.double().abs().amax(dim=1, keepdim=True)
    true = (v.double() / largest).norm(dim=1) * largest[:, 0]
    error = (exact_norms(v).double() / true - 1).abs().max()
    assert error <= 4 * torch.finfo(launch.statistics_dtype(dtype)).eps


# --- derivatives, transforms ----------------------------------------------------------------------


def _function(
    x: torch.Tensor, v: torch.Tensor, g: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The layer as a function of everything it depends on."""
    arguments = {"weight_v": v, "weight_g": g, "bias": bias}
    return torch.func.functional_call(_LAYER, arguments, (x,))


_LAYER = WeightNormLinear(5, 4, dtype=torch.float64)


def _arguments(draw: Draw) -> tuple[torch.Tensor, ...]:
    shapes = [(3, 5), (4, 5), (4, 1), (4,)]
    return tuple(draw(*shape, dtype=torch.float64).requires_grad_() for shape in shapes)


@pytest.mark.usefixtures("route")
def test_first_and_second_derivatives(draw: Draw) -> None:
    """Finite differences in fp64 confirm the gradient and the gradient's gradient."""
    arguments = _arguments(draw)
    # fast_mode: along one random direction, where an interpreted launch costs 20 ms.
    assert torch.autograd.gradcheck(
        _function, arguments, fast_mode=launch.uses_triton(arguments[0])
    )
    assert torch.autograd.gradgradcheck(
        _function, arguments, fast_mode=launch.uses_triton(arguments[0])
    )


@pytest.mark.usefixtures("route")
def test_function_transforms(draw: Draw) -> None:
    """grad, and vmap over weights with grad inside, agree with autograd one by one."""
    x, *parameters = (t.detach() for t in _arguments(draw))

    def loss(v: torch.Tensor) -> torch.Tensor:
        return _function(x, v, *parameters[1:]).square().sum()

    stack = torch.stack([parameters[0], parameters[0].flip(0) * 2])
    together = torch.func.vmap(torch.func.grad(loss))(stack)
    for v, found in zip(stack, together, strict=True):
        v = v.clone().requires_grad_()
        loss(v).backward()
        torch.testing.assert_close(found, v.grad)
        torch.testing.assert_close(torch.func.grad(loss)(v.detach()), v.grad)


@pytest.mark.usefixtures("route")
def test_the_registered_operators(draw: Draw) -> None:
    """torch.library.opcheck finds schema, fake tensors and dispatch in order."""
    v = draw(4, 9, dtype=torch.float32)
    torch.library.opcheck(row_squares, (v,))
    exponent, square = row_squares(v)
    torch.library.opcheck(project, (v * 2, v, exponent, square, exponent, True))


def test_the_formula_is_the_kernel(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """The projection's PyTorch formula and kernel agree, squares included."""
    u, v = (draw(6, 150, dtype=torch.float32) for _ in range(2))
    exponent, square = row_squares(v)
    arguments = (u, v, exponent, square.sqrt() / 7, exponent * 3 - 2, True)
    kernel = project(*arguments)
    monkeypatch.setattr(launch, "uses_triton", lambda tensor: False)
    for a, b in zip(kernel, project(*arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.full
@pytest.mark.skipif(
    not COMPILES, reason="torch before 2.13 compiles the gradients to zero; refused"
)
def test_compiles_whole(draw: Draw) -> None:
    """torch.compile traces the layer and its backward without a graph break."""
    layer = make(draw, torch.float32)
    x = draw(4, 130, dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile itself uses what torch has deprecated
        compiled(x).square().sum().backward()
    found = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for a, p in zip(found, layer.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


# --- as a module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_autocast(name: str, draw: Draw) -> None:
    """Under autocast the output is in its dtype and right to its rounding, also for a v beyond it;
    gradients come in the parameters' dtype.
    """
    half = getattr(torch, name)
    layer = make(draw, torch.float32, size=1e6)
    x = draw(4, 130, dtype=torch.float32)
    with torch.autocast(x.device.type, half):
        y = layer(x)
    assert y.dtype == half
    y.float().square().sum().backward()
    true, _ = truth(layer, x, torch.ones(4, 7))
    terms = x.double().cpu().norm(dim=1, keepdim=True) * layer.weight_g.double().cpu()[:, 0].abs()
    error = (y.detach().double().cpu() - true).abs() / (true.abs() + terms)
    assert error.max() < 2 * torch.finfo(half).eps
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_starts_as_linear_does() -> None:
    """From the same seed the effective weight and the bias are nn.Linear's."""
    torch.manual_seed(3)
    linear = torch.nn.Linear(20, 6)
    torch.manual_seed(3)
    ours = WeightNormLinear(20, 6)
    torch.testing.assert_close(ours.weight, linear.weight.detach(), rtol=1e-6, atol=1e-7)
    assert torch.equal(ours.bias, linear.bias)
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(ours(x), linear(x), rtol=1e-5, atol=1e-6)


def test_the_state_dict_is_torchs() -> None:
    """torch.nn.utils.weight_norm's parameters load as they are and give its output."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        theirs = torch.nn.utils.weight_norm(torch.nn.Linear(9, 4))
    ours = WeightNormLinear(9, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(x), ours(x))
    torch.testing.assert_close(
        copy.deepcopy(ours).double()(x.double()), ours(x).double(), rtol=1e-6, atol=1e-6
    )


def test_errors_restate_the_input() -> None:
    """A wrong width or dtype is refused, with what was given."""
    layer = WeightNormLinear(9, 4)
    with pytest.raises(ValueError, match=r"9 features .* \(2, 8\)"):
        layer(torch.randn(2, 8))
    with pytest.raises(TypeError, match=r"float64 .*float32"):
        layer(torch.randn(2, 9, dtype=torch.float64))
    with pytest.raises(TypeError, match="int"):
        WeightNormLinear(9, 4, dtype=torch.int32)


def test_empty_batches() -> None:
    """No rows give no rows, and gradients of zero."""
    layer = WeightNormLinear(9, 4)
    y = layer(torch.empty(0, 9))
    assert y.shape == (0, 4)
    y.sum().backward()
    assert not layer.weight_v.grad.any()


# Every formula of the reference.
@pytest.mark.parametrize("name", ["naive", "textbook", "torch_native"])
def test_the_references_break_where_they_say(name: str) -> None:
    """At 1e20 in fp32 the squares overflow and the weight is zero or NaN; ours is 1/8."""
    formula = getattr(importlib.import_module("kernels.weight_norm.reference"), name)
    x, v, g = torch.ones(1, 64), torch.full((1, 64), 1e20), torch.ones(1, 1)
    broken = formula(x, v, g)
    assert float(broken) != 8.0
    layer = WeightNormLinear(64, 1, bias=False)
    layer.load_state_dict({"weight_v": v, "weight_g": g})
    assert layer(x).item() == pytest.approx(8.0, rel=1e-6)
