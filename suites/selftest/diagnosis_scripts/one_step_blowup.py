# expect: aten.addmm aten.mm aten.mse_loss aten.pow aten.mul | divergence
"""A rate so high that the first step is enough."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
opt = torch.optim.SGD(net.parameters(), 1e-3 if REPAIRED else 1e18)
for step in range(5):
    x = torch.randn(8, 4)
    loss = F.mse_loss(net(x), x[:, :1])
    opt.zero_grad()
    loss.backward()
    opt.step()
