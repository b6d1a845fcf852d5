"""Music as it is played: time in milliseconds, and the sustain pedal in the lengths of notes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import QUARTER, MidiFile, Pedals, Rows, Tempo
from lstm_music.midi.piece import (
    CHANNEL,
    LAST_TICK,
    TEMPO,
    TICK,
    TICKS_PER_QUARTER,
    TRACK,
    no_meter,
    no_phrases,
)
from lstm_music.midi.repair import voices_of

MILLISECONDS = 1000 * TICKS_PER_QUARTER  # microseconds of a quarter note whose ticks are so long
FURTHER = 2**32  # than any tick


def played_tempo() -> Tempo:
    """Return the tempo at which a tick is a millisecond, 125 quarter notes a minute."""
    return np.array([[0, MILLISECONDS]], np.int32)


def milliseconds(
    ticks: npt.NDArray[np.integer[Any]], tempo: Tempo, ticks_per_quarter: float = TICKS_PER_QUARTER
) -> npt.NDArray[np.float64]:
    """Return when ticks (…) are heard, in milliseconds, not rounded.

    Before the tempo says anything, a minute has TEMPO quarter notes.
    """
    rows = np.concatenate([[[0, round(60e6 / TEMPO)]], tempo]).astype(np.int64)
    starts, lengths = rows[:, 0], rows[:, 1]
    before = np.cumsum(np.diff(starts, prepend=0) * np.append(0, lengths[:-1]))
    at = np.searchsorted(starts, ticks, side="right") - 1
    exact = before[at] + (ticks - starts[at]) * lengths[at]  # microseconds · ticks per quarter
    heard: npt.NDArray[np.float64] = exact / (1000 * ticks_per_quarter)
    return heard


def in_milliseconds(file: MidiFile) -> MidiFile:
    """Return a file with its notes and pedals in milliseconds, from its own ticks.

    Sequences that follow one another have 120 quarter notes a minute, and no pedal. Meter and
    phrases, which are of written time, are left out.
    """
    alone = file.kind == 2
    tempo = np.array([[0, QUARTER]], np.int32) if alone else file.tempo
    rows, pedals = file.rows.copy(), file.pedals[: 0 if alone else None].copy()
    for ticks in (rows[:, TICK], pedals[:, 1]):
        heard = milliseconds(ticks, tempo, file.ticks_per_quarter)
        ticks[:] = np.minimum(np.rint(heard), LAST_TICK)
    return file._replace(
        rows=rows, pedals=pedals, meter=no_meter(), phrases=no_phrases(), tempo=played_tempo()
    )


def pedalled(rows: Rows, pedals: Pedals) -> Rows:
    """Return tracks of repaired voices whose notes sound on while a pedal holds them.

    A note that ends while its channel's pedal is down ends when that goes up, when its voice is
    struck again, or with the last message. What a pedal does at the tick of an end comes first, as
    in Magenta's note-seq (apply_sustain_control_changes).
    """
    if not len(pedals) or not len(rows):
        return rows
    voices = voices_of(rows)
    order = np.argsort(voices, kind="stable")
    ons, offs = order[0::2], order[1::2]  # within a voice they alternate
    start, end, voice = rows[ons, TICK], rows[offs, TICK].astype(np.int64), voices[ons]
    channel, last = rows[ons, CHANNEL].astype(np.int64), int(rows[:, TICK].max())
    whole = np.concatenate([pedals, [[16, 0, 0]]])  # of a channel that is none
    at = np.searchsorted(whole[:, 0] * FURTHER + whole[:, 1], channel * FURTHER + end, "right") - 1
    held = (whole[at, 0] == channel) & (whole[at, 2] == 1)
    up = np.where(whole[at + 1, 0] == channel, whole[at + 1, 1], last)
    end = np.where(held, up, end)
    end[:-1] = np.where(voice[1:] == voice[:-1], np.minimum(end[:-1], start[1:]), end[:-1])
    longer = rows.copy()
    longer[offs, TICK] = end
    return longer[np.lexsort((longer[:, TICK], longer[:, TRACK]))]
