"""The options of cross-entropy, as its operators take them."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Options(NamedTuple):
    """What `kernels.cross_entropy` was asked for; in this order the operators' last arguments."""

    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float  # 0: none
    reduction: str  # "mean", "sum" or "none"
    all_ignored: str  # "nan" or "zero"


def bits(value: float) -> int:
    """An fp64 number as an integer: what Triton hands on unrounded, where a float becomes fp32."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])
