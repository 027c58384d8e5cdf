# expect: aten.pow aten.mul aten.mean aten.mm aten.addmm aten.mv aten.sub | divergence
"""Gradient descent by hand, features not scaled, rate too high."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
x = torch.randn(64, 3) * torch.tensor([1.0, 30.0, 200.0])
y = x @ torch.tensor([1.0, -2.0, 0.5]) + 3
w = torch.zeros(3, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
rate = 1e-6 if REPAIRED else 1e-3
for epoch in range(80):
    loss = ((x @ w + b - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w -= rate * w.grad
        b -= rate * b.grad
    w.grad = None
    b.grad = None
