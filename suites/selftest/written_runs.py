"""Run directories made of a few records, so that a test can say beforehand what differs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.case import parse_case
from harness.record import Record
from harness.store import Writer
from harness.verdict import Verdict

HEAD: dict[str, object] = {
    "seed": 0,
    "device": {"kind": "cpu", "name": "cpu-interpreter", "model": "any"},
    "versions": {"torch": "2.13.0"},
    "git": {"commit": "0123456789abcdef", "dirty": False},
}


def write(
    directory: Path,
    records: Iterable[Record],
    *,
    head: Mapping[str, object] = HEAD,
    complete: bool = True,
) -> Path:
    """A run directory with these records."""
    writer = Writer.start(directory, {"suite": "stability"}, dict(head), resume=False)
    writer.append(records)
    writer.finish(complete=complete)
    return directory


def id_at(magnitude: float, path: str = "naive") -> str:
    return f"cross_entropy/{path}/fp16/peak@{magnitude:g}/4x64/forward"


def judged(id_: str, verdict: Verdict = Verdict.OK, **fields: object) -> Record:
    """A record of the stability suite with the axes that its id says."""
    case = parse_case(id_)
    axes = {
        "regime": case.regime,
        "magnitude": case.magnitude,
        "shape": list(case.shape),
        "pass": case.pass_,
    }
    return Record(
        id_, "stability", case.operation, case.path, case.dtype, verdict, axes | dict(fields)
    )


def timed(path: str, samples: Sequence[float], shape: str = "8x64", **fields: object) -> Record:
    """A record of the speed suite."""
    data: dict[str, object] = {
        "regime": "normal",
        "magnitude": 1.0,
        "shape": [int(each) for each in shape.split("x")],
        "pass": "forward",
        "options": {"timer": "cpu"},
        "timer": "cpu",
        "claimed": path == "triton",
        "samples": list(samples),
    }
    id_ = f"softmax/{path}/fp32/normal@1/{shape}/forward/timer=cpu"
    verdict = fields.pop("verdict", Verdict.OK)
    assert isinstance(verdict, Verdict)
    return Record(id_, "speed", "softmax", path, "fp32", verdict, data | fields)


def trained(rate: float, seed: int = 0, first_bad: int | None = None, **fields: object) -> Record:
    """A record of the training suite; a first bad step makes its verdict nan."""
    verdict = Verdict.OK if first_bad is None else Verdict.NAN
    data: dict[str, object] = {
        "workload": "digits",
        "precision": "fp16",
        "learning_rate": rate,
        "seed": seed,
        "optimizer": "sgd",
        "steps": 500,
        "first_bad_step": first_bad,
        "diverged": first_bad is not None,
    }
    id_ = f"digits/cross_entropy/naive/fp16/lr@{rate:g}/optimizer=sgd/seed={seed}"
    return Record(id_, "training", "cross_entropy", "naive", "fp16", verdict, data | fields)
