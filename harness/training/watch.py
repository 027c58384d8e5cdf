"""What is recorded while lanes train: the first bad step of each, and numbers along the way."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.training.cause import Evidence, cause_of
from harness.training.place import Place


@dataclass(slots=True)
class FirstBad:
    """Where a run first was not finite."""

    step: int
    phase: str  # "forward", "backward", "optimizer"
    quantity: str  # "loss", "outputs", "gradient of NAME", "parameter NAME"
    word: str  # verdict: "nan", "inf", "nan_gradient", "inf_gradient"
    cause: str
    before: Tensor | None = None  # (P,) parameters before the step, until the place is known
    place: Place | None = None  # operation and module


@dataclass(slots=True)
class Notes:
    """Of one lane."""

    first_bad: FirstBad | None = None
    steps: int = 0  # made
    skipped: int = 0  # steps that loss scaling left out
    skipped_in_a_row: int = 0
    history: dict[str, list[float | None]] = field(default_factory=lambda: {"step": []})


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the lanes that are left, as the watch sees it; tensors have a row a lane."""

    number: int
    losses: Tensor  # (l,)
    outputs: Tensor | None  # (l, R, C), what the cost was given
    targets: Tensor | None  # (l, R)
    before: Tensor  # (l, P) parameters
    gradient: Tensor  # (l, P), unscaled, before clipping
    after: Tensor  # (l, P)
    scale: Tensor | None  # (l,) loss scale
    skipped: Tensor | None  # (l,) bool


@dataclass(frozen=True, slots=True)
class About:
    """What the watch must know of the training."""

    names: tuple[str, ...]  # of parameters
    sizes: tuple[int, ...]  # their elements, which lie one after another in P
    storage: torch.dtype
    logits: torch.dtype
    adaptive: bool
    vectors: bool  # the cost divides its inputs by their length
    dense: bool  # record the loss of every step
    plain: bool = False  # what the outputs mean is not known: no probabilities, no lengths


def thinned(step: int) -> bool:
    """Whether a step is recorded: all to 8, then four a doubling."""
    return step % (1 << max(0, step.bit_length() - 3)) == 0


class Watch:
    """Looks at every step; costs a few reductions over the parameters, more at recorded steps."""

    def __init__(self, about: About, lanes: int) -> None:
        self.notes = [Notes() for _ in range(lanes)]
        self._about = about
        self._start: list[float] | None = None  # norms of the parameters

    def see(self, step: Step, lanes: list[int]) -> Tensor:  # (l,) bool: parameters still finite
        """Note a step of these lanes; says which have finite parameters after it."""
        about = self._about
        if self._start is None:
            self._start = _norms(step.before).tolist()
        for lane in lanes:
            self.notes[lane].steps += 1
        loss_ok = torch.isfinite(step.losses)
        # What is not finite in a gradient is not finite in the parameters after it, unless loss
        # scaling left the step out: one look at either is enough.
        alive = torch.isfinite(step.after).all(dim=1)
        if step.skipped is not None:
            for place, was in enumerate(step.skipped.tolist()):
                notes = self.notes[lanes[place]]
                notes.skipped += was
                notes.skipped_in_a_row = notes.skipped_in_a_row + 1 if was else 0
        bad = ~(loss_ok & alive)
        newly = [
            place
            for place, is_bad in enumerate(bad.tolist())
            if is_bad and self.notes[lanes[place]].first_bad is None
        ]
        if newly:
            self._note_bad(step, lanes, newly)
        if thinned(step.number):
            self._record(step, lanes, list(range(len(lanes))))
        elif newly:
            self._record(step, lanes, newly)
        elif about.dense:
            for place, loss in enumerate(_finite(step.losses)):
                _append(self.notes[lanes[place]].history, step.number, {"loss": loss})
        return alive

    def _note_bad(self, step: Step, lanes: list[int], places: list[int]) -> None:
        for place in places:
            start = self._start[lanes[place]] if self._start else 0.0
            self.notes[lanes[place]].first_bad = _first_bad(step, place, self._about, start)

    def _record(self, step: Step, lanes: list[int], places: list[int]) -> None:
        at = torch.tensor(places, device=step.losses.device)
        found = {name: _finite(value) for name, value in _numbers(step, at, self._about).items()}
        for row, place in enumerate(places):
            values = {name: column[row] for name, column in found.items()}
            notes = self.notes[lanes[place]]
            if step.skipped is not None:
                values["skipped_steps"] = float(notes.skipped)
            _append(notes.history, step.number, values)


def _append(history: dict[str, list[float | None]], step: int, values: dict[str, Any]) -> None:
    seen = len(history["step"])
    history["step"].append(step)
    for name in sorted({*history, *values} - {"step"}):
        digits = 8 if name == "loss" else 4
        value = values.get(name)
        rounded = None if value is None else float(f"{value:.{digits}g}")
        history.setdefault(name, [None] * seen).append(rounded)


def _numbers(step: Step, at: Tensor, about: About) -> dict[str, Tensor]:
    """Numbers of a step, a column each (len(at),)."""
    before, gradient = step.before[at], step.gradient[at]
    weight_norm = _norms(before)
    found = {
        "loss": step.losses[at],
        "gradient_norm": _norms(gradient),
        "weight_norm": weight_norm,
        "update_ratio": _norms(step.after[at].double() - before.double()) / weight_norm,
    }
    if step.scale is not None:
        found["loss_scale"] = step.scale[at]
    if step.outputs is None:
        return found
    outputs = step.outputs[at].flatten(1, -2)  # (l, R, C)
    if about.plain:
        return found | {"largest_logit": outputs.abs().flatten(1).amax(dim=1)}
    if about.vectors:
        length = torch.linalg.vector_norm(outputs.double(), dim=-1)
        return found | {
            "largest_norm": length.amax(dim=1),
            "smallest_norm": length.amin(dim=1),
            "zero_vectors": (length == 0).sum(dim=1),
        }
    probabilities = _probabilities(outputs).flatten(1)
    return found | {
        "largest_logit": outputs.abs().flatten(1).amax(dim=1),
        "largest_probability": probabilities.amax(dim=1),
        "smallest_probability": probabilities.amin(dim=1),
        "exact_zeros": (probabilities == 0).sum(dim=1),
        "exact_ones": (probabilities == 1).sum(dim=1),
    }


def _probabilities(outputs: Tensor) -> Tensor:
    """In the outputs' own dtype: of all classes, or of both outcomes of one logit."""
    if outputs.shape[-1] > 1:
        return torch.softmax(outputs, dim=-1)
    return torch.cat([torch.sigmoid(outputs), torch.sigmoid(-outputs)], dim=-1)


def _first_bad(step: Step, place: int, about: About, start: float) -> FirstBad:
    loss = step.losses[place]
    outputs = step.outputs[place].flatten(0, -2) if step.outputs is not None else None
    outputs_ok = outputs is None or bool(torch.isfinite(outputs).all())
    gradient = step.gradient[place]
    if not torch.isfinite(loss):
        phase, quantity = "forward", "loss" if outputs_ok else "outputs"
        word = "nan" if loss.isnan() else "inf"
    elif not torch.isfinite(gradient).all():
        phase, quantity = "backward", f"gradient of {_first_name(gradient, about)}"
        word = "nan_gradient" if gradient.isnan().any() else "inf_gradient"
    else:
        after = step.after[place]
        phase, quantity = "optimizer", f"parameter {_first_name(after, about)}"
        word = "nan" if after.isnan().any() else "inf"
    zero_targets = zero_others = zero_vectors = 0
    largest = None
    if outputs is not None and outputs_ok:
        if about.vectors:
            # As the cost sees it: the length itself may underflow in a narrow dtype.
            zero_vectors = int(((outputs * outputs).sum(dim=-1) == 0).sum())
        elif not about.plain:
            largest = float(outputs.abs().max())
            zero_targets, zero_others = _zeros(outputs, step.targets, place)
    evidence = Evidence(
        phase,
        outputs_ok,
        bool(loss.isnan()),
        largest,
        outputs is not None and outputs.shape[-1] > 1,
        zero_targets,
        zero_others,
        zero_vectors,
        bool(gradient.isnan().any()),
        float(_norms(step.before[place : place + 1])[0]) / max(start, 1e-30),
        about.storage,
        about.logits,
        about.adaptive,
    )
    before = step.before[place].clone()
    return FirstBad(step.number, phase, quantity, word, cause_of(evidence), before)


def _zeros(outputs: Tensor, targets: Tensor | None, place: int) -> tuple[int, int]:
    """Rows with a probability of exactly 0 at the target, and of two outcomes at the other."""
    if targets is None:
        return 0, 0
    target = targets[place].flatten()
    if outputs.shape[-1] > 1:
        chosen = torch.softmax(outputs, dim=-1).gather(-1, target.long()[:, None])[:, 0]
        return int((chosen == 0).sum()), 0
    # As people write it: 1 - sigmoid is exactly 0 long before sigmoid(-x) is.
    positive = torch.sigmoid(outputs[:, 0])
    chosen = torch.where(target > 0.5, positive, 1 - positive)
    other = torch.where(target > 0.5, 1 - positive, positive)
    return int((chosen == 0).sum()), int((other == 0).sum())


def _first_name(flat: Tensor, about: About) -> str:
    """The parameter whose part of a flat tensor is first not finite."""
    place = int(torch.nonzero(~torch.isfinite(flat))[0, 0])
    for name, size in zip(about.names, about.sizes, strict=True):
        if place < size:
            return name
        place -= size
    raise AssertionError("more elements than parameters")


def _norms(rows: Tensor) -> Tensor:  # (l, P) -> (l,) in fp64, where no square of fp32 overflows
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _finite(values: Tensor) -> list[float | None]:
    return [each if math.isfinite(each) else None for each in values.double().tolist()]
