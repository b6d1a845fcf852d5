"""Random walks through the rules of sampling: which words they try, and a record of what came.

A walk takes words at random, most often one that may come, now and then any. What walks, a walker,
may be of any language: it says which ids may come, takes one, and says where the piece stands.
"""

import hashlib
import json
from random import Random
from typing import NamedTuple

from lstm_music.midi.piece import LAST_TICK
from lstm_music.sampling.options import Options

BAR = 1920
PITCHES = (60, 61, 67)
EVENTS = [
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in PITCHES),
    *("at-0", "at-240", "at-480", "at-960", f"at-{LAST_TICK}"),
    *("bar-1", "bar-240", "bar-480", "bar-1920", f"bar-{LAST_TICK}", "bar"),
    *("cadence", "key-0", "key-7"),
]
PARTS = [
    *(f"{kind}-{pitch}/{part}" for kind in ("off", "to", "on") for pitch in PITCHES
      for part in (1, 2)),
    *("at-0", "at-240", "at-480", "bar-480", "bar-1920", "bar", "cadence"),
]  # fmt: skip
MESSAGES = [
    "track-end",
    *(f"note-on-{pitch}-{delta}" for pitch in PITCHES for delta in (0, 240, 1920)),
    *(f"note-off-{pitch}-{delta}" for pitch in PITCHES for delta in (0, 480)),
    f"note-on-72-{LAST_TICK}",
]
CHORDS = ["rest", "60", "60-64", "60-64-67"]
PERFORMANCES = [
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in PITCHES),
    *("shift-1", "shift-24", "shift-100", "velocity-0", "velocity-20"),
]
ENSEMBLES = [
    *(f"{kind}-{pitch}{drums}" for kind in ("off", "on") for pitch in PITCHES
      for drums in ("", "/2")),
    *("part-1", "part-2", "part-3", "shift-1", "shift-24", "shift-100"),
    *("velocity-0", "velocity-20", "velocity-20/2"),
]  # fmt: skip
KINDS = ("merge", "flatten", "free merge", "free flatten", "event", "chord")
PLAYED = 1500  # walks from here on are of performances,
FIRST_OF_PARTS = 1750  # from here on of events in parts,
FIRST_OF_ENSEMBLES = 2050  # and from here on of performances in parts
LATER = {
    PLAYED: "performance", FIRST_OF_PARTS: "parts", FIRST_OF_ENSEMBLES: "performance in parts",
}  # fmt: skip
LENGTHS = (
    {}, {}, {"length": 1}, {"length": 5}, {"length": 25}, {"bars": 1}, {"bars": 3},
    *({"limit": n} for n in (1, 480, BAR, 2 * BAR + 100, 3 * LAST_TICK)),
)  # fmt: skip
METERS = ((), (), ((0, 1440),), ((0, 480), (480, 2400)))


class Walk(NamedTuple):
    """What a walk tries: words, the piece's end first, habits, lengths, and a primer's length."""

    kind: str
    words: list
    longest_note: int
    max_tracks: int
    most_notes: int
    options: Options
    primed: int
    random: Random


def walk_of(seed):
    """The walk of a seed."""
    random = Random(seed)
    later = [kind for first, kind in LATER.items() if seed >= first]
    kind = later[-1] if later else KINDS[seed % len(KINDS)]
    of_kinds = {
        "event": EVENTS, "chord": CHORDS, "performance": PERFORMANCES, "parts": PARTS,
        "performance in parts": ENSEMBLES,
    }  # fmt: skip
    words = of_kinds.get(kind, MESSAGES)
    if random.random() < 0.5:
        words = random.sample(words, len(words) - random.randrange(min(5, len(words))))
    elif random.random() < 0.3:
        words = random.sample(words, random.randrange(len(words)))
    meter = () if kind in ("event", *LATER.values()) else random.choice(METERS)
    lengths = random.choice(LENGTHS)
    options = Options(**lengths, beyond=random.random() < 0.5, meter=meter)
    habits = (random.choice((0, 1, 480, 3000)), random.randrange(4), random.randrange(5))
    return Walk(
        kind, ["piece-end", *words], *habits, options, random.choice((0, 0, 1, 7, 30)), random
    )


def tried(walk, allowed, stray=0.15):
    """The next word: most often one of the ids that may come, else any; the end where none may."""
    for _ in range(3):  # an end is a short walk
        among = range(len(walk.words)) if walk.random.random() < stray else allowed or [0]
        id = walk.random.choice(among)
        if id:
            break
    return id


def primer_of(walk, walker):
    """Words that end no piece, written with a walker that knows of no length."""
    ids = []
    while len(ids) < walk.primed and not walker.ended:
        id = tried(walk, walker.allowed())
        if id == 0:
            break
        ids.append(id)
        walker.extend(id)
    return ids


def steps_of(walk, walker, primer, most):
    """Yield at each step the ids that may come, the one taken, and where the piece stands then."""
    for id in primer:
        if not walker.ended:
            walker.extend(id)
            yield [], id, walker.place()
    for _ in range(most):
        if walker.ended:
            return
        allowed = walker.allowed()
        id = tried(walk, allowed)
        walker.extend(id)
        yield allowed, id, walker.place()


def digest(steps):
    """How many steps there are, and a hash of them."""
    hashed, count = hashlib.sha256(), 0
    for step in steps:
        hashed.update(json.dumps(step).encode())
        count += 1
    return [count, hashed.hexdigest()[:12]]
