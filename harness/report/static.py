"""The static table: what `stability inspect --json` knows of kernels without a GPU. Not a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.run_files import read_head
from harness.strict_json import parse

MOST_ROWS = 1_000  # of each table
LARGEST_BYTES = 32 * 2**20  # of a file: far beyond any inspection


@dataclass(frozen=True, slots=True)
class Kernel:
    """Machine code of a kernel for a target."""

    operation: str
    path: str
    dtype: str
    shape: str
    pass_: str
    kernel: str
    target: str
    numbers: tuple[float, ...]  # NUMBERS


NUMBERS = (
    *("warps", "registers", "spilled bytes", "shared bytes", "load width", "store width"),
    *("special", "fp32", "fp64", "instructions"),
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a pass moves, over the least possible."""

    operation: str
    path: str
    dtype: str
    shape: str
    pass_: str
    ratio: float
    moved_bytes: int
    least_bytes: int


@dataclass(frozen=True, slots=True)
class Static:
    """Everything the section shows of an inspection."""

    name: str
    versions: str
    kernels: tuple[Kernel, ...]
    traffic: tuple[Traffic, ...]
    left_out: int
    failures: tuple[str, ...]


def read_inspection(path: Path) -> Static:
    """Read what `stability inspect --json` wrote.

    Raises:
        InputError: if the file cannot be read, or is something else.
    """
    try:
        document = parse(read_head(path, most=LARGEST_BYTES))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot read {path}: {error}; give the output of `stability inspect --json`"
        ) from None
    try:
        return _static(path.name, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not what `stability inspect --json` writes"
            f" ({type(error).__name__}: {error})"
        ) from None


def _static(name: str, document: dict[str, Any]) -> Static:
    kernels = [_kernel(each) for each in document["kernels"]]
    traffic = [
        Traffic(
            *_where(each), float(each["ratio"]), int(each["moved_bytes"]), int(each["least_bytes"])
        )
        for each in document["traffic"]
    ]
    failures = [
        f"{' '.join(_where(each)[:3])} for {each['target']}: {each['reason']}"
        for each in document["failures"]
    ]
    over = max(0, len(kernels) - MOST_ROWS) + max(0, len(traffic) - MOST_ROWS)
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    return Static(
        name,
        versions,
        tuple(kernels[:MOST_ROWS]),
        tuple(traffic[:MOST_ROWS]),
        over,
        tuple(failures[:50]),
    )


def _where(answer: dict[str, Any]) -> tuple[str, str, str, str, str]:
    case = answer["case"]
    shape = f"{int(case['rows'])}×{int(case['columns'])}"
    names = (str(case["operation"]), str(case["path"]), str(case["dtype"]))
    return *names, shape, str(answer.get("pass", ""))


def _kernel(answer: dict[str, Any]) -> Kernel:
    per = answer["per_element"]
    numbers = (
        *(answer["warps"], answer["registers"], answer["spilled_bytes"], answer["shared_bytes"]),
        *(_widest(answer["loads"]), _widest(answer["stores"])),
        *(per["special"], per["fp32"], per["fp64"], per["instructions"]),
    )
    return Kernel(
        *_where(answer), str(answer["kernel"]), str(answer["target"]), tuple(map(float, numbers))
    )


def _widest(accesses: Iterable[Any]) -> int:
    return max((int(width) for width in accesses), default=0)
