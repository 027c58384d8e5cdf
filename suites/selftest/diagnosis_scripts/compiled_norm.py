# expect: aten.div aten.sqrt | division_by_zero epsilon_underflow
"""A compiled model whose own norm has no epsilon; padding rows are all zero."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        size = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        if REPAIRED:
            size = size + 1e-6
        return self.gain * (x / size)  # HERE


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = Norm(width)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return x + self.down(torch.nn.functional.silu(self.up(self.norm(x))))


torch.manual_seed(3)
model = nn.Sequential(Block(8), Block(8), nn.Linear(8, 5))
model = torch.compile(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(12):
    x = torch.randn(4, 6, 8)
    if step >= 9:
        x[1, 4:] = 0.0  # padding
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), torch.randint(0, 5, (24,)))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
