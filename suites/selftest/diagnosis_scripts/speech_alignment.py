# expect: aten._ctc_loss | bad_target
"""Connectionist temporal classification with a target longer than its input."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
rnn = nn.GRU(8, 16, batch_first=True)
head = nn.Linear(16, 6)
optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=1e-3)
criterion = nn.CTCLoss(zero_infinity=REPAIRED)
for step in range(6):
    frames = torch.randn(3, 10, 8)
    lengths = torch.tensor([10, 9, 4 if step == 4 else 8])
    targets = torch.randint(1, 6, (3, 5))
    out, _ = rnn(frames)
    log_p = head(out).log_softmax(-1).transpose(0, 1)
    loss = criterion(log_p, targets, lengths, torch.tensor([5, 4, 5]))  # HERE
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
