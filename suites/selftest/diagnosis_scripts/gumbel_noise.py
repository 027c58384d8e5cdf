# expect: aten.log | log_of_zero
"""Gumbel noise from uniform numbers, of which one in a while is exactly 0."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(3)
logits = torch.nn.Parameter(torch.zeros(64, 40, dtype=torch.bfloat16))
optimizer = torch.optim.SGD([logits], lr=0.5)
values = torch.linspace(0, 1, 40)
for step in range(60):
    uniform = torch.rand(64, 40).to(torch.bfloat16)
    if REPAIRED:
        uniform = uniform.clamp(1e-3, 0.99)
    elif step < 20:
        uniform = uniform * 0.9 + 0.05
    noise = -torch.log(-torch.log(uniform))  # HERE
    soft = torch.softmax((logits + noise) / 0.5, dim=-1)
    loss = (soft.float() @ values).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
