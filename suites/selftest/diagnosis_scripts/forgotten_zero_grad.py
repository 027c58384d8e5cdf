# expect: aten.mse_loss aten.mse_loss_backward aten.addmm aten.mm | divergence
"""Gradients that are never set to zero."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for step in range(120):
    x = torch.randn(16, 5)
    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    if REPAIRED:
        optimizer.zero_grad()
    loss.backward()
    optimizer.step()
