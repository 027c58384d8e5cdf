"""The question this project began with: the cost falls nicely, and then is not finite."""

import torch
from sklearn.datasets import load_breast_cancer

torch.manual_seed(0)
table, labels = load_breast_cancer(return_X_y=True)
x = torch.tensor(table, dtype=torch.float32)
x = (x - x.mean(0)) / x.std(0)
y = torch.tensor(labels, dtype=torch.float32)

model = torch.nn.Sequential(torch.nn.Linear(30, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

for epoch in range(2000):
    p = torch.sigmoid(model(x)).squeeze(1)
    loss = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 200 == 0:
        print(f"epoch {epoch}: loss {loss.item():.6f}")
