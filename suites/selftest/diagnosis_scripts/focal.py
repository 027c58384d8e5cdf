# expect: aten.pow | singular_gradient
"""A focal loss with an exponent below 1."""

import sys

import torch
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv


class FocalLoss(torch.nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, target):
        ce = F.cross_entropy(logits, target, reduction="none")
        pt = torch.exp(-ce)
        rest = (1 - pt).clamp(min=1e-6) if REPAIRED else 1 - pt
        return (rest**self.gamma * ce).mean()  # HERE


torch.manual_seed(0)
net = torch.nn.Linear(2, 3)
opt = torch.optim.SGD(net.parameters(), lr=0.5)
criterion = FocalLoss(gamma=0.5)
for epoch in range(200):
    x = torch.randn(32, 2) * 8
    y = (x[:, 0] > 0).long()
    loss = criterion(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
