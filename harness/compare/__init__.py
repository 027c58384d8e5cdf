"""Two runs side by side: what was lost, what got slower, what changed in training.

Promises: the same code measured twice shows no regression; whatever a case says is matched with
the same case of the other run and never averaged over others; what could not be judged is called
unclear, and what was not there is listed. Everything is decided here; nothing is measured.
"""

from harness.compare.comparison import Comparison, compare_runs
from harness.compare.gate import DEFAULT_KINDS, KINDS, exit_code, kinds_named
from harness.compare.markdown import to_markdown
from harness.compare.plain import to_plain
from harness.compare.text import to_text

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "Comparison",
    "compare_runs",
    "exit_code",
    "kinds_named",
    "to_markdown",
    "to_plain",
    "to_text",
]
