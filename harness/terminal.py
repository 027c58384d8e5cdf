"""A console for what a stranger's file says: text is neither markup nor a terminal's command."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment


class PlainConsole(Console):
    """As rich's, except that text is shown as it is, control characters as question marks.

    Done where text becomes output, so that a table's cell is covered as well as a line.
    """

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """As rich's, cleaned; colours are added later, and stay."""
        for segment in super().render(*args, **kwargs):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
                yield segment._replace(text=clean)
