# expect: aten.mm aten.addmm aten.mul aten.add aten.mse_loss aten.pow aten.mean | divergence
"""A linear recurrence unrolled in time, trained at too high a rate and without clipping."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class Recurrence(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.read = nn.Linear(width, 1)

    def forward(self, x):
        h = torch.zeros(x.shape[0], x.shape[2])
        for t in range(x.shape[1]):
            h = self.inner(h) + x[:, t]
        return self.read(h)


model = Recurrence(8)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 if REPAIRED else 0.08)
for step in range(60):
    x = torch.randn(16, 12, 8)
    loss = nn.functional.mse_loss(model(x), x.sum((1, 2))[:, None])
    optimizer.zero_grad()
    loss.backward()
    if REPAIRED:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
