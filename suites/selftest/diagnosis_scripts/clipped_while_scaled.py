# expect: torch.nn.utils.clip_grad_norm_ | gradient_clipping silent
"""Gradients are clipped before they are unscaled."""

import sys

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu")
for step in range(12):
    x = torch.randn(16, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    scaler.scale(loss).backward()
    if REPAIRED:
        scaler.unscale_(optimizer)
    clip_grad_norm_(model.parameters(), max_norm=1.0)  # HERE
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
