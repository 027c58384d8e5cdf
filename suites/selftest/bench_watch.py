"""What watching costs, measured side by side: `python -m suites.selftest.bench_watch`.

Rounds of plain, watched (`harness.watch`) and fully taped (`stability diagnose`) steps alternate on
one thread, in processor time, so that a busy machine slows all of them alike; what is shown are the
medians of the plain rounds and of the rounds' own ratios.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import harness
from harness.diagnosis.session import Session

# Layers and widths: a step well below 2 ms, of 2 ms, of several, of 20 ms, and a large model.
SIZES = ((1, 16), (3, 32), (6, 64), (6, 256), (6, 768))
ROUNDS = 7


def training(
    depth: int, width: int
) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """A plain network with normalisation, and its step."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.LayerNorm(width), torch.nn.GELU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randn(128, width), torch.randint(0, 10, (128,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return model, optimizer, step


def timed(step: Callable[[], None], count: int) -> float:
    """Milliseconds of processor time a step."""
    start = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - start) / count * 1e3


def measure(depth: int, width: int) -> tuple[float, float, float]:
    """Medians: of a plain step in milliseconds, and of the watched and the taped one over it."""
    model, optimizer, step = training(depth, width)
    count = max(16, int(150 / timed(step, 5)))
    plain, watched, taped = [], [], []
    for _ in range(ROUNDS):
        before = timed(step, count)
        with harness.watch(model, optimizer):
            watched_ms = timed(step, count)
        session = Session()
        session.optimizer_made(optimizer)
        session.attempts[id(optimizer)] = 100  # past the close looks at the first steps
        session.start()
        taped_ms = timed(step, count)
        session.stop()
        base = (before + timed(step, count)) / 2
        plain.append(base)
        watched.append(watched_ms / base)
        taped.append(taped_ms / base)
    return statistics.median(plain), statistics.median(watched), statistics.median(taped)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, 1 thread, CPU")
    print("layers  width   plain ms    watch   more us   diagnose")
    for depth, width in SIZES:
        plain, watched, taped = measure(depth, width)
        more = (watched - 1) * plain * 1e3
        print(
            f"{depth:>6}  {width:>5}   {plain:>8.3f}   {watched:.3f}x   {more:>7.0f}   {taped:.2f}x"
        )


if __name__ == "__main__":
    main()
