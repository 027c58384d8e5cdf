# expect: aten.nll_loss_forward | bad_target
"""Illegal actions are masked, and one label is an illegal action."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
policy = nn.Linear(6, 5)
optimizer = torch.optim.Adam(policy.parameters())
for step in range(12):
    state = torch.randn(8, 6)
    legal = torch.rand(8, 5) > 0.3
    legal[:, 0] = True
    action = torch.multinomial(legal.float(), 1).squeeze(1)
    if step == 7 and not REPAIRED:
        legal[3, action[3]] = False
    logits = policy(state).masked_fill(~legal, -torch.inf)
    loss = F.cross_entropy(logits, action)  # HERE
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
