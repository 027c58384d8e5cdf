# expect: aten.div aten.mean | empty_reduction
"""Masked language modelling with accumulated gradients; one micro-batch has nothing masked."""

import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--repaired", action="store_true")
parser.add_argument("--accumulate", type=int, default=4)
args = parser.parse_args()

torch.manual_seed(11)
vocabulary, width = 30, 16
model = nn.Sequential(nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary))
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)


def masked_loss(tokens, mask):
    logits = model(tokens.masked_fill(mask, 0))
    losses = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    count = mask.sum()
    if args.repaired:
        count = count.clamp(min=1)
    return (losses * mask).sum() / count  # HERE


for step in range(40):
    tokens = torch.randint(1, vocabulary, (2, 5))
    mask = torch.rand(2, 5) < (0.0 if step == 22 else 0.4)
    mask[0, 0] |= step != 22
    loss = masked_loss(tokens, mask) / args.accumulate
    loss.backward()
    if (step + 1) % args.accumulate == 0:
        optimizer.step()
        optimizer.zero_grad()
