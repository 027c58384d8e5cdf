"""Whose line is it: the innermost frame of the user's code, and the path of a module."""

import linecache
import os
import sys
import sysconfig
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch

import harness


class Where(NamedTuple):
    """A place in code: the code object and the instruction; its line is looked up when shown."""

    code: CodeType | None
    instruction: int


NOWHERE = Where(None, 0)

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HARNESS = os.path.dirname(harness.__file__) + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_MACHINERY, _LIBRARY, _USER = 0, 1, 2
_KINDS: dict[CodeType, int] = {}


def _kind_of(code: CodeType) -> int:
    file = code.co_filename
    if file.startswith(("<frozen", _TORCH, _HARNESS)) or "@beartype" in file:
        return _MACHINERY
    if "site-packages" in file or "dist-packages" in file:
        return _LIBRARY
    return _MACHINERY if file.startswith(_STDLIB) else _USER


def user_frame(frame: FrameType | None) -> Where:
    """The innermost frame of the user's own files, else of an installed library."""
    library = NOWHERE
    kinds = _KINDS
    while frame is not None:
        code = frame.f_code
        kind = kinds.get(code)
        if kind is None:
            kind = kinds[code] = _kind_of(code)
        if kind == _USER:
            return Where(code, frame.f_lasti)
        if kind == _LIBRARY and library.code is None:
            library = Where(code, frame.f_lasti)
        frame = frame.f_back
    return library


def location(
    where: Where,
    base: str | None,  # the directory that paths are shown relative to
) -> str | None:
    """ "train.py:12"; None where no user's line is known."""
    if where.code is None:
        return None
    file = where.code.co_filename
    if base and os.path.isabs(file):
        relative = os.path.relpath(file, base)
        file = file if relative.startswith("..") else relative
    return f"{file}:{_line(where)}"


def source(where: Where) -> str | None:
    """The text of the line, where it can be read."""
    if where.code is None:
        return None
    return linecache.getline(where.code.co_filename, _line(where)).strip() or None


def _line(where: Where) -> int:
    assert where.code is not None
    for start, end, number in where.code.co_lines():
        if start <= where.instruction < end and number is not None:
            return number
    return where.code.co_firstlineno


def called_from(name: str, frame: FrameType | None = None) -> bool:
    """Whether a function of this name is running."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def module_path(
    module: Any,  # innermost
    roots: list[Any],  # outermost modules seen, the latest last
) -> str | None:
    """The module's dotted name within its root, as in `named_modules`; its class for a root."""
    if module is None:
        return None
    for root in reversed(roots):
        for name, each in root.named_modules():
            if each is module:
                return name or type(root).__name__
    return type(module).__name__
