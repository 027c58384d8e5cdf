"""How numbers and verdicts are written on the page."""

from markupsafe import Markup

from harness.formats import FORMATS
from harness.safe_text import printable
from harness.verdict import Verdict

# One letter a group of verdicts: the class of a cell. Its colour and pattern are in style.css; the
# glyph in the cell says the same without either.
_KINDS = {
    Verdict.OK: "k",
    Verdict.UNREPRESENTABLE: "o",
    Verdict.INACCURATE: "a",
    Verdict.NONDETERMINISTIC: "a",
    Verdict.UNDERFLOW: "u",
    Verdict.MASKED_NONFINITE: "m",
    Verdict.INF: "i",
    Verdict.INF_GRADIENT: "i",
    Verdict.NAN: "n",
    Verdict.NAN_GRADIENT: "n",
    Verdict.UNSUPPORTED: "s",
}


def kind(verdict: Verdict | None) -> str:
    """The class of a cell; `x` is a fault of execution or a kernel that wrote wrongly."""
    return "e" if verdict is None else _KINDS.get(verdict, "x")


def short(value: float | None) -> str:
    """Three digits or a whole number: enough to read; the exact number is in the commands.

    >>> short(65504.0), short(88.7228), short(1.18e-38), short(None)
    ('65504', '88.7', '1.18e-38', '–')
    """
    if value is None:
        return "–"
    # Without an exponent as long as the number is not longer for it.
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def count(number: int) -> str:
    """Thousands apart."""
    return f"{number:,}"


def many(number: int, noun: str) -> str:
    """A count and its noun: `1 case`, `2 cases`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def breakable(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return Markup("_<wbr>").join(printable(name).split("_"))


def limits(dtype: str) -> tuple[float, float, float] | None:
    """Smallest subnormal, smallest normal and largest float; None for a name that is no dtype."""
    fmt = FORMATS.get(dtype)
    return None if fmt is None else (fmt.smallest, fmt.smallest_normal, fmt.largest)


def seconds(value: float) -> str:
    """A time in the unit that leaves one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{short(value / size)} {unit}"
    return f"{short(value / 1e-9)} ns"


def size(value: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{short(value / scale)} {unit}"
    return f"{value:.0f} B"
