"""A norm in half precision whose epsilon and whose squares do not fit."""

import torch


class Norm(torch.nn.Module):
    def forward(self, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-8)


torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(8, 32, bias=False), torch.nn.ReLU(), Norm(), torch.nn.Linear(32, 1)
).half()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for step in range(20):
    x = torch.rand(16, 8).half()
    if step == 12:
        x[3] = 0.0  # a padded sample
    loss = (model(x).float() - 1).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
