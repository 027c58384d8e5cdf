# expect: aten.addcdiv_ aten._foreach_addcdiv_ | epsilon_underflow
"""A whole model in half precision under Adam, whose epsilon is 0 there."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
table = nn.Embedding(40, 8).half()
head = nn.Linear(8, 4).half()
optimizer = torch.optim.Adam(
    [{"params": table.parameters()}, {"params": head.parameters(), "lr": 1e-4}],
    lr=1e-3,
    eps=1e-4 if REPAIRED else 1e-8,
)
for step in range(6):
    tokens = torch.randint(0, 40, (16,))
    logits = head(table(tokens)).float()
    loss = nn.functional.cross_entropy(logits, tokens % 4)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # HERE
