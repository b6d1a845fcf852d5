"""A study on disk: its clips, who rates them in which order, and every rating.

One SQLite file holds all of it, sounds too, so that a study goes on from its file alone. Every
change is written through to the disk before it is acknowledged (write-ahead log, synchronous=FULL).
"""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lstm_music.errors import UserError
from lstm_music.files import beside, move_in
from lstm_music.names import printable as printable_name

FORMAT = 1
LOWEST, HIGHEST = 1, 10
ANCHORS = {  # the paper's
    1: "completely random noise",
    5: "musically plausible",
    10: "composed by a novice composer",
}
MOST_CLIPS, MOST_RATERS, MOST_COMMENT = 60, 100_000, 1000
HEARD = 0.95  # share of a clip to be heard before it can be rated
BUSY = 30.0  # seconds to wait for another writer

SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE clips (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, system TEXT NOT NULL, name TEXT NOT NULL,
    control INTEGER NOT NULL, sound BLOB NOT NULL) STRICT;
CREATE TABLE raters (
    rater INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, begun REAL NOT NULL,
    comment TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE ratings (
    rater INTEGER NOT NULL REFERENCES raters, place INTEGER NOT NULL,
    clip TEXT NOT NULL REFERENCES clips (id), score INTEGER NOT NULL CHECK (score BETWEEN 1 AND 10),
    heard REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (rater, place)) STRICT;
"""


class Clip(NamedTuple):
    """A clip: an id that tells nothing, the system that it is of, its name, a WAV file."""

    id: str
    system: str
    name: str
    control: bool


class Wanted(NamedTuple):
    """A system's name, where its clips come from, and whether people made them.

    baseline: "untrained" or "chord-frequency", which a run (the source) has; or "", the run itself.
    """

    system: str
    source: str
    control: bool
    baseline: str = ""


class Refused(Exception):
    """What a rater asked for can't be done; the message says why, and status is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# Orders -----------------------------------------------------------------------------------------


def williams(n: int) -> list[list[int]]:
    """Return a Latin square of n conditions balanced for carry-over, n rows, or 2n of odd n.

    Each condition stands equally often in each place, and follows each other one equally often.
    Williams, "Experimental designs balanced for the estimation of residual effects of treatments",
    Australian Journal of Scientific Research A 2 (1949).
    """
    first = [0]
    for k in range(1, n):
        first.append((k + 1) // 2 if k % 2 else n - k // 2)
    rows = [[(x + shift) % n for x in first] for shift in range(n)]
    return rows if n % 2 == 0 else rows + [row[::-1] for row in rows]


def order_of(rater: int, clips: int, repeats: int) -> list[int]:
    """Return the clips that a rater hears, by number; the first ones come once more at the end."""
    rows = williams(clips)
    row = rows[rater % len(rows)]
    return row + row[:repeats]


# The file ---------------------------------------------------------------------------------------


def create(
    path: Path,
    title: str,
    sounds: Sequence[tuple[str, str, bool, bytes]],
    seconds: float,
    repeats: int,
) -> "Study":
    """Make a study of clips: system, name, whether it's the human control, WAV file.

    Raises UserError where there are too few or too many of them, or the file exists.
    """
    if not 2 <= len(sounds) <= MOST_CLIPS:
        raise UserError(
            f"a listening test takes 2 to {MOST_CLIPS} clips, not {len(sounds)}: "
            "give others, or another --num"
        )
    if path.exists():
        raise holds_study(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = beside(path)
    numbered = [
        (secrets.token_hex(8), n, printable_name(system), printable_name(name), int(control), sound)
        for n, (system, name, control, sound) in enumerate(sounds)
    ]
    about = {
        "format": FORMAT, "id": secrets.token_hex(8), "title": printable_name(title),
        "seconds": seconds, "repeats": repeats, "made": time.time(),
    }  # fmt: skip
    try:
        with sqlite3.connect(made) as db:
            db.execute("PRAGMA journal_mode=DELETE")
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", numbered)
            rows = [(key, json.dumps(value)) for key, value in about.items()]
            db.executemany("INSERT INTO study VALUES (?, ?)", rows)
        db.close()
        if not move_in(made, path):  # another process was quicker
            raise holds_study(path)
    finally:
        made.unlink(missing_ok=True)
    return Study(path)


def holds_study(path: Path) -> UserError:
    """Return the error for a new study in the place of another."""
    return UserError(f"'{path}' holds a study already: name another --db")


class Study:
    """A study opened from its file; raises UserError where there is none in it.

    Each thread has a connection of its own, so that any may call.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = threading.local()
        if not path.is_file():
            raise UserError(f"no study '{path}': make one with bin/listen FILE_OR_RUN…")
        try:
            with self.connected() as db:
                about = {k: json.loads(v) for k, v in db.execute("SELECT key, value FROM study")}
                rows = db.execute("SELECT id, system, name, control FROM clips ORDER BY number")
                self.clips = [Clip(id, system, name, bool(c)) for id, system, name, c in rows]
            self.id, self.title = str(about["id"]), str(about["title"])
            self.seconds, self.repeats = float(about["seconds"]), int(about["repeats"])
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            raise UserError(f"'{path}' holds no study that can be read ({error})") from error
        if about["format"] != FORMAT:
            raise UserError(f"'{path}' is of another version of bin/listen")
        self.places = len(self.clips) + self.repeats

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """Give this thread's connection, opened the first time."""
        db = getattr(self.opened, "db", None)
        if db is None:
            db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            self.opened.db = db
        yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """As the only one who writes; all of it is on the disk when this ends, or nothing."""
        with self.connected() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    def sound(self, clip: str) -> bytes:
        """Return a clip's WAV file. Raises Refused where there is no such clip."""
        with self.connected() as db:
            row = db.execute("SELECT sound FROM clips WHERE id = ?", (clip,)).fetchone()
        if row is None:
            raise Refused(404, "no such clip")
        return bytes(row[0])

    def order(self, rater: int) -> list[Clip]:
        """Return the clips in the order in which a rater hears them."""
        return [self.clips[n] for n in order_of(rater, len(self.clips), self.repeats)]

    def begin(self) -> str:
        """Let a new rater in and return their key, which nobody else knows."""
        key = secrets.token_urlsafe(24)
        with self.writing() as db:
            (rater,) = db.execute("SELECT COALESCE(MAX(rater) + 1, 0) FROM raters").fetchone()
            if rater >= MOST_RATERS:
                raise Refused(503, "this study has all the raters that it can hold")
            row = (rater, digest(key), time.time())
            db.execute("INSERT INTO raters (rater, key, begun) VALUES (?, ?, ?)", row)
        return key

    def rater(self, key: str) -> tuple[int, float, list[int]]:
        """Return whose key it is, the time of their last step, and their scores by place.

        Raises Refused for a key that was never given out.
        """
        with self.connected() as db:
            return self.known(db, key)

    def known(self, db: sqlite3.Connection, key: str) -> tuple[int, float, list[int]]:
        """As rater, on an open connection."""
        found = db.execute("SELECT rater, begun FROM raters WHERE key = ?", (digest(key),))
        row = found.fetchone()
        if row is None:
            raise Refused(401, "this study doesn't know you: begin anew")
        asked = "SELECT score, at FROM ratings WHERE rater = ? ORDER BY place"
        ratings = db.execute(asked, (row[0],)).fetchall()
        last = max([row[1], *(at for _, at in ratings)])
        return int(row[0]), float(last), [int(score) for score, _ in ratings]

    def rate(self, key: str, place: int, score: int, heard: float) -> list[int]:
        """Keep a rating and return the rater's scores by place; on the disk when this returns.

        The same rating sent again changes nothing. Raises Refused for another one of a place that
        is rated, for a place whose turn it isn't, and for a clip that can't have been heard.
        """
        now = time.time()
        with self.writing() as db:
            rater, last, scores = self.known(db, key)
            if place < len(scores):
                if scores[place] != score:
                    raise Refused(409, "this clip is rated already")
                return scores
            if place != len(scores) or place >= self.places:
                raise Refused(409, "it is another clip's turn")
            if heard < HEARD * self.seconds or now - last < HEARD * self.seconds:
                raise Refused(425, "listen to the whole clip before you rate it")
            clip = self.order(rater)[place].id
            row = (rater, place, clip, score, round(min(heard, 86_400.0), 3), now)
            db.execute("INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?)", row)
        return [*scores, score]

    def comment(self, key: str, text: str) -> None:
        """Keep what a rater has to say, in place of what they said before."""
        with self.writing() as db:
            rater, _, _ = self.known(db, key)
            row = (text[:MOST_COMMENT], rater)
            db.execute("UPDATE raters SET comment = ? WHERE rater = ?", row)

    def add(self, ratings: dict[str, Any]) -> bool:
        """Add what `export.checked` let through; return whether it's new.

        Raises Refused where the same rater's ratings were added before and differ.
        """
        with self.writing() as db:
            key = digest(ratings["rater"])
            row = db.execute("SELECT rater FROM raters WHERE key = ?", (key,)).fetchone()
            if row is not None:
                asked = "SELECT clip, score FROM ratings WHERE rater = ? ORDER BY place"
                kept = [list(pair) for pair in db.execute(asked, (row[0],))]
                if kept != [[r["clip"], r["score"]] for r in ratings["ratings"]]:
                    raise Refused(409, "other ratings of the same rater were added before")
                return False
            (rater,) = db.execute("SELECT COALESCE(MAX(rater) + 1, 0) FROM raters").fetchone()
            begun = (rater, key, ratings["begun"], ratings["comment"])
            db.execute("INSERT INTO raters VALUES (?, ?, ?, ?)", begun)
            rows = [
                (rater, place, r["clip"], r["score"], r["heard"], r["at"])
                for place, r in enumerate(ratings["ratings"])
            ]
            db.executemany("INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?)", rows)
        return True

    def all_ratings(self) -> list[tuple[int, int, str, int, float, float]]:
        """Return every rating: rater, place, clip, score, seconds heard, when (Unix time)."""
        asked = "SELECT rater, place, clip, score, heard, at FROM ratings ORDER BY rater, place"
        with self.connected() as db:
            return list(db.execute(asked))

    def all_raters(self) -> list[tuple[int, float, str]]:
        """Return every rater: number, when they began (Unix time), their comment."""
        with self.connected() as db:
            return list(db.execute("SELECT rater, begun, comment FROM raters ORDER BY rater"))


def digest(key: str) -> str:
    """Return what is kept of a rater's key: whoever reads the file can't rate in their name."""
    return hashlib.sha256(key.encode()).hexdigest()


def printable(text: str) -> str:
    """Return a text without control characters but line ends."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def public(study: Study) -> dict[str, Any]:
    """Return what a rater may know of a study: nothing of what the clips are."""
    return {
        "study": study.id,
        "title": study.title,
        "clips": study.places,
        "seconds": study.seconds,
        "anchors": {str(score): words for score, words in ANCHORS.items()},
        "mostComment": MOST_COMMENT,
    }
