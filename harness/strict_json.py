"""JSON as the contract has it: what Python's parser lets through besides is refused.

A file may come from a stranger. What two readers could understand differently (a key given twice),
what is no JSON (NaN, Infinity), and what only a trap needs (hundreds of levels, numbers of a
thousand digits, text that is no Unicode) is an error, not a value.
"""

import json
import math
from typing import Any, NoReturn

DEEPEST = 32  # levels of lists and objects; a record has three
_MOST_DIGITS = 20  # of a whole number; a seed of 64 bits has twenty


def parse(text: str) -> Any:
    """Read one JSON document.

    Raises:
        ValueError: in words, if it is none, or one of the above.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    if containers(text) > DEEPEST:
        _check_depth(value)
    if "\\u" in text:
        _check_text(value)
    return value


def containers(text: str) -> int:
    """How many lists and objects it can hold at most: each begins with one of two signs."""
    return text.count("[") + text.count("{")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is given twice")
    return found


def _float(digits: str) -> float:
    value = float(digits)
    if value in (math.inf, -math.inf):
        raise ValueError(f"the number {digits[:40]} is beyond the largest double")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"the number {digits[:40]} is longer than {_MOST_DIGITS} digits")
    return int(digits)


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON: a number is finite or absent")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant
)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _inside(value: Any) -> list[Any]:
    every = value.values() if isinstance(value, dict) else value
    return [each for each in every if isinstance(each, dict | list)] if every else []


def _check_text(value: Any) -> None:
    """Half of a surrogate pair is no character, and can be written to no terminal and no file."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("text with half a surrogate pair, which is no Unicode") from None
