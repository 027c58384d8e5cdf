# expect: aten.log | log_of_zero
"""A divergence between distributions, by the logarithm of a softmax."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)
student, teacher = nn.Linear(8, 10), nn.Linear(8, 10)
opt = torch.optim.SGD(student.parameters(), 0.1)
for step in range(20):
    x = torch.randn(8, 8) * (200 if step == 15 else 1)
    q = F.softmax(student(x), -1)
    p = F.softmax(teacher(x), -1).detach()
    logq = F.log_softmax(student(x), -1) if REPAIRED else q.log()  # HERE
    loss = F.kl_div(logq, p, reduction="batchmean")
    opt.zero_grad()
    loss.backward()
    opt.step()
