# expect: aten.exp | overflow divergence
"""Proximal policy optimisation whose log ratio is exponentiated without a bound."""

import sys

import torch
from torch import nn
from torch.distributions import Normal

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, state):
        mean = self.actor(state)
        return Normal(mean, self.log_std.exp().expand_as(mean)), self.critic(state).squeeze(-1)


agent = ActorCritic()
optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3)
for update in range(10):
    state = torch.randn(32, 3)
    with torch.no_grad():
        policy, value = agent(state)
        action = policy.sample()
        old = policy.log_prob(action).sum(-1)
        if update == 7:
            old = old - 120.0  # recorded by a stale policy
        returns = -action.pow(2).sum(-1)
    for epoch in range(3):
        policy, value = agent(state)
        log_ratio = policy.log_prob(action).sum(-1) - old
        if REPAIRED:
            log_ratio = log_ratio.clamp(-5, 5)
        ratio = torch.exp(log_ratio)  # HERE
        advantage = returns - value.detach()
        surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        loss = -surrogate + 0.5 * nn.functional.mse_loss(value, returns)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()
