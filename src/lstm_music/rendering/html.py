"""HTML and SVG from Python: whatever isn't markup already is escaped."""

import base64
import hashlib
import html
import json
from collections.abc import Collection, Sequence
from typing import Any

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


def json_in_html(data: Any) -> str:
    """Return JSON that no HTML parser takes for markup."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def only_scripts(*scripts: str) -> str:
    """Return what a page's policy says of scripts, so that a browser runs these alone."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    named = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"script-src {named}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    stressed: Collection[int] = (),
) -> Html:
    """Return a table, which scrolls by itself where the screen is narrow.

    The first cell of a row is its head; stressed: the rows that stand out.
    """
    corner, *others = heads
    top = [tag("th", corner, scope="col") if corner else tag("td")]
    top += [tag("th", head, scope="col", class_="number") for head in others]
    lines = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_="number") for cell in row[1:]),
            class_="own" if n in stressed else False,
        )
        for n, row in enumerate(rows)
    ]
    inside = tag("thead", tag("tr", *top)), tag("tbody", *lines)
    content = tag("table", tag("caption", tag("span", caption)), *inside)
    return tag("div", content, class_="table", tabindex=0, role="region", aria_label=caption)
