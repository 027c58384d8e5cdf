# expect: aten.div | division_by_zero empty_reduction
"""A weighted mean whose weights are all 0."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Linear(4, 3)
opt = torch.optim.Adam(net.parameters())
for step in range(9):
    x = torch.randn(6, 4)
    y = torch.randint(0, 3, (6,))
    w = torch.rand(6) * (0.0 if step == 7 else 1.0)
    ce = F.cross_entropy(net(x), y, reduction="none")
    loss = (ce * w).sum() / (w.sum().clamp(min=1e-6) if REPAIRED else w.sum())  # HERE
    opt.zero_grad()
    loss.backward()
    opt.step()
