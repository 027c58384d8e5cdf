"""A file that is whole or not there: written beside its place and moved onto it."""

import contextlib
import os
import tempfile
from pathlib import Path

from harness.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text; whoever reads `path` meets the old content or the new, never half.

    Raises:
        InputError: if `path` is a directory, or its folder is missing or cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file in it: -o {path / 'report.html'}")
    draft = None
    try:
        # mkstemp's file is private to its owner; the page gets what a new file would have had.
        handle, draft = tempfile.mkstemp(prefix=f".{path.name[:60]}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(draft).chmod(0o666 & ~mask)
        Path(draft).replace(path)
    except OSError as error:
        if draft is not None:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; name a file in a folder that exists"
            " and can be written with -o"
        ) from None
