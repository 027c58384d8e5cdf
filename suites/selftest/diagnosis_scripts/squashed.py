# expect: aten.log | log_of_zero
"""A squashed Gaussian policy: the logarithm of 1 - tanh(u)^2."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
pi = nn.Linear(3, 2)
opt = torch.optim.Adam(pi.parameters(), 1e-3)
for step in range(12):
    s = torch.randn(16, 3) * (30 if step == 9 else 1)
    u = pi(s) + torch.randn(16, 2)
    a = torch.tanh(u)
    corr = 2 * (0.6931 - u - F.softplus(-2 * u)) if REPAIRED else torch.log(1 - a**2)  # HERE
    loss = (a.sum(1) + corr.sum(1)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
