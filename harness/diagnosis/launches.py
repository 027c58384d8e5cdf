"""Triton kernels that a script launches by itself, which torch's dispatcher does not see.

`run` of Triton's functions is wrapped, compiled and interpreted ones, as soon as the script imports
Triton: importing it earlier would settle switches that the script may set first.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

# Where functions that can be launched live, and their classes.
_LAUNCHERS = {
    "triton.runtime.jit": "JITFunction",
    "triton.runtime.interpreter": "InterpretedFunction",
}


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """A kernel, in the place that an operation has on the tape; called, it is launched again."""

    name: str  # the kernel's name in the source
    run: Callable[..., Any]
    grid: Any
    written: tuple[int, ...]  # positions of tensors without content before
    sums: tuple[tuple[int, torch.Tensor], ...]  # of the other tensors, before
    tags: tuple[()] = ()  # torch's operations have some

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.run(*args, grid=self.grid, warmup=False, **kwargs)

    @property
    def writes(self) -> tuple[int, ...]:
        """Positions of tensors that may have been written: not those that were bad before."""
        return self.written + tuple(at for at, each in self.sums if bool(each.isfinite()))


def wrap_launches(
    wrap: Callable[[Any, str, Callable[..., Any]], None],  # `Wrapped.wrap`
    keep: Callable[[Any], None],  # `Wrapped.keep`
    around: Callable[..., Any],
) -> None:
    """Wrap `run` of Triton's functions, now or when Triton is imported."""
    waiting = []
    for module, name in _LAUNCHERS.items():
        if module in sys.modules:
            wrap(getattr(sys.modules[module], name), "run", around)
        else:
            waiting.append(module)
    if waiting:

        def imported(module: ModuleType) -> None:
            wrap(getattr(module, _LAUNCHERS[module.__name__]), "run", around)

        finder = _Finder(imported)
        sys.meta_path.insert(0, finder)
        keep(finder)


def launch_of(
    function: Any,  # JITFunction or InterpretedFunction
    run: Callable[..., Any],
    grid: Any,
    args: tuple[Any, ...],
    is_empty: Callable[[torch.Tensor], bool],  # made without content
) -> Launch:
    """The launch as the tape records it. Queues one sum a tensor, and does not wait for it."""
    floats = [
        (position, each)
        for position, each in enumerate(args)
        if isinstance(each, torch.Tensor) and each.is_floating_point()
    ]
    written = tuple(position for position, each in floats if is_empty(each))
    sums = tuple((at, each.detach().sum()) for at, each in floats if at not in written)
    return Launch(function.fn.__name__, run, grid, written, sums)


class _Finder(importlib.abc.MetaPathFinder):
    """Calls back when one of the modules has been imported."""

    def __init__(self, imported: Callable[[ModuleType], None]) -> None:
        self._imported = imported
        self._busy = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _LAUNCHERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._imported)
        return spec

    def remove(self) -> None:
        """No longer wait."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, imported: Callable[[ModuleType], None]) -> None:
        self._loader, self._imported = loader, imported

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        self._imported(module)
