"""What fails a comparison: kinds of findings, and the exit code they come to."""

from collections.abc import Iterable

from harness.cli_options import Exit
from harness.compare.comparison import Comparison
from harness.compare.speed import Answer
from harness.errors import unknown

# Each kind, and what it means; in the order in which help and errors show them.
KINDS = {
    "stability": "a verdict that got worse, a frontier moved inwards, a claim lost",
    "speed": "a timing that is SLOWER",
    "training": "a lower highest stable learning rate, or a run that went well and now does not",
    "missing": "a case that the new run lacks, renamed ones aside",
    "unclear": "a timing that is UNCLEAR (exit code 2, where nothing else fails)",
}
DEFAULT_KINDS = frozenset({"stability", "speed", "training"})


def kinds_named(words: Iterable[str]) -> frozenset[str]:
    """The kinds that `--fail-on` names: several, in commas or repeated; `any` and `none` too.

    Raises:
        InputError: for a word that is no kind.
    """
    named = [part.strip() for word in words for part in word.split(",") if part.strip()]
    chosen: set[str] = set()
    for word in named:
        if word == "any":
            chosen |= KINDS.keys()
        elif word in KINDS:
            chosen.add(word)
        elif word != "none":
            raise unknown("kind to fail on", word, [*KINDS, "any", "none"])
    return frozenset(chosen) if named else DEFAULT_KINDS


def failures(comparison: Comparison) -> dict[str, int]:
    """How many findings of each kind there are."""
    return {
        "stability": comparison.stability.failures,
        "speed": comparison.speed.count(Answer.SLOWER),
        "training": comparison.training.failures,
        "missing": len(comparison.missing),
        "unclear": comparison.speed.count(Answer.UNCLEAR),
    }


def exit_code(comparison: Comparison, kinds: frozenset[str] = DEFAULT_KINDS) -> Exit:
    """A regression first, since it stands whatever is missing; then what may hide one.

    An incomplete run comes before an unclear timing: first measure the rest, then measure again.
    """
    counts = failures(comparison)
    if any(counts[kind] for kind in kinds - {"unclear"}):
        return Exit.BROKEN
    if comparison.unfinished:
        return Exit.INCOMPLETE
    if "unclear" in kinds and counts["unclear"]:
        return Exit.UNCLEAR
    return Exit.OK
