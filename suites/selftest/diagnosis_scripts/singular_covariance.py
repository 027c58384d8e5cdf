# expect: aten._linalg_slogdet aten._linalg_det | degenerate_linalg
"""A log determinant of a covariance with fewer samples than features."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
net = torch.nn.Linear(4, 6)
optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
for step in range(6):
    n = 20 if step < 3 else 3
    z = net(torch.randn(n, 4))
    z = z - z.mean(0)
    if step >= 3:
        z = torch.cat([z[:, :5], z[:, :1]], 1)  # one feature twice
    covariance = z.T @ z / n
    if REPAIRED:
        covariance = covariance + 1e-3 * torch.eye(6)
    loss = -torch.logdet(covariance) + z.pow(2).sum()  # HERE
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
