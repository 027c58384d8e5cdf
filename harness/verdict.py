"""What came out against the truth: an enumeration whose members carry meaning and next step."""

from enum import Enum


class Verdict(Enum):
    """One word for a case, what it means, and what to do next.

    Members stand in order of precedence: of several verdicts in one case the first listed wins.
    `glyph` is one ASCII-safe character, so that tables read without colour.
    """

    def __init__(self, word: str, glyph: str, meaning: str, next_step: str) -> None:
        self.word = word
        self.glyph = glyph
        self.meaning = meaning
        self.next_step = next_step

    # A verdict is itself alone. Enum's own hash, a Python function, costs as much as a lookup.
    __hash__ = object.__hash__

    CRASH = (
        "crash",
        "X",
        "The process died while this case ran.",
        "Run the case alone with the printed command; an illegal address or an abort is likely.",
    )
    TIMEOUT = (
        "timeout",
        "T",
        "The case did not end before its deadline.",
        "Run the case alone; a kernel that loops forever or a stuck driver call is likely.",
    )
    OUT_OF_MEMORY = (
        "out_of_memory",
        "M",
        "Host or device memory ran out.",
        "Run on a device with more memory, or fewer magnitudes at once with --magnitude.",
    )
    COMPILE_ERROR = (
        "compile_error",
        "C",
        "The kernel did not compile for this dtype and shape.",
        "Read the recorded reason; the compiler names the line.",
    )
    ERROR = (
        "error",
        "E",
        "The path raised an exception, or returned a wrong shape.",
        "Read the recorded reason and run the case alone with the printed command.",
    )
    UNSUPPORTED = (
        "unsupported",
        "-",
        "The path does not take this dtype, device or pass, or is not installed.",
        "Nothing is wrong here; the recorded reason says what is missing.",
    )
    UNWRITTEN = (
        "unwritten",
        "U",
        "The kernel left elements of its output as they were allocated.",
        "Check the grid and the store masks: some program or tail never writes its part.",
    )
    MUTATED_INPUT = (
        "mutated_input",
        "W",
        "The path changed a tensor that it was given.",
        "Write to a new tensor; an operation that saved its output for backward is now wrong.",
    )
    NAN = (
        "nan",
        "N",
        "NaN where the truth is a number.",
        "Look for inf/inf, inf-inf, 0/0 or 0*inf: subtract the maximum, or scale before squaring.",
    )
    NAN_GRADIENT = (
        "nan_gradient",
        "n",
        "A gradient is NaN where its truth is a number.",
        "The forward may look fine; form the gradient from saved statistics, not by autograd.",
    )
    INF = (
        "inf",
        "I",
        "Infinity where the truth is a number that the returned dtype can hold.",
        "Look for log(0), exp or a square that overflows: use the fused formula.",
    )
    INF_GRADIENT = (
        "inf_gradient",
        "i",
        "A gradient is infinite where its truth is a number that the dtype can hold.",
        "Look for a division by a value that rounded to zero: use the fused formula.",
    )
    MASKED_NONFINITE = (
        "masked_nonfinite",
        "F",
        "A finite answer where the truth is not finite: a NaN or infinity was swallowed.",
        "Let NaN and infinity through; clamping or nan_to_num hides the fault from its owner.",
    )
    UNREPRESENTABLE = (
        "unrepresentable",
        "o",
        "The truth is finite but rounds to infinity in the returned dtype: nobody's fault.",
        "Return or keep this quantity in a wider dtype if it is needed.",
    )
    UNDERFLOW = (
        "underflow",
        "u",
        "Zero where the truth rounds to a number that is not zero: the signal is lost.",
        "Scale before squaring or exponentiating, or apply the upstream scale before rounding.",
    )
    INACCURATE = (
        "inaccurate",
        "~",
        "Finite, but further from the truth than the operation's bound.",
        "See the error in ULP; look for cancellation, a clamp or an epsilon that took over.",
    )
    NONDETERMINISTIC = (
        "nondeterministic",
        "?",
        "Two runs on the same input differ in some bit.",
        "Look for atomics, a race, or a read of memory that nobody wrote.",
    )
    OK = (
        "ok",
        ".",
        "Finite and within the operation's bound of the truth.",
        "Nothing to do.",
    )

    @property
    def precedence(self) -> int:
        """0 wins over 1 wins over 2 ..."""
        return _PRECEDENCE[self]

    @property
    def is_fault(self) -> bool:
        """The case did not run to its end, so no value could be judged."""
        return self in _FAULTS

    @property
    def is_nonfinite(self) -> bool:
        """NaN or infinity where the truth is neither."""
        return self in _NONFINITE

    @property
    def is_finite_enough(self) -> bool:
        """Counts as finite for a frontier: it ran, and every answer that should be finite is."""
        return not (self.is_fault or self.is_nonfinite or self is Verdict.UNWRITTEN)

    @property
    def is_accurate(self) -> bool:
        """Counts as accurate for a frontier."""
        return self in (Verdict.OK, Verdict.UNREPRESENTABLE)


_PRECEDENCE = {verdict: place for place, verdict in enumerate(Verdict)}
_FAULTS = frozenset(
    {
        Verdict.CRASH,
        Verdict.TIMEOUT,
        Verdict.OUT_OF_MEMORY,
        Verdict.COMPILE_ERROR,
        Verdict.ERROR,
        Verdict.UNSUPPORTED,
    }
)
_NONFINITE = frozenset({Verdict.NAN, Verdict.NAN_GRADIENT, Verdict.INF, Verdict.INF_GRADIENT})
_BY_WORD = {verdict.word: verdict for verdict in Verdict}


def verdict_named(word: str) -> Verdict:
    """The verdict that a record calls `word`; raises KeyError for a word that is none."""
    return _BY_WORD[word]
