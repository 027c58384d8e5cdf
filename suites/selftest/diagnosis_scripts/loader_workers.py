# expect: aten.addmm aten.mm aten.native_layer_norm aten.div aten.sub | bad_data
"""A loader with worker processes; one row of the table is missing a value."""

import sys

import torch
from torch.utils.data import DataLoader, Dataset

REPAIRED = "--repaired" in sys.argv


class Table(Dataset):
    def __init__(self, rows):
        generator = torch.Generator().manual_seed(4)
        self.x = torch.randn(rows, 5, generator=generator)
        self.y = self.x.sum(1, keepdim=True)
        self.x[77, 2] = 0.0 if REPAIRED else float("nan")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def train(model, loader, epochs):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    criterion = torch.nn.MSELoss()
    for _ in range(epochs):
        running = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            running += loss.item()
        scheduler.step()
        print(running)


if __name__ == "__main__":
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 16),  # its call is the first to read the batch
        torch.nn.ReLU(),
        torch.nn.Linear(16, 1),
    )
    train(net, DataLoader(Table(96), batch_size=8, num_workers=2), epochs=2)
