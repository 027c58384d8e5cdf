"""What both norms promise beside accuracy: non-finite rows, dtypes, layouts, errors, derivatives of
any order, transforms, repeatability, and that each guard is needed.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl

import kernels
from kernels import launch
from suites.conformance import exact_norms

Draw = Callable[..., torch.Tensor]
Norm = Callable[..., torch.Tensor]
OURS: dict[str, Norm] = {"rms_norm": kernels.rms_norm, "layer_norm": kernels.layer_norm}
TORCH: dict[str, Norm] = {"rms_norm": F.rms_norm, "layer_norm": F.layer_norm}
both = pytest.mark.parametrize("name", list(OURS))


def _parameters(name: str, width: int, dtype: torch.dtype, draw: Draw) -> list[torch.Tensor]:
    """The weight and, for layer_norm, the bias."""
    return [draw(width, dtype=dtype) for _ in range(1 + (name == "layer_norm"))]


def _run(norm: Norm, x: torch.Tensor, parameters: list[torch.Tensor], g: torch.Tensor) -> list:
    leaves = [v.detach().clone().requires_grad_() for v in (x, *parameters)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of infinities that are meant
        y = norm(leaves[0], x.shape[-1:], *leaves[1:], eps=1e-5)
        return [y.detach(), *torch.autograd.grad(y, leaves, g.to(y.dtype))]


@both
@pytest.mark.usefixtures("small_tiles", "route")
def test_non_finite_rows(name: str, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """A NaN or an infinity, in x or upstream, in the first block or a later one, spoils what it
    spoils in torch, and no other row.
    """
    x, g = draw(7, 130, dtype=dtype), draw(7, 130, dtype=dtype)
    x[0, 3], x[1, 3], x[2, 100] = math.nan, math.inf, -math.inf
    g[3, 3], g[4, 100] = math.nan, math.inf
    parameters = _parameters(name, 130, dtype, draw)
    ours = _run(OURS[name], x, parameters, g)
    theirs = _run(TORCH[name], x.double(), [p.double() for p in parameters], g)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, equal_nan=True, rtol=2e-2, atol=2e-2)


@both
@pytest.mark.usefixtures("route")
def test_wider_parameters(name: str, draw: Draw) -> None:
    """fp32 parameters beside half-precision inputs: the result in the input's dtype, and each
    gradient in its parameter's, all as accurate as ever.
    """
    for dtype in (torch.float16, torch.bfloat16):
        x, g = draw(4, 70, dtype=dtype), draw(4, 70, dtype=dtype)
        weight, *rest = _parameters(name, 70, torch.float32, draw)
        centred = name == "layer_norm"
        exact_norms.check(x, weight, rest[0] if rest else None, g, centred=centred)
        found = exact_norms.run(x, weight, rest[0] if rest else None, g, 1e-5, centred=centred)
        assert found["y"].dtype == found["x"].dtype == dtype
        assert found["weight"].dtype == torch.float32


@both
@pytest.mark.usefixtures("route")
def test_shapes_and_layouts(name: str, draw: Draw) -> None:
    """Any normalized_shape, views, broadcast inputs and upstream, and empty tensors are torch's."""
    base = draw(2, 3, 70, dtype=torch.float64)
    for x in (base.transpose(0, 2), base[:, :, ::3], base[:, :1].expand(2, 3, 70)):
        for n_dims in (1, 2, 3):
            shape = x.shape[-n_dims:]
            x = x.detach().requires_grad_()
            weight = draw(*shape, dtype=torch.float64).requires_grad_()
            upstream = draw(1, dtype=torch.float64).expand(x.shape)
            found = []
            for norm in (OURS[name], TORCH[name]):
                y = norm(x, shape, weight, eps=1e-5)
                found.append([y, *torch.autograd.grad(y, [x, weight], upstream)])
            torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)
    for shape in ((0, 4), (4, 0), (0, 0)):
        assert OURS[name](torch.zeros(shape), shape[1:]).shape == shape


@both
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"normalized_shape": ()}, ValueError, r"got \(\) for an input of shape \(3, 4\)"),
        ({"normalized_shape": (3,)}, ValueError, r"got \(3,\)"),
        ({"normalized_shape": 4}, TypeError, "got 4"),
        ({"weight": torch.ones(3)}, ValueError, r"weight must be of shape \(4,\).*got \(3,\)"),
        ({"weight": torch.ones(4, dtype=torch.float64)}, TypeError, "got torch.float64"),
        ({"eps": -1.0}, ValueError, "got -1.0"),
        ({"eps": math.nan}, ValueError, "got nan"),
        ({"input": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, "int32"),
    ],
)
def test_errors_restate_the_input(
    name: str, change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises the documented error with the offending value in the message."""
    given = {"input": torch.zeros(3, 4), "normalized_shape": (4,)} | change
    with pytest.raises(error, match=words):
        OURS[name](**given)


@both
@pytest.mark.usefixtures("small_tiles")
def test_bitwise_the_same_twice(name: str, dtype: torch.dtype, draw: Draw) -> None:
    """Values and all gradients repeat to the bit, and inputs keep theirs."""
    x, g = draw(13, 70, dtype=dtype), draw(13, 70, dtype=dtype)
    parameters = _parameters(name, 70, dtype, draw)
    before = [v.clone() for v in (x, *parameters)]
    first, second = (_run(OURS[name], x, parameters, g) for _ in range(2))
    for a, b in zip([*first, *before], [*second, x, *parameters], strict=True):
        assert torch.equal(a, b)


@pytest.mark.full  # the sample maps every operation once, in test_derivatives
@both
@pytest.mark.usefixtures("route")
def test_transforms(name: str, draw: Draw) -> None:
    """vmap with shared and with mapped parameters, gradients of each sample, grad over vmap."""
    x = draw(3, 2, 4, dtype=torch.float64)
    shared = _parameters(name, 4, torch.float64, draw)
    mapped = [torch.stack([p, 2 * p, -p]) for p in shared]
    found = []
    for norm in (OURS[name], TORCH[name]):

        def call(x: torch.Tensor, *rest: torch.Tensor, norm: Norm = norm) -> torch.Tensor:
            return norm(x, (4,), *rest, eps=1e-5)

        def total(*inputs: torch.Tensor, call: Norm = call) -> torch.Tensor:
            return call(*inputs).pow(3).sum()

        every = tuple(range(1 + len(shared)))
        none = (None,) * len(shared)
        vmap, grad = torch.func.vmap, torch.func.grad
        mapped_total = vmap(total, in_dims=(0, *none))

        def over(*inputs: torch.Tensor, mapped_total: Norm = mapped_total) -> torch.Tensor:
            return mapped_total(*inputs).sum()

        found.append(
            [
                vmap(call, in_dims=(0, *none))(x, *shared),
                vmap(call)(x, *mapped),
                vmap(grad(total, argnums=every), in_dims=(0, *none))(x, *shared),
                vmap(grad(total, argnums=every))(x, *mapped),
                grad(over, argnums=every)(x, *shared),
            ]
        )
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


# --- guards ---------------------------------------------------------------------------------------

norms = importlib.import_module("kernels.norms")


@triton.jit
def _no_scale(x):
    return (tl.max(x, axis=1) * 0.0).to(tl.int32)


@triton.jit
def _plain_kahan(total, lost, value):
    value = value - lost
    new = total + value
    return new, (new - total) - value


def _large_rows() -> bool:
    y = kernels.rms_norm(torch.full((1, 130), 1e30).bfloat16(), (130,), eps=0.0)
    return torch.equal(y, torch.ones_like(y))


def _infinite_rows() -> bool:
    x = torch.ones(1, 130)
    x[0, 3] = math.inf
    return kernels.rms_norm(x, (130,))[0, 100].item() == 0.0


@pytest.mark.skipif(not launch.INTERPRETED, reason="a compiled kernel has its guards built in")
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("guard", "replacement", "holds"),
    [
        ("row_exponent", _no_scale, _large_rows),
        ("accumulate", _plain_kahan, _infinite_rows),
    ],
    ids=["row_exponent", "accumulate"],
)
def test_guard_is_needed(
    guard: str, replacement: object, holds: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The property holds, and no longer does once the guard is replaced by what people write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what the guard prevents
        assert holds()
        monkeypatch.setattr(norms, guard, replacement)
        assert not holds()
