"""The optimizer's side: hooks that tell each layer what a step did."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .fastnorm import FastNormLinear
from .recognition import Group, hyperparameters


class FastNormHandle:
    """What `attach_fastnorm` returns: the layers it serves, and `remove()`."""

    def __init__(self, optimizer: torch.optim.Optimizer, layers: list[FastNormLinear]) -> None:
        self.layers = tuple(layers)
        self._before: list[tuple[Group, dict[str, Any]]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Take the hooks off; the layers then compute their norms again after every change."""
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers if self._hooks else ():
            layer.attachments -= 1
        self._hooks = []

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._before = [(group, hyperparameters(group)) for group in optimizer.param_groups]

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for layer in self.layers:
            group = groups.get(id(layer.weight_v))
            if group is not None:
                layer._after_step(optimizer, group, self._unchanged(group))

    def _unchanged(self, group: Group) -> bool:
        now = hyperparameters(group)
        return any(before is group and values == now for before, values in self._before)


def attach_fastnorm(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    *,
    refresh_every: int | None = 100,
    infer_half: bool = False,
) -> FastNormHandle:
    """Let every FastNormLinear of a model infer its norms from the steps of an optimizer.

    Args:
        optimizer: any; the steps of torch.optim.SGD without momentum are inferred, those of others
            noticed and answered by computing the norms.
        model: a FastNormLinear, or a module that contains some.
        refresh_every: after so many inferred steps the norms are computed once, and the deviation
            of the inferred ones is kept in `norm_statistics.max_drift`. None: never.
        infer_half: infer for fp16 and bf16 weights, too. Their rounding, which the inference cannot
            know of, moves a norm by up to half a unit in the last place a step (bf16: 2e-3), and
            where updates are lost in it, always the same way. By default they are computed.

    Returns:
        A handle with `layers` and `remove()`.

    Raises:
        ValueError: if the model has no FastNormLinear, or none whose weight the optimizer holds, or
            refresh_every is less than 1.

    >>> model = torch.nn.Sequential(FastNormLinear(8, 8), torch.nn.ReLU(), FastNormLinear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> handle = attach_fastnorm(optimizer, model)
    >>> for _ in range(5):
    ...     optimizer.zero_grad()
    ...     model(torch.randn(4, 8)).square().mean().backward()
    ...     _ = optimizer.step()
    >>> model[0].norm_statistics.inferred, model[0].norm_statistics.recomputed
    (5, {'first use': 1})
    """
    if refresh_every is not None and refresh_every < 1:
        raise ValueError(f"refresh_every must be at least 1, or None, got {refresh_every}")
    layers = [module for module in model.modules() if isinstance(module, FastNormLinear)]
    if not layers:
        raise ValueError(f"the model ({type(model).__name__}) contains no FastNormLinear")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(layer.weight_v) in held for layer in layers):
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) holds the weight of none of the model's "
            f"{len(layers)} FastNormLinear layers: make it from model.parameters()"
        )
    for layer in layers:
        layer.refresh_every, layer.infer_half = refresh_every, infer_half
        layer.attachments += 1
    return FastNormHandle(optimizer, layers)
