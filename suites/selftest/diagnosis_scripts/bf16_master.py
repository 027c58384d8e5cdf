# expect: optimizer.step | lost_update silent
"""Fine-tuning bf16 weights at a small rate: nothing moves."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)).to(torch.bfloat16)
for p in model.parameters():
    p.data.add_(2.0)
if REPAIRED:
    model = model.float()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
for step in range(40):
    x = torch.randn(8, 16).to(next(model.parameters()).dtype)
    loss = nn.functional.cross_entropy(model(x).float(), torch.randint(0, 4, (8,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
