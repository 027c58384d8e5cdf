"""What judging a case came to; kept apart so that readers of runs need no torch."""

from dataclasses import dataclass

from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of one case, with what a reader needs to believe it."""

    verdict: Verdict
    representable: bool  # False: some true value rounds to infinity, so frontiers skip the case
    returned: str = ""  # dtype of the output; ULP are its own, or the inputs' if it is narrower
    max_ulp: float | None = None  # largest finite error
    bad: int = 0  # elements whose verdict is neither ok nor unrepresentable
    elements: int = 0
    first_bad: tuple[int, ...] | None = None  # index within the case
    reason: str = ""
    overwrote_clone: bool = False  # a path known to overwrite its input did so
