# expect: aten._softmax aten.add | fully_masked overflow
"""The most negative number as a mask, added to a negative score."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
proj = torch.nn.Linear(8, 8).half()
opt = torch.optim.SGD(proj.parameters(), lr=1e-3)
lowest = torch.finfo(torch.float16).min
for step in range(8):
    x = torch.randn(4, 8).half()
    hidden = torch.zeros(4, 8, dtype=torch.bool)
    hidden[:, 5:] = True
    if step == 5:
        hidden[2] = True  # nothing is left of this row
        x = x * 200
    bias = torch.zeros(4, 8).half().masked_fill(hidden, lowest / 2 if REPAIRED else lowest)
    scores = -proj(x).abs() - 40
    weights = torch.softmax(scores + bias, dim=-1)
    loss = (weights.float() * torch.arange(8.0)).sum(1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
