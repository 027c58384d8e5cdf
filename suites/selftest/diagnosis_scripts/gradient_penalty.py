# expect: aten.sqrt aten.pow | singular_gradient
"""A gradient penalty: the norm of a gradient that is 0, differentiated again."""

import sys

import torch
from torch import autograd, nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
critic = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)


def penalty(real, fake):
    mix = (real + fake) / 2
    mix.requires_grad_(True)
    score = critic(mix)
    (slope,) = autograd.grad(score.sum(), mix, create_graph=True)
    squared = (slope**2).sum(1)
    norm = torch.sqrt(squared + 1e-12 if REPAIRED else squared)  # HERE
    return ((norm - 1) ** 2).mean()


for step in range(10):
    real, fake = torch.randn(8, 3), torch.randn(8, 3)
    if step == 6:  # where every unit of the critic is off
        with torch.no_grad():
            critic[0].bias.fill_(-3.0)
    loss = critic(fake).mean() - critic(real).mean() + 10 * penalty(real, fake)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
