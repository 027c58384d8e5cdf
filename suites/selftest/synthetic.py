"""Runs whose numbers are known beforehand, for the report: a sweep, trainings and timings."""

from pathlib import Path
from typing import Any

from harness.record import Record
from harness.store import Run
from harness.verdict import Verdict

ENVIRONMENT: dict[str, Any] = {
    "schema": 1,
    "complete": True,
    "seed": 0,
    "started": "2026-01-02T03:04:05+00:00",
    "asked": {"catalog": "suites.selftest.toy", "quick": False},
    "device": {"kind": "cuda", "name": "H100", "driver": "580"},
    "versions": {"torch": "9.9", "triton": "3.9"},
    "packages": {"toy/library": "planted"},
    "git": {"commit": "abc", "dirty": False},
}


def run_of(*records: Record, name: str = "first", **environment: Any) -> Run:
    """A run with these records in a directory of that name."""
    return Run(Path("results") / name, ENVIRONMENT | environment, records)


def case(
    verdict: Verdict,
    magnitude: float,
    *,
    operation: str = "toy",
    path: str = "naive",
    dtype: str = "fp16",
    regime: str = "normal",
    pass_: str = "forward",
    **more: Any,
) -> Record:
    """A record of the stability suite."""
    name = f"{operation}/{path}/{dtype}/{regime}@{magnitude:g}/4x64/{pass_}"
    data = {"regime": regime, "magnitude": magnitude, "shape": [4, 64], "pass": pass_}
    data |= {"bad": 0, "elements": 4, "representable": True, "claimed": False} | more
    return Record(name, "stability", operation, path, dtype, verdict, data)


def sweep(**names: Any) -> list[Record]:
    """Right up to 10, inaccurate by 5 ULP at 100, NaN at 1000; a second layout is right to 100."""
    right = [case(Verdict.OK, each, **names) for each in (0.1, 1.0, 10.0)]
    worse = [
        case(Verdict.INACCURATE, 100.0, max_ulp=5.0, **names),
        case(Verdict.NAN, 1000.0, bad=4, **names),
    ]
    peak = {**names, "regime": "peak"}
    return [
        *right,
        *worse,
        *(case(Verdict.OK, each, **peak) for each in (0.1, 1.0, 10.0, 100.0)),
        case(Verdict.NAN, 1000.0, **peak),
    ]


def trained(path: str, rate: float, seed: int, **outcome: Any) -> Record:
    """A record of the training suite; without `final_loss` it went to NaN."""
    name = f"digits_mlp/cross_entropy/{path}/fp16/lr@{rate:g}/optimizer=sgd/seed={seed}"
    verdict = Verdict.OK if "final_loss" in outcome else Verdict.NAN
    data = {
        **{"workload": "digits_mlp", "precision": "fp16", "learning_rate": rate, "seed": seed},
        **{"optimizer": "sgd", "normalization": "none", "initialization": "kaiming"},
        **{"schedule": "constant", "steps": 200, "diverged": False, "initial_loss": 2.3},
    }
    return Record(name, "training", "cross_entropy", path, "fp16", verdict, data | outcome)


def trainings() -> list[Record]:
    """Two seeds a rate. naive learns up to 0.1 and is NaN from 1 on, at steps 40 and 60, then 4;
    triton learns at 1, too, and at 10 ends above the untrained loss.
    """
    naive = [(0.01, 0.9), (0.1, 0.4)]
    found = [trained("naive", rate, s, final_loss=loss) for rate, loss in naive for s in (0, 1)]
    found += [trained("naive", 1.0, s, first_bad_step=40 + 20 * s) for s in (0, 1)]
    found += [trained("naive", 10.0, s, first_bad_step=4) for s in (0, 1)]
    ours = [*naive, (1.0, 0.1), (10.0, 7.5)]
    return found + [trained("triton", rate, s, final_loss=x) for rate, x in ours for s in (0, 1)]


def timed(path: str, seconds: float, *, timer: str = "cuda", **more: Any) -> Record:
    """A record of the speed suite."""
    name = f"toy/{path}/bf16/normal@1/8192x128256/backward/timer={timer}"
    data: dict[str, Any] = {
        **{"regime": "normal", "magnitude": 1.0, "shape": [8192, 128256], "pass": "backward"},
        **{"options": {"timer": timer}, "timer": timer, "claimed": path == "triton"},
        **{"samples": [seconds] * 5, "median_seconds": seconds},
        **{"low_seconds": seconds * 0.99, "high_seconds": seconds * 1.01},
        **{"gigabytes_per_second": 2000.0, "share_of_copy": 0.875, "peak_bytes": 3 * 2**20},
        "rounds": {"sm_mhz": [1700, 1755]},
    }
    return Record(name, "speed", "toy", path, "bf16", Verdict.OK, data | more)


def timings(timer: str = "cuda") -> list[Record]:
    """triton takes 2 ms, naive 5 ms: the price of safety is 0.4."""
    return [
        timed("naive", 0.005, timer=timer, ratios={"triton": 2.5}),
        timed("triton", 0.002, timer=timer, ratios={"naive": 0.4}, price_of_safety=0.4),
    ]
