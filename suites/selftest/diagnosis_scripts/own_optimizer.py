# expect: aten.div | division_by_zero optimizer_state
"""An optimiser of one's own that divides by the gradient's norm; late in training one is 0."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Normalized(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                length = p.grad.norm()
                if REPAIRED:
                    length = length + 1e-12
                p.add_(p.grad / length, alpha=-group["lr"])  # HERE


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = Normalized(model.parameters(), lr=1e-3)
for step in range(60):
    x = torch.randn(16, 4)
    y = model(x).detach() if step == 45 else x.sum(1, keepdim=True)  # a batch already solved
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
