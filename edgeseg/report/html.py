"""Just enough HTML: elements are built by `el`, which escapes every text that is not itself the result of `el`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from PIL import Image

from edgeseg.core.images import ClassMap, Frame, resize_class_map, resize_frame

Palette: TypeAlias = tuple[tuple[int, int, int], ...]

IGNORE_COLOUR: Final = (214, 214, 214)
"""How pixels that are not labelled are drawn."""

_VOID: Final = frozenset({"br", "col", "hr", "img", "link", "meta"})


class Html(str):
    """Text that is HTML already and is not escaped again. Made by `el` and `join` only."""

    __slots__ = ()


Child: TypeAlias = "Html | str | None"
"""`str` is text and gets escaped, `None` is left out."""


def text(value: Child) -> Html:
    """Give `value` as HTML: escaped unless it is HTML already."""
    if value is None:
        return Html("")
    return value if isinstance(value, Html) else Html(html.escape(value, quote=True))


def join(children: Iterable[Child]) -> Html:
    """Put children one after the other."""
    return Html("".join(text(child) for child in children))


def el(element: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Build an element.

    A trailing underscore of an attribute is dropped and the others become hyphens (`class_`, `aria_label`); `True` is a
    bare attribute, `False` and `None` leave it out.
    """
    parts = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(attribute if value is True else f'{attribute}="{html.escape(_plain(value), quote=True)}"')
    start = f"<{' '.join(parts)}>"
    return Html(start) if element in _VOID else Html(f"{start}{join(children)}</{element}>")


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def svg(element: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Build an SVG element, whose attribute `viewBox` is spelt with a capital."""
    return Html(el(element, *children, **attributes).replace(" viewbox=", " viewBox=", 1))


def frame_uri(frame: Frame, *, max_width: int) -> str:
    """Give a frame as a small JPEG `data:` URI."""
    return _uri(Image.fromarray(_shrink(frame, max_width)), "JPEG", quality=82)


def class_map_uri(class_map: ClassMap, palette: Palette, *, max_width: int) -> str:
    """Give a class map in its palette as a PNG `data:` URI; 255 is drawn in `IGNORE_COLOUR`."""
    height, width = _small(class_map.shape[0], class_map.shape[1], max_width)
    image = Image.fromarray(np.ascontiguousarray(resize_class_map(class_map, height, width)))
    colours = [*palette, *[(0, 0, 0)] * (255 - len(palette)), IGNORE_COLOUR]
    image.putpalette([value for colour in colours for value in colour])
    return _uri(image, "PNG", optimize=True)


def _shrink(frame: Frame, max_width: int) -> Frame:
    height, width = _small(frame.shape[0], frame.shape[1], max_width)
    return resize_frame(np.ascontiguousarray(frame), height, width)


def _small(height: int, width: int, max_width: int) -> tuple[int, int]:
    scale = min(1.0, max_width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
