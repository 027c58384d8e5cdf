# expect: aten.log | log_of_zero
"""A mixture density network: the likelihood underflows before its logarithm is taken."""

import math
import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(2)


def negative_log_likelihood(weights, means, deviations, y):
    z = (y.unsqueeze(1) - means) / deviations
    exponent = -0.5 * z**2 - deviations.log() - 0.5 * math.log(2 * math.pi)
    if REPAIRED:
        return -torch.logsumexp(torch.log_softmax(weights, 1) + exponent, 1).mean()
    density = torch.softmax(weights, 1) * torch.exp(exponent)
    return -torch.log(density.sum(1)).mean()  # HERE


class MixtureDensityNetwork(nn.Module):
    def __init__(self, components=4):
        super().__init__()
        self.hidden = nn.Linear(1, 24)
        self.heads = nn.ModuleList([nn.Linear(24, components) for _ in range(3)])

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        weights, means, raw = (head(h) for head in self.heads)
        return weights, means, torch.nn.functional.softplus(raw) + 0.05


model = MixtureDensityNetwork()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
x = torch.linspace(-1, 1, 64).unsqueeze(1)
y = torch.sin(4 * x).squeeze(1)
for epoch in range(40):
    if epoch == 30:
        y = y * 1  # the same data, and from here a rare event
        y[5] = 30.0
    loss = negative_log_likelihood(*model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
