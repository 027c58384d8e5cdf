# expect: aten._softmax | fully_masked
"""Attention by hand with a padding mask; the last batch holds an empty sentence."""

import math
import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, padding):
        n, t, w = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(w // self.heads)
        scores = scores.masked_fill(padding[:, None, None, :], float("-inf"))
        weights = torch.softmax(scores, dim=-1)  # HERE
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, w))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16, padding_idx=0)
        self.attention = Attention(16, 2)
        self.head = nn.Linear(16, 2)

    def forward(self, tokens):
        padding = tokens == 0
        if REPAIRED:
            padding[:, 0] = False
        x = self.embed(tokens)
        x = x + self.attention(x, padding)
        return self.head(x.mean(1))


torch.manual_seed(5)
model = Classifier()
optimizer = torch.optim.Adam(model.parameters())
for step in range(10):
    tokens = torch.randint(1, 50, (6, 7))
    for row, length in enumerate(torch.randint(2, 8, (6,)).tolist()):
        tokens[row, length:] = 0
    if step == 8:
        tokens[3] = 0
    loss = nn.functional.cross_entropy(model(tokens), torch.randint(0, 2, (6,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, float(loss))
