# expect: aten.log aten.log10 | log_of_zero
"""A logarithmic spectrum of silence."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv


class Spectrogram(nn.Module):
    def __init__(self, size=16):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size))

    def forward(self, wave):
        spectrum = torch.stft(wave, self.size, 8, window=self.window, return_complex=True)
        power = spectrum.abs() ** 2
        if REPAIRED:
            power = power + 1e-10
        return 10 * torch.log10(power)  # HERE


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectrogram = Spectrogram()
        self.head = nn.Linear(9, 2)

    def forward(self, wave):
        return self.head(self.spectrogram(wave).mean(-1))


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, nesterov=True, momentum=0.9)
for step in range(8):
    wave = torch.randn(4, 64)
    if step == 3:
        wave[2] = 0.0
    loss = nn.CrossEntropyLoss()(net(wave), torch.tensor([0, 1, 0, 1]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
