"""HTML in which every text is escaped unless it was made here."""

import base64
import html
from collections.abc import Iterable

_VOID = frozenset(("img", "input", "br", "polygon", "circle"))

Attribute = str | int | bool | None


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, *children: str | None, **attributes: Attribute) -> Html:
    """``<name attributes>children</name>``.

    Children that are no `Html` are escaped, None is left out. ``class_`` is the attribute class, ``aria_label`` is
    aria-label; True stands alone, False and None are left out.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Html:
    """One after the other."""
    return Html("".join(escape(child) for child in children if child is not None))


def escape(text: str) -> Html:
    """Text as markup."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def data_uri(png: bytes) -> str:
    """A PNG file as an address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _attribute(key: str, value: Attribute) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
