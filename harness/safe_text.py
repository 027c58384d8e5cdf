"""Names from a stranger's file inside Markdown and CSV, where some signs are commands."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.record import Record
from harness.store import Run

# What Markdown, or GitHub's reading of it, takes for more than text: marks, tags, mentions,
# formulas; addresses, emphasis at a word's edge, the number of an issue.
_MARKS = re.compile(
    r"[`*\[\]<>|&$\\^{}]|(?<!\w)@|://|www\.|\b_|_\b|~~|#\d|GH-", re.ASCII | re.IGNORECASE
)


def printable(text: str) -> str:
    """Text from a file without control characters, which could steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def code(text: str) -> str:
    """In code nothing is markup, no name is mentioned and no link made.

    Only a backtick ends it and, in a table, a bar the cell, escaped or not as the reader's version
    has it; both are shown as what they look like.
    """
    shown = printable(text).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown.strip() else ""


def markdown(text: str) -> str:
    """Text as it is where Markdown takes it as text, else in code.

    >>> markdown("cross_entropy"), markdown("<img src=x>"), markdown("@team")
    ('cross_entropy', '`<img src=x>`', '`@team`')
    """
    return text if text.isprintable() and not _MARKS.search(text) else code(text)


def in_code(run: Run) -> Run:
    """The run with every text of its training records as Markdown may hold it."""
    return replace(run, records=tuple(map(_coded, run.records)))


def _coded(record: Record) -> Record:
    if record.suite != "training":
        return record
    data = {key: _value(value) for key, value in record.data.items()}
    return replace(record, operation=markdown(record.operation), path=markdown(record.path),
                   dtype=markdown(record.dtype), data=data)  # fmt: skip


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return markdown(value)
    if isinstance(value, Mapping):
        return {markdown(str(key)): _value(each) for key, each in value.items()}
    return value


def without_formulas(text: str) -> str:
    """CSV whose texts no spreadsheet takes for a formula: those get an apostrophe before them.

    >>> without_formulas("path,ulp\\n=1+1,-0.5\\n")
    "path,ulp\\n'=1+1,-0.5\\n"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(
        [_field(each) for each in row] for row in csv.reader(io.StringIO(text.replace("\r", "?")))
    )
    return out.getvalue()


def _field(text: str) -> str:
    text = printable(text)
    if not text.startswith(("=", "+", "-", "@")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
