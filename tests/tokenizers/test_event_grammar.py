from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_events import meters, with_meter
from test_messages import pieces

from lstm_music.midi import NOTE_OFF, NOTE_ON, notes_of
from lstm_music.tokenizers.event_grammar import EventGrammar
from lstm_music.tokenizers.events import AT, BAR_LINE, EventTokenizer, parse
from lstm_music.tokenizers.grammar import SHORTEST, Room
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


def allowed(grammar, state, limit=None, may_end=True):
    mask = grammar.allowed(state, limit, may_end)
    assert mask.dtype == np.bool_
    return [FULL.word(int(id)) for id in np.flatnonzero(mask)]


def after(grammar, *words):
    state = grammar.start()
    for word in words:
        grammar.advance(state, FULL.id(word))
    return state


def walk(grammar, vocabulary, limit, random, steps):
    """Random words, each of them allowed, and the state that they lead to."""
    state, words = grammar.start(), []
    while not state.finished and len(words) < steps:
        ids = np.flatnonzero(grammar.allowed(state, limit, random.random() < 0.3))
        assert state.finished == (len(ids) == 0)
        if len(ids):
            id = random.choice(ids.tolist())
            grammar.advance(state, id)
            words.append(vocabulary.word(id))
    return words, state


@settings(deadline=None, max_examples=200)
@given(vocabularies, limits, st.sampled_from([1, 480, 3000]), st.integers(1, 4), randoms)
def test_a_walk_keeps_the_rules(vocabulary, limit, longest, most, random):
    grammar = EventGrammar(vocabulary, longest, most)
    words, state = walk(grammar, vocabulary, limit, random, 80)
    assert len(words) == 80 or state.finished
    begin = length = now = heard = 0
    sounding, notes, last, bare = set(), 0, (None, 0), 0
    for kind, number in (parse(word) or (None, 0) for word in words):
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
    grammar = EventGrammar(vocabulary, 10**6)
    places = [number for kind, number in map(parse, words[:-1]) if kind == AT]
    state = grammar.start()
    for before, word in zip(["", *words], words, strict=False):
        kind, number = parse(word) or (None, 0)
        empty = state.notes == 0 and before.startswith("bar")
        length = number or state.length
        if not (kind == BAR_LINE and (empty or length <= min(places))):
            assert grammar.allowed(state, None, True)[vocabulary.id(word)]
        grammar.advance(state, vocabulary.id(word))
    assert state.finished


def test_what_may_follow_by_example():
    grammar = EventGrammar(FULL, longest_note=1300)
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
        assert allowed(grammar, after(grammar, *words)) == expected, words
    state = after(grammar, *begun)
    assert PIECE_END not in allowed(grammar, state, may_end=False)
    assert allowed(grammar, after(grammar, *begun, PIECE_END)) == []


def test_a_limit_leaves_room_for_ends_alone():
    grammar = EventGrammar(FULL, longest_note=5000)
    begun = ("bar-960", "at-240", "on-60")
    assert allowed(grammar, after(grammar, *begun), limit=480) == [
        *(PIECE_END, "on-61", "on-67", "at-480")
    ]
    at_limit = after(grammar, *begun, "at-480")
    assert allowed(grammar, at_limit, limit=480) == ["off-60"]
    assert allowed(grammar, after(grammar, *begun), limit=241) == [PIECE_END, "on-61", "on-67"]
    done = after(grammar, *begun, "at-480", "off-60")
    assert allowed(grammar, done, limit=960, may_end=False) == ["on-60", "on-61", "on-67"]
    assert allowed(grammar, done, limit=480, may_end=False) == [PIECE_END]
    held = after(grammar, *begun)
    assert "bar-480" in allowed(grammar, held, limit=960)
    assert "bar-480" not in allowed(grammar, held, limit=959)


def test_the_oldest_note_makes_room():
    grammar = EventGrammar(FULL, longest_note=5000, most_notes=2)
    state = after(grammar, "bar-960", "at-0", "on-60", "on-67", "at-240", "on-61", "at-480")
    assert allowed(grammar, state)[:2] == ["off-61", "off-67"]
    assert state.sounding == {67: 0, 61: 240}


def test_lengths_are_those_of_merged_messages():
    grammar = EventGrammar(FULL, longest_note=5000)
    state = after(grammar, "bar-960", "at-0", "on-60")
    assert not grammar.is_empty(state) and grammar.is_empty(after(grammar, "bar-960", "at-0"))
    assert not grammar.may_end(state, Room(None, None))
    state.now = SHORTEST
    assert grammar.may_end(state, Room(None, None))
    assert grammar.leaves_room(state, Room(None, SHORTEST + 960))  # a bar of its own meter
    assert not grammar.leaves_room(state, Room(None, SHORTEST + 959))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([960, 3840]), randoms)
def test_a_limit_is_kept(limit, random):
    words, _ = walk(EventGrammar(FULL, 2000), FULL, limit, random, 500)
    assert len(words) < 500
    for track in EventTokenizer().piece(words, "").tracks:
        assert notes_of(track)[:, 0].max() < limit


@pytest.mark.parametrize("words", [[PIECE_END], ["bar-480"], ["bar-480", "at-480", "on-60"]])
def test_a_vocabulary_that_leads_nowhere_ends(words):
    vocabulary = Vocabulary(words)
    grammar = EventGrammar(vocabulary, 480)
    state = grammar.start()
    assert np.flatnonzero(grammar.allowed(state, None, False)).tolist() == (
        [0] if PIECE_END in words else []
    )
    assert state.finished == (PIECE_END not in words)
