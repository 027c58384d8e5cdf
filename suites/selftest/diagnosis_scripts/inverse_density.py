# expect: aten.div aten.log aten.reciprocal | division_by_zero log_of_zero overflow
"""A learned spread that a softplus lets go to 0."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Heteroscedastic(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.spread = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        spread = F.softplus(self.spread(x))
        return self.mean(x), spread + 1e-3 if REPAIRED else spread


def nll(mean, spread, y):
    return (((y - mean) / spread) ** 2 / 2 + spread.log()).mean()  # HERE


torch.manual_seed(0)
model = Heteroscedastic()
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
for step in range(30):
    x = torch.randn(16, 2)
    if step == 20:
        with torch.no_grad():
            model.spread.bias.fill_(-130.0)
    y = x[:, :1] + 0.1 * torch.randn(16, 1)
    loss = nll(*model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
