"""FastNorm's own numbers: the drift of its inferred norms, and the norm's time as a layer grows.

python -m suites.training.fastnorm

Drift: the largest relative deviation of an inferred norm from the exact one over 300 steps of SGD
on a 64 x 64 layer. Time: of the exact norms of a square weight, against that of inferring them from
a step whose batch is 32; medians. The products around them cost the same in both.
"""

import statistics
import time
from collections.abc import Callable

import torch

import kernels
from kernels import launch
from kernels.weight_norm import linear

_STEPS, _BATCH, _WIDTH = 300, 32, 64
# How the drift grows between refreshes: after ten steps, a hundred, and without any.
_REFRESH = (10, 100, None)
_WIDTHS = (256, 512, 1024, 2048, 4096)
_ROUNDS = 7


def _largest_drift(dtype: torch.dtype, refresh: int | None) -> float:
    """Over all steps of a training."""
    torch.manual_seed(0)
    layer = kernels.FastNormLinear(_WIDTH, _WIDTH, dtype=dtype)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    kernels.attach_fastnorm(optimizer, layer, refresh_every=refresh, infer_half=True)
    largest = 0.0
    for _ in range(_STEPS):
        optimizer.zero_grad()
        x = torch.randn(_BATCH, _WIDTH).to(dtype)
        (layer(x).float() - 1.0).square().mean().backward()
        optimizer.step()
        largest = max(largest, layer.drift())
    return largest


def drift_rows() -> list[str]:
    """A line a dtype: the largest drift at each refresh period."""
    lines = []
    for name, dtype in (
        ("fp64", torch.float64),
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ):
        found = [_largest_drift(dtype, each) for each in _REFRESH]
        lines.append(f"| {name} | {' | '.join(f'{each:.1e}' for each in found)} |")
    return lines


def _median_seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def time_rows() -> list[str]:
    """A line a width: milliseconds for the exact norms, and for inferring them."""
    lines = []
    for width in _WIDTHS:
        v = torch.randn(width, width)
        exact = _median_seconds(lambda v=v: linear.exact_norms(v))
        lines.append(f"| {width} | {exact * 1e3:.3f} | {_inference_seconds(width) * 1e3:.3f} |")
    return lines


def _inference_seconds(width: int) -> float:
    """What the hooks after a step take, the step itself and the products left out."""
    torch.manual_seed(0)
    layer = kernels.FastNormLinear(width, width)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    kernels.attach_fastnorm(optimizer, layer, refresh_every=None)
    plain = torch.optim.SGD(torch.nn.Linear(width, width).parameters(), lr=0.01)
    for each in plain.param_groups[0]["params"]:
        each.grad = torch.randn_like(each)
    times = []
    for _ in range(_ROUNDS):
        optimizer.zero_grad()
        layer(torch.randn(_BATCH, width)).square().mean().backward()
        started = time.perf_counter()
        optimizer.step()
        middle = time.perf_counter()
        plain.step()
        times.append((middle - started) - (time.perf_counter() - middle))
    return statistics.median(times)


def main() -> None:
    """Print both tables."""
    with launch.without_interpreter():
        heads = [f"every {each}" if each else "never" for each in _REFRESH]
        print(f"| refreshed | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
        print("\n".join(drift_rows()))
        print("\n| width | exact norms, ms | inferring them, ms |\n|---|---|---|")
        print("\n".join(time_rows()))


if __name__ == "__main__":
    main()
