"""How the autograd functions here take second derivatives and torch.func's transforms.

Every operator is opaque to torch: it allocates, launches, and knows one derivative, computed by
another operator. Two things are needed for the rest. `fold` maps a function over a batch dimension
by laying that dimension before the rows, since every operator takes any number of leading
dimensions. `differentiable` runs a gradient operator, and differentiates it, where somebody asks,
as the plain PyTorch formula of the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def fold(info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """The arguments of a vmapped function with the batch dimension in front of every tensor.

    A tensor that is not batched is expanded, so that all of them agree in their leading dimensions;
    what is no tensor stays as it is.
    """
    folded = []
    for value, dim in zip(arguments, in_dims, strict=True):
        if not isinstance(value, Tensor):
            folded.append(value)
        elif dim is None:
            folded.append(value.expand(info.batch_size, *value.shape))
        else:
            folded.append(value.movedim(dim, 0))
    return folded


def one_by_one(
    function: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What a `vmap` staticmethod returns where leading dimensions will not do, as where rows of one
    sample share a parameter whose gradient sums over them: a call a sample, and a stack.
    """
    results = []
    for sample in range(info.batch_size):
        picked = [
            value if dim is None or not isinstance(value, Tensor) else value.select(dim, sample)
            for value, dim in zip(arguments, in_dims, strict=True)
        ]
        results.append(function(*picked))
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(
        None if each[0] is None else torch.stack(each) for each in zip(*results, strict=True)
    )
    return stacked, tuple(None if each is None else 0 for each in stacked)


def batched(values: Any) -> tuple[Any, Any]:
    """What a `vmap` staticmethod returns: the outputs, each with its batch dimension in front."""
    if isinstance(values, Tensor):
        return values, 0
    return values, tuple(None if value is None else 0 for value in values)


def differentiable(
    operator: Callable[..., Any],  # an opaque operator: computes a gradient
    formula: Callable[..., Any],  # the same gradient, of the same arguments, in plain PyTorch
    *arguments: Any,
    rowwise: bool = True,  # whether a batch dimension may go before the rows
) -> Any:
    """operator(*arguments), with the derivatives of formula(*arguments).

    Accuracy over the whole range is the operator's; a second derivative is as good as the formula's
    arithmetic. In a compiled graph, where torch itself refuses second derivatives and cannot trace
    a function within a function's backward, the operator is called as it is.
    """
    if torch.compiler.is_compiling():
        return operator(*arguments)
    return _Gradient.apply(operator, formula, rowwise, *arguments)


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(operator: Any, formula: Any, rowwise: bool, *arguments: Any) -> Any:
        return operator(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.formula, _, *arguments = inputs
        ctx.plain = [None if isinstance(each, Tensor) else each for each in arguments]
        ctx.places = [k for k, each in enumerate(arguments) if isinstance(each, Tensor)]
        ctx.save_for_backward(*[arguments[k] for k in ctx.places])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Any, ...]:
        arguments = list(ctx.plain)
        for place, value in zip(ctx.places, ctx.saved_tensors, strict=True):
            arguments[place] = value
        wanted = [k for k in ctx.places if ctx.needs_input_grad[3 + k]]

        def of_wanted(*values: Tensor) -> Any:
            given = list(arguments)
            for place, value in zip(wanted, values, strict=True):
                given[place] = value
            return formula(*given)

        formula = ctx.formula
        outputs, pull = torch.func.vjp(of_wanted, *[arguments[k] for k in wanted])[:2]
        if isinstance(outputs, Tensor):
            found = pull(upstream[0])
        else:
            found = pull(tuple(upstream))
        gradients: list[Tensor | None] = [None] * len(arguments)
        for place, value in zip(wanted, found, strict=True):
            gradients[place] = value
        return None, None, None, *gradients

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, operator: Any, formula: Any, rowwise: bool, *rest: Any
    ) -> Any:
        def again(*arguments: Any) -> Any:
            return _Gradient.apply(operator, formula, rowwise, *arguments)

        if rowwise:
            return batched(again(*fold(info, in_dims[3:], rest)))
        return one_by_one(again, info, in_dims[3:], rest)
