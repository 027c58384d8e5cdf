"""What a person sees while a sweep runs: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

_SECONDS_BETWEEN_LINES = 15.0


class SweepProgress:
    """Counts items and cases; draws on standard error so that standard output stays data."""

    def __init__(self, items: int, stream: TextIO | None = None) -> None:
        self._items = items
        self._done = 0
        self._cases = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._stream = stream or sys.stderr
        console = Console(file=self._stream)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = Progress(
                # 76 characters at most, so that nothing is cut or jumps on a terminal of 80.
                BarColumn(bar_width=14),
                TextColumn("{task.completed}/{task.total} items"),
                TextColumn("{task.fields[cases]} cases, {task.fields[rate]}/s"),
                TimeRemainingColumn(),
                TextColumn("{task.description}", table_column=Column(width=16, no_wrap=True)),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=items, cases=0, rate=0)

    def advance(self, item: str, cases: int) -> None:
        """An item ended with this many cases."""
        self._done += 1
        self._cases += cases
        if self._bar is not None and self._task is not None:
            self._bar.start()  # not before: what pytest prints as it starts would tear it
            self._bar.update(
                self._task,
                advance=1,
                description="/".join(item.split("/")[1:3]),
                cases=self._cases,
                rate=self._rate(),
            )
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            remaining = (self._items - self._done) * self._elapsed() / self._done
            print(
                f"{self._done}/{self._items} items, {self._cases} cases, {self._rate()}/s,"
                f" about {remaining:.0f} s left: {item}",
                file=self._stream,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away and leave one line of what was done."""
        if self._bar is not None:
            self._bar.stop()
        print(
            f"{self._done} items, {self._cases} cases in {self._elapsed():.0f} s"
            f" ({self._rate()} cases/s)",
            file=self._stream,
            flush=True,
        )

    def _elapsed(self) -> float:
        return max(time.monotonic() - self._started, 1e-6)

    def _rate(self) -> int:
        return round(self._cases / self._elapsed())
