# expect: aten.bmm aten.matmul aten.baddbmm aten.mm | overflow
"""Half-precision attention scores without the division by the root of the width."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.scale = width**-0.5 if REPAIRED else 1.0

    def forward(self, x):
        q, k, v = self.query(x) * self.scale, self.key(x), self.value(x)
        scores = torch.bmm(q, k.transpose(1, 2))  # HERE
        return torch.softmax(scores, -1) @ v


model = SelfAttention(64)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
for step in range(8):
    x = torch.randn(2, 10, 64) * (110.0 if step > 4 else 1.0)
    with torch.autocast("cpu", dtype=torch.float16):
        out = model(x)
        loss = out.float().pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
