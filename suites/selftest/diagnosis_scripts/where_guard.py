# expect: aten.log aten.sqrt aten.div aten.pow | masked_branch_gradient
"""torch.where guards the value, and not the gradient."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
gate = nn.Linear(5, 5)
optimizer = torch.optim.Adam(gate.parameters(), lr=1e-2)
for step in range(10):
    rate = torch.sigmoid(gate(torch.randn(12, 5))) * (torch.rand(12, 5) > 0.2)
    safe = torch.where(rate > 0, rate, torch.ones_like(rate)) if REPAIRED else rate
    poisson = torch.where(rate > 0, rate - 2 * torch.log(safe), rate)  # HERE
    loss = poisson.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
