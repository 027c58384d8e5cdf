"""Where steps begin and end: backward passes, optimisers, gradient scalers, clipping, modules.

The events are read off torch's own functions, which are wrapped while a session watches and put
back afterwards; a script needs no change.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers


class Listener(Protocol):
    """What a session hears."""

    def before_backward(self, roots: list[torch.Tensor]) -> None: ...
    def after_backward(self, roots: list[torch.Tensor]) -> None: ...
    def before_step(self, optimizer: Any) -> None: ...
    def closure_entered(self, optimizer: Any) -> None: ...
    def after_step(self, optimizer: Any) -> None: ...
    def optimizer_made(self, optimizer: Any) -> None: ...
    def scaled(self, scaler: Any, loss: Any) -> None: ...
    def unscaled_by(self, scaler: Any, optimizer: Any) -> None: ...
    def scaler_stepped(self, scaler: Any, optimizer: Any, ran: bool) -> None: ...
    def scaler_updated(self, scaler: Any, before: float, after: float) -> None: ...
    def clipped(self, parameters: list[torch.Tensor], norm: torch.Tensor, limit: float) -> None: ...
    def entered(self, module: Any, inputs: Any) -> None: ...
    def left(self, module: Any, inputs: Any, output: Any) -> None: ...


class Safe:
    """Hands events on; an error in the listener is told to it, and never reaches the script."""

    def __init__(self, listener: Listener, failed: Callable[[Exception], None]) -> None:
        self._listener = listener
        self._failed = failed

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = getattr(self._listener, name)

        def call(*args: Any) -> None:
            try:
                method(*args)
            except Exception as error:  # noqa: BLE001  # whatever it is, the script goes on
                self._failed(error)

        setattr(self, name, call)
        return call


class Wrapped:
    """Replaces attributes and puts them back."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []
        self._handles: list[Any] = []

    def wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        """Let `around(original, *args, **kwargs)` stand for `owner.name`."""
        original = getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        self._before.append((owner, name, original))
        setattr(owner, name, wrapper)

    def keep(self, handle: Any) -> None:
        """Remember a hook's handle."""
        self._handles.append(handle)

    def undo(self) -> None:
        """Put everything back."""
        for owner, name, original in reversed(self._before):
            setattr(owner, name, original)
        for handle in self._handles:
            handle.remove()
        self._before, self._handles = [], []


def listen(
    to: Listener,
    *,
    module_hooks: bool,
    failed: Callable[[Exception], None],  # told of the listener's own errors
) -> Wrapped:
    """Attach a listener to torch; `undo()` of the result takes it off."""
    wrapped = Wrapped()
    listener = Safe(to, failed)

    def backward(original: Callable[..., Any], tensors: Any, *args: Any, **kwargs: Any) -> Any:
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        listener.before_backward(roots)
        try:
            return original(tensors, *args, **kwargs)
        finally:
            # Also when backward raises: what it left behind is not to be taken for the next step.
            listener.after_backward(roots)

    wrapped.wrap(torch.autograd, "backward", backward)
    wrapped.wrap(torch.autograd, "grad", backward)

    def made(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        listener.optimizer_made(self)

    wrapped.wrap(torch.optim.Optimizer, "__init__", made)
    wrapped.keep(
        optimizers.register_optimizer_step_pre_hook(lambda o, a, k: _begin(listener, o, a, k))
    )
    wrapped.keep(
        optimizers.register_optimizer_step_post_hook(lambda o, a, k: listener.after_step(o))
    )
    _listen_to_scalers(listener, wrapped)

    def clip(original: Callable[..., Any], parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(parameters, torch.Tensor):
            parameters = [parameters]
        parameters = list(parameters)
        norm = original(parameters, *args, **kwargs)
        listener.clipped(parameters, norm, float(kwargs.get("max_norm", args[0] if args else 0)))
        return norm

    original_clip = torch.nn.utils.clip_grad_norm_
    wrapped.wrap(torch.nn.utils, "clip_grad_norm_", clip)
    if sys.modules["torch.nn.utils.clip_grad"].clip_grad_norm_ is original_clip:
        wrapped.wrap(sys.modules["torch.nn.utils.clip_grad"], "clip_grad_norm_", clip)
    if module_hooks:
        wrapped.keep(modules.register_module_forward_pre_hook(listener.entered))
        wrapped.keep(modules.register_module_forward_hook(listener.left, always_call=True))
    return wrapped


def _begin(listener: Safe, optimizer: Any, args: Any, kwargs: Any) -> Any:
    """An optimiser's step begins: now, or each time its closure has made loss and gradients."""
    closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
    if not callable(closure):
        listener.before_step(optimizer)
        return None

    @functools.wraps(closure)
    def heard(*a: Any, **k: Any) -> Any:
        listener.closure_entered(optimizer)
        loss = closure(*a, **k)
        listener.before_step(optimizer)
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": heard}
    return (args[0], heard, *args[2:]), kwargs


def _listen_to_scalers(listener: Safe, wrapped: Wrapped) -> None:
    scaler_class = torch.amp.GradScaler

    def scale(original: Callable[..., Any], self: Any, outputs: Any) -> Any:
        if self.is_enabled():
            listener.scaled(self, outputs)
        return original(self, outputs)

    def unscale(original: Callable[..., Any], self: Any, optimizer: Any) -> Any:
        result = original(self, optimizer)
        if self.is_enabled():
            listener.unscaled_by(self, optimizer)
        return result

    def step(original: Callable[..., Any], self: Any, optimizer: Any, *a: Any, **k: Any) -> Any:
        if not self.is_enabled():
            return original(self, optimizer, *a, **k)
        ran: list[bool] = []
        handle = optimizer.register_step_pre_hook(lambda o, a, k: ran.append(True))
        try:
            return original(self, optimizer, *a, **k)
        finally:
            handle.remove()
            listener.scaler_stepped(self, optimizer, bool(ran))

    def update(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_enabled():
            return original(self, *args, **kwargs)
        before = self.get_scale()
        result = original(self, *args, **kwargs)
        listener.scaler_updated(self, before, self.get_scale())
        return result

    wrapped.wrap(scaler_class, "scale", scale)
    wrapped.wrap(scaler_class, "unscale_", unscale)
    wrapped.wrap(scaler_class, "step", step)
    wrapped.wrap(scaler_class, "update", update)
