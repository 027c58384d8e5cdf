"""What people call from their own code: find a frontier, hold a function to all claims."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.case import PASSES, Pass
from harness.catalog import operation_named
from harness.environment import choose_device
from harness.errors import InputError, unknown
from harness.execute import NO_GRADIENT, missing_parameters
from harness.failures import broken_claims_text
from harness.formats import FORMATS, Format, format_named, format_of
from harness.inputs import build_batch
from harness.magnitudes import grid, parse_range
from harness.operation import ALL_CLAIMS, Operation, Path, Regime
from harness.plan import Item
from harness.record import Record
from harness.search import SIDES, Frontier, Side, search_frontier
from harness.sweep import Evaluator, TruthCache, bisection_width, sweep_item


def frontier(
    operation: str,
    path: str,
    dtype: str,
    regime: str = "normal",
    *,
    pass_: Pass = "forward",
    side: Side = "high",
    seed: int = 0,
    catalog: str | None = None,
) -> Frontier:
    """Where a path stops being finite and stops being accurate, as adjacent floats of the dtype.

    Runs on the CUDA device if there is one, else in Triton's interpreter, which needs triton not to
    have been imported before. `harness.frontier("cross_entropy", "naive", "fp32", "peak")` has
    `nonfinite_from` just above ln(largest fp32) = 88.72.

    Raises:
        InputError: for an unknown name, or a regime that has no magnitude.
    """
    device = choose_device(None)
    chosen = operation_named(operation, catalog)
    fmt = format_named(dtype)
    if pass_ not in PASSES:
        raise unknown("pass", pass_, PASSES)
    if side not in SIDES:
        raise unknown("side", side, SIDES)
    layout, implementation = chosen.regime(regime), chosen.path(path)
    points = grid(fmt, layout.magnitudes(fmt))
    if 1.0 not in points:
        raise InputError(
            f"regime {regime!r} does not vary with a magnitude around 1, so it has no frontier;"
            f" choose another regime of {operation}"
        )
    # Backward needs the forward run first; forward alone saves the backward's time.
    evaluator = Evaluator(
        chosen, implementation, fmt, layout, passes=(pass_,), seed=seed, device=device
    )
    return search_frontier(
        evaluator.of_pass(pass_),
        fmt,
        points,
        side=side,
        width=bisection_width(implementation, fmt),
    )


def assert_stable(
    fn: Callable[..., Tensor],
    operation: str,
    *,
    dtypes: Sequence[str | torch.dtype] | str | torch.dtype = tuple(FORMATS),
    magnitudes: Sequence[float] | float | str | None = None,  # "A:B:N" too; default: everything
    seed: int = 0,
    catalog: str | None = None,
) -> None:
    """One line in anyone's own test-suite: hold `fn` to all claims, forward and backward.

    `fn` takes the operation's inputs in their order (input and, for losses, target) and returns one
    result a row (cross_entropy: shape (N,) for input (N, C)) or an element; rows run along the last
    dimension. It is run on every regime of the operation, except those with inputs or options (a
    weight, `label_smoothing`) that its signature lacks, or of another kind (class probabilities). A
    result that does not require a gradient is judged forward alone.

    Raises:
        AssertionError: if a case is non-finite where its truth is representable, inaccurate,
            changes its input, leaves elements unwritten, or differs from run to run; the message
            names the cases.
        InputError: for an unknown operation or dtype, or a magnitude that is not positive.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line, not this file
    device = choose_device(None)
    chosen = operation_named(operation, catalog)
    if isinstance(dtypes, (str, torch.dtype)):
        dtypes = (dtypes,)
    if isinstance(magnitudes, (int, float)):
        magnitudes = (magnitudes,)
    asked = parse_range(magnitudes) if isinstance(magnitudes, str) else None
    given = None if magnitudes is None or isinstance(magnitudes, str) else list(magnitudes)
    if given is not None and not (given and all(_is_magnitude(each) for each in given)):
        raise InputError(f"magnitudes must be finite and not negative, not {given}")
    name = getattr(fn, "__name__", "fn")
    candidate = Path(name if name.isidentifier() else "fn", fn, claims=ALL_CLAIMS)
    truths = TruthCache()
    broken = []
    measured = 0
    for dtype in dtypes:
        fmt = format_named(dtype) if isinstance(dtype, str) else format_of(dtype)
        for regime in chosen.regimes:
            low, high = regime.magnitudes(fmt)
            if given is None:
                points = grid(fmt, (low, high), asked)
            else:
                rounded = {fmt.round(each) for each in given if each <= fmt.largest}
                points = sorted(each for each in rounded if low <= each <= high)
            if points and not regime.extension and not _lacking(fn, chosen, regime, fmt):
                item = Item(chosen, candidate, fmt, regime, tuple(points), PASSES)
                records = sweep_item(item, seed=seed, device=device, truths=truths, refine=False)
                measured += len(records)
                broken += [record for record in records if _counts(record)]
    if not measured:
        raise InputError(
            f"nothing was measured: no dtype given, none of {list(dtypes)} holds a magnitude of"
            f" {magnitudes}, or {candidate.name} takes fewer inputs than {operation} has"
        )
    if broken:
        raise AssertionError(
            broken_claims_text(
                broken,
                lambda record: (
                    f"harness.assert_stable({candidate.name}, {operation!r},"
                    f" dtypes=({record.dtype!r},), magnitudes=({record['magnitude']!r},),"
                    f" seed={seed})"
                ),
            )
        )


def _lacking(fn: Callable[..., Tensor], operation: Operation, regime: Regime, fmt: Format) -> str:
    """The inputs and options of a regime that fn has no place for."""
    batch = build_batch(operation, regime, fmt, [1.0], seed=0)
    return missing_parameters(fn, batch.roles, batch.options)


def _counts(record: Record) -> bool:
    forward_alone = record["pass"] == "backward" and record.get("reason") == NO_GRADIENT
    return bool(record.get("broken")) and not forward_alone


def _is_magnitude(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < float("inf")
