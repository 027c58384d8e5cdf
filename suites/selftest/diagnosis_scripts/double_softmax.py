# expect: aten._softmax | activation_mismatch silent
"""A model that ends in a softmax, trained with the cross-entropy of logits."""

import sys

import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.fc2 = nn.Linear(20, 3)
        self.out = nn.Identity() if "--repaired" in sys.argv else nn.Softmax(dim=1)

    def forward(self, x):
        return self.out(self.fc2(torch.relu(self.fc1(x))))  # HERE


torch.manual_seed(0)
model, criterion = Classifier(), nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(5):
    for _ in range(4):
        x = torch.randn(32, 10)
        y = x[:, :3].argmax(1)
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
