# expect: aten.log | log_of_zero
"""A generator and a discriminator, each with its optimiser; the cost written as in the paper."""

import sys

import torch
import torch.nn as nn
import torch.optim as optim

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

G = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
opt_g = optim.Adam(G.parameters(), lr=1e-3, betas=(0.5, 0.999))
opt_d = optim.Adam(D.parameters(), lr=0.05, betas=(0.5, 0.999))


def real_batch(n):
    return torch.randn(n, 2) * 0.1 + torch.tensor([40.0, -40.0])


def log_d(z):
    return nn.functional.logsigmoid(z) if REPAIRED else torch.log(torch.sigmoid(z))


def log_one_minus_d(z):
    if REPAIRED:
        return nn.functional.logsigmoid(-z)
    return torch.log(1 - torch.sigmoid(z))  # HERE


for it in range(60):
    # discriminator
    fake = G(torch.randn(64, 8)).detach()
    loss_d = -(log_d(D(real_batch(64))).mean() + log_one_minus_d(D(fake)).mean())
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    # generator, the non-saturating sign left out
    loss_g = log_one_minus_d(D(G(torch.randn(64, 8)) * 8)).mean()
    if it > 20:
        with torch.no_grad():
            calm = real_batch(64)
        loss_g = loss_g + 0.1 * log_one_minus_d(D(calm)).mean()
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
