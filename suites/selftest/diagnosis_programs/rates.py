"""Learning rates, optimiser state, loss scales, clipping."""

import torch
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(16, 4)


@program("aten.pow aten.addmm aten.mm aten.mul aten.mean aten.mse_loss", "divergence")
def rate_far_too_high(broken: bool) -> None:
    fit(linear(4, 2), lambda z: (z - 1).pow(2).mean(), X, steps=200, lr=5.0 if broken else 0.05)


@program("aten.mse_loss aten.addmm aten.mm aten.mul aten.mse_loss_backward", "divergence")
def deep_regression_with_momentum(broken: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    rate = 1.0 if broken else 1e-3
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    y = X.sum(1, keepdim=True) * 5
    fit(model, lambda z: nn.functional.mse_loss(z, y), X, steps=100, optimizer=optimizer)


@program("aten._foreach_addcdiv_ aten.addcdiv_", "epsilon_underflow")
def adam_on_half_precision_weights(broken: bool) -> None:
    layer = linear(4, 2, dtype=torch.float16)
    x = X.half()
    x[:, 2] = 0  # a feature that is always 0 has gradient 0
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, eps=1e-8 if broken else 1e-4)
    fit(layer, lambda z: z.float().pow(2).mean(), x, optimizer=optimizer)


@program("aten._foreach_addcmul_ aten.addcmul_", "optimizer_state", kind="silent")
def second_moment_overflows(broken: bool) -> None:
    layer = linear(4, 2, dtype=torch.float32)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    factor = 1e22 if broken else 1.0
    fit(layer, lambda z: (z * factor).mean(), X, steps=6, optimizer=optimizer)


@program("aten.mul aten.pow aten.mean aten.exp", "loss_scale_collapse overflow")
def no_loss_scale_is_small_enough(broken: bool) -> None:
    """The gradient overflows fp16 at every loss scale, and every step is skipped."""
    layer = linear(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for _ in range(30):
        optimizer.zero_grad()
        z = layer(X).half() * (60000.0 if broken else 1.0)
        z = z.clamp(-1, 1) + (layer(X).half() * 0.001) * (60000.0 if broken else 1.0) * 64
        scaler.scale(z.float().sum() * 64).backward()
        scaler.step(optimizer)
        scaler.update()


@program("torch.nn.utils.clip_grad_norm_", "gradient_clipping", kind="silent")
def clipping_before_unscaling(broken: bool) -> None:
    layer = linear(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(6):
        optimizer.zero_grad()
        scaler.scale((layer(X) - 1).pow(2).mean()).backward()
        if not broken:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


@program("torch.nn.utils.clip_grad_norm_", "gradient_clipping", kind="silent")
def norm_that_overflows(broken: bool) -> None:
    layer = linear(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(X) * (1e22 if broken else 1.0)).mean().backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()


@program("aten.exp", "overflow divergence")
def learned_temperature(broken: bool) -> None:
    """A contrastive model's log temperature runs away."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(4, 4)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            u = nn.functional.normalize(self.layer(x), dim=1)
            scale = self.scale if broken else self.scale.clamp(max=4.6)
            return scale.exp() * u @ u.T

    labels = torch.arange(16)
    fit(
        Model(),
        lambda z: nn.functional.cross_entropy(z, labels) - (z.diagonal().mean() if broken else 0),
        X,
        steps=60,
        lr=0.5,
    )
