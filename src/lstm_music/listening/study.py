"""A study on disk: its clips, who rates them in which order, and every rating.

One SQLite file holds all of it, sounds too, so that a study goes on from its file alone. Every
change is in that file, and on the disk, before it is acknowledged (a rollback journal that is gone
again, synchronous=EXTRA).
"""

import hashlib
import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from lstm_music.errors import UserError
from lstm_music.files import beside, move_in
from lstm_music.untrusted import number, parse_json, text, whole_number
from lstm_music.untrusted import printable as printable_name

FORMAT = 1
LOWEST, HIGHEST = 1, 10
ANCHORS = {  # the paper's
    1: "completely random noise",
    5: "musically plausible",
    10: "composed by a novice composer",
}
MOST_CLIPS, MOST_RATERS, MOST_COMMENT = 60, 100_000, 1000
MOST_SECONDS, MOST_SOUND = 3600.0, 1 << 25  # of a clip, and its bytes: 120 s have 5.8 MB
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
    facts = {
        "format": FORMAT, "id": secrets.token_hex(8), "title": printable_name(title),
        "seconds": seconds, "repeats": repeats, "made": time.time(),
    }  # fmt: skip
    try:
        with closing(sqlite3.connect(made)) as db, db:
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", numbered)
            rows = [(key, json.dumps(value)) for key, value in facts.items()]
            db.executemany("INSERT INTO study VALUES (?, ?)", rows)
        if not move_in(made, path):  # another process was quicker
            raise holds_study(path)
    except sqlite3.Error as error:
        raise UserError(
            f"can't write '{path}' ({error}): choose another place with --db"
        ) from error
    finally:
        made.unlink(missing_ok=True)
    return Study(path)


def holds_study(path: Path) -> UserError:
    """Return the error for a new study in the place of another."""
    return UserError(f"'{path}' holds a study already: name another --db")


class Study:
    """A study opened from its file; raises UserError where there is none in it.

    One connection serves all threads, one at a time, and leaves no journal behind: what was kept is
    in the file that has the study's name, or the call fails. clock: seconds that only ever grow.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock = path, clock
        self.lock = threading.RLock()
        self.steps: dict[int, float] = {}  # rater -> clock of their last step, of those seen here
        if not path.is_file():
            raise UserError(f"no study '{path}': make one with bin/listen FILE_OR_RUN…")
        try:
            self.file = self._named()
            self.db = sqlite3.connect(path, BUSY, isolation_level=None, check_same_thread=False)
            check_tables(self.db)
            self.db.execute("PRAGMA journal_mode=DELETE")
            self.db.execute("PRAGMA synchronous=EXTRA")  # no journal comes back and undoes a rating
            self.db.execute("PRAGMA foreign_keys=ON")
            self.id, self.title, self.seconds, self.repeats = about(self.db)
            self.clips = clips_of(self.db)
            whole_number(self.repeats, "repeats", 0, len(self.clips))
        except (sqlite3.Error, OSError, KeyError, ValueError) as error:
            raise UserError(f"'{path}' holds no study that can be read ({error})") from error
        self.places = len(self.clips) + self.repeats

    def _named(self) -> tuple[int, int]:
        """Return which file has the study's name. Raises OSError where none has."""
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """Raise UserError where the file that is open no longer has the study's name."""
        with suppress(OSError):
            if self._named() == self.file:
                return
        raise UserError(
            f"'{self.path}' was moved, replaced or deleted: put it back, or end this and begin it "
            "again; raters wait till then"
        )

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread; raises UserError where the file can't be used."""
        with self.lock:
            self._check_place()
            try:
                yield self.db
            except sqlite3.Error as error:
                raise UserError(
                    f"can't keep ratings in '{self.path}' ({error}): free some space, or see who "
                    "else has it open"
                ) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """As the only one who writes; all of it is on the disk when this ends, or nothing."""
        with self.connected() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has undone it already
                    db.execute("ROLLBACK")
                raise
            self._check_place()  # else what was kept isn't acknowledged

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
        self.steps[rater] = self.clock()
        return key

    def rater(self, key: str) -> tuple[int, list[int]]:
        """Return whose key it is, and their scores by place.

        Raises Refused for a key that was never given out.
        """
        with self.connected() as db:
            return self.known(db, key)

    def known(self, db: sqlite3.Connection, key: str) -> tuple[int, list[int]]:
        """As rater, on an open connection."""
        found = db.execute("SELECT rater FROM raters WHERE key = ?", (digest(key),))
        row = found.fetchone()
        if row is None:
            raise Refused(401, "this study doesn't know you: begin anew")
        asked = "SELECT score FROM ratings WHERE rater = ? ORDER BY place"
        return int(row[0]), [int(score) for (score,) in db.execute(asked, row)]

    def rate(self, key: str, place: int, score: int, heard: float) -> list[int]:
        """Keep a rating and return the rater's scores by place; on the disk when this returns.

        The same rating sent again changes nothing. Raises Refused for another one of a place that
        is rated, for a place whose turn it isn't, and for a clip that can't have been heard since
        the rater's last step. Of a step before this process began, `heard` alone is believed.
        """
        now = self.clock()
        with self.writing() as db:
            rater, scores = self.known(db, key)
            if place < len(scores):
                if scores[place] != score:
                    raise Refused(409, "this clip is rated already")
                return scores
            if place != len(scores) or place >= self.places:
                raise Refused(409, "it is another clip's turn")
            since = now - self.steps.get(rater, -math.inf)
            if min(heard, since) < HEARD * self.seconds:
                raise Refused(425, "listen to the whole clip before you rate it")
            clip = self.order(rater)[place].id
            row = (rater, place, clip, score, round(min(heard, 86_400.0), 3), time.time())
            db.execute("INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?)", row)
        self.steps[rater] = now
        return [*scores, score]

    def comment(self, key: str, text: str) -> None:
        """Keep what a rater has to say, in place of what they said before."""
        with self.writing() as db:
            rater, _ = self.known(db, key)
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


def check_tables(db: sqlite3.Connection) -> None:
    """Raise ValueError where a file has not the tables of a study, or what would act by itself."""
    made = {words.split()[2]: words.strip() for words in SCHEMA.split(";") if words.strip()}
    found = db.execute("SELECT name, type, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    if {name: sql for name, _, sql in found if name in made} != made:
        raise ValueError("it has not a study's tables")
    if any(kind != "table" for _, kind, _ in found):  # a view could last for ever
        raise ValueError("it has a view, an index or a trigger that no study has")
    (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        raise ValueError(f"it is damaged: {said}")


def about(db: sqlite3.Connection) -> tuple[str, str, float, int]:
    """Return a study's id, title, seconds of each clip, and how many are heard twice.

    Raises ValueError or KeyError for anything else, and for another version's.
    """
    asked = "SELECT value FROM study WHERE key = ?"
    read = {
        key: parse_json(str(value).encode())
        for key in ("format", "id", "title", "seconds", "repeats")
        for (value,) in db.execute(asked, (key,))
    }
    if read["format"] != FORMAT:
        raise ValueError("it is of another version of bin/listen")
    seconds = number(read["seconds"], "seconds", 0.01, MOST_SECONDS)
    repeats = whole_number(read["repeats"], "repeats", 0, MOST_CLIPS)
    return text(read["id"], "id"), text(read["title"], "title"), seconds, repeats


def clips_of(db: sqlite3.Connection) -> list[Clip]:
    """Return a study's clips. Raises ValueError where they are too few, too many or too large."""
    asked = "SELECT id, system, name, control, length(sound) FROM clips ORDER BY number LIMIT ?"
    rows = db.execute(asked, (MOST_CLIPS + 1,)).fetchall()
    whole_number(len(rows), "the number of its clips", 2, MOST_CLIPS)
    for *_, size in rows:
        whole_number(size, "the size of a clip", 0, MOST_SOUND)
    return [Clip(id, system, name, bool(control)) for id, system, name, control, _ in rows]


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
