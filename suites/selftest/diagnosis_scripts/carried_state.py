# expect: aten.div | division_by_zero
"""A recurrent state that is normalised and carried from batch to batch."""

import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class Cell(nn.Module):
    def __init__(s):
        super().__init__()
        s.i, s.h = nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(s, x, h):
        h = torch.relu(s.i(x) + s.h(h))
        return h / (h.norm(dim=1, keepdim=True) + (1e-6 if REPAIRED else 0))  # HERE


cell, head = Cell(), nn.Linear(6, 1)
opt = torch.optim.Adam([*cell.parameters(), *head.parameters()], 1e-3)
h = torch.rand(4, 6)
for step in range(20):
    x = torch.randn(4, 3)
    if step == 13:
        x[2] = 0
        with torch.no_grad():
            cell.i.bias.fill_(-9.0)
    h = cell(x, h.detach())
    loss = head(h).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
