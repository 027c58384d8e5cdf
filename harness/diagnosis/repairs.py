"""The repairs themselves: what stands in for an operation in a replayed step."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from harness.diagnosis.cause_forward import LOGARITHMS, SOFTMAXES
from harness.diagnosis.chain import Chain, first_input
from harness.diagnosis.numbers import rounds_to_zero
from harness.diagnosis.replay import Look, Substitute
from harness.diagnosis.tape import Entry, inputs_of, plan_of

# An epsilon that the format holds and that is small beside 1: about the square root of its smallest
# normal number's neighbourhood that squares and roots survive.
_EPS = {torch.float16: 1e-3, torch.bfloat16: 1e-6, torch.float32: 1e-12, torch.float64: 1e-24}
# Distance from an edge such as 1 of acos: some units in the last place of 1.
_EDGE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-6, torch.float64: 1e-14}


class Repair(NamedTuple):
    """A substitute for one operation, and what it means in the user's code."""

    advice: str
    position: int
    substitute: Substitute


def floats(entry: Entry) -> list[torch.Tensor]:
    """The floating-point tensors an operation read."""
    return inputs_of(entry)


def nan_to_num(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    """The operation, and what is not finite in its result replaced."""
    out = func(*args, **kwargs)
    if isinstance(out, torch.Tensor):
        return torch.nan_to_num(out)
    return tuple(torch.nan_to_num(each) if each.is_floating_point() else each for each in out)


def in_fp32(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    """The operation on its inputs in fp32; what follows is promoted."""
    low = (torch.float16, torch.bfloat16)
    wide = [
        each.float() if isinstance(each, torch.Tensor) and each.dtype in low else each
        for each in args
    ]
    return func(*wide, **kwargs)


def reset(tensor: torch.Tensor) -> torch.Tensor:
    """A buffer without what is not finite."""
    if not tensor.is_floating_point():
        return tensor
    return torch.where(tensor.isfinite(), tensor, torch.ones_like(tensor))


def repaired(tensor: torch.Tensor) -> torch.Tensor:
    """A batch without its bad entries: not finite, or thousands of times beyond the others."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    fine = torch.nan_to_num(tensor.detach(), nan=0.0, posinf=0.0, neginf=0.0)
    middle = float(fine.abs().float().median())
    if tensor.numel() < 8:
        return fine
    return torch.where(fine.abs() > 1e4 * max(middle, 1e-3), torch.zeros_like(fine), fine)


def initialised(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter as an initialisation would leave it."""
    generator = torch.Generator().manual_seed(0)
    if tensor.dim() < 2:
        return torch.zeros_like(tensor)
    fresh = torch.randn(tensor.shape, generator=generator) / math.sqrt(max(tensor[0].numel(), 1))
    return fresh.to(tensor)


_MOVES = ("aten.index", "aten.gather", "aten.select", "aten.slice", "aten.squeeze", "aten.view")


def stable_formula(chain: Chain, position: int) -> Repair | None:
    """log of a softmax or sigmoid, without leaving the logarithm."""
    if chain.name(position) not in ("aten.log", "aten.log_"):
        return None
    moves: list[Entry] = []
    made = chain.maker(chain.entries[position].args[0], position)
    while made is not None and chain.name(made) in _MOVES:
        moves.append(chain.entries[made])
        made = chain.maker(chain.entries[made].args[0], made)
    if made is None:
        return None
    source = chain.entries[made]
    name = chain.name(made)

    def moved(out: Any, look: Look) -> Any:
        for entry in reversed(moves):
            rest = [
                [look(each) for each in value] if isinstance(value, list) else look(value)
                for value in entry.args[1:]
            ]
            out = entry.func(out, *rest, **entry.kwargs)
        return out

    if name == "aten._softmax":
        return Repair(
            "log_softmax instead of log(softmax)",
            position,
            lambda f, a, k, look: moved(F.log_softmax(look(source.args[0]), source.args[1]), look),
        )
    if name == "aten.sigmoid":
        return Repair(
            "logsigmoid instead of log(sigmoid)",
            position,
            lambda f, a, k, look: moved(F.logsigmoid(look(source.args[0])), look),
        )
    if name == "aten.sum":
        return _log_sum_exp(chain, position, made, moved)
    if name in ("aten.rsub", "aten.sub"):
        behind = next(
            (
                chain.source(each, made)
                for each in source.args
                if isinstance(each, torch.Tensor) and chain.source(each, made) is not None
            ),
            None,
        )
        if behind is not None and chain.name(behind) == "aten.sigmoid":
            logit, shape = chain.entries[behind].args[0], source.out.shape
            return Repair(
                "logsigmoid(-z) instead of log(1 - sigmoid(z))",
                position,
                lambda f, a, k, look: moved(F.logsigmoid(-look(logit)).reshape(shape), look),
            )
    return None


def _log_sum_exp(
    chain: Chain,
    position: int,  # of the logarithm
    made: int,  # of the sum
    moved: Callable[[Any, Look], Any],
) -> Repair | None:
    """log of a sum of exponentials, or of such a sum with weights."""
    entry = chain.entries[made]
    dims = entry.args[1] if len(entry.args) > 1 else None
    keep = bool(entry.args[2]) if len(entry.args) > 2 else False
    inner = chain.source(entry.args[0], made)
    if inner is None or not dims:
        return None
    factors = [inner]
    if chain.name(inner) == "aten.mul":
        sources = [chain.source(each, inner) for each in chain.entries[inner].args[:2]]
        factors = [each for each in sources if each is not None]
    powers = [each for each in factors if chain.name(each) == "aten.exp"]
    if not powers:
        return None
    exponent = chain.entries[powers[0]].args[0]
    others = []
    if chain.name(inner) == "aten.mul":
        given = chain.entries[inner].args[:2]
        sources = [chain.source(each, inner) for each in given]
        others = [
            each for each, made_at in zip(given, sources, strict=True) if made_at != powers[0]
        ]

    def substitute(f: Any, a: Any, k: Any, look: Look) -> Any:
        terms = look(exponent)
        for each in others:
            terms = terms + torch.log(look(each))
        return moved(torch.logsumexp(terms, dims, keep), look)

    return Repair("logsumexp instead of log(sum(exp))", position, substitute)


def lost_constants(chain: Chain, position: int) -> Iterator[Repair]:
    """An epsilon that is 0 in the dtype, made one that is not."""
    for each in (position, *chain.ancestors(position, 5)):
        entry = chain.entries[each]
        first = first_input(entry)
        if first is None or entry.node is not None:
            continue
        constants = (*entry.args[1:], *entry.kwargs.values())
        lost = [
            value
            for value in constants
            if isinstance(value, (int, float)) and rounds_to_zero(float(value), first.dtype)
        ]
        if lost:
            eps = _EPS[first.dtype]

            def larger(value: Any, eps: float = eps, dtype: torch.dtype = first.dtype) -> Any:
                small = isinstance(value, (int, float)) and rounds_to_zero(float(value), dtype)
                return eps if small else value

            yield Repair(
                f"an epsilon of {eps:g} instead of {lost[0]:g} in {plan_of(entry.func).name}",
                each,
                lambda f, a, k, look, larger=larger: f(  # type: ignore[misc]
                    *map(larger, a), **{key: larger(value) for key, value in k.items()}
                ),
            )


def of_operation(cause: str, name: str, entry: Entry) -> Iterator[tuple[str, Substitute]]:
    """Repairs of the operation's own inputs."""
    first = first_input(entry)
    if first is None:
        return
    eps, edge = _EPS[first.dtype], _EDGE[first.dtype]
    top = torch.finfo(first.dtype).max
    if "ctc_loss" in name:
        yield "zero_infinity=True: leave out what cannot be aligned", _finite_losses
    elif cause in ("fully_masked", "bad_target") or (name in SOFTMAXES and cause != "overflow"):
        yield (
            "mask with a finite number instead of -inf",
            _inputs(lambda x: x.clamp(min=-top / 4) if x.is_floating_point() else x),
        )
    elif cause == "masked_times_zero":
        yield "select with torch.where instead of multiplying by 0", _select_product
    elif name in LOGARITHMS:
        tiny = max(torch.finfo(first.dtype).tiny, 1e-30)
        yield f"clamp the input of {name} at {tiny:.2g}", _first(lambda x: x.clamp(min=tiny))
    elif name in ("aten.sqrt", "aten.rsqrt") or (
        name.startswith("aten.pow") and cause != "overflow"
    ):
        yield (
            f"{eps:g} added inside {name}, after a clamp at 0",
            _first(lambda x: x.clamp(min=0) + eps),
        )
    elif name in ("aten.acos", "aten.asin", "aten.atanh", "aten.erfinv"):
        yield (
            f"clamp the input of {name} to ±(1 - {edge:g})",
            _first(lambda x: x.clamp(-1 + edge, 1 - edge)),
        )
    elif name in ("aten.div", "aten.div_", "aten.reciprocal"):
        if cause == "empty_reduction":
            yield "divide by max(count, 1)", _divisor(lambda d: d.clamp(min=1))
        else:
            yield (
                f"keep the divisor away from 0, by {eps:g}",
                _divisor(lambda d: torch.where(d.abs() < eps, torch.full_like(d, eps), d)),
            )
    elif name == "aten.linalg_vector_norm":
        yield f"sqrt(sum of squares + {eps:g}) instead of the norm", _smooth_norm(eps)
    elif "nll_loss" in name:
        yield "divide the summed loss by max(count, 1)", _guarded_nll
    elif cause == "empty_reduction":
        yield "0 where there is nothing to reduce", _guarded_reduction
    elif name == "aten.exp":
        bound = math.log(top) - 1
        yield f"clamp the input of exp at {bound:.4g}", _first(lambda x: x.clamp(max=bound))
        yield (
            "subtract the row's maximum before exp (right where a quotient follows)",
            _first(lambda x: x - x.amax(-1, keepdim=True).detach()),
        )
    elif cause == "degenerate_linalg":
        yield "separate the spectrum: add 1e-3 · diag(1, 2, ...)", _first(_jitter)
    elif name == "aten.sum" and cause == "overflow":
        yield "mean instead of sum", _mean
    elif name.startswith("aten.pow") and cause == "overflow":
        yield (
            "divide by the largest entry before squaring",
            _first(lambda x: x / x.abs().amax().detach().clamp(min=eps)),
        )


def _first(change: Callable[[torch.Tensor], torch.Tensor]) -> Substitute:
    return lambda func, args, kwargs, look: func(change(args[0]), *args[1:], **kwargs)


def _inputs(change: Callable[[torch.Tensor], torch.Tensor]) -> Substitute:
    def substitute(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
        changed = [change(each) if isinstance(each, torch.Tensor) else each for each in args]
        return func(*changed, **kwargs)

    return substitute


def _divisor(change: Callable[[torch.Tensor], torch.Tensor]) -> Substitute:
    def substitute(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
        divisor = torch.as_tensor(args[-1])
        changed = change(divisor)
        return func(changed) if len(args) == 1 else func(args[0], changed, **kwargs)

    return substitute


def _select_product(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    left, right = (torch.as_tensor(each) for each in args[:2])
    zero = (left == 0) | (right == 0)
    return torch.where(zero, 0.0, left) * torch.where(zero, 0.0, right)


def _smooth_norm(eps: float) -> Substitute:
    def substitute(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
        dim = args[2] if len(args) > 2 else kwargs.get("dim")
        keepdim = bool(args[3]) if len(args) > 3 else bool(kwargs.get("keepdim", False))
        squares = args[0].pow(2)
        total = squares.sum() if dim is None else squares.sum(dim, keepdim)
        return (total + eps).sqrt()

    return substitute


def _guarded_nll(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    total, weight = func(args[0], args[1], args[2], 2, *args[4:])
    return total / weight.clamp(min=1), weight


def _finite_losses(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    # Position 5 is zero_infinity: backward leaves them out, too.
    losses, *rest = func(*args[:5], *((0,) if len(args) < 5 else ()), True, **kwargs)
    return torch.where(losses.isinf(), 0.0, losses), *rest


def _guarded_reduction(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    out = func(*args, **kwargs)
    return args[0].sum() * 0 + torch.zeros_like(out)


def _mean(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return args[0].mean(*args[1:], **kwargs)


def _jitter(matrix: torch.Tensor) -> torch.Tensor:
    steps = torch.arange(1, matrix.shape[-1] + 1, dtype=matrix.dtype, device=matrix.device)
    return matrix + torch.diag(steps * 1e-3)
