"""A study without a server: one page that keeps ratings in the browser, and what it saves, read."""

import base64
from pathlib import Path
from string import Template
from typing import Any

from lstm_music.errors import UserError
from lstm_music.listening import page_file
from lstm_music.listening.study import (
    HEARD,
    HIGHEST,
    LOWEST,
    MOST_COMMENT,
    Refused,
    Study,
    printable,
    public,
    williams,
)
from lstm_music.rendering.html import escaped, json_in_html, only_scripts
from lstm_music.untrusted import number, read_json

MOST_FILE = 1_000_000  # bytes of a rater's file
LATEST = 32_503_680_000  # Unix time of the year 3000


def static_page(study: Study) -> str:
    """Return the page with all its clips inside; nothing in it says what they are."""
    sounds = [base64.b64encode(study.sound(clip.id)).decode() for clip in study.clips]
    data = public(study) | {
        "token": False,
        "rows": williams(len(study.clips)),
        "repeats": study.repeats,
        "ids": [clip.id for clip in study.clips],
        "sounds": sounds,
    }
    scripts = [page_file(name) for name in ("local.js", "listen.js")]
    policy = f"default-src 'none'; media-src blob:; img-src data:; {only_scripts(*scripts)}"
    rule = f'<meta http-equiv="Content-Security-Policy" content="{escaped(policy)}">\n'
    inside = [f'<script type="application/json" id="data">{json_in_html(data)}</script>']
    inside += [f"<script>{script}</script>" for script in scripts]
    return Template(page_file("listen.html")).substitute(
        policy=rule,
        style=f"<style>\n{page_file('listen.css')}</style>",
        scripts="\n".join(inside),
    )


# What comes back --------------------------------------------------------------------------------


def read_back(study: Study, path: Path) -> bool:
    """Add a file that the static page saved; return whether it's new to the study.

    Raises UserError where it is no such file, of another study, or contradicts what was added.
    """
    try:
        given = checked(study, read_json(path, MOST_FILE))
        return study.add(given)
    except (OSError, ValueError, Refused) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{path}' can't be added: {reason}") from error


def checked(study: Study, given: Any) -> dict[str, Any]:
    """Return a rater's ratings with nothing in them but what they may hold.

    Raises ValueError where they are not of this study's clips, in an order that it gives.
    """
    if not isinstance(given, dict) or given.get("format") != 1:
        raise ValueError("not a file of ratings")
    if given.get("study") != study.id:
        raise ValueError("it is of another study")
    rater, comment, ratings = (given.get(name) for name in ("rater", "comment", "ratings"))
    if not isinstance(rater, str) or not 16 <= len(rater) <= 64 or not rater.isalnum():
        raise ValueError("it names no rater")
    if not isinstance(comment, str) or len(comment) > MOST_COMMENT:
        raise ValueError("its comment is no text, or too long")
    if not isinstance(ratings, list) or len(ratings) > study.places:
        raise ValueError("it has no list of ratings, or too many")
    rows = williams(len(study.clips))
    row = given.get("row")
    if type(row) is not int or not 0 <= row < len(rows):
        raise ValueError("its order is none of the study's")
    order = rows[row] + rows[row][: study.repeats]
    made = []
    for rating, clip in zip(ratings, (study.clips[n] for n in order), strict=False):
        if not isinstance(rating, dict) or rating.get("clip") != clip.id:
            raise ValueError("its clips are not in the study's order")
        score, heard, at = (rating.get(name) for name in ("score", "heard", "at"))
        if type(score) is not int or not LOWEST <= score <= HIGHEST:
            raise ValueError(f"a rating is not a whole number from {LOWEST} to {HIGHEST}")
        if number(heard, "heard", 0, 86_400) < HEARD * study.seconds:
            raise ValueError("a clip was not heard to its end")
        at = number(at, "at", 0, LATEST)
        made.append({"clip": rating["clip"], "score": score, "heard": heard, "at": at})
    begun = number(given.get("begun"), "begun", 0, LATEST)
    said = printable(comment)
    return {"rater": rater, "begun": begun, "comment": said, "ratings": made}
