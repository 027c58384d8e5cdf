"""A page read back with the standard library's parser, strict about nesting."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = frozenset({"meta", "input", "br", "wbr", "img", "link", "hr"})


@dataclass
class Node:
    """An element with its attributes, its children and its text, that of children included."""

    tag: str
    attributes: dict[str, str]
    children: list["Node"] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def all(self, tag: str, **wanted: str) -> Iterator["Node"]:
        """Elements below of that tag whose attributes have these values; `class_` is one class."""
        for child in self.children:
            if child.tag == tag and all(child._has(name, value) for name, value in wanted.items()):
                yield child
            yield from child.all(tag, **wanted)

    def _has(self, name: str, value: str) -> bool:
        if name == "class_":
            return value in self.attributes.get("class", "").split()
        return self.attributes.get(name.replace("_", "-")) == value

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.stack = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].children.append(node)
        if tag not in _VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for node in self.stack:
            node.pieces.append(data)


def read(page: str) -> Node:
    """The document; raises AssertionError where elements are not nested properly."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.stack == [reader.root], f"left open: {[n.tag for n in reader.stack]}"
    return reader.root


def data_of(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def table_after(document: Node, section: str, place: int = 0) -> list[list[str]]:
    """The text of the cells of a table of a section, its head first."""
    (where,) = document.all("section", id=section)
    table = list(where.all("table"))[place]
    return [
        [cell.text for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tr")
    ]
