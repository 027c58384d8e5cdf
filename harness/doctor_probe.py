"""One check of `stability doctor` in a process of its own: `python -m harness.doctor_probe NAME`.

Prints its findings as one line of JSON, the last of its standard output.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from harness.doctor import Finding, Level

_LENGTH = 64  # elements of the probe's kernel


def interpreter() -> Iterator[Finding]:
    """A Triton kernel, interpreted on the CPU, gives the numbers it must."""
    import torch

    wrong = _run_kernel(torch.device("cpu"))
    if wrong:
        advice = "check the versions of triton and numpy above; then report it"
        yield Finding("interpreter", Level.problem, wrong, advice)
    else:
        yield Finding("interpreter", Level.ok, "a Triton kernel ran on the CPU, numbers right")


def compiler() -> Iterator[Finding]:
    """The compiler builds for GPUs that need not be here."""
    import torch

    from harness.doctor_kernel import twice_plus_one
    from harness.launches import DEFAULT_TARGETS, Failure, compiled_launches, target_named

    built = []
    for name in DEFAULT_TARGETS:
        with compiled_launches(target_named(name)) as found:
            x = torch.zeros(_LENGTH)
            twice_plus_one[(1,)](x, torch.empty_like(x), LENGTH=_LENGTH)
        failures = [each for each in found if isinstance(each, Failure)]
        if failures or not found:
            told = f"nothing compiles for {name}: {failures[0].reason if failures else 'no launch'}"
            advice = "reinstall triton; if it persists, remove its cache (~/.triton)"
            yield Finding("compiler", Level.problem, told, advice)
        else:
            built.append(name)
    if built:
        yield Finding("compiler", Level.ok, f"builds for {', '.join(built)} without a device")


def cuda() -> Iterator[Finding]:
    """Driver, device, clocks, and a kernel that runs: where there is a GPU at all."""
    import torch

    if not torch.cuda.is_available():
        yield from _no_cuda(torch)
        return
    for place in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(place)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        told = f"{properties.name}, sm_{properties.major}{properties.minor}, {memory}"
        yield Finding(f"cuda:{place}", Level.ok, f"{told}, CUDA {torch.version.cuda}")
    yield from _clocks(str(torch.cuda.get_device_properties(0).uuid))
    wrong = _run_kernel(torch.device("cuda"))
    if wrong:
        advice = "run the probe with CUDA_LAUNCH_BLOCKING=1; check nvidia-smi for errors (Xid)"
        yield Finding("cuda kernel", Level.problem, wrong, advice)
    else:
        yield Finding("cuda kernel", Level.ok, "a Triton kernel ran on the GPU, numbers right")


def _no_cuda(torch: Any) -> Iterator[Finding]:
    """No GPU is no problem; one that torch cannot use is."""
    card = _card_beside_torch()
    if card is None:
        told = "no CUDA device: kernels run in Triton's interpreter, and no speed is measured"
        yield Finding("cuda", Level.note, told)
    elif torch.version.cuda is None:
        told = f"{card} is here, but torch {torch.__version__} is built without CUDA"
        advice = "install the CUDA build: make clean, then make sweep without TORCH_INDEX"
        yield Finding("cuda", Level.problem, told, advice)
    else:
        told = f"{card} is here, but torch (CUDA {torch.version.cuda}) cannot use it"
        advice = "update the driver (nvidia-smi says which), and look at CUDA_VISIBLE_DEVICES"
        yield Finding("cuda", Level.problem, told, advice)


def _card_beside_torch() -> str | None:
    """Name and driver of the first card that NVML knows."""
    try:
        import pynvml

        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return f"{name} (driver {pynvml.nvmlSystemGetDriverVersion()})"
    except Exception:  # noqa: BLE001 - no library, no driver, no card: there is none to speak of
        return None


def _clocks(uuid: str) -> Iterator[Finding]:
    from harness.timing.card import card_reader

    with card_reader(uuid) as read:
        state = read()
    if state is None or state.sm_mhz is None:
        told = "NVML does not tell the clocks: timings go on, without clocks and throttling"
        advice = "pip install nvidia-ml-py; a container needs the driver capability `utility`"
        yield Finding("clocks", Level.warning, told, advice)
        return
    level = Level.warning if state.throttled else Level.ok
    watts = "" if state.watts is None else f", {state.watts:.0f} W"
    told = f"SM {state.sm_mhz} MHz, memory {state.memory_mhz} MHz, {state.celsius} °C{watts}"
    reasons = f"; limited by {', '.join(state.reasons)}" if state.reasons else ""
    advice = "let it cool, or lock the clocks: nvidia-smi -lgc" if state.throttled else ""
    yield Finding("clocks", level, told + reasons, advice)


def peers() -> Iterator[Finding]:
    """Which other libraries' kernels a run would measure beside ours, and which it lacks."""
    from importlib import metadata

    from harness.catalog import load_catalog

    found: dict[str, str] = {}
    absent = set[str]()
    for operation in load_catalog().values():
        for path in operation.paths:
            if path.package in ("", "torch"):  # ours, and torch.compile: no package of its own
                continue
            if path.absent():
                absent.add(path.package)
                continue
            try:
                found[path.package] = metadata.version(path.package)
            except metadata.PackageNotFoundError:
                found[path.package] = "of unknown version"
    told = ", ".join(f"{name} {version}" for name, version in sorted(found.items())) or "none"
    yield Finding("peers", Level.ok, f"measured beside ours: {told}")
    missing = sorted(absent - found.keys())
    if missing:
        advice = (
            "none is needed; pip install 'stability-harness[peers]' brings those that run without"
            " a GPU, pyproject.toml says how to get the others"
        )
        yield Finding("peers absent", Level.note, ", ".join(missing), advice)


def _run_kernel(device: Any) -> str:
    """What is wrong with what the kernel computed; empty if nothing is."""
    import torch

    from harness.doctor_kernel import twice_plus_one

    x = torch.arange(_LENGTH, dtype=torch.float32, device=device)
    y = torch.full_like(x, float("nan"))
    twice_plus_one[(1,)](x, y, LENGTH=_LENGTH)
    wrong = (y != x * 2 + 1).nonzero().flatten()
    if not len(wrong):
        return ""
    first = int(wrong[0])
    return f"a Triton kernel gave {float(y[first])} for 2 * {first} + 1"


PROBES: dict[str, Callable[[], Iterator[Finding]]] = {
    each.__name__: each for each in (interpreter, compiler, cuda, peers)
}


def main(name: str) -> None:
    """Run one probe; what it raises is its finding."""
    found = []
    try:
        found += list(PROBES[name]())
    except Exception as error:  # noqa: BLE001 - whatever is broken here is what was looked for
        told = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        found.append(Finding(name, Level.problem, told, "see the versions above; then report it"))
    print("\n" + json.dumps([asdict(each) for each in found]))


if __name__ == "__main__":
    main(sys.argv[1])
