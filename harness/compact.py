"""The fields of a million records in little memory: names once, equal values once.

A dictionary a record would take half a kilobyte; most records of a run have the same names of
fields, and few different texts, magnitudes and shapes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 100_000  # distinct values remembered of each kind; beyond it they are only kept


class Fields(Mapping[str, Any]):
    """The fields of one record, as a dictionary that cannot be changed."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: dict[str, int], values: tuple[Any, ...]) -> None:
        self._places = places  # name -> place in values, shared by all records with these names
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[self._places[key]]

    def get(self, key: str, default: Any = None) -> Any:
        place = self._places.get(key)
        return default if place is None else self._values[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __repr__(self) -> str:
        return repr(dict(self))


class Sharing:
    """Remembers what occurred before, so that it is kept once."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[str, ...], dict[str, int]] = {}
        self._texts: dict[str, str] = {}
        self._numbers: dict[float, float] = {}
        self._lists: dict[tuple[int, ...], list[int]] = {}

    def fields(self, raw: Mapping[str, Any]) -> Fields:
        """The same fields, small."""
        names = tuple(raw)
        places = self._layouts.get(names)
        if places is None:
            places = {name: place for place, name in enumerate(names)}
            if len(self._layouts) < _MOST:
                self._layouts[names] = places
        value = self.value
        return Fields(places, tuple([value(each) for each in raw.values()]))

    def text(self, text: str) -> str:
        """An equal text, the same object as before where it occurred before."""
        known = self._texts.get(text)
        if known is not None:
            return known
        if len(self._texts) < _MOST and len(text) <= 100:
            self._texts[text] = text
        return text

    def value(self, value: Any) -> Any:
        """An equal value of the same type."""
        kind = type(value)
        if kind is float and value:  # 0.0 equals -0.0, and is not the same
            known = self._numbers.get(value)
            if known is not None:
                return known
            if len(self._numbers) < _MOST:
                self._numbers[value] = value
        elif kind is str:
            return self.text(value)
        elif kind is list and len(value) <= 4 and all(type(each) is int for each in value):
            key = tuple(value)
            if key in self._lists or len(self._lists) < _MOST:
                return self._lists.setdefault(key, value)
        return value
