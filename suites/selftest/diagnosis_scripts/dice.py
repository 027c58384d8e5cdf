# expect: aten.div | division_by_zero empty_reduction
"""A segmentation loss on a picture without a lesion."""

import sys

import torch
import torch.nn as nn


def dice_loss(p, t, smooth):
    inter = (p * t).sum(dim=(1, 2, 3))
    total = p.sum(dim=(1, 2, 3)) + t.sum(dim=(1, 2, 3))
    return 1 - ((2 * inter + smooth) / (total + smooth)).mean()  # HERE


torch.manual_seed(0)
smooth = 1.0 if "--repaired" in sys.argv else 0.0
unet = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
nn.init.constant_(unet[2].bias, 0.2)
opt = torch.optim.Adam(unet.parameters(), lr=1e-3)
for i in range(10):
    image = torch.rand(2, 1, 8, 8)
    truth = (image > 0.7).float()
    if i == 6:
        image[1], truth[1] = 0.0, 0.0
        with torch.no_grad():
            unet[2].bias.fill_(-500.0)
    loss = dice_loss(torch.relu(unet(image)).clamp(max=1), truth, smooth)
    opt.zero_grad()
    loss.backward()
    opt.step()
