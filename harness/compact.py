"""The fields of a million records in little memory: names once, equal values once.

A dictionary a record would take half a kilobyte; most records of a run have the same names of
fields, and few different texts, magnitudes and shapes.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from operator import itemgetter
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
        self._layouts: dict[tuple[str, ...], tuple[dict[str, int], Callable[[Any], Any]]] = {}
        self._texts: dict[str, str] = {}
        self._numbers: dict[float, float] = {}
        self._lists: dict[tuple[int, ...], list[int]] = {}

    def fields(self, raw: Mapping[str, Any], *, without: Container[str]) -> Fields:
        """The same fields but for some, small."""
        names = tuple(raw)
        layout = self._layouts.get(names)
        if layout is None:
            kept = [name for name in names if name not in without]
            layout = ({name: place for place, name in enumerate(kept)}, _getter(kept))
            if len(self._layouts) < _MOST:
                self._layouts[names] = layout
        places, values_of = layout
        values = list(values_of(raw))
        numbers, texts = self._numbers, self._texts
        for place, value in enumerate(values):
            kind = type(value)
            if kind is float:
                if value and len(numbers) < _MOST:  # 0.0 equals -0.0, and is not the same
                    values[place] = numbers.setdefault(value, value)
            elif kind is str:
                values[place] = texts.get(value) or self.text(value)
            elif kind is list:
                values[place] = self._list(value)
        return Fields(places, tuple(values))

    def text(self, text: str) -> str:
        """An equal text, the same object as before where it occurred before."""
        known = self._texts.get(text)
        if known is not None:
            return known
        if len(self._texts) < _MOST and len(text) <= 100:
            self._texts[text] = text
        return text

    def _list(self, value: list[Any]) -> list[Any]:
        if len(value) > 4 or any(type(each) is not int for each in value):
            return value
        key = tuple(value)
        if key in self._lists or len(self._lists) < _MOST:
            return self._lists.setdefault(key, value)
        return value


def _getter(names: list[str]) -> Callable[[Any], Any]:
    """A function from a mapping to the values of these names, as fast as there is."""
    if len(names) < 2:
        return lambda raw: [raw[name] for name in names]
    return itemgetter(*names)
