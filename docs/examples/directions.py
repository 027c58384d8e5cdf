"""Directions of vectors by hand; one day a row of the batch is zero."""

import torch

torch.manual_seed(0)
encoder = torch.nn.Linear(8, 4, bias=False)
optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)

for step in range(30):
    x = torch.randn(16, 8)
    if step == 21:
        x[5] = 0.0  # a padded sample
    z = encoder(x)
    length = torch.sqrt((z**2).sum(1, keepdim=True))
    direction = z / (length + 1e-6)
    loss = (direction[0::2] * direction[1::2]).sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
