# expect: aten.log | log_of_zero domain_error
"""L-BFGS with a line search, and a logarithm that a long step leaves."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
rate = torch.nn.Parameter(torch.full((3,), 0.5))
counts = torch.tensor([40.0, 0.0, 900.0])
optimizer = torch.optim.LBFGS([rate], lr=1.0, max_iter=8)


def closure():
    optimizer.zero_grad()
    mean = torch.nn.functional.softplus(rate) + 1e-6 if REPAIRED else rate
    loss = (mean - counts * torch.log(mean)).sum()  # HERE
    loss.backward()
    return loss


for epoch in range(5):
    optimizer.step(closure)
