"""Station three: run a path on a batch, forward and backward, and see what it did to its memory."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import poison
from harness.case import Pass
from harness.inputs import Batch
from harness.operation import UPSTREAM, Path
from harness.verdict import Verdict

NO_GRADIENT = "its output does not require a gradient"  # the reason of a forward-only path


class DeviceLost(Exception):
    """The device's context is gone: whatever this process asks of it fails from now on."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass of a path returned, brought to the CPU.

    `fault` is the verdict of a pass that did not run to its end, with `reason` in words; then
    `value` is None. `unwritten` and `unrepeatable` mark elements; `mutated` marks rows of the batch
    whose inputs the path changed.
    """

    value: Tensor | None
    fault: Verdict | None = None
    reason: str = ""
    unwritten: Tensor | None = None  # bool, like value
    unrepeatable: Tensor | None = None  # bool, like value; None when it ran once
    mutated: Tensor | None = None  # bool, (rows of the batch,)


def execute(
    path: Path,
    batch: Batch,
    *,
    shape: tuple[int, ...],  # of the forward result
    passes: tuple[Pass, ...],
    device: str,
    twice: bool,  # run again, from different garbage, and compare bit by bit
) -> dict[Pass, Output]:
    """Run a path; an exception becomes the verdict of the pass it came from, never a traceback.

    Raises:
        DeviceLost: if the device answers no more (an illegal address, a device-side assert).
    """
    lacking = missing_parameters(path.function, batch.roles, batch.options)
    if lacking:
        refused = Output(None, Verdict.UNSUPPORTED, f"takes no {lacking}")
        return dict.fromkeys(passes, refused)
    first = _once(path, batch, shape, passes, device, which=0)
    if not twice:
        return first
    second = _once(path, batch, shape, passes, device, which=1)
    return {each: _compared(first[each], second[each]) for each in passes}


def missing_parameters(
    function: Callable[..., object], roles: Iterable[str], options: Iterable[str]
) -> str:
    """What of a regime a path's signature has no place for, in words; empty if it takes all."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin may not tell
        return ""
    lacking = []
    if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        places = sum(
            each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters
        )
        lacking += [role for role in roles if role != UPSTREAM][places:]
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        names = {each.name for each in parameters}
        lacking += [option for option in options if option not in names]
    return ", ".join(lacking)


def _once(
    path: Path,
    batch: Batch,
    shape: tuple[int, ...],
    passes: tuple[Pass, ...],
    device: str,
    which: int,
) -> dict[Pass, Output]:
    roles = batch.on(device)
    leaf_name = next(iter(roles))
    leaf = roles[leaf_name]
    # The path gets a clone, one graph node above the leaf: whatever it writes there, even in place
    # through autograd, is seen below, and the gradient still arrives at the leaf.
    given = roles | {leaf_name: leaf.clone()}
    inputs = [value for role, value in given.items() if role != UPSTREAM]
    outputs: dict[Pass, Output] = {}
    value: Any = None
    # The interpreter computes in NumPy, which warns where a GPU is silent: overflow to infinity is
    # what the sweep is looking for, and is judged, not warned of.
    with poison.poisoned(which), np.errstate(all="ignore"):
        try:
            value = path.function(*inputs, **batch.options)
            forward = _wrong_result(value, shape) or _collected(value, which)
        except Exception as error:  # noqa: BLE001 - whatever a path raises is its verdict
            forward = _raised(error)
        require_device(device, forward)
        # Each pass answers for what it changed itself.
        outputs["forward"] = replace(forward, mutated=_mutated_rows(batch, given))
        if "backward" in passes:
            backward = forward
            if forward.fault is None:
                backward = _backward(value, leaf, given.get(UPSTREAM), which)
                require_device(device, backward)
            outputs["backward"] = replace(backward, mutated=_mutated_rows(batch, given))
    return {each: outputs[each] for each in passes}


def _backward(value: Tensor, leaf: Tensor, upstream: Tensor | None, which: int) -> Output:
    if not value.requires_grad:
        return Output(None, Verdict.UNSUPPORTED, NO_GRADIENT)
    try:
        value.backward(torch.ones_like(value) if upstream is None else upstream.to(value.dtype))
        if leaf.grad is None:
            return Output(None, Verdict.ERROR, "backward left no gradient at the first input")
        return _collected(leaf.grad, which)
    except Exception as error:  # noqa: BLE001 - as above
        return _raised(error)


def require_device(
    device: str, output: Output, synchronize: Callable[[], None] = torch.cuda.synchronize
) -> None:
    """Raises DeviceLost if a fault took the device with it: CUDA then repeats the error forever."""
    if device == "cpu" or output.fault is None:
        return
    try:
        synchronize()
    except RuntimeError:
        raise DeviceLost(output.reason) from None


def _wrong_result(value: object, shape: tuple[int, ...]) -> Output | None:
    if not isinstance(value, Tensor):
        told = f"returned {type(value).__name__}, not a tensor"
    elif tuple(value.shape) != shape:
        told = f"returned shape {tuple(value.shape)}, expected {shape}: one result a row or element"
    elif value.dtype not in poison.PATTERNS:
        told = f"returned dtype {value.dtype}, which is none of fp16, bf16, fp32 and fp64"
    else:
        return None
    return Output(None, Verdict.ERROR, told)


def _collected(value: Tensor, which: int) -> Output:
    host = value.detach().cpu()
    return Output(host, unwritten=poison.unwritten(host, which))


def _raised(error: Exception) -> Output:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    return Output(None, fault_of(error), reason)


def fault_of(error: Exception) -> Verdict:
    """The verdict of an exception that a path raised."""
    if isinstance(error, (NotImplementedError, ModuleNotFoundError)):
        return Verdict.UNSUPPORTED
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Verdict.OUT_OF_MEMORY
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"CompilationError", "CompileTimeAssertionFailure", "OutOfResources"}:
        return Verdict.COMPILE_ERROR
    if isinstance(error, RuntimeError) and "not implemented for" in str(error):
        return Verdict.UNSUPPORTED  # torch's way to say that an operator lacks a dtype
    return Verdict.ERROR


def _mutated_rows(batch: Batch, after: dict[str, Tensor]) -> Tensor:
    first = next(iter(batch.roles.values()))
    changed = torch.zeros(first.shape[0], dtype=torch.bool)
    for role, before in batch.roles.items():
        differs = poison.bits_of(before) != poison.bits_of(after[role].detach().cpu())
        if role in batch.shared:
            changed |= differs.any()
        else:
            changed |= differs.reshape(differs.shape[0], -1).any(dim=1)
    return changed


def _compared(first: Output, second: Output) -> Output:
    unrepeatable = None
    if first.value is not None and second.value is not None:
        differs = poison.bits_of(first.value) != poison.bits_of(second.value)
        # Poison left in place, or NaN made from it, differs by design and has its own verdict.
        both_nan = first.value.isnan() & second.value.isnan()
        unrepeatable = differs & ~both_nan
    elif (first.value is None) != (second.value is None):
        failed = first if first.value is None else second
        return Output(
            None, failed.fault, f"one of two runs: {failed.reason}", mutated=first.mutated
        )
    return Output(
        first.value, first.fault, first.reason, first.unwritten, unrepeatable, first.mutated
    )
