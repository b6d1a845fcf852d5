import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.midi import NOTE_OFF, NOTE_ON, notes_of, tidy_track
from lstm_music.tokenizers.grammar import (
    BAR,
    SHORTEST,
    ChordGrammar,
    GrammarState,
    MessageGrammar,
    Room,
    word_parts,
)
from lstm_music.tokenizers.messages import (
    PIECE_END,
    SPECIALS,
    TRACK_END,
    MessageTokenizer,
    parse,
    spell,
)
from lstm_music.tokenizers.vocabulary import Vocabulary

layouts = pytest.mark.parametrize("layout", ["flatten", "merge"])
notes = st.builds(
    spell, st.integers(0, 1), st.sampled_from([0, 60, 127]), st.sampled_from([0, 1, 120, 480, 3000])
)
limits = st.one_of(st.none(), st.sampled_from([0, 1, 480, 1920]))

FULL = Vocabulary(
    [*SPECIALS, *(spell(k, p, d) for k in (0, 1) for p in range(60, 65) for d in (0, 60, 240))]
)


def test_the_parts_of_words_are_numbered_without_gaps_and_specials_have_no_delta():
    words = [PIECE_END, "note-on-60-480", "note-off-60-0", "note-on-60-0", TRACK_END,
             "note-on-59-7", "note-off-61-480"]  # fmt: skip
    classes, deltas = word_parts(Vocabulary(words))
    assert classes.tolist() == [4, 3, 0, 3, 5, 2, 1]
    assert deltas.tolist() == [-1, 2, 0, 0, -1, 1, 2]


@st.composite
def vocabularies(draw):
    """From nothing at all to a few dozen words, with or without the specials."""
    specials = draw(st.sampled_from([(), SPECIALS, SPECIALS, SPECIALS, SPECIALS[:1], SPECIALS[1:]]))
    return Vocabulary([*specials, *draw(st.lists(notes, unique=True, max_size=30))])


# The rules once more, a word at a time.


def obeys(word, state, grammar, vocabulary, limit, may_end):
    message = parse(word)
    flatten = grammar.layout == "flatten"
    if message is not None:
        if flatten and state.notes == 0 and state.tracks >= grammar.max_tracks and may_end:
            return False
        return obeys_for_a_note(*message, state, grammar, vocabulary, limit)
    late_enough = limit is None or state.now >= limit - 480
    complete = state.notes > 0 and late_enough
    if word == TRACK_END:
        return flatten and complete
    if flatten:
        return may_end and state.tracks > 0 and state.notes == 0
    return may_end and state.notes > 0


def obeys_for_a_note(kind, pitch, delta, state, grammar, vocabulary, limit):
    then = state.now + delta
    if limit is not None and (then > limit or (kind == NOTE_ON and then == limit)):
        return False
    if kind == NOTE_OFF:
        start = state.sounding.get(pitch)
        return start is not None and then - start <= grammar.longest_note
    if state.sounding.get(pitch) == state.now:
        return False
    return any((parse(word) or ())[:2] == (NOTE_OFF, pitch) for word in vocabulary.words)


def ways_out(state, grammar, vocabulary):
    in_track = grammar.layout == "flatten" and state.notes > 0
    for word in (TRACK_END, PIECE_END) if in_track else (PIECE_END,):
        if vocabulary.get(word) is not None:
            return {word}
    return set()


def expected(state, grammar, vocabulary, limit, may_end):
    rules = (grammar, vocabulary, limit, may_end)
    obedient = {word for word in vocabulary.words if obeys(word, state, *rules)}
    return obedient or ways_out(state, grammar, vocabulary)


def words_allowed(grammar, vocabulary, state, limit, may_end):
    mask = grammar.allowed(state, limit, may_end)
    assert mask.dtype == np.bool_ and mask.shape == (len(vocabulary),)
    return {vocabulary.word(id) for id in np.flatnonzero(mask)}


@layouts
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_the_mask_follows_the_rules_along_any_path(layout, data):
    vocabulary = data.draw(vocabularies())
    limit, longest = data.draw(limits), data.draw(st.sampled_from([0, 120, 1000, 10**9]))
    grammar = MessageGrammar(vocabulary, layout, longest, data.draw(st.integers(1, 2)))
    state = grammar.start()
    for _ in range(data.draw(st.integers(1, 25))):
        may_end = data.draw(st.booleans())
        rules = expected(state, grammar, vocabulary, limit, may_end)
        assert words_allowed(grammar, vocabulary, state, limit, may_end) == rules
        assert state.finished == (not rules)
        if state.finished:
            break
        # Now and then what no rule allows, as a primer may hold.
        stray = data.draw(st.integers(0, 9)) == 0
        word = data.draw(st.sampled_from(vocabulary.words if stray else sorted(rules)))
        grammar.advance(state, vocabulary.id(word))
        if state.finished:
            assert word == PIECE_END
            break


@layouts
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_walk_holds_no_orphan_and_no_empty_track(layout, data):
    vocabulary = data.draw(st.one_of(vocabularies(), st.just(FULL)))
    limit, longest = data.draw(limits), data.draw(st.sampled_from([1, 240, 1920]))
    grammar = MessageGrammar(vocabulary, layout, longest, 3, data.draw(st.integers(1, 5)))
    words, _ = walk(grammar, vocabulary, limit, data.draw(st.randoms()), steps=60)
    has_track_end = layout == "flatten" and vocabulary.get(TRACK_END) is not None
    check_order(words, has_track_end)


@layouts
@settings(deadline=None, max_examples=200)
@given(random=st.randoms(), longest=st.sampled_from([1, 60, 300, 960]), most=st.integers(1, 4))
def test_the_state_knows_what_sounds_in_the_tidied_track(layout, random, longest, most):
    grammar = MessageGrammar(FULL, layout, longest, 9, most)
    state, words = grammar.start(), []
    for _ in range(60):
        notes_only = grammar.allowed(state, None, may_end=True) & (grammar.kind != 2)
        # A note of length zero, which is dropped, makes room all the same: leave them out.
        struck = [pitch for pitch, start in state.sounding.items() if start == state.now]
        at_once = (grammar.kind == 0) & (grammar.delta == 0) & np.isin(grammar.pitch, struck)
        ids = np.flatnonzero(notes_only & ~at_once).tolist()
        if not ids:
            break
        id = random.choice(ids)
        grammar.advance(state, id)
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


def walk(grammar, vocabulary, limit, random, steps, may_end=True):
    state, words = grammar.start(), []
    while not state.finished and len(words) < steps:
        ids = np.flatnonzero(grammar.allowed(state, limit, may_end))
        assert state.finished == (len(ids) == 0)
        if len(ids):
            id = random.choice(ids.tolist())
            grammar.advance(state, id)
            words.append(vocabulary.word(id))
    return words, state


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
    grammar = MessageGrammar(FULL, layout, longest_note=480, max_tracks=2, most_notes=2)
    words, _ = walk(grammar, FULL, limit, random, steps=150)
    piece = MessageTokenizer(layout).piece(words, "")
    assert len(piece.tracks) <= (2 if layout == "flatten" else 1)
    for track in piece.tracks:
        notes = notes_of(tidy_track(track, 480, 2))
        assert (notes[:, 1] - notes[:, 0]).max() <= 480
        if limit is not None:
            assert notes[:, 0].max() < limit


def test_a_track_goes_on_to_its_last_quarter_note_if_it_can():
    def words(now, limit=1920, layout="merge"):
        state = GrammarState(now=now, notes=1)
        return words_allowed(MessageGrammar(FULL, layout, 480, 9), FULL, state, limit, may_end=True)

    assert PIECE_END in words(1)  # then another piece follows
    assert TRACK_END not in words(1439, layout="flatten")
    assert TRACK_END in words(1440, layout="flatten")
    assert PIECE_END in words(0, limit=None)
    # Nothing fits before the limit: the end is the way out.
    late = Vocabulary([PIECE_END, spell(NOTE_ON, 60, 3000), spell(NOTE_OFF, 60, 0)])
    state = GrammarState(now=0, notes=1)
    grammar = MessageGrammar(late, "merge", 480, 9)
    assert words_allowed(grammar, late, state, 1920, may_end=True) == {PIECE_END}


def test_a_piece_ends_only_where_it_may():
    grammar = MessageGrammar(FULL, "flatten", 480, max_tracks=2)
    between = GrammarState(tracks=1)
    assert PIECE_END not in words_allowed(grammar, FULL, between, None, may_end=False)
    assert PIECE_END in words_allowed(grammar, FULL, between, None, may_end=True)
    enough = GrammarState(tracks=2)
    assert words_allowed(grammar, FULL, enough, None, may_end=True) == {PIECE_END}
    further = words_allowed(grammar, FULL, enough, None, may_end=False)
    assert further and all(parse(word)[0] == NOTE_ON for word in further)


def test_a_vocabulary_without_a_word_that_may_follow_finishes_the_piece():
    for words in ([], ["note-on-60-0"], ["note-off-60-0"], [TRACK_END]):
        vocabulary = Vocabulary(words)
        grammar = MessageGrammar(vocabulary, "flatten", 480, 9)
        state = grammar.start()
        assert words_allowed(grammar, vocabulary, state, None, may_end=True) == set()
        assert state.finished


def test_a_note_on_ends_its_own_pitch_and_past_the_most_notes_the_oldest():
    grammar = MessageGrammar(FULL, "merge", 960, 9, most_notes=2)
    state = grammar.start()
    for word in ("note-on-60-0", "note-on-61-60", "note-on-60-60"):
        grammar.advance(state, FULL.id(word))
    assert state.sounding == {60: 120, 61: 60}
    grammar.advance(state, FULL.id("note-on-62-60"))
    assert state.sounding == {60: 120, 62: 180}
    grammar.advance(state, FULL.id("note-on-63-0"))
    assert state.sounding == {62: 180, 63: 180}
    grammar.advance(state, FULL.id("note-on-64-0"))  # none is older: a chord is a chord
    assert state.sounding == {62: 180, 63: 180, 64: 180}


def test_what_sounds_without_an_end_in_the_vocabulary_ends_with_its_track():
    unending = GrammarState(now=10, sounding={60: 0}, notes=1)
    for words, layout, way_out in (
        ([PIECE_END, TRACK_END], "flatten", TRACK_END),
        ([PIECE_END], "flatten", PIECE_END),
        ([PIECE_END, TRACK_END], "merge", PIECE_END),
    ):
        vocabulary = Vocabulary(words)
        grammar = MessageGrammar(vocabulary, layout, 480, 9)
        assert words_allowed(grammar, vocabulary, unending, None, may_end=False) == {way_out}


def test_the_end_of_a_track_or_piece_clears_what_was_in_it():
    grammar = MessageGrammar(FULL, "flatten", 480, 9)
    state = GrammarState(now=10, sounding={60: 0}, notes=1, tracks=1)
    grammar.advance(state, FULL.id(TRACK_END))
    assert state == GrammarState(tracks=2)
    grammar.advance(state, FULL.id(PIECE_END))
    assert state == GrammarState(tracks=2, finished=True)


def test_a_copy_goes_its_own_way():
    grammar = MessageGrammar(FULL, "merge", 480, 9)
    state = grammar.start()
    copy = state.copy()
    grammar.advance(copy, FULL.id("note-on-60-60"))
    assert (state.now, state.sounding, state.notes) == (0, {}, 0)
    assert (copy.now, copy.sounding, copy.notes) == (60, {60: 60}, 1)


def test_a_grammar_shows_what_its_words_mean():
    grammar = MessageGrammar(Vocabulary([TRACK_END, "note-on-7-30", "note-off-9-0"]), "merge", 1, 1)
    assert grammar.kind.tolist() == [2, NOTE_ON, NOTE_OFF]
    assert grammar.pitch[1:].tolist() == [7, 9]
    assert grammar.delta.tolist() == [0, 30, 0]


def test_a_vocabulary_of_other_words_is_refused():
    with pytest.raises(ValueError, match="not a message"):
        MessageGrammar(Vocabulary(["60-64-67"]), "flatten", 480, 9)


# Lengths ----------------------------------------------------------------------------------------


@layouts
def test_messages_end_where_the_length_asked_for_lets_them(layout):
    grammar = MessageGrammar(FULL, layout, 480, 9)
    early, late = GrammarState(now=SHORTEST - 1), GrammarState(now=SHORTEST)
    for state in (early, late):
        assert not grammar.may_end(state, Room(1, None))  # the last of a number of tokens
        assert grammar.may_end(state, Room(2, None))
        assert grammar.may_end(state, Room(None, 1))
        assert not grammar.is_full(state, Room(1, None))
        assert grammar.is_full(state, Room(0, None))
    assert grammar.may_end(early, Room(None, None)) == (layout == "flatten")
    assert grammar.may_end(late, Room(None, None))


@layouts
def test_after_messages_another_piece_follows_where_a_token_or_a_bar_is_left(layout):
    grammar = MessageGrammar(FULL, layout, 480, 9)
    state = GrammarState(now=BAR + 1)
    assert grammar.leaves_room(state, Room(2, None))
    assert not grammar.leaves_room(state, Room(1, None))
    assert not grammar.leaves_room(state, Room(None, None))
    assert grammar.leaves_room(state, Room(None, 3 * BAR)) == (layout == "merge")
    assert not grammar.leaves_room(state, Room(None, 3 * BAR - 1))


@layouts
def test_the_most_messages_grow_with_the_limit(layout):
    grammar = MessageGrammar(FULL, layout, 480, 9)
    assert grammar.most(None, None) == 2000
    assert grammar.most(7, None) == 7
    assert grammar.most(None, 480) == 20_000
    assert grammar.most(None, 480 * 1000) == 128_000


# Chords -----------------------------------------------------------------------------------------

CHORDS = Vocabulary([PIECE_END, "rest", "60", "60-64"])


def test_any_chord_may_follow_any_other():
    grammar = ChordGrammar(CHORDS, 240)
    state = grammar.start()
    assert grammar.begins.tolist() == [False, True, True, True]
    for n, id in enumerate((2, 2, 1, 3)):
        assert grammar.is_empty(state) == (n == 0)
        assert state.now == n * 240
        assert words_allowed(grammar, CHORDS, state, None, False) == {"rest", "60", "60-64"}
        assert words_allowed(grammar, CHORDS, state, 9999, True) == set(CHORDS.words)
        grammar.advance(state, id)
    grammar.advance(state, 0)
    assert state.finished
    assert not words_allowed(grammar, CHORDS, state, None, True)


def test_chords_end_after_eight_bars_or_where_a_bar_line_is_left_for_another_piece():
    grammar = ChordGrammar(CHORDS, 240)
    none, room = Room(None, None), Room(None, 2 * BAR)

    def at(now):
        return GrammarState(now=now, notes=now // 240)

    assert not grammar.may_end(at(SHORTEST - 240), none)
    assert grammar.may_end(at(SHORTEST), none)
    assert not grammar.leaves_room(at(SHORTEST), none)
    assert not grammar.is_full(at(SHORTEST), none)
    assert not grammar.may_end(at(0), room)
    assert [grammar.may_end(at(t), room) for t in (240, BAR, BAR + 240)] == [True, True, False]
    assert [grammar.leaves_room(at(t), room) for t in (240, BAR, BAR + 240)] == [True, True, False]
    assert [grammar.is_full(at(t), room) for t in (BAR, 2 * BAR - 240, 2 * BAR)] == [0, 0, 1]


def test_the_most_chords_are_the_frames_and_an_end_at_each_bar_line():
    grammar = ChordGrammar(CHORDS, 480)
    assert grammar.most(None, None) == 2000
    assert grammar.most(None, 10 * BAR) == 40 + 10


@layouts
def test_a_note_struck_now_sounds_however_short_notes_may_be(layout):
    grammar = MessageGrammar(FULL, layout, longest_note=0, max_tracks=2, most_notes=2)
    state = GrammarState()
    grammar.advance(state, FULL.id(spell(NOTE_ON, 60, 60)))
    assert state.sounding == {60: 60}
    grammar.advance(state, FULL.id(spell(NOTE_ON, 61, 60)))
    assert state.sounding == {61: 120}


def test_the_shortest_piece_is_of_eight_bars():
    assert SHORTEST == 8 * 4 * 480
