"""Words and frames as network/recall.py compares them: what they say, their pitch, their place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi import piece as midi_piece
from lstm_music.midi.piece import LAST_TICK, WHOLE_NOTE
from lstm_music.midi.roll import LOWEST, NOTES, Frames
from lstm_music.network.model import Model
from lstm_music.network.recall import (
    BAR_LINE,
    CADENCE,
    FIELDS,
    LAGS,
    NONE,
    NOTE_OFF,
    NOTE_ON,
    OF_PHRASES,
    PITCH,
    PITCHES,
    PLACE,
    REST,
    TRACK_END,
    RecallRules,
    code_of,
)
from lstm_music.tokenizers import chords, events, messages, performance
from lstm_music.tokenizers.vocabulary import Vocabulary

BARS_BEFORE = (1, 2, 4, 8)
WORDS, FRAMES = (4, 2, 6), (1, 1, 3)  # as RecallRules.orders, of words and of frames
Says = tuple[Any, int, int, int, int, int, int]  # of a word table, what it says not yet a number


def recall_rules(vocabulary: Vocabulary, tokenizer: Mapping[str, Any]) -> RecallRules:
    """Return how the words of a model are compared; tokenizer: as its meta.json tells of it."""
    name = tokenizer["name"]
    if name == "note":
        return frame_rules(tokenizer["grid"], np.zeros((0, FIELDS), np.int64))
    says = {
        "event": event_says, "message": message_says, "performance": performance_says,
        "chord": chord_says,
    }[name]  # fmt: skip
    words = numbered([says(word) for word in vocabulary.words])
    if name == "chord":
        return frame_rules(tokenizer["grid"], words)
    if name in ("message", "performance"):
        lags = tuple(bars * WHOLE_NOTE for bars in BARS_BEFORE)
        return RecallRules(WORDS, lags, WHOLE_NOTE, 0, NONE, words, ids_of(words))
    bar = vocabulary.get(events.spell(events.BAR_LINE, events.SAME))
    same = NONE if bar is None else code_of(words[bar].tolist())
    phrases = OF_PHRASES if tells_phrases(vocabulary) else 0
    return RecallRules(WORDS, BARS_BEFORE, 0, phrases, same, words, ids_of(words))


def recall_of(
    model: Model, vocabulary: Vocabulary, tokenizer: Mapping[str, Any]
) -> RecallRules | None:
    """Return how a model's words are compared, None where it has no copy gate."""
    return None if model.gate is None else recall_rules(vocabulary, tokenizer)


def candidates_of(representation: str, vocabulary: Vocabulary) -> int:
    """Return how many candidates a representation has, K.

    Frames have the one before, too, and words that tell of phrases OF_PHRASES.
    """
    more = OF_PHRASES if tells_phrases(vocabulary) else representation in ("chord", "note")
    return LAGS + len(BARS_BEFORE) + more


def tells_phrases(vocabulary: Vocabulary) -> bool:
    """Return whether words of events tell where phrases end."""
    return vocabulary.get(events.spell(events.CADENCE, 0)) is not None


def frame_rules(grid: int, words: Array) -> RecallRules:
    """Return how frames are compared, grid of them a whole note; one lag is that of a frame."""
    lags = 1, *(grid * bars for bars in BARS_BEFORE)
    return RecallRules(FRAMES, lags, grid, 0, NONE, words, ids_of(words))


def ids_of(words: Array) -> Array:
    """Return the id of each code (codes,) int32, NONE for those of no word. words (V, FIELDS)."""
    ids = np.full((int(words[:, REST].max(initial=-1)) + 1) * PITCHES, NONE, np.int32)
    ids[words[:, REST] * PITCHES + words[:, PITCH] + 1] = np.arange(len(words))
    return ids


def numbered(rows: list[Says]) -> Array:
    """Return rows as a table (V, FIELDS) int64; what they say is numbered as it comes."""
    numbers: dict[Any, int] = {}
    table = [(numbers.setdefault(says, len(numbers)), *rest) for says, *rest in rows]
    return np.array(table, np.int64).reshape(-1, FIELDS)


def event_says(word: str) -> Says:
    """Return the row of an event."""
    event = events.parse(word)
    if event is None:
        return word, NONE, PLACE, NONE, 0, 0, 0
    kind, number, part = event
    if kind == events.BAR_LINE:
        return word, NONE, BAR_LINE, number, 0, 0, 0
    if kind == events.AT:
        return word, NONE, PLACE, number, 0, 1, 0
    if kind == events.KEY:
        return word, NONE, PLACE, NONE, 0, 0, 0
    if kind == events.CADENCE:
        return word, NONE, CADENCE, NONE, 0, 2, 0
    opens = NOTE_OFF if kind == midi_piece.NOTE_OFF else NOTE_ON
    order = len(events.OF_NOTES) * part + events.OF_NOTES.index(kind)
    voice = messages.PITCHES - 1 + part if part else number
    return (kind, part), number, opens, NONE, 0, 3 + messages.PITCHES * order + number, voice


def message_says(word: str) -> Says:
    """Return the row of a message."""
    message = messages.parse(word)
    if message is None:
        return word, NONE, TRACK_END if word == messages.TRACK_END else PLACE, NONE, 0, 0, 0
    kind, pitch, delta = message
    place = min(delta, LAST_TICK)
    return (kind, delta), pitch, PLACE, NONE, place, messages.PITCHES * kind + pitch, 0


def performance_says(word: str) -> Says:
    """Return the row of a word of a performance: a shift takes time, the others none."""
    event = performance.parse(word)
    if event is None:
        return word, NONE, PLACE, NONE, 0, 0, 0
    kind, number, part = event
    if kind > midi_piece.NOTE_ON:
        time = performance.STEP * number * (kind == performance.SHIFT)
        return word, NONE, PLACE, NONE, time, 0, 0
    return (kind, part), number, PLACE, NONE, 0, 1 + messages.PITCHES * kind + number, 0


def chord_says(word: str) -> Says:
    """Return the row of a chord: it says how its notes lie above the lowest one."""
    pitches = chords.parse(word)
    if not pitches:
        return word, NONE, PLACE, NONE, 1, 0, 0
    return tuple(p - pitches[0] for p in pitches), pitches[0], PLACE, NONE, 1, 0, 0


def frame_of(says: bytes, pitch: int) -> Frames | None:
    """Return the frame (88,) that says something at a lowest pitch, None where no piano has it."""
    frame, first = np.zeros(NOTES, np.uint8), pitch - LOWEST
    if says and not 0 <= first <= NOTES - len(says):
        return None
    if says:
        frame[first : first + len(says)] = np.frombuffer(says, np.uint8)
    return frame


def frame_of_code(says: Mapping[int, bytes] | Sequence[bytes], code: int) -> Frames | None:
    """Return the frame (88,) of a code, as `frame_of`; says: what each number of a piece says."""
    return frame_of(says[code // PITCHES], code % PITCHES - 1)


def frame_words(frames: Frames) -> Array:
    """Return the rows (n, FIELDS) of a piece's frames (n, 88).

    What a frame says is how its notes lie above the lowest one, numbered in this piece.
    """
    return numbered([frame_says(frame) for frame in frames])


def frame_says(frame: Frames) -> Says:
    """Return the row of a frame (88,), as `chord_says`."""
    notes = np.flatnonzero(frame)
    if not len(notes):
        return b"", NONE, PLACE, NONE, 1, 0, 0
    says = frame[notes[0] : notes[-1] + 1].tobytes()
    return says, int(notes[0]) + LOWEST, PLACE, NONE, 1, 0, 0
