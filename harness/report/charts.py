"""Figures as inline SVG in the page's own colours: matplotlib draws, CSS paints.

What is drawn in one of INKS gets a class instead of a colour, so that one drawing serves light and
dark. Styles become attributes, since the page's policy lets no inline style be; ids get a prefix,
since many figures stand in one page; metadata and dates go, so that the same run gives the same
bytes.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from harness.safe_text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that stand for a class of style.css: text, lines of the frame, and up to six series.
INKS = {
    "text": "#010101",
    "faint": "#010102",
    "grid": "#010103",
    "bad": "#010104",
    **{f"s{k}": f"#0102{k:02d}" for k in range(6)},
}
MARKERS = ("o", "s", "^", "D", "v", "P")  # of the series, so that they differ without colour
_CLASSES = {colour: name for name, colour in INKS.items()}
_XLINK = "{http://www.w3.org/1999/xlink}href"
# What a figure may keep of a style; fonts are the page's.
_KEPT = ("stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "opacity")
_COORDINATES = frozenset({"d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform"})
_PLAIN: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stability",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths on every machine
    "font.size": 8.5,
    "text.color": INKS["text"],
    "axes.edgecolor": INKS["grid"],
    "axes.labelcolor": INKS["faint"],
    "xtick.color": INKS["grid"],
    "ytick.color": INKS["grid"],
    "xtick.labelcolor": INKS["faint"],
    "ytick.labelcolor": INKS["text"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": True,
    "axes.unicode_minus": True,
}


def inline_svg(
    draw: Callable[["Figure"], None],
    *,
    width: float,  # inches; the page scales a figure down, never up
    height: float,
    label: str,  # what it shows, for who cannot see it
    prefix: str,  # of its ids: letters and digits, another one for each figure of a page
) -> Markup:
    """Draw a figure and return it as an `<svg>` element."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(_PLAIN), warnings.catch_warnings():
        # A name in a script that DejaVu lacks is drawn by the browser's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _as_element(out.getvalue(), label=printable(label), prefix=prefix)


def named(text: str, longest: int = 16) -> str:
    """A name from a run as a figure's text: printable, and short enough for its margin."""
    plain = printable(text) or "–"
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _as_element(source: str, *, label: str, prefix: str) -> Markup:
    root = ElementTree.fromstring(source[source.index("<svg") :])
    for element in root.iter():
        # In HTML an svg needs no namespace.
        element.tag = element.tag.rpartition("}")[2]
        for child in list(element):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                element.remove(child)
        element.tail = None
        if element.tag not in ("text", "tspan"):
            element.text = None
        _restyle(element)
        _rename(element, prefix)
        for name in _COORDINATES & element.attrib.keys():
            # Hundredths of a point are more than a screen shows.
            element.attrib[name] = re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[name])
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    width, height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    root.attrib |= {"role": "img", "aria-label": label, "class": "chart"}
    # In CSS pixels: 96 of them an inch, 72 points an inch.
    root.attrib |= {"width": f"{width * 4 / 3:.0f}", "height": f"{height * 4 / 3:.0f}"}
    # Safe as it is: ElementTree has escaped every text and attribute.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _restyle(element: ElementTree.Element) -> None:
    """A style becomes a class for its colours and attributes for the rest."""
    style = element.attrib.pop("style", "")
    pairs = (part.partition(":") for part in style.split(";") if part.strip())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    classes = []
    for paint, letter in (("fill", "f"), ("stroke", "l")):
        value = found.pop(paint, None) or element.attrib.pop(paint, None)
        if value in _CLASSES:
            classes.append(f"{letter}-{_CLASSES[value]}")
        elif value == "none":
            element.attrib[paint] = "none"
    if element.tag == "text":
        classes += [] if "f-" in "".join(classes) else ["f-text"]
        if found.get("text-anchor"):
            element.attrib["text-anchor"] = found["text-anchor"]
        size_px = re.search(r"([\d.]+)px", found.get("font", "") + found.get("font-size", ""))
        if size_px:
            element.attrib["font-size"] = size_px[1]
    element.attrib |= {name: found[name] for name in _KEPT if name in found}
    if classes:
        element.attrib["class"] = " ".join(classes)


def _rename(element: ElementTree.Element, prefix: str) -> None:
    """Ids of this figure alone, and only where something refers to them."""
    name = element.attrib.pop("id", None)
    if name is not None and re.match(r"[mp][0-9a-f]{8,}", name):
        element.attrib["id"] = f"{prefix}-{name}"
    target = element.attrib.pop(_XLINK, None)
    if target is not None:
        element.attrib["href"] = f"#{prefix}-{target.removeprefix('#')}"
    clip = element.attrib.get("clip-path")
    if clip is not None:
        element.attrib["clip-path"] = clip.replace("url(#", f"url(#{prefix}-")
