from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_states import State
from test_events import meters, with_meter
from test_messages import pieces

from lstm_music.midi.piece import NOTE_OFF, NOTE_ON, notes_of
from lstm_music.sampling.automaton import is_empty, leaves_room, may_end
from lstm_music.sampling.rules import SHORTEST
from lstm_music.sampling.word_rules import event_rules
from lstm_music.tokenizers.events import AT, BAR_LINE, EventTokenizer, parse
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary

ALL = [
    PIECE_END,
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in (60, 61, 67)),
    *("at-0", "at-240", "at-480", "at-960", "bar-480", "bar-960", "bar-1920", "bar"),
]
FULL = Vocabulary(ALL)
randoms = st.integers(0, 2**32 - 1).map(Random)  # evener than st.randoms()
limits = st.sampled_from([None, 480, 960, 1000, 3840])
vocabularies = st.one_of(st.just(FULL), st.lists(st.sampled_from(ALL), unique=True).map(Vocabulary))


def allowed(state, limit=None, may_end=True):
    mask = state.allowed(limit, may_end)
    assert mask.dtype == np.bool_
    return [FULL.word(int(id)) for id in np.flatnonzero(mask)]


def after(rules, *words):
    return State(rules).advance(*map(FULL.id, words))


def walk(rules, vocabulary, limit, random, steps):
    """Random words, each of them allowed, up to the piece's end, and the state before it."""
    state, words = State(rules), []
    while PIECE_END not in words[-1:] and len(words) < steps:
        ids = np.flatnonzero(state.allowed(limit, random.random() < 0.3))
        if not len(ids):
            break
        id = random.choice(ids.tolist())
        words.append(vocabulary.word(id))
        if words[-1] != PIECE_END:
            state.advance(id)
    return words, state


@settings(deadline=None, max_examples=200)
@given(vocabularies, limits, st.sampled_from([1, 480, 3000]), st.integers(1, 4), randoms)
def test_a_walk_keeps_the_rules(vocabulary, limit, longest, most, random):
    rules = event_rules(vocabulary, longest, most)
    words, _ = walk(rules, vocabulary, limit, random, 80)
    begin = length = now = heard = 0
    sounding, notes, last, bare = set(), 0, (None, 0), 0
    for kind, number, _ in (parse(word) or (None, 0, 0) for word in words):
        if kind == BAR_LINE:
            assert last[0] != AT
            assert last[0] != BAR_LINE or (notes and begin + length <= heard + longest)
            begin, length = begin + length, number or length
            assert length > 0
            now = begin
        elif kind == AT:
            assert last[0] is not None and last[0] != AT
            assert number < length and (begin + number > now or last[0] == BAR_LINE)
            now, bare = begin + number, bare + 1
        elif kind is not None:
            assert last[0] not in (None, BAR_LINE)
            assert last[0] == AT or last < (kind, number)
            assert kind == NOTE_ON or number in sounding
            assert limit is None or now < limit or (now == limit and kind == NOTE_OFF)
            notes += kind == NOTE_ON
            (sounding.add if kind == NOTE_ON else sounding.remove)(number)
            heard = now
        elif notes:  # else there is no way on
            assert last[0] in (NOTE_OFF, NOTE_ON) or limit is not None
        last = (kind, number)


@settings(deadline=None, max_examples=50)
@given(pieces(), meters)
def test_what_pieces_are_made_of_is_allowed(piece, meter):
    """But for an empty bar in the beginning, and bars too short for any place."""
    tokenizer = EventTokenizer()
    words = tokenizer.words(with_meter(piece, meter))
    vocabulary = Vocabulary([*dict.fromkeys([PIECE_END, *words])])
    places = [number for kind, number, _ in map(parse, words[:-1]) if kind == AT]
    state = State(event_rules(vocabulary, 10**6))
    for before, word in zip(["", *words], words, strict=False):
        kind, number, _ = parse(word) or (None, 0, 0)
        empty = state.notes == 0 and before.startswith("bar")
        length = number or state.length
        if not (kind == BAR_LINE and (empty or length <= min(places))):
            assert state.allowed()[vocabulary.id(word)]
        if word != PIECE_END:
            state.advance(vocabulary.id(word))


def test_what_may_follow_by_example():
    rules = event_rules(FULL, longest_note=1300)
    ons = ["on-60", "on-61", "on-67"]
    bars = ["bar-480", "bar-960", "bar-1920", "bar"]
    begun = ("bar-960", "at-240", "on-60", "on-61")
    for words, expected in (
        ((), bars[:3]),
        (("bar-960",), ["at-0", "at-240", "at-480"]),
        (("bar-960", "at-240"), ons),
        (begun[:3], [PIECE_END, "on-61", "on-67", "at-480", *bars]),
        (begun, [PIECE_END, "on-67", "at-480", *bars]),
        ((*begun, "bar"), ["at-0", "at-240", "at-480"]),  # the next would be over 1300 after
        ((*begun, "at-480"), ["off-60", "off-61", *ons]),
        ((*begun, "at-480", "off-60"), [PIECE_END, "off-61", *ons, *bars]),
        ((*begun, "at-480", "off-61"), [PIECE_END, *ons, *bars]),
        ((*begun, "bar-480"), ["at-0", "at-240", *bars]),
        ((*begun, "bar-480", "at-0", "on-67"), [PIECE_END, "at-240", *bars]),
        (
            (*begun, "bar-480", "bar-960"),
            ["at-0", "at-240", "at-480"],
        ),
        ((*begun, "bar-480", "at-0", "off-60", "bar-960", "at-0"), ["off-61", *ons]),
        ((*begun, "bar-480", "at-240", "off-60", "bar-960", "at-0"), ["off-61", *ons]),
        ((*begun, "bar-480", "at-240", "off-60", "bar-960", "at-240"), ons),  # 61 is too old
    ):
        assert allowed(after(rules, *words)) == expected, words
    assert PIECE_END not in allowed(after(rules, *begun), may_end=False)


def test_a_limit_leaves_room_for_ends_alone():
    rules = event_rules(FULL, longest_note=5000)
    begun = ("bar-960", "at-240", "on-60")
    assert allowed(after(rules, *begun), limit=480) == [*(PIECE_END, "on-61", "on-67", "at-480")]
    assert allowed(after(rules, *begun, "at-480"), limit=480) == ["off-60"]
    assert allowed(after(rules, *begun), limit=241) == [PIECE_END, "on-61", "on-67"]
    done = after(rules, *begun, "at-480", "off-60")
    assert allowed(done, limit=960, may_end=False) == ["on-60", "on-61", "on-67"]
    assert allowed(done, limit=480, may_end=False) == [PIECE_END]
    held = after(rules, *begun)
    assert "bar-480" in allowed(held, limit=960)
    assert "bar-480" not in allowed(held, limit=959)


def test_a_note_without_an_end_is_none_that_ends_at_the_limit():
    vocabulary = Vocabulary([PIECE_END, "bar-960", "at-0", "at-480", "on-60", "off-60", "on-61"])
    for pitch, ends in ((60, True), (61, False)):
        state = State(event_rules(vocabulary, 3000))
        state.advance(*(vocabulary.id(word) for word in ("bar-960", "at-0", f"on-{pitch}")))
        assert state.allowed(limit=480)[vocabulary.id("at-480")] == ends


def test_the_oldest_note_makes_room():
    rules = event_rules(FULL, longest_note=5000, most_notes=2)
    state = after(rules, "bar-960", "at-0", "on-60", "on-67", "at-240", "on-61", "at-480")
    assert allowed(state)[:2] == ["off-61", "off-67"]
    assert state.sounding == {67: 0, 61: 240}


def test_lengths_are_those_of_merged_messages():
    rules = event_rules(FULL, longest_note=5000)
    state = after(rules, "bar-960", "at-0", "on-60")
    assert not is_empty(state.piece) and is_empty(after(rules, "bar-960", "at-0").piece)
    assert not may_end(rules, state.piece)
    state.piece.now = SHORTEST
    assert may_end(rules, state.piece)
    state.piece.asked_ticks = SHORTEST + 960  # a bar of its own meter
    assert leaves_room(rules, state.piece)
    state.piece.asked_ticks -= 1
    assert not leaves_room(rules, state.piece)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([960, 3840]), randoms)
def test_a_limit_is_kept(limit, random):
    words, _ = walk(event_rules(FULL, 2000), FULL, limit, random, 500)
    assert len(words) < 500
    for track in EventTokenizer().piece(words, "").tracks:
        assert notes_of(track)[:, 0].max() < limit


@pytest.mark.parametrize("words", [[PIECE_END], ["bar-480"], ["bar-480", "at-480", "on-60"]])
def test_a_vocabulary_that_leads_nowhere_ends(words):
    state = State(event_rules(Vocabulary(words), 480))
    allowed = np.flatnonzero(state.allowed(None, False)).tolist()
    assert allowed == ([0] if PIECE_END in words else [])
