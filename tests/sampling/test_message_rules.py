import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_states import State

from lstm_music.midi.piece import NOTE_OFF, NOTE_ON, WHOLE_NOTE, notes_of
from lstm_music.midi.repair import tidy_track
from lstm_music.sampling.automaton import is_empty, is_full, leaves_room, may_end
from lstm_music.sampling.rules import NONE, SHORTEST
from lstm_music.sampling.rules import NOTE_ON as STRIKES
from lstm_music.sampling.rules import PIECE_END as END_OF_PIECE
from lstm_music.sampling.rules import TRACK_END as END_OF_TRACK
from lstm_music.sampling.sampler import most_tokens
from lstm_music.sampling.word_rules import chord_rules, message_rules
from lstm_music.tokenizers.messages import (
    PIECE_END,
    SPECIALS,
    TRACK_END,
    MessageTokenizer,
    parse,
    spell,
)
from lstm_music.tokenizers.vocabulary import Vocabulary

BAR = WHOLE_NOTE

layouts = pytest.mark.parametrize("layout", ["flatten", "merge"])
notes = st.builds(
    spell, st.integers(0, 1), st.sampled_from([0, 60, 127]), st.sampled_from([0, 1, 120, 480, 3000])
)
limits = st.one_of(st.none(), st.sampled_from([0, 1, 480, 1920]))

FULL = Vocabulary(
    [*SPECIALS, *(spell(k, p, d) for k in (0, 1) for p in range(60, 65) for d in (0, 60, 240))]
)


@st.composite
def vocabularies(draw):
    """From nothing at all to a few dozen words, with or without the specials."""
    specials = draw(st.sampled_from([(), SPECIALS, SPECIALS, SPECIALS, SPECIALS[:1], SPECIALS[1:]]))
    return Vocabulary([*specials, *draw(st.lists(notes, unique=True, max_size=30))])


# The rules once more, a word at a time.


def obeys(word, state, layout, vocabulary, limit, may_end):
    message = parse(word)
    flatten = layout == "flatten"
    if message is not None:
        if flatten and state.notes == 0 and state.tracks >= state.rules.max_tracks and may_end:
            return False
        return obeys_for_a_note(*message, state, vocabulary, limit)
    late_enough = limit is None or state.now >= limit - 480
    complete = state.notes > 0 and late_enough
    if word == TRACK_END:
        return flatten and complete
    if flatten:
        return may_end and state.tracks > 0 and state.notes == 0
    return may_end and state.notes > 0


def obeys_for_a_note(kind, pitch, delta, state, vocabulary, limit):
    then = state.now + delta
    if limit is not None and (then > limit or (kind == NOTE_ON and then == limit)):
        return False
    if kind == NOTE_OFF:
        start = state.sounding.get(pitch)
        return start is not None and then - start <= state.rules.longest_note
    if state.sounding.get(pitch) == state.now:
        return False
    return any((parse(word) or ())[:2] == (NOTE_OFF, pitch) for word in vocabulary.words)


def ways_out(state, layout, vocabulary):
    in_track = layout == "flatten" and state.notes > 0
    for word in (TRACK_END, PIECE_END) if in_track else (PIECE_END,):
        if vocabulary.get(word) is not None:
            return {word}
    return set()


def expected(state, layout, vocabulary, limit, may_end):
    how = (layout, vocabulary, limit, may_end)
    obedient = {word for word in vocabulary.words if obeys(word, state, *how)}
    return obedient or ways_out(state, layout, vocabulary)


def words_allowed(vocabulary, state, limit, may_end):
    mask = state.allowed(limit, may_end)
    assert mask.dtype == np.bool_ and mask.shape == (len(vocabulary),)
    return {vocabulary.word(id) for id in np.flatnonzero(mask)}


@layouts
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_the_mask_follows_the_rules_along_any_path(layout, data):
    vocabulary = data.draw(vocabularies())
    limit, longest = data.draw(limits), data.draw(st.sampled_from([0, 120, 1000, 10**9]))
    state = State(message_rules(vocabulary, layout, longest, data.draw(st.integers(1, 2))))
    for _ in range(data.draw(st.integers(1, 25))):
        may_end = data.draw(st.booleans())
        words = expected(state, layout, vocabulary, limit, may_end)
        assert words_allowed(vocabulary, state, limit, may_end) == words
        if not words:
            break
        # Now and then what no rule allows, as a primer may hold.
        stray = data.draw(st.integers(0, 9)) == 0
        word = data.draw(st.sampled_from(vocabulary.words if stray else sorted(words)))
        if word == PIECE_END:
            break
        state.advance(vocabulary.id(word))


@layouts
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_walk_holds_no_orphan_and_no_empty_track(layout, data):
    vocabulary = data.draw(st.one_of(vocabularies(), st.just(FULL)))
    limit, longest = data.draw(limits), data.draw(st.sampled_from([1, 240, 1920]))
    rules = message_rules(vocabulary, layout, longest, 3, data.draw(st.integers(1, 5)))
    words = walk(rules, vocabulary, limit, data.draw(st.randoms()), steps=60)
    has_track_end = layout == "flatten" and vocabulary.get(TRACK_END) is not None
    check_order(words, has_track_end)


@layouts
@settings(deadline=None, max_examples=200)
@given(random=st.randoms(), longest=st.sampled_from([1, 60, 300, 960]), most=st.integers(1, 4))
def test_the_state_knows_what_sounds_in_the_tidied_track(layout, random, longest, most):
    rules = message_rules(FULL, layout, longest, 9, most)
    state, words = State(rules), []
    for _ in range(60):
        notes_only = state.allowed(may_end=True) & (rules.kinds <= STRIKES)
        # A note of length zero, which is dropped, makes room all the same: leave them out.
        struck = [pitch for pitch, start in state.sounding.items() if start == state.now]
        off = rules.kinds == NOTE_OFF
        at_once = off & (rules.deltas == 0) & np.isin(rules.numbers, struck)
        ids = np.flatnonzero(notes_only & ~at_once).tolist()
        if not ids:
            break
        id = random.choice(ids)
        state.advance(id)
        words.append(FULL.word(id))
    for track in MessageTokenizer(layout).piece(words, "").tracks:
        sounding = {}
        for tick, kind, pitch in tidy_track(track, longest, most).tolist():
            if kind == NOTE_ON:
                sounding[pitch] = tick
            elif tick < state.now:
                del sounding[pitch]
        before = {pitch: start for pitch, start in sounding.items() if start < state.now}
        assert {p: s for p, s in state.sounding.items() if s < state.now}.items() <= before.items()


def walk(rules, vocabulary, limit, random, steps, may_end=True):
    """Random words, each of them allowed, up to the piece's end."""
    state, words = State(rules), []
    while PIECE_END not in words[-1:] and len(words) < steps:
        ids = np.flatnonzero(state.allowed(limit, may_end))
        if not len(ids):
            break
        id = random.choice(ids.tolist())
        words.append(vocabulary.word(id))
        if words[-1] != PIECE_END:
            state.advance(id)
    return words


def check_order(words, has_track_end):
    sounding, notes, tracks = set(), 0, 0
    for word in words:
        if word == TRACK_END:
            assert has_track_end and notes
            sounding, notes, tracks = set(), 0, tracks + 1
        elif word == PIECE_END:
            assert word is words[-1]
            assert len(words) == 1 or (tracks and not notes if has_track_end else notes)
        else:
            kind, pitch, _ = parse(word)
            assert kind == NOTE_ON or pitch in sounding
            notes += kind == NOTE_ON
            (sounding.add if kind == NOTE_ON else sounding.remove)(pitch)


@layouts
@settings(deadline=None, max_examples=50)
@given(random=st.randoms(), limit=st.sampled_from([None, 1920]))
def test_a_full_vocabulary_keeps_every_note_and_track_in_bounds(layout, random, limit):
    rules = message_rules(FULL, layout, longest_note=480, max_tracks=2, most_notes=2)
    words = walk(rules, FULL, limit, random, steps=150)
    piece = MessageTokenizer(layout).piece(words, "")
    assert len(piece.tracks) <= (2 if layout == "flatten" else 1)
    for track in piece.tracks:
        notes = notes_of(tidy_track(track, 480, 2))
        assert (notes[:, 1] - notes[:, 0]).max() <= 480
        if limit is not None:
            assert notes[:, 0].max() < limit


def test_a_track_goes_on_to_its_last_quarter_note_if_it_can():
    def words(now, limit=1920, layout="merge"):
        state = State(message_rules(FULL, layout, 480, 9), now=now, notes=1)
        return words_allowed(FULL, state, limit, may_end=True)

    assert PIECE_END in words(1)  # then another piece follows
    assert TRACK_END not in words(1439, layout="flatten")
    assert TRACK_END in words(1440, layout="flatten")
    assert PIECE_END in words(0, limit=None)
    # Nothing fits before the limit: the end is the way out.
    late = Vocabulary([PIECE_END, spell(NOTE_ON, 60, 3000), spell(NOTE_OFF, 60, 0)])
    state = State(message_rules(late, "merge", 480, 9), notes=1)
    assert words_allowed(late, state, 1920, may_end=True) == {PIECE_END}


def test_a_piece_ends_only_where_it_may():
    rules = message_rules(FULL, "flatten", 480, max_tracks=2)
    between = State(rules, tracks=1)
    assert PIECE_END not in words_allowed(FULL, between, None, may_end=False)
    assert PIECE_END in words_allowed(FULL, between, None, may_end=True)
    enough = State(rules, tracks=2)
    assert words_allowed(FULL, enough, None, may_end=True) == {PIECE_END}
    further = words_allowed(FULL, enough, None, may_end=False)
    assert further and all(parse(word)[0] == NOTE_ON for word in further)


def test_in_a_vocabulary_without_a_word_that_may_follow_there_is_none():
    for words in ([], ["note-on-60-0"], ["note-off-60-0"], [TRACK_END]):
        vocabulary = Vocabulary(words)
        state = State(message_rules(vocabulary, "flatten", 480, 9))
        assert words_allowed(vocabulary, state, None, may_end=True) == set()


def test_a_note_on_ends_its_own_pitch_and_past_the_most_notes_the_oldest():
    state = State(message_rules(FULL, "merge", 960, 9, most_notes=2))
    state.advance(*map(FULL.id, ("note-on-60-0", "note-on-61-60", "note-on-60-60")))
    assert state.sounding == {60: 120, 61: 60}
    state.advance(FULL.id("note-on-62-60"))
    assert state.sounding == {60: 120, 62: 180}
    state.advance(FULL.id("note-on-63-0"))
    assert state.sounding == {62: 180, 63: 180}
    state.advance(FULL.id("note-on-64-0"))  # none is older: a chord is a chord
    assert state.sounding == {62: 180, 63: 180, 64: 180}


def test_what_sounds_without_an_end_in_the_vocabulary_ends_with_its_track():
    for words, layout, way_out in (
        ([PIECE_END, TRACK_END], "flatten", TRACK_END),
        ([PIECE_END], "flatten", PIECE_END),
        ([PIECE_END, TRACK_END], "merge", PIECE_END),
    ):
        vocabulary = Vocabulary(words)
        rules = message_rules(vocabulary, layout, 480, 9)
        unending = State(rules, now=10, sounding={60: 0}, notes=1)
        assert words_allowed(vocabulary, unending, None, may_end=False) == {way_out}


def test_the_end_of_a_track_clears_what_was_in_it():
    rules = message_rules(FULL, "flatten", 480, 9)
    state = State(rules, now=10, sounding={60: 0}, notes=1, tracks=1)
    state.advance(FULL.id(TRACK_END))
    assert (state.now, state.notes, state.tracks, state.sounding) == (0, 0, 2, {})
    assert state.phase == rules.phase


def test_rules_know_what_their_words_mean():
    vocabulary = Vocabulary([TRACK_END, "note-on-7-30", "note-off-9-0", PIECE_END])
    rules = message_rules(vocabulary, "merge", 1, 1)
    assert rules.kinds.tolist() == [END_OF_TRACK, STRIKES, NOTE_OFF, END_OF_PIECE]
    assert rules.numbers.tolist() == [0, 7, 9, 0]
    assert rules.steps.tolist() == [0, 30, 0, 0]
    assert rules.deltas.tolist() == [0, NONE, 0, 0]  # the note has no end
    assert rules.start == 3


def test_a_vocabulary_of_other_words_is_refused():
    with pytest.raises(ValueError, match="not a message"):
        message_rules(Vocabulary(["60-64-67"]), "flatten", 480, 9)


# Lengths ----------------------------------------------------------------------------------------


def ask(question, rules, **fields):
    """The answer of a function of the rules about a piece with these fields."""
    return bool(question(rules, State(rules, **fields).piece))


@layouts
def test_messages_end_where_the_length_asked_for_lets_them(layout):
    rules = message_rules(FULL, layout, 480, 9)
    early, late = SHORTEST - 1, SHORTEST
    for now in (early, late):
        # The last of a number of tokens is no end.
        assert not ask(may_end, rules, now=now, asked_tokens=1)
        assert ask(may_end, rules, now=now, asked_tokens=2)
        assert ask(may_end, rules, now=now, asked_ticks=1)
        assert not ask(is_full, rules, now=now, asked_tokens=1)
        assert ask(is_full, rules, now=now, asked_tokens=9, tokens=9)
    assert ask(may_end, rules, now=early) == (layout == "flatten")
    assert ask(may_end, rules, now=late)


@layouts
def test_after_messages_another_piece_follows_where_a_token_or_a_bar_is_left(layout):
    rules, now = message_rules(FULL, layout, 480, 9), BAR + 1
    assert ask(leaves_room, rules, now=now, asked_tokens=2)
    assert not ask(leaves_room, rules, now=now, asked_tokens=1)
    assert not ask(leaves_room, rules, now=now)
    assert ask(leaves_room, rules, now=now, asked_ticks=3 * BAR) == (layout == "merge")
    assert not ask(leaves_room, rules, now=now, asked_ticks=3 * BAR - 1)


@layouts
def test_the_most_messages_grow_with_the_limit(layout):
    rules = message_rules(FULL, layout, 480, 9)
    assert most_tokens(rules, None, None) == 2000
    assert most_tokens(rules, 7, None) == 7
    assert most_tokens(rules, None, 480) == 20_000
    assert most_tokens(rules, None, 480 * 1000) == 128_000


# Chords -----------------------------------------------------------------------------------------

CHORDS = Vocabulary([PIECE_END, "rest", "60", "60-64"])


def test_any_chord_may_follow_any_other():
    state = State(chord_rules(CHORDS, 240))
    for n, id in enumerate((2, 2, 1, 3)):
        assert is_empty(state.piece) == (n == 0)
        assert state.now == n * 240
        assert words_allowed(CHORDS, state, None, False) == {"rest", "60", "60-64"}
        assert words_allowed(CHORDS, state, 9999, True) == set(CHORDS.words)
        state.advance(id)


def test_chords_end_after_eight_bars_or_where_a_bar_line_is_left_for_another_piece():
    rules, room = chord_rules(CHORDS, 240), {"asked_ticks": 2 * BAR}

    def at(question, now, **fields):
        return ask(question, rules, now=now, notes=now // 240, **fields)

    assert not at(may_end, SHORTEST - 240)
    assert at(may_end, SHORTEST)
    assert not at(leaves_room, SHORTEST)
    assert not at(is_full, SHORTEST)
    assert not at(may_end, 0, **room)
    ends = [True, True, False]
    assert [at(may_end, t, **room) for t in (240, BAR, BAR + 240)] == ends
    assert [at(leaves_room, t, **room) for t in (240, BAR, BAR + 240)] == ends
    assert [at(is_full, t, **room) for t in (BAR, 2 * BAR - 240, 2 * BAR)] == [0, 0, 1]


def test_the_most_chords_are_the_frames_and_an_end_at_each_bar_line():
    rules = chord_rules(CHORDS, 480)
    assert most_tokens(rules, None, None) == 2000
    assert most_tokens(rules, None, 10 * BAR) == 40 + 10


@layouts
def test_a_note_struck_now_sounds_however_short_notes_may_be(layout):
    state = State(message_rules(FULL, layout, longest_note=0, max_tracks=2, most_notes=2))
    state.advance(FULL.id(spell(NOTE_ON, 60, 60)))
    assert state.sounding == {60: 60}
    state.advance(FULL.id(spell(NOTE_ON, 61, 60)))
    assert state.sounding == {61: 120}


def test_the_shortest_piece_is_of_eight_bars():
    assert SHORTEST == 8 * 4 * 480
