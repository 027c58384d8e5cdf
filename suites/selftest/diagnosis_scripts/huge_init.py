# expect: aten.addmm aten.mm aten.mse_loss | initialization overflow
"""Weights drawn far too large."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Sequential(
    nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
)
if not REPAIRED:
    for p in net.parameters():
        nn.init.normal_(p, std=1e13)
opt = torch.optim.SGD(net.parameters(), 1e-3)
for step in range(3):
    loss = F.mse_loss(net(torch.randn(8, 64)), torch.zeros(8, 4))
    opt.zero_grad()
    loss.backward()
    opt.step()
