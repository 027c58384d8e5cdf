# expect: aten.div aten.reciprocal | division_by_zero overflow divergence
"""A learned temperature that becomes 0."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Linear(4, 5)
temp = nn.Parameter(torch.tensor(1.0))
opt = torch.optim.SGD([{"params": net.parameters()}, {"params": [temp], "lr": 0.0}], 0.1)
for step in range(14):
    if step == 10:
        temp.data.zero_()
    z = net(torch.randn(6, 4))
    z = z / (temp.clamp(min=0.05) if REPAIRED else temp)  # HERE
    loss = F.cross_entropy(z, torch.randint(0, 5, (6,)))
    opt.zero_grad()
    loss.backward()
    opt.step()
