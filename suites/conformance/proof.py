"""Judging every element of an operation, output and gradients, against extended truth.

A subject is an operation with its options fixed. It is run twice on the same inputs, from different
garbage in uninitialised memory (or once, in most of a sample), and each element is judged by the
harness's rule: where things are non-finite first and exactly, then 2 ULP and the allowance for
terms that cancel. Elements that a NaN or an infinity touches are to be what torch gives in fp64.

The rule for an infinite factor of a gradient (the upstream gradient, a weight; `Subject.factors`):
it meets itself in differences, and whether infinity or NaN remains is a matter of the order in
which torch happens to add. There both are right, and a number is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness import poison
from harness.execute import Output
from harness.formats import format_of, statistics_format
from harness.judge import judge_elements
from harness.operation import Expected
from harness.verdict import Verdict
from suites.conformance import extended
from suites.conformance.extended import Array

Inputs = dict[str, Tensor]  # by the operation's argument names, and "upstream"
Results = dict[str, Tensor]  # "output", and a gradient by each differentiable input's name
MAX_ULP = 2.0
ROWS = 1 << 18  # judged at once: a chunk's truth takes some hundred megabytes
_FINE = (Verdict.OK.precedence, Verdict.UNREPRESENTABLE.precedence)


class Truth(NamedTuple):
    """The exact result, and how much inherent cancellation may cost.

    `terms` is k * sum |terms|: multiplied by the unit roundoff of the statistics' dtype it is
    allowed beside 2 ULP. Zero where nothing cancels.
    """

    value: Array
    terms: Array


def nonfinite_rows(inputs: Inputs, shared: tuple[str, ...]) -> Tensor:
    """Rows that any of the inputs makes non-finite; one that all rows share makes all so."""
    n_rows = inputs["upstream"].shape[0]
    strange = torch.zeros(n_rows, dtype=torch.bool)
    for name, value in inputs.items():
        if value.is_floating_point() and value.numel():
            bad = ~torch.isfinite(value)
            strange |= bad.any() if name in shared else bad.reshape(n_rows, -1).any(dim=1)
    return strange


@dataclass(frozen=True)
class Subject:
    """An operation with its options fixed, as the exhaustive proofs see it.

    `ours` and `torch` take the inputs but "upstream" by name and return one result a row or an
    element. `truth` takes all inputs widened, "upstream" included, and may know more results than
    are asked for. `strange` says which rows, or elements, are torch's to decide (all rows, where a
    shared input is not finite). `roles` and `pairs` make inputs of one or two patterns a row,
    `draw` ordinary ones of any (rows, columns).
    """

    name: str
    ours: Callable[..., Tensor]
    torch: Callable[..., Tensor]
    truth: Callable[[dict[str, Array]], dict[str, Truth]]
    roles: dict[str, Callable[[Tensor], Inputs | list[Inputs]]]
    pairs: dict[str, Callable[[Tensor, Tensor], Inputs]]
    draw: Callable[[int, int, torch.dtype], Inputs]
    differentiable: tuple[str, ...] = ("input",)
    shared: tuple[str, ...] = ()  # inputs that have no rows: a weight, a bias
    factors: tuple[str, ...] = ("upstream",)  # inputs that gradients are proportional to
    strange: Callable[[Inputs, tuple[str, ...]], Tensor] = field(default=nonfinite_rows)


def prove(
    subject: Subject,
    inputs: Inputs | list[Inputs],
    device: torch.device,
    label: str = "",
    *,
    twice: bool = True,
) -> int:
    """Judge every element; the number of elements judged.

    Where rows share an input, non-finite rows are proved apart from the others, whose sums in that
    input's gradient they would spoil.

    Raises:
        AssertionError: naming the first wrong elements, their inputs' bits, and how many there are.
    """
    judged = 0
    for each in inputs if isinstance(inputs, list) else [inputs]:
        for part in _parts(subject, each):
            judged += _prove_part(subject, part, device, f"{subject.name} {label}".strip(), twice)
    return judged


def _parts(subject: Subject, inputs: Inputs) -> Iterator[Inputs]:
    n_rows = len(inputs["upstream"])
    groups = [torch.arange(n_rows)]
    if subject.shared:
        strange = subject.strange(inputs, subject.shared)
        groups = [(~strange).nonzero()[:, 0], strange.nonzero()[:, 0]]
    for group in groups:
        for rows in group.split(ROWS) if len(group) else ():
            whole = len(rows) == n_rows
            yield {k: v if whole or k in subject.shared else v[rows] for k, v in inputs.items()}


def _prove_part(
    subject: Subject, inputs: Inputs, device: torch.device, label: str, twice: bool
) -> int:
    __tracebackhide__ = True
    first = run(subject.ours, inputs, subject.differentiable, device, which=0)
    second = run(subject.ours, inputs, subject.differentiable, device, which=1) if twice else first
    expectations, either = expected_of(subject, inputs)
    problems = []
    for name, value in first.items():
        output = Output(
            value,
            # A NaN handed in may have the poison's bits; in both runs it has not.
            unwritten=poison.unwritten(value, 0) & poison.unwritten(second[name], int(twice)),
            unrepeatable=_differ(value, second[name]),
        )
        codes, errors = _judged(output, expectations[name], inputs[_leaf(name, inputs)], name)
        wrong = ~(either[name] & ~value.isfinite())
        for fine in _FINE:
            wrong &= codes != fine
        if bool(wrong.any()):
            problems.append(_report(name, inputs, value, expectations[name], codes, errors, wrong))
    assert not problems, f"{label}:\n" + "\n".join(problems)
    return sum(value.numel() for value in first.values())


def run(
    function: Callable[..., Tensor],
    inputs: Inputs,
    differentiable: tuple[str, ...],
    device: torch.device | str,
    which: int = 0,
) -> Results:
    """The output and the gradients for the given upstream, on the CPU."""
    given = {k: v.to(device) for k, v in inputs.items() if k != "upstream"}
    for name in differentiable:
        given[name] = given[name].detach().requires_grad_()
    # Infinities are made and judged on purpose: NumPy's warnings of them say nothing here.
    with poison.poisoned(which), np.errstate(all="ignore"):
        output = function(**given)
        upstream = inputs["upstream"].to(device).to(output.dtype)
        leaves = [given[name] for name in differentiable]
        gradients = torch.autograd.grad(output, leaves, upstream)
    found = {"output": output.detach()} | dict(zip(differentiable, gradients, strict=True))
    return {name: value.cpu() for name, value in found.items()}


def expected_of(subject: Subject, inputs: Inputs) -> tuple[dict[str, Expected], dict[str, Tensor]]:
    """The extended truth, torch's in fp64 for the rows or elements that are not finite; and where
    infinity and NaN are both right.
    """
    fmt = format_of(next(iter(inputs.values())).dtype)
    roundoff = statistics_format(fmt).unit_roundoff
    with np.errstate(all="ignore"):
        truths = subject.truth({k: extended.extend(v) for k, v in inputs.items()})
        found = {
            name: extended.expected(truth.value, truth.terms * roundoff)
            for name, truth in truths.items()
        }
    strange = subject.strange(inputs, subject.shared)
    rows = strange.reshape(len(strange), -1).any(dim=1) if len(strange) else strange
    either = {name: torch.zeros_like(each.overflows) for name, each in found.items()}
    if not bool(rows.any()):
        return found, either
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    some = {k: v if k in subject.shared else v[rows] for k, v in wide.items()}
    theirs = run(subject.torch, some, subject.differentiable, "cpu")
    # What comes out does not depend on what comes back.
    forward = subject.strange(_calm(inputs, ("upstream",)), subject.shared)
    by_factors = strange & ~subject.strange(_calm(inputs, subject.factors), subject.shared)
    for name, value in theirs.items():
        if name in subject.shared:
            assert bool(rows.all()), "finite and other rows are proved apart"
            every = torch.ones_like(value, dtype=torch.bool)
            _override(found[name], value, every, slice(None))
            either[name] = every & ~found[name].high.isfinite() & by_factors.all()
        else:
            _override(found[name], value, forward if name == "output" else strange, rows)
            if name != "output":
                either[name] = _as(by_factors, found[name]) & ~found[name].high.isfinite()
    return found, either


def _calm(inputs: Inputs, names: tuple[str, ...]) -> Inputs:
    """The inputs with ones for some."""
    return inputs | {name: torch.ones_like(inputs[name]) for name in names}


def _as(rows: Tensor, expected: Expected) -> Tensor:
    """A flag for each row or element, for all elements of a result."""
    shape = expected.high.shape
    return rows.reshape(rows.shape + (1,) * (len(shape) - rows.dim())).expand(shape)


def _override(expected: Expected, theirs: Tensor, where: Tensor, rows: Tensor | slice) -> None:
    """Put torch's values where they decide: in strange rows or elements, unless both are finite;
    then the extended truth is the better one.
    """
    where = _as(where, expected)
    full = expected.high.clone()
    full[rows] = theirs
    finite = full.isfinite() & (expected.high.isfinite() & ~expected.overflows)
    where = where & ~finite
    expected.high.copy_(torch.where(where, full, expected.high))
    for rest in (expected.low, expected.slack, expected.overflows):
        rest.masked_fill_(where, 0)


def _leaf(name: str, inputs: Inputs) -> str:
    """The input whose format a result is judged in: its own, or the first one's."""
    return name if name in inputs else next(iter(inputs))


def _judged(output: Output, expected: Expected, given: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The verdicts and errors of one result, in units of its own dtype or the input's, if finer."""
    assert output.value is not None
    assert output.value.shape == expected.high.shape, (name, output.value.shape)
    fmt = format_of(given.dtype)
    returned = format_of(output.value.dtype)
    return judge_elements(
        output,
        expected,
        returned,
        "forward" if name == "output" else "backward",
        unit=returned if returned.precision >= fmt.precision else fmt,
        max_ulp=MAX_ULP,
        allowance=expected.slack,
    )


def _differ(first: Tensor, second: Tensor) -> Tensor:
    """Elements whose bits differ between two runs; two NaNs are the same."""
    differs = poison.bits_of(first) != poison.bits_of(second)
    return differs & ~(first.isnan() & second.isnan())


def _report(
    name: str,
    inputs: Inputs,
    value: Tensor,
    expected: Expected,
    codes: Tensor,
    errors: Tensor,
    wrong: Tensor,
) -> str:
    """The first wrong elements in full, and how many there are of each verdict."""
    verdicts = tuple(Verdict)
    counts = {verdicts[int(c)].word: int((codes[wrong] == c).sum()) for c in codes[wrong].unique()}
    lines = [f"  {name}: {int(wrong.sum())} of {wrong.numel()} elements are wrong: {counts}"]
    for place in wrong.nonzero()[:4].tolist():
        at = tuple(place)
        lines.append(
            f"    {at}: {verdicts[int(codes[at])].word}, got {value[at].item()!r},"
            f" truth {expected.high[at].item()!r}, {errors[at].item():.4g} ULP"
        )
        for key, given in inputs.items():
            row = given[at[0]] if given.shape[0] == value.shape[0] else given
            lines.append(f"      {key} {_shown(row)}")
    return "\n".join(lines)


def _shown(row: Tensor) -> str:
    """Up to eight values, as numbers and as bits."""
    flat = row.reshape(-1)[:8]
    if not flat.is_floating_point():
        return str(flat.tolist())
    width = flat.element_size() * 2
    bits = [f"{b & ((1 << 4 * width) - 1):0{width}x}" for b in poison.bits_of(flat).tolist()]
    dtype = str(flat.dtype).removeprefix("torch.")
    return f"{dtype} {flat.tolist()} = 0x[{' '.join(bits)}]"
