# expect: aten.add_ aten._foreach_add_ aten._foreach_addcdiv_ aten.addcdiv_ aten.mul_ | divergence
"""A schedule that divides by the number of steps left."""

import sys

import torch

REPAIRED = "--repaired" in sys.argv
STEPS = 40


def rate(step):
    left = STEPS - 10 - step
    if REPAIRED:
        return 1.0 / max(left, 1)
    return 1.0 / left if left else float("inf")


torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
for step in range(STEPS):
    x = torch.randn(8, 3)
    loss = torch.nn.functional.mse_loss(model(x), x.mean(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # HERE
    scheduler.step()
