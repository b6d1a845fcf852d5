"""The table of the sampling rules for browser/rules.js, from sampling/rules.py."""

import json

from lstm_music.midi import piece as midi
from lstm_music.midi.roll import PROFILES
from lstm_music.sampling import rules
from lstm_music.sampling.automaton import FIELDS
from lstm_music.sampling.craft import RANGES, VOICES
from lstm_music.sampling.given import FORCED
from lstm_music.tokenizers.messages import PITCHES

CLASSES = "PIECE_ENDS TRACK_ENDS CADENCES CHORDS KEYS SHIFTS VELOCITIES PARTS BARS NOTES"
OTHERS = "TOLD UNTOLD NEVER NONE FAR NO_LIMIT SILENT"
TICKS = ("LAST_TICK", "TICKS_PER_QUARTER", "WHOLE_NOTE")


def constants() -> dict[str, int]:
    """Return what the names of kinds, phases, facts and classes, and other numbers, stand for."""
    names = (*rules.KINDS, *rules.PHASES, *rules.FACTS, *CLASSES.split(), *OTHERS.split())
    ticks = {name: vars(midi)[name] for name in TICKS}
    return {"PITCHES": PITCHES, **ticks, **{name: vars(rules)[name] for name in names}}


def rules_script() -> str:
    """Return the table in JavaScript: names, what must hold, and which phase follows."""
    lines = [f"const {name} = {n};" for name, n in constants().items()]
    for name, table in (("NEEDS", rules.needs_table()), ("NEXT", rules.next_table())):
        lines.append(f"const {name} = {table.tolist()};")
    lists = {
        "FORCED": FORCED,
        "FIELDS": FIELDS,
        "VOICES": VOICES,
        "RANGES": RANGES,
        "PROFILES": [*PROFILES.values()],
    }
    lines += [f"const {name} = {json.dumps(value)};" for name, value in lists.items()]
    return "\n".join(lines)
