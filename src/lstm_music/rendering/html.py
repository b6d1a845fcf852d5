"""HTML and SVG from Python: whatever isn't markup already is escaped."""

import base64
import html

from lstm_music.untrusted import printable


class Html(str):
    """Text that is markup: `tag` leaves it as it is, and escapes any other string."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | float | bool) -> Html:
    """Return an element: tag("a", "text", href="x", class_="y"); an attribute of False is left out.

    Names may end with an underscore where they are Python's words; others become hyphens.
    """
    given = "".join(attribute(key, value) for key, value in attributes.items())
    if name in ("img", "line", "polyline", "rect", "source", "input", "br", "meta"):
        return Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def attribute(key: str, value: str | int | float | bool) -> str:
    """Return an attribute with a space before it, or nothing."""
    name = key.rstrip("_").replace("_", "-")
    if value is True or value is False:
        return f" {name}" if value else ""
    return f' {name}="{escaped(str(value))}"'


def joined(*parts: str) -> Html:
    """Return parts one after the other, escaped where they are no markup."""
    return Html("".join(part if isinstance(part, Html) else escaped(part) for part in parts))


def escaped(text: str) -> str:
    """Return a text, which may be a file's name, as HTML has it."""
    return html.escape(printable(text))


def data_url(kind: str, content: bytes) -> str:
    """Return a URL that holds content of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
