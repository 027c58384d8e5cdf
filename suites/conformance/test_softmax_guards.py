"""Each guard of softmax's kernels is needed: switched off, the property that it keeps is lost.

Guards are replaced in the module's namespace, which the interpreter reads at each call; a GPU has
compiled them in, so these tests run where the kernels are interpreted.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl

import kernels
from kernels import launch
from suites.conformance import exact, exact_softmax

pytestmark = [
    pytest.mark.skipif(not launch.INTERPRETED, reason="a compiled kernel has its guards built in"),
    # NumPy warns of what the guards prevent.
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),
]

# By module name: as an attribute `kernels.softmax` is the user's function.
fused = importlib.import_module("kernels.softmax.fused")


@triton.jit
def _unguarded_reference(maximum):
    return maximum


@triton.jit
def _plain_exponential(x, reference, correction, BOOST: tl.constexpr, RESULT: tl.constexpr):
    return (tl.exp(x - reference) * (2.0**BOOST)).to(RESULT)


@triton.jit
def _log_of_sum(rest):
    return tl.log(1.0 + rest)


@triton.jit
def _everything_summed(x, m):
    return (x != x) & (x == m[:, None])


def _masked_first_block() -> bool:
    x = torch.zeros(1, 130)
    x[:, :64] = -math.inf
    return bool(torch.isfinite(kernels.log_softmax(x)[:, 64:]).all())


def _accurate(x: torch.Tensor, name: str) -> bool:
    truth = exact_softmax.forward(x, name == "log_softmax")
    return exact.max_ulps(getattr(kernels, name)(x), truth) <= 2.0


def _small_probabilities() -> bool:
    return _accurate(torch.tensor([[60.0, 1e-6 + 16.0 / 3, 1.0 / 3, -43.0]]), "softmax")


def _confident() -> bool:
    x = torch.zeros(1, 130)
    x[0, 5] = 40.0
    return _accurate(x, "log_softmax")


# Each guard, what stands in for it, and the check that must hold with it and fail without.
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("guard", "replacement", "holds"),
    [
        ("finite_reference", _unguarded_reference, _masked_first_block),
        ("exp_difference", _plain_exponential, _small_probabilities),
        ("log1p", _log_of_sum, _confident),
        ("is_maximum", _everything_summed, _confident),
    ],
)
def test_guard_is_needed(
    guard: str, replacement: object, holds: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The property holds, and no longer does once the guard is replaced by what people usually
    write.
    """
    assert holds()
    monkeypatch.setattr(fused, guard, replacement)
    assert not holds()
