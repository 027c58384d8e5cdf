"""Kernels that nobody here wrote, found if installed (`pip install stability-harness[peers]`)."""

from torch import Tensor


def liger_cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    """Liger's fused cross-entropy, per row.

    It forms the gradient in forward and writes it over the logits it was given.

    Raises:
        NotImplementedError: if liger-kernel is not installed.
    """
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy as fused
    except ImportError as error:
        raise NotImplementedError(f"liger-kernel is not usable here: {error}") from error
    loss = fused(input, target, reduction="none")
    return loss[0] if isinstance(loss, tuple) else loss
