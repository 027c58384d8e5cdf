"""The truth of cross-entropy with every option: in float64, in ball arithmetic, and its slack.

One definition serves class indices and probabilities. With the capped logits z_c = k tanh(x_c / k)
(or x_c), their maximum m, coefficients a_c = w_c ((1 - s) t_c + s / C), A = sum a_c, D = sum
exp(z_c - m) and R = D less one maximum's 1,

    L = sum a_c (m - z_c) + A log1p(R) + zeta (m + log1p(R))**2,
    dL/dz_c = (e_c (A - a_c) - a_c (D - e_c)) / D + 2 zeta (m + log1p(R)) e_c / D,

where D - e_c is R for a maximum. No term of L is negative for coefficients that are not, and a
coefficient of 0 leaves its class out, -inf or not.
"""

import math
from typing import Any

import torch
from torch import Tensor

from harness.operation import Roles

IGNORED = -100


def _coefficients(roles: Roles, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """a_c, (N, C), and which rows count, (N,)."""
    logits, target = roles["input"], roles["target"]
    n_classes = logits.shape[1]
    if target.is_floating_point():
        own, kept = target, torch.ones(len(target), dtype=torch.bool)
    else:
        own = (torch.arange(n_classes) == target[:, None]).double()
        kept = target != IGNORED
    coefficient = own * (1.0 - label_smoothing) + label_smoothing / n_classes
    if "weight" in roles:
        coefficient = coefficient * roles["weight"]
    return coefficient, kept


def _parts(
    roles: Roles, label_smoothing: float, z_loss: float, softcap: float
) -> dict[str, Tensor]:
    """What truth and slack are made of."""
    x = roles["input"]
    coefficient, kept = _coefficients(roles, label_smoothing)
    z, slope = x, torch.ones_like(x)
    if softcap:
        z = softcap * torch.tanh(x / softcap)
        z = torch.where(x.abs() < 1e-9 * softcap, x, z)
        power = torch.exp(-2 * (x / softcap).abs())
        slope = 4 * power / (1 + power).square()
    top = z.amax(dim=1, keepdim=True)
    powers = torch.exp(z - top)
    first = torch.zeros_like(z, dtype=torch.bool).scatter(1, z.argmax(dim=1, keepdim=True), True)
    rest = torch.where(first, 0.0, powers).sum(dim=1, keepdim=True)
    beside = torch.where(z == top, rest, 1 + rest - powers)
    mass = coefficient.sum(dim=1, keepdim=True)
    gaps = torch.where((coefficient == 0) & ~(top - z).isnan(), 0.0, coefficient * (top - z))
    log_sum = torch.log1p(rest)
    share = powers / (1 + rest)
    others = _others(coefficient, mass)
    return {
        "kept": kept, "z": z, "slope": slope, "top": top, "log_sum": log_sum, "share": share,
        "gaps": gaps.sum(dim=1, keepdim=True), "mass": mass, "pulls": share * others,
        "pushes": coefficient * beside / (1 + rest),
        "of_z": 2 * z_loss * share * (top + log_sum),
    }  # fmt: skip


def _others(coefficient: Tensor, mass: Tensor) -> Tensor:
    """A - a_c, exactly 0 where a row has but one coefficient."""
    alone = (coefficient != 0).sum(dim=1, keepdim=True) == 1
    return torch.where(alone & (coefficient != 0), 0.0, mass - coefficient)


def truth(
    roles: Roles, *, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float = 0.0
) -> dict[str, Tensor]:
    """Loss and gradient in float64."""
    part = _parts(roles, label_smoothing, z_loss, softcap)
    mass_log = torch.where(part["mass"] == 0, 0.0 * part["log_sum"], part["mass"] * part["log_sum"])
    loss = part["gaps"] + mass_log
    if z_loss:
        loss = loss + z_loss * (part["top"] + part["log_sum"]).square()
    gradient = (part["pulls"] - part["pushes"] + part["of_z"]) * part["slope"]
    kept = part["kept"]
    return {
        "forward": torch.where(kept, loss.squeeze(1), 0.0),
        "backward": torch.where(kept[:, None], gradient, 0.0),
    }


def slack(
    roles: Roles, *, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float = 0.0
) -> dict[str, Tensor]:
    """What may cancel or cannot be held, in units roundoff of the statistics' dtype.

    The operation's factor is 1, since the multiples are derived here.

    Class indices alone: nothing; neither does a class weight cancel anything.

    Loss of dense rows, smoothed or weighted: no term cancels, but each coefficient is itself the
    result of up to three roundings (1 - s, times t plus s / C, times w): 3u of the loss. Plain
    probabilities are their own coefficients, and only their sum bears u.

    Gradient of dense rows: g p (A - a_c) against g a_c (1 - p_c). Each coefficient bears 3u (1 - s,
    product and sum, weight), the exponential u, the quotient, D and each product u: 8u of both.

    z-loss: m + log D bears 2u of |m| + log D, twice that in its square, and its gradient, 2 z p
    times that, 5u more of its own; where it meets the loss's gradient, both count.

    Softcap: a capped logit is held to 2 ULP, 4u of it, so that each exponential errs by 8u of the
    row's largest one, X, and a loss by as much of its mass times X. 2u more for the slope.
    """
    part = _parts(roles, label_smoothing, z_loss, softcap)
    dense = roles["target"].is_floating_point() or label_smoothing > 0
    terms = part["pulls"].abs() + part["pushes"].abs()
    normalizer = part["top"].abs() + part["log_sum"]
    forward = torch.zeros_like(part["top"])
    backward = torch.zeros_like(terms)
    if dense:
        backward = backward + 8 * terms
    if dense:
        largest_loss = torch.finfo(torch.float64).max / 8
        size = part["gaps"].abs() + (part["mass"] * part["log_sum"]).abs()
        roundings = 3 if label_smoothing > 0 or "weight" in roles else 1
        forward = forward + roundings * size.clamp(max=largest_loss)
    if z_loss:
        size = part["top"] + part["log_sum"]
        forward = forward + 4 * z_loss * size.abs() * normalizer
        backward = backward + 2 * terms + 4 * z_loss * part["share"] * normalizer
        backward = backward + 5 * part["of_z"].abs()
    if softcap:
        largest = part["z"].abs().amax(dim=1, keepdim=True)
        forward = forward + 8 * largest * part["mass"].abs()
        if z_loss:
            forward = forward + 16 * z_loss * size.abs() * largest
            backward = backward + 16 * z_loss * part["share"] * largest
        backward = backward + (2 + 16 * largest) * (terms + part["of_z"].abs())
    backward = backward * part["slope"]
    largest_float = torch.finfo(torch.float64).max
    return {
        "forward": torch.nan_to_num(forward.squeeze(1), nan=0.0, posinf=largest_float),
        "backward": torch.nan_to_num(backward, nan=0.0, posinf=largest_float),
    }


# --- ball arithmetic ------------------------------------------------------------------------------


def certified(row: dict[str, Any], **options: float) -> dict[str, list[Any]]:
    """Loss and gradient of one row in ball arithmetic, see `certified_row`."""
    balls = certified_row(row, **options)
    return {name: balls[name] for name in ("forward", "backward")}


def certified_row(
    row: dict[str, Any], *, label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float = 0.0
) -> dict[str, list[Any]]:
    """The truth of one row in ball arithmetic; "target" beside "forward" and "backward" is the
    gradient of class probabilities.

    Raises:
        ArithmeticError: for a row without a finite maximum.
    """
    from flint import arb

    logits, target = row["input"], row["target"]
    n_classes = len(logits)
    if target == IGNORED:
        return {"forward": [arb(0)], "backward": [arb(0)] * n_classes}
    z = [_capped(x, softcap) for x in logits]
    place = max(range(n_classes), key=logits.__getitem__)
    top = z[place]
    if isinstance(top, float):
        raise ArithmeticError("the certified truth covers rows with a finite maximum")
    own = target if isinstance(target, list) else [float(c == target) for c in range(n_classes)]
    keep, share = 1 - arb(label_smoothing), arb(label_smoothing) / n_classes
    weight = row.get("weight", [1.0] * n_classes)
    a = [arb(w) * (keep * arb(t) + share) for w, t in zip(weight, own, strict=True)]
    powers = [arb(0) if isinstance(v, float) else (v - top).exp() for v in z]
    rest = sum((e for c, e in enumerate(powers) if c != place), arb(0))
    mass = sum(a, arb(0))
    alone = sum(v != 0 for v in a) == 1
    log_sum = rest.log1p()
    gaps: list[Any] = [math.inf if isinstance(v, float) else top - v for v in z]
    loss = sum((c * g for c, g in zip(a, gaps, strict=True) if c != 0 and g != math.inf), arb(0))
    loss += mass * log_sum + arb(z_loss) * (top + log_sum) ** 2
    infinite = any(c != 0 and g == math.inf for c, g in zip(a, gaps, strict=True))
    gradient = []
    for c in range(n_classes):
        beside = rest if logits[c] == logits[place] else 1 + rest - powers[c]
        apart = arb(0) if alone and a[c] != 0 else mass - a[c]
        slope = (powers[c] * apart - a[c] * beside) / (1 + rest)
        slope += 2 * arb(z_loss) * (top + log_sum) * powers[c] / (1 + rest)
        gradient.append(slope * _slope(logits[c], softcap))
    ratio = [
        arb(w) * keep * (arb(0) if g == math.inf else g + log_sum)
        for w, g in zip(weight, gaps, strict=True)
    ]
    return {
        "forward": [math.inf if infinite else loss],
        "backward": gradient,
        "target": [
            math.inf if g == math.inf and w != 0 else v
            for v, g, w in zip(ratio, gaps, weight, strict=True)
        ],
    }


def _capped(x: float, softcap: float) -> Any:
    """The capped logit as a ball, or -inf."""
    from flint import arb

    if not softcap:
        return x if math.isinf(x) else arb(x)
    if math.isinf(x):
        return arb(math.copysign(softcap, x))
    return arb(softcap) * (arb(x) / arb(softcap)).tanh()


def _slope(x: float, softcap: float) -> Any:
    from flint import arb

    if not softcap:
        return arb(1)
    if math.isinf(x):
        return arb(0)
    power = (-2 * abs(arb(x)) / arb(softcap)).exp()
    return 4 * power / (1 + power) ** 2
