"""Where the kernels fall short of the exhaustive proofs, and why.

Each of these proofs must fail: what improves is noticed, and is struck out here.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A subject's role or pair, in these formats, that some elements of which are wrong."""

    subject: str
    place: str
    formats: tuple[str, ...]
    reason: str


_MASS = (
    "the coefficients' sum A is one number, of 53 bits: A - a_c, the gradient of a class that holds"
    " nearly all of p, is wrong by 2**-53 A where the other probabilities add up to less"
)
_FORMULA = (
    "with weights, the gradients of target, weight and pos_weight come from the formula that is"
    " differentiated twice, in fp64: for fp64 itself its sums lose bits, and its products have no"
    " room beyond the range"
)
_EVERY_GRADIENT = "binary_cross_entropy(all_gradients)"

KNOWN: tuple[Known, ...] = (
    Known("cross_entropy(probabilities)", "logit_probability", ("fp32", "fp64"), _MASS),
    Known(
        "cross_entropy(z_loss)",
        "logit_upstream",
        ("fp64",),
        "2 z_loss g lse overflows: NaN in the whole row, where the other classes' gradients fit",
    ),
    Known(
        "cross_entropy(everything)",
        "logit_upstream",
        ("fp64",),
        "the target's gradient rounds g (1 - s) w to a subnormal before the ratio enters",
    ),
    Known(
        "binary_cross_entropy(weight,pos_weight)",
        "logit_target",
        ("fp64",),
        "p y rounds to a subnormal before |x| enters, where y is subnormal or nearly so",
    ),
    Known(
        _EVERY_GRADIENT,
        "logit",
        ("fp16", "bf16"),
        "at a logit of -inf the weight's gradient is the infinite loss; torch's is NaN",
    ),
    Known(_EVERY_GRADIENT, "logit_target", ("fp64",), _FORMULA),
    Known(_EVERY_GRADIENT, "logit_upstream", ("fp64",), _FORMULA),
    Known(_EVERY_GRADIENT, "hard_logit_upstream", ("fp64",), _FORMULA),
    Known(_EVERY_GRADIENT, "target_upstream", ("fp64",), _FORMULA),
)


def known(subject: str, place: str, fmt: str) -> str | None:
    """Why this proof fails; None for one that holds."""
    for each in KNOWN:
        if (each.subject, each.place) == (subject, place) and fmt in each.formats:
            return each.reason
    return None
