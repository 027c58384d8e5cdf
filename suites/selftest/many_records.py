"""Runs of any size, made up: what the harness costs is measured on them, not what kernels do."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.case import decimal

# A group is what one table row of one regime holds: its magnitudes, forward or backward.
# Floats of every dtype.
MAGNITUDES = tuple(2.0**exponent * step for exponent in range(-12, 13) for step in (1.0, 1.5))
_DTYPES = ("fp16", "bf16", "fp32", "fp64")
_PATHS = ("naive", "clamped", "torch", "compiled", "triton", "liger", "quack", "apex")
_REGIMES = 20
_A_GROUP = 2 * len(MAGNITUDES)  # forward and backward

HEAD: dict[str, Any] = {
    "schema": 1,
    "argv": ["stability", "run"],
    "started": "2026-01-02T03:04:05+00:00",
    "complete": True,
    "asked": {"suite": "stability", "catalog": "made.up", "shard": "1/1"},
    "seed": 0,
    "device": {"kind": "cpu", "name": "cpu-interpreter", "model": "made up"},
    "versions": {"torch": "9.9", "triton": "3.9"},
    "git": {"commit": "0" * 40, "dirty": False},
}


def plain_records(count: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """That many records of the stability suite, as they are parsed; ids do not repeat.

    Each group breaks at a magnitude of its own, which `seed` moves: two seeds have the same ids and
    mostly the same verdicts, so that their comparison finds something.
    """
    for place in range(-(-count // _A_GROUP)):
        left = min(_A_GROUP, count - place * _A_GROUP)
        group, path = divmod(place, len(_PATHS))
        group, dtype = divmod(group, len(_DTYPES))
        operation, regime = divmod(group, _REGIMES)
        names = f"op{operation}", _PATHS[path], _DTYPES[dtype], f"regime{regime}"
        yield from _group(names, left, random.Random(f"{seed if place % 50 == 0 else 0}/{place}"))


def _group(
    names: tuple[str, str, str, str], count: int, chance: random.Random
) -> Iterator[dict[str, Any]]:
    operation, path, dtype, regime = names
    breaks = chance.choice(MAGNITUDES[len(MAGNITUDES) // 2 :]) if path != "triton" else 1e300
    seconds = round(chance.random(), 6)
    for place in range(count):
        magnitude = MAGNITUDES[place // 2]
        pass_ = ("forward", "backward")[place % 2]
        bad = magnitude >= breaks
        yield {
            "id": f"{operation}/{path}/{dtype}/{regime}@{decimal(magnitude)}/4x64/{pass_}",
            **{"suite": "stability", "operation": operation, "path": path, "dtype": dtype},
            "verdict": ("nan" if pass_ == "forward" else "nan_gradient") if bad else "ok",
            **{"regime": regime, "magnitude": magnitude, "shape": [4, 64], "pass": pass_},
            **{"returned": dtype, "max_ulp": None if bad else chance.random()},
            **{"bad": 4 if bad else 0, "elements": 256, "first_bad": [0, 2] if bad else None},
            **{"representable": True, "claimed": path == "triton", "seconds": seconds},
        }


def write_run(directory: Path, count: int, *, seed: int = 0, **head: Any) -> Path:
    """A complete run of `count` records, written as the harness writes its own."""
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps(HEAD | head))
    with (directory / "records.jsonl").open("w", encoding="utf-8") as stream:
        for record in plain_records(count, seed=seed):
            kept = {key: value for key, value in record.items() if value is not None}
            stream.write(json.dumps(kept) + "\n")
    return directory
