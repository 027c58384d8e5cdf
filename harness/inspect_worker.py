"""One process of `stability inspect`: paths run on CPU tensors, their launches compiled or counted.

    python -m harness.inspect_worker < request.json > answer.jsonl

Triton decides at import whether it interprets kernels. So the machine code of each target and the
traffic are found in processes of their own, the latter's with TRITON_INTERPRET=1. An answer is one
JSON object a line; `inspection.py` says what is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.catalog import DEFAULT, load_catalog
from harness.execute import missing_parameters
from harness.formats import format_named
from harness.inputs import Batch, build_batch
from harness.inspection import Inspected
from harness.launches import Failure, Launch, compiled_launches, target_named
from harness.machine_code import read_binary
from harness.operation import UPSTREAM, Operation, Path


class Unsupported(Exception):
    """The path cannot be inspected in this case, for the reason given."""


def inputs_for(operation: Operation, path: Path, case: Inspected) -> Batch:
    """The first regime's inputs at magnitude 1, (rows, columns) of the first role."""
    regime = replace(operation.regimes[0], shape=(case.rows, case.columns))
    batch = build_batch(operation, regime, format_named(case.dtype), [1.0], seed=0)
    lacking = missing_parameters(path.function, batch.roles, batch.options)
    if lacking:
        raise Unsupported(f"takes no {lacking}")
    return batch


def leaves_of(batch: Batch) -> dict[str, Tensor]:
    """Fresh inputs; the first role and what rows share (a norm's weight) require gradients."""
    roles = batch.on("cpu")
    for name in batch.shared:
        if roles[name].is_floating_point():
            roles[name].requires_grad_(True)
    return roles


def forward(path: Path, batch: Batch, roles: Mapping[str, Tensor]) -> Tensor:
    """The path's result; what it raises becomes Unsupported."""
    given = dict(roles)
    if path.overwrites_input:  # autograd lets nobody write to a leaf
        first = next(iter(given))
        given[first] = given[first].clone()
    inputs = [value for role, value in given.items() if role != UPSTREAM]
    return path.function(*inputs, **batch.options)


def upstream_for(value: Tensor, roles: Mapping[str, Tensor]) -> Tensor:
    """The gradient handed to backward: the regime's own, else ones."""
    given = roles.get(UPSTREAM)
    return torch.ones_like(value) if given is None else given.to(value.dtype)


def machine_code(
    operation: Operation, path: Path, case: Inspected, target: str, shaped_as: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    """One answer a kernel that forward or backward launches."""
    batch = inputs_for(operation, path, case)
    with shaped_as(target), compiled_launches(target_named(target)) as found:
        roles = leaves_of(batch)
        value = forward(path, batch, roles)
        last_of_forward = len(found)
        if value.requires_grad:
            value.backward(upstream_for(value, roles))
    for place, launch in enumerate(found):
        pass_ = "forward" if place < last_of_forward else "backward"
        about = {"pass": pass_, "kernel": launch.kernel, "constants": _plain(launch.constants)}
        if isinstance(launch, Failure):
            yield {"kind": "failure", **about, "reason": launch.reason}
        else:
            assert isinstance(launch, Launch)
            code = asdict(read_binary(launch.binary))
            yield {"kind": "kernel", **about, "grid": list(launch.grid), **code}


def traffic(
    operation: Operation, path: Path, case: Inspected, target: str, shaped_as: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    """One answer a pass: bytes moved, the least possible, and every kernel's operands."""
    from harness.traffic import counted

    batch = inputs_for(operation, path, case)
    roles = leaves_of(batch)
    given = {name: _bytes(value) for name, value in roles.items() if name != UPSTREAM}
    with shaped_as(target), np.errstate(all="ignore"):
        with counted() as moved:
            value = forward(path, batch, roles)
        least = sum(given.values()) + _bytes(value)
        clone = _bytes(next(iter(roles.values()))) if path.overwrites_input else 0
        yield _traffic_answer("forward", moved, least, 2 * clone, given)
        if not value.requires_grad:
            return
        upstream = upstream_for(value, roles)
        with counted() as moved:
            value.backward(upstream)
    gradients = [role.grad for role in roles.values() if role.grad is not None]
    # Inputs and the upstream gradient are read, gradients written.
    least = sum(given.values()) + _bytes(value) + sum(_bytes(each) for each in gradients)
    yield _traffic_answer("backward", moved, least, 0, given)


def _traffic_answer(
    pass_: str, moved: Any, least: int, ours: int, roles: dict[str, int]
) -> dict[str, Any]:
    kernels = [
        {
            "kernel": each.kernel,
            "programs": each.programs,
            "moved_bytes": each.moved_bytes,
            "waste": each.waste,
            "operands": {
                name: {"bytes": one.size_bytes, "reads": one.reads, "writes": one.writes}
                for name, one in each.operands.items()
            },
        }
        for each in moved.kernels
    ]
    total = max(moved.moved_bytes - ours, 0)
    return {
        "kind": "traffic",
        "pass": pass_,
        "moved_bytes": total,
        "least_bytes": least,
        "ratio": total / least,
        "kernel_bytes": sum(each.moved_bytes for each in moved.kernels),
        "role_bytes": roles,
        "kernels": kernels,
    }


def answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything asked for, an answer at a time; a case that fails is an answer with its reason."""
    operations = load_catalog(request["catalog"])
    module = sys.modules[request["catalog"] or DEFAULT]
    shaped_as = getattr(module, "shaped_as", contextlib.nullcontext)
    find = {"machine_code": machine_code, "traffic": traffic}[request["look_at"]]
    for plain in request["cases"]:
        case = Inspected(**plain)
        operation = operations[case.operation]
        path = operation.path(case.path)
        about = {"case": plain, "target": request["target"]}
        try:
            for answer in find(operation, path, case, request["target"], shaped_as):
                yield {**about, **answer}
        except (NotImplementedError, ModuleNotFoundError, Unsupported) as error:
            yield {**about, "kind": "unsupported", "reason": _sentence(error)}
        except Exception as error:  # noqa: BLE001 - whatever a path raises is told, not fatal
            reason = f"{type(error).__name__}: {_sentence(error)}"
            yield {**about, "kind": "error", "reason": reason}


def _without_torch_compile() -> None:
    """torch.compile makes C++ on a CPU: its kernels for a GPU cannot be seen this way."""

    def refuse(*_: Any, **__: Any) -> Any:
        def raise_(*_: Any, **__: Any) -> Any:
            raise NotImplementedError("torch.compile generates its kernels on the GPU itself")

        return raise_

    torch.compile = refuse


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _plain(constants: Mapping[str, Any]) -> dict[str, Any]:
    plain = (bool, int, float, str, type(None))
    return {
        name: value if isinstance(value, plain) and value == value else str(value)
        for name, value in constants.items()
    }


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def main() -> None:
    """Read the request from standard input, write answers to standard output."""
    request = json.load(sys.stdin)
    # Libraries print as they please; answers go where only they go.
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _without_torch_compile()
    for answer in answers(request):
        print(json.dumps(answer, allow_nan=False), file=answer_to, flush=True)


if __name__ == "__main__":
    main()
