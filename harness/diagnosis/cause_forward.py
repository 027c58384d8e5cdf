"""Causes of what goes bad in the forward pass, by operation and by the numbers it read."""

import torch

from harness.diagnosis.chain import Chain, first_input, scalars
from harness.diagnosis.flow import Origin
from harness.diagnosis.numbers import absmax, at_bad, rounds_to_zero
from harness.diagnosis.tape import Entry, inputs_of, outputs_of, plan_of

LOGARITHMS = frozenset(
    ["aten.log", "aten.log2", "aten.log10", "aten.log1p", "aten.log_", "aten.xlogy", "aten.logit"]
)
DOMAINS = frozenset(
    [
        "aten.sqrt",
        "aten.acos",
        "aten.asin",
        "aten.acosh",
        "aten.atanh",
        "aten.erfinv",
        "aten.lgamma",
        "aten.digamma",
        "aten.special_ndtri",
        "aten.arccos",
        "aten.mvlgamma",
        "aten.sqrt_",
    ]
)
SOFTMAXES = frozenset(
    [
        "aten._softmax",
        "aten._log_softmax",
        "aten.logsumexp",
        "aten._safe_softmax",
        "aten._scaled_dot_product_flash_attention_for_cpu",
        "aten._scaled_dot_product_attention_math",
    ]
)
_DIVISIONS = frozenset(
    ["aten.div", "aten.div_", "aten.reciprocal", "aten.rsqrt", "aten.true_divide"]
)
_STATISTICS = frozenset(["aten.mean", "aten.std", "aten.var", "aten.var_mean", "aten.std_mean"])


def judge(origin: Origin, chain: Chain) -> str:
    """The cause's word."""
    entry = origin.entry
    assert entry is not None
    name = origin.name
    out = outputs_of(entry)[0]
    if origin.parents:
        return _from_masks(name, entry, chain, origin.position)
    if ("linalg" in name and "norm" not in name) or name in ("aten.inverse", "aten.pinverse"):
        return "degenerate_linalg"
    if "nll_loss" in name or name in _STATISTICS or name in ("aten.median", "aten.native_dropout"):
        cause = _empty(name, entry)
        if cause:
            return cause
    if "ctc_loss" in name:
        return "bad_target"  # no alignment exists: a target longer than its input
    if name in LOGARITHMS:
        return _logarithm(origin, entry, out, chain)
    if name in _DIVISIONS:
        return _division(origin, entry, out, chain)
    if name in DOMAINS:
        return _domain(origin, entry, chain)
    if name.startswith("aten.pow"):
        return _power(entry, out)
    if name in SOFTMAXES:
        return "fully_masked"
    return "overflow"


def _from_masks(name: str, entry: Entry, chain: Chain, position: int) -> str:
    """An intended infinity turned into NaN."""
    if name in ("aten.mul", "aten.mul_", "aten.dot"):
        return "masked_times_zero"
    if "nll_loss" in name or "binary_cross_entropy" in name:
        return "bad_target"
    if name in ("aten.mm", "aten.addmm", "aten.bmm", "aten.convolution", "aten.native_layer_norm"):
        masked = any(
            chain.name(each) in SOFTMAXES or "masked_fill" in chain.name(each)
            for each in chain.ancestors(position, 6)
        )
        return "masked_times_zero" if masked else "bad_data"
    return "fully_masked"


def _empty(name: str, entry: Entry) -> str | None:
    first = first_input(entry)
    if "nll_loss" in name:
        return "empty_reduction"
    if first is None or first.numel() == 0 or 0 in first.shape:
        return "empty_reduction"
    if name != "aten.mean":
        return "empty_reduction" if not (absmax(first) > 1e4) else None
    return None


def _logarithm(origin: Origin, entry: Entry, out: torch.Tensor, chain: Chain) -> str:
    if lost_epsilon(origin.position, chain):
        return "epsilon_underflow"
    shift = 1.0 if origin.name == "aten.log1p" else 0.0
    at = at_bad(entry.args[0], out)
    if at is None or bool((at + shift == 0).any()):
        return "log_of_zero"
    if origin.name == "aten.logit":
        return "log_of_zero" if bool(((at == 0) | (at == 1)).any()) else "domain_error"
    return "cancellation" if cancelled(entry.args[0], origin.position, chain) else "domain_error"


def _division(origin: Origin, entry: Entry, out: torch.Tensor, chain: Chain) -> str:
    divisor = entry.args[1] if len(entry.args) > 1 else entry.args[0]
    at = at_bad(divisor, out)
    if at is None:
        return "unknown"
    if bool((at == 0).any()):
        if lost_epsilon(origin.position, chain):
            return "epsilon_underflow"
        if isinstance(divisor, (int, float)) or counts(divisor, origin.position, chain):
            return "empty_reduction"
        return "division_by_zero"
    if bool((at < 0).any()) and origin.name == "aten.rsqrt":
        return "cancellation" if cancelled(divisor, origin.position, chain) else "domain_error"
    return "overflow"


def _domain(origin: Origin, entry: Entry, chain: Chain) -> str:
    if origin.name in ("aten.sqrt", "aten.sqrt_") and cancelled(
        entry.args[0], origin.position, chain
    ):
        return "cancellation"
    return "domain_error"


def _power(entry: Entry, out: torch.Tensor) -> str:
    base, exponent = at_bad(entry.args[0], out), at_bad(entry.args[1], out)
    if base is None or exponent is None:
        return "overflow"
    if bool(((base < 0) & (exponent != exponent.round())).any()):
        return "domain_error"
    return "division_by_zero" if bool(((base == 0) & (exponent < 0)).any()) else "overflow"


def counts(
    tensor: object,  # a divisor that was zero
    position: int,
    chain: Chain,
) -> bool:
    """Whether a divisor counts: it was summed from truth values, integers or 0/1 masks."""
    made = chain.source(tensor, position)
    for _ in range(3):
        if made is None:
            break
        entry = chain.entries[made]
        summed = entry.args[0] if entry.args else None
        if not isinstance(summed, torch.Tensor):
            return False
        if not summed.is_floating_point():
            return True
        if "sum" in chain.name(made):
            return bool(((summed == 0) | (summed == 1)).all()) and not _smooth(summed, made, chain)
        made = chain.source(summed, made)
    return isinstance(tensor, torch.Tensor) and not tensor.is_floating_point()


def _smooth(tensor: torch.Tensor, before: int, chain: Chain) -> bool:
    """All zero by arithmetic (a vector's squares), not a mask of zeros and ones."""
    made = chain.source(tensor, before)
    return made is not None and any(
        word in chain.name(made) for word in ("mul", "pow", "abs", "exp", "relu", "clamp", "sub")
    )


def lost_epsilon(position: int, chain: Chain) -> bool:
    """Whether a small constant in the operations before rounds to 0 in their dtype."""
    for each in (position, *chain.ancestors(position, 5)):
        entry, name = chain.entries[each], chain.name(each)
        if any(word in name for word in ("add", "clamp", "maximum", "clip", "norm")):
            first = first_input(entry)
            if first is not None and any(
                rounds_to_zero(number, first.dtype) for number in scalars(entry)
            ):
                return True
    return False


def cancelled(
    tensor: object,  # what should not be negative, and is, or is zero
    position: int,
    chain: Chain,
) -> bool:
    """Whether it is a small difference of large terms."""
    made = chain.source(tensor, position)
    for _ in range(3):
        if made is None:
            return False
        entry = chain.entries[made]
        name = plan_of(entry.func).name
        if name in ("aten.sub", "aten.add", "aten.rsub", "aten.sub_", "aten.add_"):
            terms = inputs_of(entry)
            largest = max([absmax(each) for each in terms] + [abs(x) for x in scalars(entry)[:1]])
            out = entry.out
            low = float(out.min()) if isinstance(out, torch.Tensor) and out.numel() else 0.0
            if low <= 0 and largest > 0 and abs(low) <= 1e-2 * largest and len(terms) > 1:
                return True
        first = first_input(entry)
        made = chain.source(first, made) if first is not None else None
    return False
