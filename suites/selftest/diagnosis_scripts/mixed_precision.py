# expect: aten.pow aten.mean aten.mul aten.sum | overflow bad_data
"""Autocast to fp16 with a scaler; energies are squared and summed inside of it."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        h = self.layers(x)
        if REPAIRED:
            h = h.float()
        return (h * h).sum(-1)  # HERE


torch.manual_seed(0)
model = Energy()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
for step in range(12):
    x = torch.randn(8, 16) * (1.0 if step < 7 else 600.0)
    with torch.autocast("cpu", dtype=torch.float16):
        energy = model(x)
        loss = torch.log1p(energy.float()).mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
