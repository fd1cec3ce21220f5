"""Markup made of plain strings: what is not marked as markup is escaped, so that no name can smuggle anything in."""

from __future__ import annotations

from collections.abc import Iterable

from memplan.units import human

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})

_VOID = frozenset({"meta", "link", "input", "br", "col"})
"""HTML's elements without an end."""


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Any text as markup. Characters that no document may hold (controls, half surrogates) become U+FFFD."""
    if isinstance(text, Markup):
        return text
    if not text.isprintable():
        text = "".join("\ufffd" if _forbidden(ord(each)) else each for each in text)
    return Markup(text.translate(_ESCAPES))


def _forbidden(code: int) -> bool:
    if code < 160:
        return (code < 32 and code not in (9, 10)) or code >= 127
    return 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE or code in _DIRECTIONS


_DIRECTIONS = frozenset({*range(0x202A, 0x202F), *range(0x2066, 0x206A)})
"""Marks that turn the direction of the text behind them."""


def tag(name: str, /, *inside: str, **attributes: str | float | bool | None) -> Markup:
    """An element. Attributes that are None or False are left out, True has no value; `class_` is class, and other
    underscores are hyphens: `data_side`."""
    said = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        said.append(key if value is True else f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(said)}>"
    if name in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{''.join(map(escape, inside))}</{name}>")


def together(parts: Iterable[str]) -> Markup:
    """One behind the other."""
    return Markup("".join(map(escape, parts)))


def size(count: int, sign: bool = False) -> Markup:
    """Bytes for people, the exact number in the title and in the value."""
    unit = "byte" if abs(count) == 1 else "bytes"
    plus = "+" if sign and count > 0 else ""
    return tag("data", f"{plus}{human(count)}", value=count, title=f"{count:,} {unit}")


def exact(count: int, sign: bool = False) -> Markup:
    """Bytes with every digit, in human units in the title."""
    return tag("data", f"{count:+,}" if sign and count else f"{count:,}", value=count, title=human(count))
