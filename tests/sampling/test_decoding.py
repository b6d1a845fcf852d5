"""Where pieces begin and end, with primers and in any meter, sampled and decoded alike."""

import numpy as np
import pytest
from rule_states import State
from small import track_of

from lstm_music.midi.piece import TICK, Piece
from lstm_music.sampling.automaton import extend, limit_of
from lstm_music.sampling.decoding import (
    clipped,
    decode,
    decode_chords,
    end_asked,
    length_in_frames,
)
from lstm_music.sampling.excerpts import without_silence
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import NOTE_ON as STRIKES
from lstm_music.sampling.rules import SHORTEST
from lstm_music.sampling.sampler import new_piece
from lstm_music.sampling.word_rules import (
    chord_rules,
    event_rules,
    message_rules,
    performance_rules,
)
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END, MessageTokenizer
from lstm_music.tokenizers.performance import PerformanceTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary

FOUR, THREE, FIVE = 1920, 1440, 2400
EVENTS = Vocabulary(
    [
        *(PIECE_END, "bar", "bar-480", "bar-960", "bar-1440", "bar-1920", "bar-2880"),
        *("at-0", "at-480", "at-960", "at-1439", "on-60", "off-60"),
    ]
)
MESSAGES = Vocabulary([PIECE_END, TRACK_END, "note-on-60-0", "note-off-60-480", "note-on-62-480"])
CHORDS = Vocabulary([PIECE_END, "60", "62"])
NOTE = "at-0 on-60 at-480 off-60 "
WALTZ = "bar-1440 " + NOTE


def ids_of(words, vocabulary=EVENTS):
    return [vocabulary.id(word) for word in words.split()]


def drafted(ids, rules, options, primed=0):
    """A piece that took the ids, the first of which are a primer."""
    state = State(rules, options, ids[:primed])
    for id in ids:
        extend(rules, state.piece, state.began, id)
    return state


def limit(state):
    """The tick at which a piece is to end."""
    return limit_of(state.rules, state.piece)


@pytest.mark.parametrize(
    ("piece", "bars", "begins"),
    [
        (WALTZ, 1, THREE),
        ("bar-1440 at-0 on-60 bar at-0 off-60 ", 1, THREE),  # it ends at the bar line
        (WALTZ + "bar " + NOTE, 2, 2 * THREE),
        ("bar-1920 " + NOTE + "bar " + NOTE, 2, 2 * FOUR),
        ("bar-480 " + NOTE + "bar-1440 " + NOTE + "bar " + NOTE, 2, 2 * THREE),  # an upbeat
        ("bar-480 at-0 on-60 bar-1440 at-0 off-60 on-60 at-1439 off-60 ", 2, 2 * THREE),
        ("bar-480 " + NOTE + "bar-1920 " + NOTE + "bar " + NOTE, 2, 2 * FOUR),
        (WALTZ + "bar-1920 " + NOTE + "bar " + NOTE, 3, None),
    ],
)
def test_a_piece_of_events_begins_on_a_bar(piece, bars, begins):
    """An upbeat completes the last bar; the last case looks like one, and is a bar less."""
    bars, begins = (2, 2 * FOUR) if begins is None else (bars, begins)
    ids, rules = ids_of(piece + PIECE_END + " " + WALTZ), event_rules(EVENTS, 5000)
    for options in (Options(length=900), Options(bars=9), Options(limit=9 * FOUR)):
        draft = drafted(ids, rules, options)
        assert (draft.before, draft.bars_before) == (begins, bars)
        found = decode(ids, EVENTS, EventTokenizer(), rules, "x", options)
        assert found.tracks[0][-2, TICK] == begins
        assert found.meter[-1].tolist() == [begins, THREE]


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("", 4 * FOUR),
        ("bar-480 at-0 on-60", 4 * FOUR),  # perhaps an upbeat, of whatever meter
        ("bar-2880 at-0 on-60", 4 * 2880),
        ("bar-480 " + NOTE + "bar-1440", 4 * THREE),
        ("bar-480 " + NOTE + "bar-1440 " + NOTE + "bar", 4 * THREE),
        (WALTZ + "bar", 4 * THREE),
        (WALTZ + "bar " + NOTE + "bar-1920", 2 * THREE + 2 * FOUR),
        (WALTZ + PIECE_END + " bar-1920 " + NOTE + "bar", THREE + 3 * FOUR),
    ],
)
def test_bars_are_those_that_events_say(words, end):
    ids, rules = ids_of(words), event_rules(EVENTS, 5000)
    draft = drafted(ids, rules, Options(bars=4))
    assert draft.before + limit(draft) == end
    assert end_asked(ids, [], rules, Options(bars=4)) == end


def test_bars_after_a_primer_begin_at_its_last_line():
    rules = event_rules(EVENTS, 5000)
    for words, line in (
        (WALTZ + "bar " + NOTE, 2 * THREE),
        (WALTZ + "bar " + NOTE + "bar", 2 * THREE),
        ("bar-480 " + NOTE + "bar-1440 " + NOTE + "bar", THREE),  # 480 later, and an upbeat less
        ("bar-480 " + NOTE + "bar-1440 " + NOTE, THREE),
    ):
        ids = ids_of(words)
        draft = drafted(ids, rules, Options(bars=4, beyond=True), len(ids))
        assert limit(draft) == line + 4 * THREE


def bound(rules, options, primer):
    """The only piece that options and a primer bind."""
    return new_piece(rules, options, primer)[0]


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("layout", ["merge", "flatten"])
def test_what_is_asked_for_counts_what_follows_a_primer(free, layout):
    rules = message_rules(MESSAGES, layout, 5000, 2, free=free)
    ids = ids_of("note-on-60-0 note-off-60-480 note-on-62-480", MESSAGES)
    asked = Options(beyond=True)
    piece = bound(rules, asked, ids)
    assert (piece.primed_tracks, piece.primed_notes, piece.least) == (0, 2, 960 + SHORTEST)
    assert (piece.asked_tokens, piece.asked_ticks, piece.asked_bars) == (-1, -1, -1)
    assert piece.most == 2003
    assert bound(rules, asked, []).least == rules.least == (SHORTEST if layout == "merge" else 0)
    assert bound(rules, Options(), ids) == bound(rules, asked, [])
    assert bound(rules, Options(length=5, beyond=True), ids).asked_tokens == 8
    assert bound(rules, Options(length=5), ids).asked_tokens == 5
    assert bound(rules, Options(limit=100, beyond=True), ids).asked_ticks == 1060
    assert bound(rules, Options(limit=100), ids).asked_ticks == 100
    for meter, end in (((), 2 * FOUR), (((0, THREE),), 2 * THREE), (((0, 480), (480, 720)), 1920)):
        options = Options(bars=1, beyond=True, meter=meter)
        assert limit(drafted(ids, rules, options, 3)) == end


@pytest.mark.parametrize("layout", ["merge", "flatten"])
def test_nothing_ends_before_something_follows_the_primer(layout):
    rules, end = message_rules(MESSAGES, layout, 5000, 1), MESSAGES.id(PIECE_END)
    ids, begins = ids_of("note-on-60-0 note-off-60-480", MESSAGES), rules.kinds == STRIKES
    for options in (
        Options(beyond=True),
        Options(limit=9, beyond=True),
        Options(bars=1, beyond=True),
    ):
        draft = drafted(ids, rules, options, 2)
        for mask in (draft.allowed_as_asked(), draft.allowed(0)):
            ends = {end, MESSAGES.id(TRACK_END)} & {*np.flatnonzero(mask).tolist()}
            assert not ends or not mask[begins].any()
    # Where the last track of a primer has ended, another one begins, even one too many.
    draft = drafted([*ids, MESSAGES.id(TRACK_END)], rules, Options(limit=999, beyond=True), 3)
    if layout == "flatten":
        mask = draft.allowed_as_asked()
        assert mask.any() and not mask[~begins].any()
        unprimed = drafted([*ids, MESSAGES.id(TRACK_END)], rules, Options(limit=999))
        assert np.flatnonzero(unprimed.allowed(999)).tolist() == [end]


def test_messages_and_chords_follow_one_another_in_the_primers_meter():
    rules = message_rules(MESSAGES, "merge", 5000, 2)
    note = "note-on-60-0 note-off-60-480 "
    ids = ids_of(note + PIECE_END + " " + note, MESSAGES)
    for meter, begins in (((), FOUR), (((0, THREE),), THREE), (((0, 120), (120, 480)), 600)):
        options = Options(length=99, beyond=True, meter=meter)
        assert drafted(ids, rules, options, 2).before == begins
        found = decode(ids, MESSAGES, MessageTokenizer("merge"), rules, "x", options)
        assert found.tracks[0][-2, TICK] == begins
        assert [tuple(row) for row in found.meter.tolist()] == list(meter)
    chords = chord_rules(CHORDS, 240)
    ids = ids_of("60 60 piece-end 62", CHORDS)
    for meter, begins in (((), FOUR), (((0, THREE),), THREE), (((0, FIVE),), FIVE)):
        options = Options(limit=9 * FIVE, beyond=True, meter=meter)
        assert drafted(ids, chords, options, 2).before == begins
        found = decode_chords(ids, CHORDS, 8, "x", options=options)
        assert found.tracks[0][-2, TICK] == begins
        assert [tuple(row) for row in found.meter.tolist()] == list(meter)
        assert length_in_frames(ids, chords, options) == begins // 240 + 1


@pytest.mark.parametrize(
    ("meter", "first", "cut", "bars", "rest"),
    [
        ([], 1919, 0, 0, []),
        ([], 1920, FOUR, 1, [[0, FOUR]]),
        ([], 81_600, 42 * FOUR, 42, [[0, FOUR]]),
        ([[0, THREE]], THREE - 1, 0, 0, [[0, THREE]]),
        ([[0, THREE]], 4 * THREE + 5, 4 * THREE, 4, [[0, THREE]]),
        ([[0, 480], [480, THREE]], 600, 480, 1, [[0, THREE]]),
        ([[0, 480], [480, THREE], [9000, FIVE]], 480 + 2 * THREE, 480 + 2 * THREE, 3,
         [[0, THREE], [9000 - 480 - 2 * THREE, FIVE]]),
    ],
)  # fmt: skip
def test_silence_at_the_beginning_ends_with_its_last_bar_line(meter, first, cut, bars, rest):
    tracks = [track_of([(first + n, first + n + 9, 60)]) for n in (400, 0)]
    meter = np.array(meter, np.int32).reshape(-1, 2)
    piece, found = without_silence(Piece("x", tracks, {"a": 1}, meter))
    assert found == bars
    assert piece.tracks[1][0, TICK] == first - cut
    assert piece.tracks[0][0, TICK] == first - cut + 400
    assert piece.meter.tolist() == rest
    assert (piece.name, piece.repairs) == ("x", {"a": 1})
    assert without_silence(Piece("", []))[1] == 0


def test_what_follows_a_primer_is_not_cut_off():
    piece = Piece("x", [track_of([(0, 480, 60), (960, 1440, 62)])])
    assert clipped(piece, 960).tracks[0][-1].tolist() == [480, 0, 60]
    assert clipped(piece, 960, 481) is piece  # nothing else was composed
    assert clipped(piece, 1000, 481).tracks[0][-1].tolist() == [1000, 0, 62]


PLAYED = Vocabulary(
    [PIECE_END, "velocity-4", "velocity-20", "shift-50", "on-60", "off-60", "on-62", "off-62"]
)


def test_performances_keep_their_velocities_and_their_tempo():
    """Of pieces that follow one another at a bar line, and without notes of length zero."""
    rules = performance_rules(PLAYED, 3000, 9, 500)
    first = "velocity-4 on-62 off-62 velocity-20 on-60 shift-50 off-60 "
    music = ids_of(first + f"{PIECE_END} velocity-4 on-62 shift-50 off-62", PLAYED)
    piece = decode(music, PLAYED, PerformanceTokenizer(), rules, "x")
    expected = [(0, 500, 60, 82), (FOUR, FOUR + 500, 62, 18)]
    assert [note[:4] for note in piece.notes.tolist()] == expected
    assert piece.tempo.tolist() == [[0, 480_000]]
    cut = clipped(piece, FOUR + 100)
    assert [note[:4] for note in cut.notes.tolist()] == [expected[0], (FOUR, FOUR + 100, 62, 18)]
    assert [note[:4] for note in clipped(piece, 400).notes.tolist()] == [(0, 400, 60, 82)]
    assert decode([], PLAYED, PerformanceTokenizer(), rules, "x").tracks == []
