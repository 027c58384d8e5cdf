# expect: aten.mul aten.sum | overflow
"""A summed loss in half precision."""

import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = nn.Linear(16, 16)
opt = torch.optim.SGD(net.parameters(), 1e-9)
for step in range(8):
    x = torch.randn(256, 16)
    with torch.autocast("cpu", torch.float16):
        out = net(x)
        err = (out - 3 * x.half()) ** 2
        if REPAIRED:
            err = err.float()
        loss = err.sum() * 4  # HERE
    opt.zero_grad()
    loss.float().backward()
    opt.step()
