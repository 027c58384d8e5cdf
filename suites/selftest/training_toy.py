"""A small training suite: two clouds of points, and settings that break at known places."""

import time

import torch
from torch import Tensor, nn

from harness.training.declare import Advice, Slice, Trial
from harness.training.own import Training
from harness.training.setting import Setting
from harness.training.workload import Data, Workload


def clouds() -> Data:
    """160 points of three classes in four dimensions, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(160) % 3
    inputs = torch.randn(160, 4, generator=generator, dtype=torch.float64)
    inputs[torch.arange(160), targets] += 3.0
    return Data(inputs[:120], targets[:120], inputs[120:], targets[120:])


def naive(logits: Tensor, target: Tensor) -> Tensor:
    """Breaks where exp overflows."""
    e = torch.exp(logits)
    return -torch.log(e.gather(-1, target[:, None])[:, 0] / e.sum(dim=-1))


def stable(logits: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, target, reduction="none")


def model(normalization: str) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


TOY = Workload(
    "toy",
    "Two layers on three clouds.",
    clouds,
    model,
    "cross_entropy",
    {"naive": naive, "torch": stable},
    stable,
    lambda logits, target: (logits.argmax(dim=-1) == target).double(),
    batch_size=20,
    steps=30,
)
WORKLOADS = (TOY,)
_NAIVE = Setting("toy", "naive", "fp16")
SLICES = (
    Slice("clock", (_NAIVE, Setting("toy", "torch", "fp16")), (0.1, 1.0), 2, level="quick"),
    Slice("modes", (Setting("toy", "torch", "tf32"),), (0.1,), 1),
)
ADVICE = (
    Advice(
        "a stable cost",
        "Numerical instability",
        (Trial(_NAIVE, Setting("toy", "torch", "fp16"), (300.0, 1000.0), 30, seeds=3),),
    ),
)


# --- somebody's own model -------------------------------------------------------------------------


def make(seed: int) -> Training:
    """The same model and data, as a user hands them over."""
    data = clouds()
    inputs, targets = data.train_inputs.float(), data.train_targets

    def batch(step: int) -> tuple[Tensor, ...]:
        first = 20 * step % 120
        return inputs[first : first + 20], targets[first : first + 20]

    def loss(network: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(points), classes)

    return Training(model("none"), batch, loss, steps=10)


def make_raising(seed: int) -> Training:
    raise KeyError("dataset")


def make_without_parameters(seed: int) -> Training:
    made = make(seed)
    return Training(nn.Tanh(), made.batch, made.loss)


def make_with_rows(seed: int) -> Training:
    made = make(seed)
    return Training(
        made.model,
        made.batch,
        lambda network, points, classes: nn.functional.cross_entropy(
            network(points), classes, reduction="none"
        ),
    )


def make_nothing(seed: int) -> object:
    return {"model": model("none")}


def make_raising_later(seed: int) -> Training:
    made = make(seed)

    def batch(step: int) -> tuple[Tensor, ...]:
        if step == 3:
            raise IndexError("no more samples")
        return made.batch(step)

    return Training(made.model, batch, made.loss, steps=10)


def make_breaking(seed: int) -> Training:
    """The logarithm of a softmax, by hand, at rates beyond all reason."""
    made = make(seed)

    def loss(network: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        return naive(network(points), classes).mean()

    return Training(made.model, made.batch, loss, steps=10)


def make_slowly(seed: int) -> Training:
    """Slow enough to be interrupted: a curve of two rates and two seeds takes two seconds."""
    made = make(seed)

    def batch(step: int) -> tuple[Tensor, ...]:
        time.sleep(0.05)
        return made.batch(step)

    return Training(made.model, batch, made.loss, steps=10)
