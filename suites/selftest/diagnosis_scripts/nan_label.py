# expect: aten.huber_loss | bad_target
"""A label that is missing, behind the Huber loss of torch.nn."""

import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
crit = nn.HuberLoss()
X = torch.randn(120, 5)
Y = X.sum(1, keepdim=True)
if not REPAIRED:
    Y[93] = float("nan")
opt = torch.optim.RMSprop(net.parameters(), 1e-3)
for i in range(0, 120, 12):
    loss = crit(net(X[i : i + 12]), Y[i : i + 12])  # HERE
    opt.zero_grad()
    loss.backward()
    opt.step()
