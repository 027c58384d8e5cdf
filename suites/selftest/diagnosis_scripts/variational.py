# expect: aten.exp | overflow divergence initialization
"""A variational autoencoder whose log variance has no bound."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(7)


class Encoder(nn.Module):
    def __init__(self, width, latent):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 32), nn.ReLU())
        self.mean = nn.Linear(32, latent)
        self.log_variance = nn.Linear(32, latent)

    def forward(self, x):
        h = self.body(x)
        return self.mean(h), self.log_variance(h)


class Autoencoder(nn.Module):
    def __init__(self, width=20, latent=4):
        super().__init__()
        self.encoder = Encoder(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 32), nn.Tanh(), nn.Linear(32, width))

    def forward(self, x):
        mean, log_variance = self.encoder(x)
        if REPAIRED:
            log_variance = 8 * torch.tanh(log_variance / 8)
        deviation = torch.exp(0.5 * log_variance)  # HERE
        z = mean + deviation * torch.randn_like(deviation)
        return self.decoder(z), mean, log_variance


def main():
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = torch.randn(256, 20) * 3
    data[130] = 900.0  # a sensor that was saturated
    for epoch in range(3):
        for i in range(0, 256, 32):
            batch = data[i : i + 32]
            out, mean, log_variance = model(batch)
            reconstruction = nn.functional.smooth_l1_loss(out, batch)
            kl = -0.5 * (1 + log_variance - mean.pow(2)).mean()
            loss = reconstruction + 0.01 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} loss {loss.item():.3f}")


main()
