"""The precision axis: what parameters are stored in, products computed in, and what is scaled."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from harness.errors import unknown


@dataclass(frozen=True, slots=True)
class Precision:
    """One way to train in a floating format.

    The dtype of a record is the narrowest format that the cost sees: that of the logits.
    """

    name: str
    storage: torch.dtype  # of parameters, gradients, optimiser state, inputs
    autocast: torch.dtype | None = None
    scaled: bool = False  # the loss, as torch.amp.GradScaler does
    tf32: bool = False

    @property
    def dtype(self) -> str:
        """The format's name, as records have it."""
        return _NAMES[self.autocast or self.storage]

    @property
    def logits(self) -> torch.dtype:
        return self.autocast or self.storage

    def unsupported(self, device: str) -> str | None:
        """Why it cannot be had on a device, None where it can."""
        if not self.tf32:
            return None
        if device != "cuda" or not torch.cuda.is_available():
            return "TF32 is a mode of NVIDIA GPUs, and there is none here"
        if torch.cuda.get_device_capability() < (8, 0):
            return "TF32 needs compute capability 8.0"
        return None

    @contextlib.contextmanager
    def products(self) -> Iterator[None]:
        """What a whole run is computed under: TF32 in both passes, or in neither.

        Left alone, convolutions of fp32 are in TF32 on GPUs that have it.
        """
        matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matrices.allow_tf32, convolutions.allow_tf32
        matrices.allow_tf32 = convolutions.allow_tf32 = self.tf32
        try:
            yield
        finally:
            matrices.allow_tf32, convolutions.allow_tf32 = before

    def forward(self, device: str) -> contextlib.AbstractContextManager[object]:
        """What the forward pass and the cost are computed under."""
        # Without the cache of casts: the weights of a step are new ones in the next.
        return torch.autocast(
            device,
            dtype=self.autocast or torch.bfloat16,
            enabled=self.autocast is not None,
            cache_enabled=False,
        )


_NAMES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
PRECISIONS = {
    each.name: each
    for each in (
        Precision("fp16", torch.float16),
        Precision("bf16", torch.bfloat16),
        Precision("fp32", torch.float32),
        Precision("fp64", torch.float64),
        Precision("autocast_fp16", torch.float32, torch.float16, scaled=True),
        Precision("autocast_bf16", torch.float32, torch.bfloat16),
        Precision("tf32", torch.float32, tf32=True),
    )
}


def precision_named(name: str) -> Precision:
    """Raises InputError for a name that is none."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    return PRECISIONS[name]
