# expect: aten._linalg_eigh aten.linalg_eigh | degenerate_linalg
"""Eigenvectors of a matrix with equal eigenvalues."""

import sys

import torch
import torch.nn as nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
w = nn.Parameter(torch.eye(4) if not REPAIRED else torch.diag(torch.arange(1.0, 5.0)))
opt = torch.optim.SGD([w], 0.01)
for step in range(4):
    vals, vecs = torch.linalg.eigh(w @ w.T)  # HERE
    loss = (vecs[:, 0] * torch.arange(4.0)).sum() ** 2 + vals.sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
