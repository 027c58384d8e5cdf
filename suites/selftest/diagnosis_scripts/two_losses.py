# expect: aten.div | division_by_zero
"""Two losses, two optimisers and two backward passes a step; one term is a share of the other."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
encoder, probe = nn.Linear(6, 4), nn.Linear(4, 2)
first = torch.optim.Adam(encoder.parameters(), lr=1e-3)
second = torch.optim.SGD(probe.parameters(), lr=1e-2)
for step in range(15):
    x = torch.randn(10, 6)
    z = torch.relu(encoder(x))
    if step >= 11:
        z = z * 0
    share = z.sum(1) / (z.sum() + (1e-6 if REPAIRED else 0.0))  # HERE
    balance = (share - 0.1).pow(2).sum()
    task = nn.functional.cross_entropy(probe(z.detach()), torch.randint(0, 2, (10,)))
    first.zero_grad()
    second.zero_grad()
    balance.backward()
    task.backward()
    first.step()
    second.step()
