# expect: aten.exp | overflow
"""A contrastive loss with a small temperature, exponentials written out."""

import sys

import torch
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv


def info_nce(a, b, temperature):
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    similarity = a @ b.T / temperature
    if REPAIRED:
        return F.cross_entropy(similarity, torch.arange(len(a)))
    e = torch.exp(similarity)  # HERE
    return -torch.log(e.diagonal() / e.sum(dim=1)).mean()


torch.manual_seed(0)
encoder = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
for step in range(150):
    x = torch.randn(24, 16)
    loss = info_nce(encoder(x), encoder(x + 0.05 * torch.randn_like(x)), temperature=0.0105)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
