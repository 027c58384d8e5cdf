# expect: aten.pow | domain_error singular_gradient
"""A learned exponent of numbers that may be negative."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class Gamma(nn.Module):
    def __init__(s):
        super().__init__()
        s.g = nn.Parameter(torch.tensor(2.2))

    def forward(s, img):
        return (img.clamp(min=1e-4) if REPAIRED else img) ** s.g  # HERE


net = nn.Sequential(nn.Conv2d(1, 2, 3), Gamma(), nn.Flatten(), nn.Linear(72, 3))
opt = torch.optim.Adam(net.parameters(), 1e-3)
for step in range(5):
    loss = F.cross_entropy(net(torch.rand(4, 1, 8, 8)), torch.randint(0, 3, (4,)))
    opt.zero_grad()
    loss.backward()
    opt.step()
