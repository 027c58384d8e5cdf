"""The kernel with which `stability doctor` tries Triton: 2x + 1."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def twice_plus_one(x, y, LENGTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """y = 2x + 1, for LENGTH elements, a power of two."""
    place = tl.arange(0, LENGTH)
    tl.store(y + place, tl.load(x + place) * 2 + 1)
