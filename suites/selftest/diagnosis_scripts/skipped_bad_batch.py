# expect: aten.native_batch_norm | poisoned_buffer bad_data
"""A bad batch is skipped after the forward pass; its statistics stay."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(model.parameters())
for step in range(10):
    x = torch.randn(16, 4)
    if step == 4:
        x[3, 1] = float("inf")
    if REPAIRED and not x.isfinite().all():
        continue
    loss = nn.functional.cross_entropy(model(x), torch.randint(0, 2, (16,)))
    if torch.isnan(loss):
        print("skipping a batch")
        continue
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
print(model(torch.randn(4, 4)).mean().item())
