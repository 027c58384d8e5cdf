"""The clock of this suite against another's, on a GPU."""

import contextlib
import statistics

import pytest
import torch

from harness.timing.bench import clock_for


@pytest.mark.skipif(not torch.cuda.is_available(), reason="device time needs a CUDA device")
@pytest.mark.parametrize("shape", [(8192, 32_000), (16_384, 4096)], ids=["loss", "norm"])
def test_agrees_with_do_bench(shape: tuple[int, int]) -> None:
    """Within 3% of triton.testing.do_bench, on a kernel of tenths of a millisecond, in the median.

    Both flush the L2 cache by writing and take events around the call. The two take turns, so that
    a clock that drifts bears on both.
    """
    from triton.testing import do_bench

    generator = torch.Generator(device="cuda").manual_seed(0)
    values = torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=generator)
    ours, theirs = [], []
    with contextlib.ExitStack() as stack:
        timer = clock_for("cuda", stack).timer(lambda: None, lambda: torch.softmax(values, -1))
        for _ in range(5):
            ours.append(statistics.median(timer.seconds() for _ in range(20)))
            theirs.append(
                do_bench(lambda: torch.softmax(values, -1), return_mode="median") / 1000.0
            )
    assert statistics.median(ours) == pytest.approx(statistics.median(theirs), rel=0.03)
