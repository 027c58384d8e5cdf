"""RMS normalisation: y = x / sqrt(mean(x**2) + eps) * weight along the last dimension."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles
from kernels.rms_norm import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton


def scaled(values: Tensor, eps: float) -> tuple[Tensor, Tensor, float | Tensor]:
    """(x / s, exponent of s, eps / s**2), s a power of two near max|x| but not below sqrt(eps), so
    that no square leaves float64.
    """
    size = torch.where(torch.isfinite(values), values.abs(), 0.0)
    _, exponent = torch.frexp(size.amax(dim=1, keepdim=True))
    if eps > 0:
        exponent = exponent.clamp(min=int(np.frexp(np.sqrt(eps))[1]))
    floor = torch.ldexp(torch.ldexp(torch.full_like(values[:, :1], eps), -exponent), -exponent)
    return torch.ldexp(values, -exponent), exponent, floor


def _direction(roles: Roles, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x / (s r), r, exponent of s); 0 for a row of zeros without a floor."""
    part, exponent, floor = scaled(roles["input"], eps)
    root = (part.square().mean(dim=1, keepdim=True) + floor).sqrt()
    return part / torch.where(root == 0, 1.0, root), root, exponent


def divided(value: Tensor, root: Tensor, exponent: Tensor) -> Tensor:
    """value / (s r), 0 by policy where r is 0; where even float64 overflows, its largest value."""
    quotient = torch.ldexp(value / torch.where(root == 0, 1.0, root), -exponent)
    largest = torch.finfo(torch.float64).max
    return torch.where(root == 0, 0.0, quotient.clamp(-largest, largest))


def _truth(roles: Roles, eps: float) -> dict[str, Tensor]:
    """y and, with h = weight * upstream, dx = (h - y' mean(h y')) / (s r)."""
    y, root, exponent = _direction(roles, eps)
    h = roles["upstream"] * roles["weight"]
    across = h - y * (h * y).mean(dim=1, keepdim=True)
    return {"forward": y * roles["weight"], "backward": divided(across, root, exponent)}


def _certified(row: dict[str, Any], eps: float) -> dict[str, list[Any]]:
    """The same in ball arithmetic, which needs no scaling."""
    from flint import arb

    values, weight, upstream = (
        [arb(v) for v in row[role]] for role in ("input", "weight", "upstream")
    )
    if eps == 0 and not any(row["input"]):
        return {"forward": [arb(0)] * len(values), "backward": [arb(0)] * len(values)}
    count = len(values)
    root = (sum((v * v for v in values), arb(0)) / count + arb(eps)).sqrt()
    y = [v / root for v in values]
    h = [g * w for g, w in zip(upstream, weight, strict=True)]
    mean = sum((a * b for a, b in zip(h, y, strict=True)), arb(0)) / count
    return {
        "forward": [a * w for a, w in zip(y, weight, strict=True)],
        "backward": [(a - b * mean) / root for a, b in zip(h, y, strict=True)],
    }


def _slack(roles: Roles, eps: float) -> dict[str, Tensor]:
    """The terms that cancel in the gradient: (|h| + |y'| mean|h y'|) / (s r). Forward has none."""
    y, root, exponent = _direction(roles, eps)
    h = (roles["upstream"] * roles["weight"]).abs()
    terms = h + y.abs() * (h * y.abs()).mean(dim=1, keepdim=True)
    return {"forward": torch.zeros_like(y), "backward": divided(terms, root, exponent)}


# --- regimes --------------------------------------------------------------------------------------

Drawn = dict[str, np.ndarray]


def with_rest(layout: Callable[[Draws], np.ndarray], *parameters: str) -> Callable[[Draws], Drawn]:
    """A regime's draw: the input so laid out, Gaussian parameters and upstream gradient."""

    def draw(draws: Draws) -> Drawn:
        roles = {"input": layout(draws)}
        for name in parameters:
            roles[name] = draws.generator(name).standard_normal(draws.shape[1])
        return roles | {"upstream": draws.generator("upstream").standard_normal(draws.shape)}

    return draw


def peak(draws: Draws) -> np.ndarray:
    """One entry a row, in a random column."""
    return layouts.one_entry(draws, layouts.columns(draws, "peak"))


def offset(draws: Draws) -> np.ndarray:
    """Ones, and Gaussian noise 2**-7 of them: what bf16 can just hold."""
    return 1.0 + 2.0**-7 * layouts.gaussian(draws)


def nonfinite(draws: Draws) -> np.ndarray:
    """Gaussian rows of which the second holds a NaN and the third an infinity."""
    base = layouts.gaussian(draws)
    base[1, 5] = np.nan
    base[2, 7] = np.inf
    return base


def regimes(*parameters: str, eps: float) -> tuple[Regime, ...]:
    """The layouts of a norm's input, with eps, and with none where the point are tiny rows."""
    laid_out = (
        ("normal", "Gaussian entries", layouts.gaussian),
        ("peak", "one entry at the magnitude, zeros elsewhere", peak),
        ("constant", "every entry at the magnitude", lambda draws: np.ones(draws.shape)),
        ("offset", "a common offset, differences 2**-7 of it", offset),
        ("outlier", "a weak crowd and one entry 2**10 times larger", layouts.outlier),
    )
    common: dict[str, Any] = {"shared": parameters, "options": {"eps": eps}}
    return (
        *(
            Regime(name, text, with_rest(draw, *parameters), **common)
            for name, text, draw in laid_out
        ),
        Regime(
            "zeros",
            "a row of zeros",
            with_rest(lambda draws: np.zeros(draws.shape), *parameters),
            layouts.no_magnitude,
            **common,
        ),
        Regime(
            "subnormal",
            "entries of at most the smallest normal, no eps",
            with_rest(layouts.uniform, *parameters),
            layouts.subnormal_range,
            shared=parameters,
            options={"eps": 0.0},
        ),
        Regime(
            "nonfinite",
            "rows with a NaN or an infinity: neither swallowed nor spread",
            with_rest(nonfinite, *parameters),
            layouts.only_one,
            **common,
        ),
    )


def _triton(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    return kernels.rms_norm(on_triton(input), input.shape[-1:], weight, eps)


RMS_NORM = Operation(
    name="rms_norm",
    meaning="x / sqrt(mean(x^2) + eps) * weight",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # In u of the statistics: y' errs by 2 (root, quotient), h by 1, their product by 1, its sum by
    # 2, so the mean by 6; its product with y' by 3 more, the difference by 1, 1 / r by 1, the
    # product with it by 1: 12 of the terms.
    slack_factor=12.0,
    regimes=regimes("weight", eps=1e-6),
    paths=(
        Path("naive", reference.naive, note="x / sqrt(mean(x^2) + eps) * weight"),
        Path("rsqrt", reference.rsqrt, note="x * rsqrt(mean(x^2) + eps) * weight"),
        Path(
            "upcast", reference.upcast, note="in fp32, cast back before the weight (LlamaRMSNorm)"
        ),
        Path("torch", reference.torch_native, note="F.rms_norm"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.rms_norm"),
        *peers.paths("rms_norm"),
    ),
)
