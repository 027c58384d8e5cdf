"""What a pass must move and hold at the least, known before anything is allocated on the device."""

from dataclasses import dataclass

from harness.operation import UPSTREAM
from harness.timing.speed_case import SpeedGroup
from harness.timing.tiled import Drawn


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a group's pass.

    `moved` counts each operand once. Forward: inputs and result. Backward: inputs, the result's
    gradient, the inputs' gradients. Both in one go: each of these once, the result and its
    gradient both. A result counts in the inputs' dtype.
    """

    moved: int
    held: int  # at once, for the pass to run at all
    one_set: int  # of inputs, the upstream gradient with them


def footprint_of(group: SpeedGroup, drawn: Drawn) -> Footprint:
    """From the shapes alone."""
    rows = group.size.rows
    inputs = gradients = 0
    for place, (role, value) in enumerate(drawn.block.roles.items()):
        if role == UPSTREAM:
            continue
        size = value.numel() * value.element_size()
        if role not in drawn.block.shared:
            size = size // value.shape[0] * rows
        inputs += size
        if place == 0 or (role in drawn.block.shared and value.is_floating_point()):
            gradients += size
    truth = drawn.expected["forward"].high
    result = rows * (truth.numel() // truth.shape[0]) * (group.fmt.bits // 8)
    moved = {
        "forward": inputs + result,
        "backward": inputs + result + gradients,
        "both": inputs + 2 * result + gradients,
    }[group.pass_]
    held = inputs + 2 * result + (gradients if group.pass_ != "forward" else 0)
    return Footprint(moved, held, inputs + result)
