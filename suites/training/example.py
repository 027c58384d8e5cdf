"""A model of your own: copy this file, change the model, and sweep it.

stability run training --workload suites.training.example:make --lr 1e-2:10:2 --precision fp32
"""

import torch
from torch import Tensor, nn

from harness.training.own import Training


def make(seed: int) -> Training:
    """Two spirals, a perceptron, and a cost written by hand; torch's generator holds the seed.

    The run calls this once for every learning rate, seed and precision.
    """
    angle = torch.linspace(0.5, 9.0, 200)
    arm = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1) / 9.0
    points, sides = torch.cat([arm, -arm]), torch.arange(2).repeat_interleave(200)
    model = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)
    )

    def batch(step: int) -> tuple[Tensor, ...]:
        # Any number of tensors; floating ones arrive in `loss` in the precision of the run.
        picked = torch.randperm(400, generator=torch.Generator().manual_seed(1000 * seed + step))[
            :50
        ]
        return points[picked], sides[picked]

    def loss(network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        probabilities = torch.softmax(network(inputs), dim=-1)
        return -torch.log(probabilities[torch.arange(len(targets)), targets]).mean()

    return Training(model, batch, loss, steps=300, evaluation=(points, sides))
