"""The elementary functions keep their error bounds over the whole range, on the device that runs
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl

from kernels import convert, elementary
from suites.conformance import exact

WIDE = {"fp32": torch.float32, "fp64": torch.float64}


@triton.jit
def _unary_kernel(x, out, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < n, other=1.0)
    if FUNCTION == "log1p":
        value = elementary.log1p(value)
    elif FUNCTION == "log":
        value = elementary.log(value)
    elif FUNCTION == "scale":
        value = value * elementary.power_of_two(-elementary.exponent_of(value), value.dtype)
    tl.store(out + index, value, mask=index < n)


@triton.jit
def _difference_kernel(x, reference, out, n, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < n, other=0.0)
    other = tl.load(reference + index, mask=index < n, other=0.0)
    tl.store(out + index, elementary.exp_difference(value, other), mask=index < n)


@triton.jit
def _times_kernel(x, exponent, out, n, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < n, other=0.0)
    shift = tl.load(exponent + index, mask=index < n, other=0)
    tl.store(out + index, elementary.times_power_of_two(value, shift), mask=index < n)


@triton.jit
def _convert_kernel(x, out, n, WIDEN: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + index, mask=index < n, other=0.0)
    if WIDEN:
        value = convert.widen(value, out.dtype.element_ty)
    else:
        value = convert.narrow(value, out.dtype.element_ty)
    tl.store(out + index, value, mask=index < n)


def _unary(function: str, x: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(x, math.nan)
    _unary_kernel[(triton.cdiv(x.numel(), 1024),)](x, out, x.numel(), function, 1024)
    return out


def _difference(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(x, math.nan)
    _difference_kernel[(triton.cdiv(x.numel(), 1024),)](x, reference, out, x.numel(), 1024)
    return out


def _positive(dtype: torch.dtype, device: torch.device, n: int = 8000) -> torch.Tensor:
    """Random bit patterns of finite positive floats: every exponent alike, subnormals included."""
    generator = torch.Generator().manual_seed(3)
    integer = torch.int32 if dtype == torch.float32 else torch.int64
    last = torch.tensor(torch.finfo(dtype).max, dtype=dtype).view(integer).item()
    bits = torch.randint(1, int(last), (n,), generator=generator, dtype=integer)
    return bits.view(dtype).to(device)


# Bounds in ULP. log1p and log: half an ULP for the last addition, as much again for what enters it.
# exp_difference: the same, and in fp64 the library's own error and one more rounding.
@pytest.mark.parametrize("name", list(WIDE))
def test_log1p_over_the_whole_range(name: str, device: torch.device) -> None:
    """log1p is within 1 ULP from the smallest subnormal to the largest finite value."""
    info = torch.finfo(WIDE[name])
    # The branch point (sqrt(2) - 1) and the points where 1 + x changes its exponent, with
    # neighbours.
    edges = torch.tensor(
        [0.0, info.smallest_normal, info.tiny, info.eps, 0.41421, 0.41422, 1.0, 3.0, info.max],
        dtype=WIDE[name],
    )
    edges = torch.cat(
        [edges, edges.nextafter(torch.zeros(())), edges[:-1].nextafter(torch.ones(()))]
    )
    middle = torch.logspace(-9, 9, 4000, dtype=torch.float64).to(WIDE[name])
    x = torch.cat([edges.to(device), middle.to(device), _positive(WIDE[name], device)])
    assert exact.max_ulps(_unary("log1p", x), exact.elementwise("log1p", x)) <= 1.0


@pytest.mark.parametrize("name", list(WIDE))
def test_log_near_one_and_far(name: str, device: torch.device) -> None:
    """log is within 1 ULP over all normal positive floats, and next to 1, where it vanishes."""
    near = 1 + torch.linspace(-0.5, 0.5, 2001, dtype=torch.float64).pow(3)
    x = torch.cat([near.to(WIDE[name]).to(device), _positive(WIDE[name], device)])
    x = x[x >= torch.finfo(WIDE[name]).smallest_normal]
    assert exact.max_ulps(_unary("log", x), exact.elementwise("log", x)) <= 1.0


@pytest.mark.parametrize("name", list(WIDE))
def test_exp_difference_recovers_the_subtraction(
    name: str, device: torch.device, draw: Callable[..., torch.Tensor]
) -> None:
    """exp(x - m) is within 1.5 ULP of the exact difference's exponential, subnormal results
    included.

    Offsets up to 1e6 make x - m round by many times the unit roundoff; without the correction the
    error there would be thousands of ULP.
    """
    parts_x, parts_m = [], []
    for offset in (0.0, 1.0, 90.0, 1e4, 1e6):
        m = draw(1500, dtype=WIDE[name]) + offset
        gap = torch.linspace(0, 110 if name == "fp32" else 750, 1500, dtype=torch.float64)
        parts_m.append(m)
        parts_x.append((m.double() - gap.to(device)).to(WIDE[name]))
    x, m = torch.cat(parts_x), torch.cat(parts_m)
    x = torch.minimum(x, m)
    truth = exact.exp_difference(x, m)
    assert exact.max_ulps(_difference(x, m), truth) <= 1.5


@pytest.mark.parametrize("name", list(WIDE))
def test_exp_difference_at_the_ends(name: str, device: torch.device) -> None:
    """-inf, and a difference that overflows, give 0; equal arguments 1; NaN stays NaN."""
    largest = torch.finfo(WIDE[name]).max
    place = {"dtype": WIDE[name], "device": device}
    x = torch.tensor([-math.inf, -largest, -largest, 5.0, largest, math.nan], **place)
    m = torch.tensor([1.0, largest, -largest, 5.0, largest, 0.0], **place)
    out = _difference(x, m).tolist()
    assert out[:5] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert math.isnan(out[5])


@pytest.mark.parametrize("name", list(WIDE))
def test_scaling_by_the_exponent_is_exact(name: str, device: torch.device) -> None:
    """x / 2**k is within [1, 4) for every normal x, bitwise what ldexp gives; subnormals stay below
    1.
    """
    x = _positive(WIDE[name], device)
    out = _unary("scale", x)
    info = torch.finfo(WIDE[name])
    normal = x >= info.smallest_normal
    assert bool(((out >= 1) & (out < 4))[normal].all())
    assert bool((out < 1)[~normal].all())
    ratio = torch.frexp(out).mantissa
    assert torch.equal(ratio, torch.frexp(x).mantissa)


def test_times_power_of_two_rounds_once(device: torch.device) -> None:
    """value * 2**k is right where 2**k itself is no fp32 number, and a subnormal result is rounded
    once.
    """
    x = torch.tensor([1.5, 1.9999999, 2.0**-100, 2.0**100], device=device)
    k = torch.tensor([-149, -140, 220, -240], dtype=torch.int32, device=device)
    out = torch.empty_like(x)
    _times_kernel[(1,)](x, k, out, 4, 4)
    truth = torch.tensor([math.ldexp(v, e) for v, e in zip(x.tolist(), k.tolist(), strict=True)])
    assert torch.equal(out.cpu(), truth)


# All 65536 bit patterns: nothing is left to chance, subnormals and NaN payloads included.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_widening_is_exact(dtype: torch.dtype, device: torch.device) -> None:
    """Every half-precision value arrives in fp32 unchanged."""
    x = torch.arange(-32768, 32768, dtype=torch.int16).view(dtype).to(device)
    out = torch.empty(x.shape, device=device)
    _convert_kernel[(64,)](x, out, x.numel(), True, 1024)
    assert torch.equal(out.isnan(), x.isnan())
    assert torch.equal(out.nan_to_num(0.5), x.float().nan_to_num(0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_narrowing_rounds_to_nearest_even(dtype: torch.dtype, device: torch.device) -> None:
    """Values, ties between values, overflow and NaN come out as PyTorch's conversion gives them."""
    values = torch.arange(-32768, 32767, dtype=torch.int16).view(dtype).float()
    ties = (values.double() + values.roll(1).double()) / 2
    random = torch.randint(
        -(2**31), 2**31 - 1, (60000,), generator=torch.Generator().manual_seed(1)
    )
    largest = torch.finfo(dtype).max
    overflow = torch.tensor([65519.99, 65520.0, -65520.0, largest * 1.001, -math.inf, math.nan])
    x = torch.cat([values, ties.float(), random.to(torch.int32).view(torch.float32), overflow]).to(
        device
    )
    out = torch.empty(x.shape, dtype=dtype, device=device)
    _convert_kernel[(triton.cdiv(x.numel(), 1024),)](x, out, x.numel(), False, 1024)
    expected = x.to(dtype)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.nan_to_num(0.5), expected.nan_to_num(0.5))
