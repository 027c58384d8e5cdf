"""From evidence to a cause: what kind of mistake made this operation's output not finite."""

import math
from dataclasses import dataclass

import torch

from harness.diagnosis import cause_backward, cause_forward
from harness.diagnosis.chain import Chain, first_input
from harness.diagnosis.flow import Origin
from harness.diagnosis.history import History
from harness.diagnosis.numbers import absmax
from harness.diagnosis.tape import Entry, plan_of

# Growth over the steps before that counts as divergence rather than as a single bad step.
GREW = 100.0


def several_ranks() -> bool:
    """Whether this process is one of several that train together."""
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a cause is judged by."""

    origin: Origin
    chain: Chain  # the step's tape
    history: History
    model_inputs: list[torch.Tensor]
    eps: float | None = None  # the optimiser's
    in_clipping: bool = False
    foreign_optimizer: bool = False  # one that is not torch's

    @property
    def from_other_rank(self) -> bool:
        """Whether a reduction over the ranks, and no operation of this one, brought it."""
        entry = self.origin.entry
        if self.origin.kind == "rank":
            return True
        if entry is None or not several_ranks():
            return False
        taken = getattr(entry.node, "name", str)().endswith("AccumulateGrad")
        reduced = self.origin.name.startswith(("c10d.", "_c10d_functional."))
        return taken or reduced


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause, and the operation to change where it is another than the one that was caught."""

    cause: str
    op: str
    position: int | None = None  # of the forward operation in the tape


def judge(evidence: Evidence) -> Verdict:
    """The cause of an origin."""
    origin = evidence.origin
    entry = origin.entry
    fed = {
        "data": "bad_data",
        "target": "bad_target",
        "parameter": "initialization",
        "buffer": "poisoned_buffer",
        "raw": "unknown",
        "rank": "unknown",
    }
    if origin.kind in fed:
        return Verdict(fed[origin.kind], origin.name, origin.position)
    if entry is None:
        return Verdict("unknown", origin.name, origin.position)
    if origin.phase == "optimizer":
        return Verdict(_optimizer(evidence), origin.name)
    if evidence.from_other_rank:
        return Verdict("unknown", "c10d.allreduce_", origin.position)
    if evidence.in_clipping:
        return Verdict("gradient_clipping", origin.name)
    if origin.phase == "backward":
        position = evidence.chain.forward_of(entry)
        name = _forward_name(evidence, position)
        cause = cause_backward.judge(evidence.origin, evidence.chain, position, name)
    elif origin.name == "aten.where":
        return _chosen(evidence)
    else:
        position, name = origin.position, origin.name
        cause = cause_forward.judge(evidence.origin, evidence.chain)
    if cause == "overflow":
        cause = _overflow(evidence, position)
    return Verdict(cause, name, position)


def _chosen(evidence: Evidence) -> Verdict:
    """A NaN that a function returns where its argument has no value."""
    chain, position = evidence.chain, evidence.origin.position
    for each in chain.ancestors(position, 6):
        name = chain.name(each)
        if "linalg" in name and "norm" not in name:
            return Verdict("degenerate_linalg", name, each)
    return Verdict("domain_error", evidence.origin.name, position)


def _forward_name(evidence: Evidence, position: int | None) -> str:
    entry = evidence.origin.entry
    assert entry is not None
    node = entry.node.name() if entry.node is not None else ""
    if position is not None and node.endswith(tuple("0123456789")):
        return evidence.chain.name(position)
    # A Python autograd.Function keeps its own name; a node without its forward, torch's.
    return str(node.rstrip("0123456789").removesuffix("Backward")) or evidence.origin.name


def _optimizer(evidence: Evidence) -> str:
    origin = evidence.origin
    entry, name = origin.entry, origin.name
    dtype = next((each.dtype for each in origin.inputs), "fp32")
    if entry is not None and not all(map(math.isfinite, numbers_of(entry))):
        return "divergence"  # a rate that is not finite
    quotient = any(word in name for word in ("div", "adam", "sqrt", "recip"))
    if quotient and evidence.eps is not None and evidence.eps <= _NOTHING.get(dtype, 0.0):
        return "epsilon_underflow"
    if entry is not None and evidence.foreign_optimizer:
        # Somebody's own optimiser: the same mistakes as in any formula.
        cause = cause_forward.judge(origin, evidence.chain)
        if cause not in ("overflow", "unknown"):
            return cause
    grown = max(evidence.history.growth(each) for each in ("loss", "gradient_norm", "weight_norm"))
    if grown > GREW and "addcmul" not in name:
        return "divergence"
    return "optimizer_state"


# Half of the smallest number of each format: what lies below is 0 there.
_NOTHING = {"fp16": 2.0**-25, "bf16": 2.0**-134, "fp32": 2.0**-150}


def numbers_of(entry: Entry) -> list[float]:
    """The numbers among an operation's arguments, lists of them included."""
    found = []
    for each in (*entry.args, *entry.kwargs.values()):
        for number in each if isinstance(each, (list, tuple)) else (each,):
            if isinstance(number, (int, float)):
                found.append(float(number))
    return found


def _overflow(evidence: Evidence, position: int | None) -> str:
    """Whether numbers grew, came in too large, started too large, or meet a narrow dtype."""
    history, origin = evidence.history, evidence.origin
    if any(_outlier(each) for each in evidence.model_inputs):
        return "bad_data"
    earlier = [row["input"] for row in history.rows if "input" in row]
    now = max((absmax(each) for each in evidence.model_inputs), default=0.0)
    if len(earlier) >= 3 and now > 1e3 * max(sorted(earlier)[len(earlier) // 2], 1e-6):
        return "bad_data"
    # What grew in this very step may be its batch: the weights, and the steps before, tell.
    weights = history.growth("weight_norm")
    earlier_growth = {
        name: history.growth(name, before=origin.step)
        for name in ("loss", "gradient_norm", "output")
    }
    if origin.step >= 1 and (
        weights > 10 or max(earlier_growth["loss"], earlier_growth["output"]) > GREW
    ):
        return "divergence"
    if origin.step <= 2 and _started_too_large(evidence, position):
        return "initialization"
    if origin.step and (earlier_growth["loss"] > 10 or earlier_growth["gradient_norm"] > GREW):
        return "divergence"
    return "overflow"


def _outlier(tensor: torch.Tensor) -> bool:
    """One entry thousands of times beyond the others."""
    if not tensor.is_floating_point() or tensor.numel() < 8:
        return False
    sizes = tensor.detach().abs().float().flatten()
    middle = float(sizes.median())
    return float(sizes.max()) > 1e4 * max(middle, 1e-3)


def _started_too_large(evidence: Evidence, position: int | None) -> bool:
    """Weights far beyond what keeps the size of activations: 30 times 1/sqrt(fan in)."""
    if position is None:
        return False
    positions = [position, *evidence.chain.ancestors(position, 12)]
    for each in positions:
        entry = evidence.chain.entries[each]
        name = plan_of(entry.func).name
        if name not in ("aten.mm", "aten.addmm", "aten.bmm", "aten.convolution", "aten.mv"):
            continue
        for tensor in entry.args:
            weight = _parameter(evidence.chain, tensor, each)
            if weight is not None and weight.dim() >= 2:
                fan_in = max(weight[0].numel(), 1)
                spread = float(weight.detach().float().pow(2).mean().sqrt())
                if spread > 30 / fan_in**0.5:
                    return True
    return False


def _parameter(chain: Chain, tensor: object, before: int) -> torch.Tensor | None:
    """The parameter behind a tensor, looking through transposes and casts."""
    for _ in range(6):
        if not isinstance(tensor, torch.Tensor):
            return None
        if isinstance(tensor, torch.nn.Parameter) or (tensor.is_leaf and tensor.requires_grad):
            return tensor
        made = chain.maker(tensor, before)
        if made is None:
            return None
        tensor, before = first_input(chain.entries[made]), made
    return None
