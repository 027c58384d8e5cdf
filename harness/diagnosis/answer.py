"""The file through which the watched process tells what it found, whole at every moment."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from harness.diagnosis.finding import Diagnosis, from_plain


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the answer lies."""

    path: Path

    def write(
        self,
        diagnosis: Diagnosis,
        status: int | None,  # the script's exit status; None while it runs
    ) -> None:
        """Replace the answer in one move, so that a process that is killed leaves the last one."""
        text = json.dumps({"status": status, **diagnosis.to_plain()}, allow_nan=False)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.path)

    def read(self) -> tuple[Diagnosis, int | None] | None:
        """The last answer, or None where there is none."""
        if not self.path.exists():
            return None
        document = json.loads(self.path.read_text())
        return from_plain(document), document["status"]
