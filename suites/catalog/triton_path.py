"""What makes a `triton` path honest: it runs a Triton kernel, or says that it cannot."""

from torch import Tensor

from kernels import launch


def on_triton(first: Tensor) -> Tensor:
    """Pass the input through where `kernels` launches Triton for it.

    Raises:
        NotImplementedError: for a CPU tensor without the interpreter, where `kernels` would use its
            PyTorch formula and the record would name the wrong path.
    """
    if not launch.uses_triton(first):
        raise NotImplementedError(
            "Triton needs a CUDA device, or TRITON_INTERPRET=1 before triton is imported"
        )
    return first
