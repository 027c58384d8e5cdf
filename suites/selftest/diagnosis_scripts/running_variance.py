# expect: aten.sqrt | cancellation
"""A standard deviation as the root of mean of squares minus squared mean."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Standardize(nn.Module):
    def forward(self, x):
        mean = x.mean(0)
        if REPAIRED:
            variance = ((x - mean) ** 2).mean(0)
        else:
            variance = (x**2).mean(0) - mean**2
        return (x - mean) / (torch.sqrt(variance) + 1e-5)  # HERE


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 6), Standardize(), nn.Linear(6, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(20):
    x = torch.rand(32, 3) if step < 12 else torch.rand(32, 3) * 1e-3 + 300.0
    y = x.mean(1, keepdim=True)
    loss = (model(x) - y).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
