"""What the page's sections are put together from."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.report.html import Child, Html, Palette, el, join


def tag(words: str, kind: str) -> Html:
    """Give a small label; `kind` is good, bad or warn."""
    return el("span", words, class_=f"tag {kind}")


def facts(pairs: Sequence[tuple[str, Child]]) -> Html:
    """Give facts as name over value."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in pairs), class_="facts")


def table(
    heads: Sequence[str], body: Sequence[Html], *, name: str, about: Child = None, css: str | None = None, foot: Child = None
) -> Html:
    """Give a table that scrolls by itself where it is too wide, also by keyboard.

    Args:
        heads: column heads; one that starts with `>` heads a column of numbers.
        body: its rows.
        name: what a screen reader calls the table.
        about: a line above it, which does not scroll.
        css: class of the table.
        foot: row at its foot.
    """
    head = el("tr", *(el("th", h.lstrip(">"), scope="col", class_="n" if h.startswith(">") else None) if h else el("td") for h in heads))
    grid = el("table", el("thead", head), el("tbody", *body), el("tfoot", foot) if foot else None, class_=css)
    return join([el("p", about, class_="caption") if about else None,
                 el("div", grid, class_="scroll", tabindex=0, role="region", aria_label=name)])


def swatch(index: int, palette: Palette) -> Html:
    """Give the colour of a class as a small square."""
    red, green, blue = palette[index]
    return el("span", class_="swatch", style=f"background:rgb({int(red)},{int(green)},{int(blue)})", aria_hidden="true")
