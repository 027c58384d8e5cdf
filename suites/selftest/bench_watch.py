"""What watching costs, measured side by side: `python -m suites.selftest.bench_watch`.

Rounds of plain, watched (`harness.watch`) and fully taped (`stability diagnose`) steps alternate,
so that a busy machine slows all of them; the ratio is that of the medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import harness
from harness.diagnosis.session import Session

# Widths whose step takes about 2 ms, 20 ms and more on one core.
WIDTHS = (64, 256, 768)
ROUNDS = 5


def training(width: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """A plain network with normalisation, and its step."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(6):
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
    """Milliseconds a step."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count * 1e3


def measure(width: int) -> tuple[float, float, float]:
    """Medians of plain, watched and taped steps, in milliseconds."""
    model, optimizer, step = training(width)
    count = max(16, int(150 / timed(step, 5)))
    plain, watched, taped = [], [], []
    for _ in range(ROUNDS):
        plain.append(timed(step, count))
        with harness.watch(model, optimizer):
            watched.append(timed(step, count))
        session = Session()
        session.optimizer_made(optimizer)
        session.attempts[id(optimizer)] = 100  # past the close looks at the first steps
        session.start()
        taped.append(timed(step, count))
        session.stop()
    return statistics.median(plain), statistics.median(watched), statistics.median(taped)


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU")
    print("width   plain ms   watch   diagnose")
    for width in WIDTHS:
        plain, watched, taped = measure(width)
        print(f"{width:>5}   {plain:>8.2f}   {watched / plain:.3f}x   {taped / plain:.2f}x")


if __name__ == "__main__":
    main()
