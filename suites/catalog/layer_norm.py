"""Layer normalisation: (x - mean) / sqrt(var + eps) * weight + bias along the last dimension."""

from typing import Any

import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Operation, Path, Roles
from kernels.layer_norm import reference
from suites.catalog import peers
from suites.catalog.rms_norm import divided, regimes, scaled
from suites.catalog.triton_path import on_triton

# What roundings cost, in u of the statistics, of the terms below. r errs by 3 (differences by 2,
# their squares' mean by 3, halved; the root), y' by 6 (difference, r, quotient).
_FORWARD = 8.0  # y', the product with the weight, the sum with the bias
# h errs by 1, its product with y' by 1, the sum by 2: the mean by 10. Its product with y' by 7
# more, two differences by 2, 1 / r by 3 and the product with it by 1.
_BACKWARD = 23.0


def _moments(roles: Roles, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """((x - mean) / s, (|x| + mean|x|) / s, r, exponent of s)."""
    part, exponent, floor = scaled(roles["input"], eps)
    centred = part - part.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    size = part.abs() + part.abs().mean(dim=1, keepdim=True)
    # Beside the squares of a large row eps / s**2 may vanish, but not where they are 0.
    constant = variance == 0
    root = torch.where(constant, eps**0.5, (variance + floor).sqrt())
    size = torch.where(constant, torch.ldexp(size, exponent), size)
    size = size.clamp(max=2.0**1000)
    return centred, size, root, torch.where(constant, 0, exponent)


def _safe(root: Tensor) -> Tensor:
    return torch.where(root == 0, 1.0, root)


def _truth(roles: Roles, eps: float) -> dict[str, Tensor]:
    """y and, with h = weight * upstream, dx = (h - mean(h) - y' mean(h y')) / (s r)."""
    centred, _, root, exponent = _moments(roles, eps)
    y = centred / _safe(root)
    h = roles["upstream"] * roles["weight"]
    across = h - h.mean(dim=1, keepdim=True) - y * (h * y).mean(dim=1, keepdim=True)
    return {
        "forward": y * roles["weight"] + roles["bias"],
        "backward": divided(across, root, exponent),
    }


def _certified(row: dict[str, Any], eps: float) -> dict[str, list[Any]]:
    """The same in ball arithmetic, which needs no scaling."""
    from flint import arb

    values, weight, bias, upstream = (
        [arb(v) for v in row[role]] for role in ("input", "weight", "bias", "upstream")
    )
    count = arb(len(values))
    total = sum(values, arb(0))
    centred = [(count * v - total) / count for v in values]  # exactly 0 where all are equal
    root = (sum((v * v for v in centred), arb(0)) / count + arb(eps)).sqrt()
    if root == 0:
        return {"forward": bias, "backward": [arb(0)] * len(values)}
    y = [v / root for v in centred]
    h = [g * w for g, w in zip(upstream, weight, strict=True)]
    mean = sum(h, arb(0)) / count
    dot = sum((a * b for a, b in zip(h, y, strict=True)), arb(0)) / count
    return {
        "forward": [a * w + b for a, w, b in zip(y, weight, bias, strict=True)],
        "backward": [(a - mean - b * dot) / root for a, b in zip(h, y, strict=True)],
    }


def _slack(roles: Roles, eps: float) -> dict[str, Tensor]:
    """The terms that cancel, times what their roundings cost. With y+ = (|x| + mean|x|) / (s r):
    y+ |weight| + |bias|, and (|h| + mean|h| + y+ mean(|h| y+)) / (s r).
    """
    _, size, root, exponent = _moments(roles, eps)
    y = size / _safe(root)
    h = (roles["upstream"] * roles["weight"]).abs()
    terms = h + h.mean(dim=1, keepdim=True) + y * (h * y).mean(dim=1, keepdim=True)
    forward = _FORWARD * (y * roles["weight"].abs() + roles["bias"].abs())
    return {
        "forward": forward.clamp(max=torch.finfo(torch.float64).max),
        "backward": divided(_BACKWARD * terms, root, exponent),
    }


def _triton(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return kernels.layer_norm(on_triton(input), input.shape[-1:], weight, bias, eps)


LAYER_NORM = Operation(
    name="layer_norm",
    meaning="(x - mean) / sqrt(var + eps) * weight + bias",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    slack_factor=1.0,  # the slack counts them
    # The eps of BERT, which is 0 in fp16.
    regimes=regimes("weight", "bias", eps=1e-12),
    paths=(
        Path("naive", reference.naive, note="(x - mean) / sqrt(mean((x - mean)^2) + eps)"),
        Path("one_pass", reference.one_pass, note="variance as mean(x^2) - mean(x)^2"),
        Path("upcast", reference.upcast, note="F.layer_norm in fp32, cast back"),
        Path("torch", reference.torch_native, note="F.layer_norm"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.layer_norm"),
        *peers.paths("layer_norm"),
    ),
)
