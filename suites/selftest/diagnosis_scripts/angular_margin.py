# expect: aten.acos | singular_gradient
"""Angles between normalised vectors, differentiated at 1."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class AngularMargin(nn.Module):
    def __init__(self, width, classes, margin=0.2, scale=8.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width))
        self.margin, self.scale = margin, scale

    def forward(self, features, labels):
        cosine = F.linear(F.normalize(features), F.normalize(self.weight))
        if REPAIRED:
            cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
        else:
            cosine = cosine.clamp(-1, 1)
        angle = torch.acos(cosine)  # HERE
        shifted = torch.where(F.one_hot(labels, cosine.shape[1]).bool(), angle + self.margin, angle)
        return F.cross_entropy(self.scale * torch.cos(shifted), labels)


backbone = nn.Linear(4, 4, bias=False)
nn.init.eye_(backbone.weight)
criterion = AngularMargin(4, 3)
optimizer = torch.optim.SGD([*backbone.parameters(), *criterion.parameters()], lr=1e-3)
for step in range(8):
    x = torch.randn(10, 4)
    if step == 5:  # one sample lies exactly in a class's direction
        with torch.no_grad():
            backbone.weight.copy_(torch.eye(4))
            criterion.weight[1] = torch.tensor([0.0, 2.0, 0.0, 0.0])
        x[3] = torch.tensor([0.0, 3.0, 0.0, 0.0])
    loss = criterion(backbone(x), torch.randint(0, 3, (10,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
