"""What is known of kernels without a GPU: machine code by target, bytes moved against the least.

`inspect` starts a process a target, and one in Triton's interpreter for the traffic, and gathers
their answers: plain dictionaries of kind

    kernel       a kernel's machine code for a target: the fields of `machine_code.MachineCode`
    failure      a kernel that does not compile for a target, with the reason
    traffic      one pass: bytes moved, the least possible, and reads and writes of each operand
    unsupported  a path that does not take the case, with its reason
    error        a path that raised
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.errors import InputError

DEFAULT_TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
# A row that fits on chip and one that is looped over, both of 16-byte aligned rows.
DEFAULT_COLUMNS = (4096, 32_000)
_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is asked of one path: a dtype, and rows of a width."""

    operation: str
    path: str
    dtype: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that was found, and what went wrong in finding it."""

    answers: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)  # processes that failed

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The answers of one kind, in order."""
        return [each for each in self.answers if each["kind"] == kind]


def rows_for(columns: int) -> int:
    """Enough rows that a program holds as many as it does of any longer matrix, a multiple of 16
    (triton specialises kernels on that).
    """
    return max(16, 16_384 // columns // 16 * 16)


def inspect(
    cases: Sequence[Inspected],
    *,
    targets: Sequence[str] = DEFAULT_TARGETS,
    with_traffic: bool = True,
    catalog: str | None = None,
    tell: Callable[[str], None] = lambda told: None,
) -> Inspection:
    """Compile the cases' kernels for each target, and count the bytes that they move.

    Traffic is counted in the launch shapes of the first target.
    """
    requests = [("machine_code", target) for target in targets]
    if with_traffic and targets:
        requests.append(("traffic", targets[0]))
    workers = max(min(os.cpu_count() or 1, len(requests), 8), 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting = [
            pool.submit(_ask, look_at, target, cases, catalog, tell) for look_at, target in requests
        ]
        parts = [each.result() for each in waiting]
    return Inspection(
        [answer for part in parts for answer in part.answers],
        [problem for part in parts for problem in part.problems],
    )


def _ask(
    look_at: str,
    target: str,
    cases: Sequence[Inspected],
    catalog: str | None,
    tell: Callable[[str], None],
) -> Inspection:
    request = {
        "look_at": look_at,
        "target": target,
        "catalog": catalog,
        "cases": [asdict(case) for case in cases],
    }
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # What triton below 3.10 does where nobody says; unset, it warns with every kernel of a peer.
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if look_at == "traffic":
        environment["TRITON_INTERPRET"] = "1"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [root, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(each for each in paths if each)
    name = look_at.replace("_", " ")
    tell(f"{name} for {target} ...")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness.inspect_worker"],
            input=json.dumps(request),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Inspection([], [f"{name} for {target}: no answer within {_TIMEOUT_S} s"])
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
    problems = []
    if done.returncode != 0:
        last = " ".join(done.stderr.strip().splitlines()[-1:]) or "it said nothing"
        problems.append(f"{name} for {target} ended with code {done.returncode}: {last}")
    tell(f"{name} for {target}: {len(answers)} answers")
    return Inspection(answers, problems)


def chosen_cases(
    operations: Iterable[str],
    *,
    paths: Sequence[str],
    dtypes: Sequence[str],
    columns: Sequence[int],
    catalog: str | None,
    rows: int | None = None,
) -> list[Inspected]:
    """The cases that the command line asks for; names may be globs, none means all.

    Without `rows` there are as many as `rows_for` says of each width.

    Raises:
        InputError: for a name that fits nothing, or no width.
    """
    from fnmatch import fnmatchcase

    from harness.catalog import load_catalog
    from harness.errors import unknown
    from harness.formats import FORMATS

    def pick(kind: str, names: Iterable[str], asked: Sequence[str]) -> list[str]:
        names = list(names)
        for each in asked:
            if not any(fnmatchcase(name, each) for name in names):
                raise unknown(kind, each, names)
        return [n for n in names if not asked or any(fnmatchcase(n, each) for each in asked)]

    known = load_catalog(catalog)
    chosen = [known[name] for name in pick("operation", known, list(operations))]
    pick("path", {path.name for each in chosen for path in each.paths}, paths)
    if any(each < 1 for each in columns):
        raise InputError(f"rows have at least one column, got {min(columns)}")
    return [
        Inspected(operation.name, path.name, dtype, rows or rows_for(width), width)
        for operation in chosen
        for path in operation.paths
        if not paths or any(fnmatchcase(path.name, each) for each in paths)
        for dtype in pick("dtype", FORMATS, dtypes)
        for width in columns
    ]


def broken_claims(inspection: Inspection, catalog: str | None) -> list[dict[str, Any]]:
    """Failures of paths that claim something: their kernels must compile for every target."""
    from harness.catalog import load_catalog

    known = load_catalog(catalog)
    return [
        each
        for each in inspection.of("failure") + inspection.of("error")
        if known[each["case"]["operation"]].path(each["case"]["path"]).claims
    ]


def to_json(inspection: Inspection, asked: Mapping[str, Any]) -> str:
    """One valid JSON document with everything that was found."""
    from importlib.metadata import version

    document = {
        "schema": 1,
        "asked": dict(asked),
        "versions": {name: version(name) for name in ("torch", "triton")},
        "kernels": _without_kind(inspection.of("kernel")),
        "traffic": _without_kind(inspection.of("traffic")),
        "failures": _without_kind(inspection.of("failure")),
        "unsupported": _without_kind(inspection.of("unsupported") + inspection.of("error")),
        "problems": inspection.problems,
    }
    return json.dumps(document, indent=1, allow_nan=False)


def _without_kind(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in each.items() if key != "kind"} for each in answers]
