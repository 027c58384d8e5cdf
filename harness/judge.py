"""Station four: a path's output against the truth, element by element, then one verdict a case."""

import math

import torch
from torch import Tensor

from harness.case import Pass
from harness.execute import Output
from harness.formats import Format, format_of, statistics_format
from harness.judgement import Judgement
from harness.operation import Expected, Operation, Path
from harness.verdict import Verdict

# Elements carry a verdict as a small integer: its precedence.
_BY_PRECEDENCE = tuple(Verdict)
_OK = Verdict.OK.precedence


def judge(
    operation: Operation,
    path: Path,
    fmt: Format,  # of the inputs
    pass_: Pass,
    output: Output,
    expected: Expected,
    *,
    rows: int,  # of each case; the output holds several cases, one after the other
) -> list[Judgement]:
    """One judgement for each magnitude of the batch."""
    cases = expected.high.shape[0] // rows
    overwrote = _per_case(output.mutated, cases)
    if output.value is None:
        fault = output.fault or Verdict.ERROR
        representable = _per_case(~_overflows(expected, fmt), cases, every=True)
        return [Judgement(fault, representable[k], reason=output.reason) for k in range(cases)]
    returned = format_of(output.value.dtype)
    codes, errors = judge_elements(
        output,
        expected,
        returned,
        pass_,
        # A result narrower than its inputs is judged as they are: fewer bits are no excuse.
        unit=returned if returned.precision >= fmt.precision else fmt,
        max_ulp=operation.max_ulp,
        allowance=allowance_of(operation, fmt, expected),
    )
    overflow = _overflows(expected, returned)
    judgements = []
    for k in range(cases):
        part = slice(k * rows, (k + 1) * rows)
        judgements.append(
            _summary(
                codes[part],
                errors[part],
                representable=not bool(overflow[part].any()),
                mutated=overwrote[k] and not path.overwrites_input,
                returned=returned,
                overwrote_clone=overwrote[k] and path.overwrites_input,
            )
        )
    return judgements


def allowance_of(operation: Operation, fmt: Format, expected: Expected) -> Tensor:
    """What inherent cancellation may cost, absolutely: k * unit roundoff of the sums * |terms|."""
    roundoff = statistics_format(fmt).unit_roundoff
    slack = torch.nan_to_num(expected.slack, nan=0.0)
    return operation.slack_factor * roundoff * slack


def judge_elements(
    output: Output,
    expected: Expected,
    returned: Format,
    pass_: Pass,
    *,
    unit: Format,  # in whose units in the last place errors are counted
    max_ulp: float,
    allowance: Tensor,  # float64, absolute, beside max_ulp
) -> tuple[Tensor, Tensor]:  # precedence of each element's verdict; its error in ULP
    """Compare where things are non-finite first and exactly; then in ULP.

    The error is 0 where it means nothing: at non-finite values and unrepresentable truths.
    """
    assert output.value is not None
    value = output.value.double().reshape(expected.high.shape)
    nan = Verdict.NAN if pass_ == "forward" else Verdict.NAN_GRADIENT
    inf = Verdict.INF if pass_ == "forward" else Verdict.INF_GRADIENT
    truth = expected.high
    overflow = _overflows(expected, returned)
    truth_finite = torch.isfinite(truth) | expected.overflows

    # The difference of two doubles near each other is exact, so `low` is not lost.
    error = ((value - truth) - expected.low).abs()
    comparable = torch.isfinite(value) & truth_finite & ~overflow
    error = torch.where(comparable, error, 0.0)
    ulp = unit.ulp(torch.nan_to_num(truth, nan=0.0))
    # Zero is a faithful rounding below the smallest subnormal, and harmless under the allowance.
    zeroed = (value == 0) & (truth.abs() >= returned.smallest) & (error > allowance)

    codes = torch.full(truth.shape, _OK, dtype=torch.int64)

    def mark(where: Tensor, verdict: Verdict) -> None:
        codes[where] = torch.minimum(codes, torch.tensor(verdict.precedence))[where]

    if output.unrepeatable is not None:
        mark(output.unrepeatable.reshape(truth.shape), Verdict.NONDETERMINISTIC)
    mark(comparable & (error > max_ulp * ulp + allowance), Verdict.INACCURATE)
    mark(comparable & zeroed, Verdict.UNDERFLOW)
    mark(overflow, Verdict.UNREPRESENTABLE)
    mark(torch.isfinite(value) & ~truth_finite, Verdict.MASKED_NONFINITE)
    # An infinity is right where the truth is that infinity or rounds to it.
    right_inf = torch.isinf(value) & (torch.sign(value) == torch.sign(truth))
    right_inf &= overflow | torch.isinf(truth)
    mark(torch.isinf(value) & ~right_inf, inf)
    mark(torch.isnan(value) & ~torch.isnan(truth), nan)
    if output.unwritten is not None:
        mark(output.unwritten.reshape(truth.shape), Verdict.UNWRITTEN)
    return codes, error / ulp


def _overflows(expected: Expected, fmt: Format) -> Tensor:
    """Where the truth is finite but rounds to infinity in this format."""
    largest, half_ulp = fmt.overflow_threshold
    beyond = torch.isfinite(expected.high) & (expected.high.abs() - largest >= half_ulp)
    return beyond | expected.overflows


def _per_case(flags: Tensor | None, cases: int, *, every: bool = False) -> list[bool]:
    if flags is None:
        return [False] * cases
    grouped = flags.reshape(cases, -1)
    return (grouped.all(dim=1) if every else grouped.any(dim=1)).tolist()


def _summary(
    codes: Tensor,
    errors: Tensor,
    *,
    representable: bool,
    mutated: bool,
    returned: Format,
    overwrote_clone: bool,
) -> Judgement:
    verdict = _BY_PRECEDENCE[int(codes.min())] if codes.numel() else Verdict.OK
    if mutated and Verdict.MUTATED_INPUT.precedence < verdict.precedence:
        verdict = Verdict.MUTATED_INPUT
    wrong = (codes != _OK) & (codes != Verdict.UNREPRESENTABLE.precedence)
    places = wrong.nonzero()
    return Judgement(
        verdict,
        representable,
        returned.name,
        max_ulp=_finite_maximum(errors),
        bad=int(wrong.sum()),
        elements=codes.numel(),
        first_bad=tuple(places[0].tolist()) if len(places) else None,
        overwrote_clone=overwrote_clone,
    )


def _finite_maximum(errors: Tensor) -> float | None:
    # Opposite ends of fp64 are further apart than a double can say; then there is no number.
    largest = float(errors.max()) if errors.numel() else math.inf
    return largest if math.isfinite(largest) else None
