"""The toy catalog with sizes to time, and one path that launches a Triton kernel."""

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.operation import ALL_CLAIMS, Path, Regime
from harness.timing.workload import Size, Workload
from suites.selftest.toy import FRAGILE, HONEST, RAISING, TOY, _signs


@triton.jit
def _copy(source, target, count, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    tl.store(target + offsets, tl.load(source + offsets, inside), inside)


def _launched(input: Tensor) -> Tensor:
    target = torch.empty_like(input)
    _copy[(triton.cdiv(input.numel(), 64),)](input, target, input.numel(), BLOCK=64)
    return target


NAIVE = Path("naive", lambda input: (input + 1.0) - 1.0)
LAUNCHED = Path("launched", _launched, claims=ALL_CLAIMS)

SIZED = replace(
    TOY,
    regimes=(Regime("normal", "plus, minus", _signs), *TOY.regimes),
    paths=(RAISING, NAIVE, HONEST, LAUNCHED, FRAGILE),
)
OPERATIONS = (SIZED,)
speed_workloads = {
    "toy": Workload(
        cuda=(Size(4096, 1024, "quick"), Size(64, 32), Size(8, 8, "full")),
        cpu=(Size(64, 32, "quick"), Size(16, 8), Size(8, 8, "full")),
        slice=(("constant", 1e4), ("signs", 1.0), ("absent", 1.0)),
    )
}
