# expect: aten.std aten.var | empty_reduction
"""The loader's last batch holds one sample, and its spread is taken."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
x = torch.randn(65, 4)
loader = DataLoader(TensorDataset(x, x.sum(1)), batch_size=16, drop_last=REPAIRED)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)


def correlation_loss(p, t):
    p = (p - p.mean()) / (p.std() + 1e-6)  # HERE
    t = (t - t.mean()) / (t.std() + 1e-6)
    return 1 - (p * t).mean()


for epoch in range(2):
    for xb, yb in loader:
        loss = correlation_loss(net(xb).squeeze(-1), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
