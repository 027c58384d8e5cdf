"""The table of launch shapes: how much of a tensor one program holds, and over how many threads.

Three numbers make a shape. `tile` is the number of elements that a program holds at once: several
short rows, or a piece of a row that is looped over (a row kept on chip is held whole, whatever its
length). `per_thread` is how many of them a thread holds; the number of warps follows. Few elements
a thread waste the wide loads (16 bytes are 8 fp16 or 2 fp64 elements), many overflow the register
file: 255 registers a thread at most, and what does not fit is spilled to memory. `on_chip` is the
width up to which a kernel that needs its row twice holds all of it instead of reading it again.

An entry applies to a family of kernels ("normalize_backward"), a dtype, a device ("cuda:90",
"hip:gfx942") and rows up to a width; "*" means any. The first that applies counts. Entries that
`stability tune` measured on this machine's GPU come first, from `user_file()`; then DEFAULTS, which
were chosen with `stability inspect` as the fewest warps without a spill on any target (a spill
costs memory traffic, the one thing these kernels are bound by; fewer warps reduce faster and leave
room for other programs).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

SCHEMA = 1
MOST_THREADS = 1024  # of a program, on every GPU here


@dataclass(frozen=True, slots=True)
class Shape:
    """A launch shape, in elements."""

    tile: int  # of a program that holds several rows, or a piece of one; a power of two
    per_thread: int  # of these that a thread holds; a power of two
    on_chip: int = 16384  # the widest row that is held whole and read once; half of it for fp64

    def __post_init__(self) -> None:
        for name, value in (("tile", self.tile), ("per_thread", self.per_thread)):
            if not isinstance(value, int) or value < 1 or value & (value - 1):
                raise ValueError(f"{name} must be a power of two, got {value!r}")
        if not isinstance(self.on_chip, int) or self.on_chip < 0:
            raise ValueError(f"on_chip must be a number of columns, got {self.on_chip!r}")

    def warps(self, elements: int, lanes: int = 32) -> int:
        """Warps (of so many lanes) of a program that holds so many elements; a power of two."""
        wanted = max(elements // (self.per_thread * lanes), 1)
        return min(1 << (wanted.bit_length() - 1), MOST_THREADS // lanes)


USUAL = Shape(tile=4096, per_thread=16)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table: where a shape applies."""

    shape: Shape
    family: str = "*"  # operation and pass; a glob
    dtype: str = "*"  # fp16, bf16, fp32, fp64; a glob
    device: str = "*"  # cuda:90, hip:gfx942; a glob
    up_to: int | None = None  # columns of the widest row it applies to; None: of any

    def applies(self, family: str, dtype: str, device: str, columns: int) -> bool:
        """Whether this line speaks of such a launch."""
        return (
            fnmatchcase(family, self.family)
            and fnmatchcase(dtype, self.dtype)
            and fnmatchcase(device, self.device)
            and (self.up_to is None or columns <= self.up_to)
        )


_WITH_GRADIENT = "cross_entropy_with_gradient"
_WITH_PARAMETERS = "*_backward_with_parameters"

# Registers a thread = elements a thread * live values an element * (1 for fp32, 2 for fp64), plus
# about 30 for addresses, masks and statistics; short rows add their statistics, which every thread
# of a row holds.
DEFAULTS = (
    # Two operands, and intermediates in fp64 for half precision and fp32, too: beyond 5,120 columns
    # not even 512 threads hold a row (8,192 in bf16: 200 bytes a thread spilled).
    Entry(Shape(tile=1024, per_thread=4, on_chip=5120), "normalize_backward", dtype="fp64"),
    Entry(Shape(tile=2048, per_thread=8, on_chip=5120), "normalize_backward", up_to=1024),
    Entry(Shape(tile=2048, per_thread=16, on_chip=5120), "normalize_backward"),
    # An exponential of 4 bytes an element lives from the sums to the gradient. Beside factors in
    # fp32 32 of them fit a thread of 1,024; beside those in fp64 not even 16 do (16 bytes spilled),
    # but 32 a thread of 512.
    # On Blackwell 8 bytes a thread spilled beyond 28,672 columns of bf16.
    Entry(Shape(tile=4096, per_thread=16, on_chip=28672), _WITH_GRADIENT, "bf16", device="cuda:1*"),
    Entry(Shape(tile=4096, per_thread=16, on_chip=32768), _WITH_GRADIENT, dtype="*16"),
    Entry(Shape(tile=4096, per_thread=16), _WITH_GRADIENT, dtype="fp32", up_to=14336),
    Entry(Shape(tile=4096, per_thread=32), _WITH_GRADIENT, dtype="fp32"),
    # Beside two operands a sum in fp64 of each element or, with a bias, two of them, which live
    # from the first row to the last. From 6,144 columns on 512 threads have not registers enough
    # (88 bytes spilled); 256 have, up to 7,168, but in fp16 (8 bytes, on one target). Of 8,192
    # columns 512 hold one sum each, in bf16.
    Entry(Shape(tile=2048, per_thread=8, on_chip=5120), _WITH_PARAMETERS, up_to=5120),
    Entry(Shape(tile=2048, per_thread=8, on_chip=5120), _WITH_PARAMETERS, "fp16"),
    Entry(Shape(tile=2048, per_thread=16, on_chip=8192), f"rms{_WITH_PARAMETERS}", "bf16"),
    Entry(Shape(tile=2048, per_thread=16, on_chip=7168), _WITH_PARAMETERS),
    # The logarithms of many short rows are in fp64, and each thread has its rows'.
    Entry(Shape(tile=1024, per_thread=4), "cross_entropy_forward", dtype="fp64", up_to=1024),
    Entry(Shape(tile=2048, per_thread=8), "cross_entropy_forward", up_to=1024),
    Entry(Shape(tile=2048, per_thread=8, on_chip=8192), "*_backward*", dtype="fp64"),
    # Two operands, and a power of each element in fp64 or the products: 512 threads hold 7,168
    # columns, and 8,192 only of rms_norm and softmax (layer_norm spilled 32 bytes a thread).
    Entry(Shape(tile=2048, per_thread=8), "*m*_backward", up_to=5120),
    Entry(Shape(tile=2048, per_thread=16, on_chip=7168), "*_norm_backward"),
    Entry(Shape(tile=2048, per_thread=16, on_chip=8192), "softmax_backward"),
    # Beyond 8,192 columns half as many threads, with twice the registers, have less beside the row.
    Entry(Shape(tile=4096, per_thread=16), "*_forward", dtype="*[26]", up_to=8192),
    # In fp32 not even so (16 to 392 bytes spilled at 16,384).
    Entry(Shape(tile=4096, per_thread=16, on_chip=8192), "*_norm_forward", dtype="fp32"),
    Entry(Shape(tile=4096, per_thread=16, on_chip=8192), "softmax_forward", dtype="fp32"),
    Entry(Shape(tile=4096, per_thread=32), "*_norm_forward", dtype="*16"),
    Entry(Shape(tile=4096, per_thread=32), "softmax_forward", dtype="*16"),
    Entry(Shape(tile=2048, per_thread=8), "*_backward*"),
    Entry(Shape(tile=2048, per_thread=8, on_chip=8192), dtype="fp64"),
    Entry(USUAL),
)


def lookup(family: str, dtype: str, device: str, columns: int) -> Shape:
    """The shape for a launch; the first entry that applies, measured ones before the defaults."""
    if _asked is not None:
        _asked.append((family, dtype, device, columns))
    for entry in (*_override, *_measured(user_file())):
        if entry.applies(family, dtype, device, columns):
            return entry.shape
    return _default(family, dtype, device, columns)


@functools.lru_cache(maxsize=1024)
def _default(family: str, dtype: str, device: str, columns: int) -> Shape:
    for entry in DEFAULTS:
        if entry.applies(family, dtype, device, columns):
            return entry.shape
    raise LookupError("DEFAULTS must end with an entry that applies to everything")


# --- entries from measurements --------------------------------------------------------------------

_override: tuple[Entry, ...] = ()  # entries in force before all others, see `using`


_asked: list[tuple[str, str, str, int]] | None = None


@contextlib.contextmanager
def asked() -> Iterator[list[tuple[str, str, str, int]]]:
    """List what the table is asked meanwhile: (family, dtype, device, columns) a launch."""
    global _asked
    before, _asked = _asked, []
    try:
        yield _asked
    finally:
        _asked = before


@contextlib.contextmanager
def using(*entries: Entry) -> Iterator[None]:
    """Put entries before all others for a while: how candidates are measured and inspected."""
    global _override
    before = _override
    _override = (*entries, *before)
    try:
        yield
    finally:
        _override = before


def user_file() -> Path:
    """Where measured entries are kept: $STABILITY_LAUNCH_TABLE, else below the user's config."""
    # Asked at every launch: the path is put together once for each value of the variables.
    return _user_file(os.environ.get("STABILITY_LAUNCH_TABLE"), os.environ.get("XDG_CONFIG_HOME"))


@functools.lru_cache(maxsize=4)
def _user_file(named: str | None, base: str | None) -> Path:
    if named:
        return Path(named)
    return Path(base or Path.home() / ".config") / "stability-harness" / "launch_table.json"


@functools.lru_cache(maxsize=4)
def _measured(file: Path) -> tuple[Entry, ...]:
    """The user's entries; a file that cannot be used is told once and left aside."""
    try:
        text = file.read_text()
    except OSError:  # none has been written, which is the usual case
        return ()
    try:
        return parse(text)
    except ValueError as error:
        warnings.warn(f"the launch table {file} is left aside: {error}", stacklevel=2)
        return ()


def parse(text: str) -> tuple[Entry, ...]:
    """The entries of a table file; ValueError says what is wrong with it."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"it is no table of schema {SCHEMA}")
    return tuple(_entry(each) for each in document.get("entries", []))


def _entry(plain: Any) -> Entry:
    try:
        shape = Shape(plain["tile"], plain["per_thread"], plain.get("on_chip", USUAL.on_chip))
        up_to = plain.get("up_to")
        if not (up_to is None or (isinstance(up_to, int) and up_to > 0)):
            raise ValueError(f"up_to must be a positive number of columns, got {up_to!r}")
        names = {key: str(plain.get(key, "*")) for key in ("family", "dtype", "device")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the entry {plain!r} lacks tile or per_thread") from error
    return Entry(shape, **names, up_to=up_to)


def render(entries: Iterable[Entry], **about: Any) -> str:
    """A table file with these entries, and what they were measured on."""
    plain = [
        {
            "family": each.family,
            "dtype": each.dtype,
            "device": each.device,
            "up_to": each.up_to,
            "tile": each.shape.tile,
            "per_thread": each.shape.per_thread,
            "on_chip": each.shape.on_chip,
        }
        for each in entries
    ]
    return json.dumps({"schema": SCHEMA, **about, "entries": plain}, indent=1) + "\n"


def write(path: Path, text: str) -> None:
    """Replace a table file at once or not at all; launches after this see the new entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _measured.cache_clear()
