# expect: aten.sqrt aten.pow | singular_gradient
"""A small trainer that hands the optimiser a closure, as frameworks do."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        a, b = batch
        difference = self(a) - self(b)
        squared = difference.pow(2).sum(-1)
        distance = torch.sqrt(squared + 1e-8 if REPAIRED else squared)  # HERE
        return torch.relu(1.0 - distance).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Trainer:
    def __init__(self, max_steps):
        self.max_steps = max_steps

    def fit(self, module, batches):
        optimizer = module.configure_optimizers()
        for index, batch in enumerate(batches):
            if index >= self.max_steps:
                break

            def closure(batch=batch, index=index):
                loss = module.training_step(batch, index)
                optimizer.zero_grad()
                loss.backward()
                return loss

            optimizer.step(closure)


def pairs():
    generator = torch.Generator().manual_seed(2)
    for step in range(30):
        a = torch.randn(12, 6, generator=generator)
        b = torch.randn(12, 6, generator=generator)
        if step == 17:
            b[4] = a[4]  # the same sample twice
        yield a, b


Trainer(max_steps=25).fit(Module(), pairs())
