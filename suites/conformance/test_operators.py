"""How torch sees the kernels: registered operators, graphs without breaks, nothing that waits for
the device, the same bits twice.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kernels
from suites.conformance.differentiable import CASES, draw

# Every module of the package, so that every operator is registered.
for module in pkgutil.walk_packages(kernels.__path__, "kernels."):
    importlib.import_module(module.name)

# The layers' operators are checked by their own tests, which build the layers.
OPERATORS = sorted(
    name.removeprefix("kernels::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("kernels::") and not name.startswith("kernels::weight_norm")
)


def _with_gradient(x: Tensor) -> tuple[Tensor, ...]:
    classes = torch.tensor([1, -100, 3], device=x.device)
    scale = torch.full((), 1024.0, dtype=x.dtype, device=x.device)
    return kernels.cross_entropy_with_gradient(x, classes, x[0].abs(), upstream=scale)


# Functions of rows (3, 5) whose results have no graph.
WITHOUT_GRAPH: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "cross_entropy_with_gradient": _with_gradient
}
EVERYTHING = (*CASES, *WITHOUT_GRAPH)


class _Recorder(TorchDispatchMode):
    """Notes each call of one of our operators: its name and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "kernels":
            name = func._schema.name.removeprefix("kernels::")
            self.calls.append((name, tuple(args)))
        return func(*args, **(kwargs or {}))


def _run(name: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The case's result and gradients."""
    if name in WITHOUT_GRAPH:
        generator = torch.Generator().manual_seed(4)
        x = torch.randn((3, 5), generator=generator, dtype=torch.float64)
        return WITHOUT_GRAPH[name](x.to(dtype).to(device))
    case = CASES[name]
    inputs = [value.requires_grad_() for value in draw(case, dtype, device)]
    value = case.ours(*inputs)
    return (value.detach(), *torch.autograd.grad(value, inputs, torch.ones_like(value)))


@functools.cache
def calls_of_everything(dtype: torch.dtype, device: torch.device) -> dict[str, tuple[Any, ...]]:
    """For each operator that the cases reach, the arguments of its first call."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in EVERYTHING:
        with _Recorder() as recorder:
            _run(name, dtype, device)
        for operator, arguments in recorder.calls:
            found.setdefault(operator, arguments)
    return found


def test_the_cases_reach_every_operator(device: torch.device) -> None:
    """No operator escapes the checks below."""
    assert sorted(calls_of_everything(torch.float32, device)) == OPERATORS


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_are_registered_soundly(operator: str, device: torch.device) -> None:
    """opcheck, whole: schema, no mutation, no alias, fake implementation, autograd keys, tracing
    with dynamic shapes. In fp16, whose statistics have another dtype.
    """
    arguments = [
        each.detach() if isinstance(each, Tensor) else each
        for each in calls_of_everything(torch.float16, device)[operator]
    ]
    overload = getattr(torch.ops.kernels, operator).default
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opcheck itself uses what torch has deprecated
        torch.library.opcheck(overload, tuple(arguments))


def _graph_values(graph: torch.fx.GraphModule) -> Iterator[Any]:
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        yield from value if isinstance(value, (tuple, list)) else (value,)


# Half precision, where a stray Python scalar would be typed fp64, and fp32.
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.bfloat16, id="bf16"),
        pytest.param(torch.float32, id="fp32", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("name", list(CASES))
def test_compiled_graph(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """torch.compile traces forward and backward as one graph each, without a break and without an
    fp64 scalar, and changes no bit of result or gradient.
    """
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func

    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    case = CASES[name]
    eager = _run(name, dtype, device)
    inputs = [value.requires_grad_() for value in draw(case, dtype, device)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile itself uses what torch has deprecated
        backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
        compiled = torch.compile(case.ours, backend=backend, fullgraph=True)
        value = compiled(*inputs)
        gradients = torch.autograd.grad(value, inputs, torch.ones_like(value))
    assert len(graphs) == 2
    for graph in graphs:
        scalars = [v for v in _graph_values(graph) if isinstance(v, Tensor) and v.dim() == 0]
        assert not [v for v in scalars if v.dtype == torch.float64], graph.code
    for ours, theirs in zip(eager, (value.detach(), *gradients), strict=True):
        assert torch.equal(ours, theirs)


# What hands a device's value to Python, or waits for a shape that depends on one.
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select"}


class _NoWaiting(TorchDispatchMode):
    """Raises on operations that wait for the device, within our opaque operators, too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        if name.partition(".")[0] in WAITING:
            raise AssertionError(f"{name} waits for the device")
        if func.namespace == "kernels":
            implementation = torch._library.custom_ops.OPDEFS[func._schema.name]._init_fn
            with self:
                return implementation(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.usefixtures("unchecked_targets")
def test_nothing_waits_for_the_device(name: str, device: torch.device) -> None:
    """No host synchronisation in forward or backward, as far as PyTorch's operations show it."""
    with _NoWaiting():
        _run(name, torch.float32, device)


def test_the_watch_sees_waiting(device: torch.device) -> None:
    """A look at a value is caught: the test above can fail."""
    with _NoWaiting(), pytest.raises(AssertionError, match="waits"):
        bool((torch.ones(3, device=device) > 0).any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_bitwise_the_same_twice(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """The same inputs give the same bits, result and gradients."""
    for first, second in zip(_run(name, dtype, device), _run(name, dtype, device), strict=True):
        assert torch.equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.usefixtures("unchecked_targets")
def test_cuda_graph(name: str, device: torch.device) -> None:
    """Captured in a CUDA graph and replayed on new values, it gives what an eager call gives."""
    case = CASES[name]
    inputs = [value.requires_grad_() for value in draw(case, torch.float32, device)]

    def step() -> tuple[Tensor, ...]:
        value = case.ours(*inputs)
        return (value, *torch.autograd.grad(value, inputs, torch.ones_like(value)))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for value in inputs:
            value.mul_(0.5)
    graph.replay()
    for ours, theirs in zip(captured, step(), strict=True):
        assert torch.equal(ours, theirs)
