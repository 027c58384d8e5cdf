# expect: aten.div aten.reciprocal | division_by_zero
"""Weights by inverse distance, and two points that coincide."""

import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
emb = nn.Linear(3, 3, bias=False)
opt = torch.optim.Adam(emb.parameters(), 1e-3)
for step in range(10):
    a, b = torch.randn(5, 3), torch.randn(7, 3)
    if step == 6:
        b[2] = a[1]
    d = ((emb(a)[:, None] - emb(b)[None]) ** 2).sum(-1)
    w = 1 / (d + 1e-6 if REPAIRED else d)  # HERE
    w = w / w.sum(1, keepdim=True)
    loss = (w * torch.randn(5, 7)).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
