"""The rules of performances: walks that keep them, real pieces that do, and by example."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_states import State
from test_messages import pieces

from lstm_music.midi.piece import NOTE_OFF, NOTE_ON, Piece
from lstm_music.midi.playing import played_tempo
from lstm_music.sampling.word_rules import performance_rules
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.performance import (
    PART,
    SHIFT,
    STEP,
    VELOCITY,
    PerformanceTokenizer,
    parse,
)
from lstm_music.tokenizers.vocabulary import Vocabulary

TOKENIZER = PerformanceTokenizer()
ALL = [
    PIECE_END,
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in (60, 61, 67)),
    *("shift-1", "shift-24", "shift-100", "velocity-4", "velocity-20"),
]
IN_PARTS = [
    PIECE_END,
    *(f"{kind}-{pitch}{drums}" for kind in ("off", "on") for pitch in (60, 61)
      for drums in ("", "/3")),
    *("shift-1", "shift-24", "shift-100", "velocity-4", "velocity-4/3", "part-1", "part-2"),
]  # fmt: skip
FULL = Vocabulary(ALL)
SHIFTS, VELOCITIES, ONS = ALL[7:10], ALL[10:], ["on-60", "on-61", "on-67"]
randoms = st.integers(0, 2**32 - 1).map(Random)  # evener than st.randoms()
limits = st.sampled_from([None, 10, 480, 1000, 3840])
vocabularies = st.one_of(
    st.just(FULL),
    *(st.lists(st.sampled_from(words), unique=True).map(Vocabulary) for words in (ALL, IN_PARTS)),
)


def walk(rules, vocabulary, limit, random, steps):
    """Random words, each of them allowed, up to the piece's end."""
    state, words = State(rules), []
    while PIECE_END not in words[-1:] and len(words) < steps:
        ids = np.flatnonzero(state.allowed(limit, random.random() < 0.3))
        if not len(ids):
            break
        id = random.choice(ids.tolist())
        words.append(vocabulary.word(id))
        if words[-1] != PIECE_END:
            state.advance(id)
    return words


@settings(deadline=None, max_examples=200)
@given(
    vocabularies, limits, st.sampled_from([10, 480, 3000]), st.sampled_from([0, 240, 1500]), randoms
)
def test_a_walk_keeps_the_rules(vocabulary, limit, longest, pause, random):
    rules = performance_rules(vocabulary, longest, 3, pause)
    words = walk(rules, vocabulary, limit, random, 80)
    now = heard = current = 0
    began, last, struck, notes = {}, None, set(), 0
    for kind, *told in (parse(word) or (None, 0, 0) for word in words):
        note = told[0], told[1] or current  # of two parts, two
        if kind == SHIFT:
            assert last in (SHIFT, NOTE_OFF, NOTE_ON)
            now, struck = now + note[0] * STEP, set()
            assert now <= heard + pause
            assert limit is None or now <= limit
        elif kind == PART:
            assert last not in (PART, VELOCITY)
            assert limit is None or now < limit
            current = note[0]
            after_offs = last in (SHIFT, NOTE_OFF)
        elif kind == VELOCITY:
            assert last != VELOCITY
            assert current or ("part-1" not in words and "part-2" not in words)
            assert limit is None or now < limit
        elif kind == NOTE_OFF:
            assert last in (SHIFT, NOTE_OFF) or (last == PART and after_offs)
            assert now - began.pop(note) <= longest
        elif kind == NOTE_ON:
            assert last is not None
            assert note not in struck
            assert limit is None or now < limit
            began[note] = now
            struck.add(note)
            notes += 1
        elif notes and limit is None and last not in (VELOCITY, PART):
            assert last in (NOTE_OFF, NOTE_ON)
        heard = now if kind in (NOTE_OFF, NOTE_ON) else heard
        last = kind


@settings(deadline=None, max_examples=50)
@given(pieces(), st.integers(0, 2**31))
def test_what_pieces_are_made_of_is_allowed(piece, seed):
    rng = np.random.default_rng(seed)
    loud = tuple(rng.integers(1, 128, len(track) // 2) for track in piece.tracks)
    piece = Piece("p", piece.tracks, velocities=loud, tempo=played_tempo())
    words = TOKENIZER.words(piece)
    vocabulary = Vocabulary([*dict.fromkeys([PIECE_END, *words])])
    (track,) = TOKENIZER.tracks(piece)
    pause = int(np.diff(track[:, 0]).max(initial=0))
    state = State(performance_rules(vocabulary, 10**6, 128, pause))
    for word in words:
        assert state.allowed()[vocabulary.id(word)]
        if word != PIECE_END:
            state.advance(vocabulary.id(word))


def allowed(rules, *words, **asked):
    state = State(rules).advance(*map(FULL.id, words))
    return [FULL.word(int(id)) for id in np.flatnonzero(state.allowed(**asked))]


def test_what_may_follow_by_example():
    rules = performance_rules(FULL, longest_note=1300, most_notes=9, longest_pause=1250)
    begun = ("velocity-20", "on-60", "on-61")
    offs = ["off-60", "off-61"]
    for words, expected in (
        ((), VELOCITIES),
        (("velocity-20",), ONS),
        (begun, [PIECE_END, "on-67", *SHIFTS, *VELOCITIES]),
        ((*begun, "velocity-4"), ["on-67"]),
        ((*begun, "shift-24"), [*offs, *ONS, *SHIFTS, *VELOCITIES]),
        ((*begun, "shift-24", "off-61"), [PIECE_END, "off-60", *ONS, *SHIFTS, *VELOCITIES]),
        # The pause is 1.25 s at most.
        ((*begun, "shift-100"), [*offs, *ONS, *SHIFTS[:2], *VELOCITIES]),
        ((*begun, "shift-100", "shift-24"), [*offs, *ONS, "shift-1", *VELOCITIES]),
        ((*begun, "shift-100", "shift-24", "shift-1"), [*offs, *ONS, *VELOCITIES]),
        # A note is 1.3 s long at most.
        ((*begun, "shift-100", "off-60", "shift-24", "shift-24"), [*ONS, *SHIFTS[:2], *VELOCITIES]),
    ):
        assert allowed(rules, *words) == expected, words
    assert PIECE_END not in allowed(rules, *begun, may_end=False)


def test_of_parts_no_number_of_notes_is_too_many_and_each_ends_its_own():
    vocabulary = Vocabulary(IN_PARTS)
    words = (
        *("part-2", "velocity-4", "on-60", "on-61", "part-1", "velocity-4", "on-60"),
        *("velocity-4/3", "on-60/3", "shift-1"),
    )
    rules = performance_rules(vocabulary, longest_note=900, most_notes=1, longest_pause=900)
    state = State(rules).advance(*map(vocabulary.id, words))
    assert sorted(state.sounding) == [128 + 60, 2 * 128 + 60, 2 * 128 + 61, 3 * 128 + 60]
    for word, ends in (
        ("off-60/3", ["off-60"]), ("part-2", ["off-60", "off-61"]), ("off-60", ["off-61"]),
        ("part-1", ["off-60"]),
    ):  # fmt: skip
        state.advance(vocabulary.id(word))
        may = [vocabulary.word(int(id)) for id in np.flatnonzero(state.allowed())]
        assert [word for word in may if word.startswith("off")] == ends


def test_what_may_follow_a_part_by_example():
    """Who plays is told first of all, and before a note; among beginnings none ends."""
    vocabulary = Vocabulary(IN_PARTS)
    rules = performance_rules(vocabulary, longest_note=900, most_notes=1, longest_pause=900)
    parts, begun = ["part-1", "part-2"], ["part-2", "velocity-4", "on-60"]
    loud, ons = ["velocity-4", "velocity-4/3"], ["on-60", "on-60/3", "on-61", "on-61/3"]
    for words, expected in (
        ([], parts),
        (begun[:1], loud),
        (begun[:2], ons),
        ([*begun, "part-1"], [*ons, *loud]),
        ([*begun, "part-2"], [*ons[1:], *loud]),  # whom 60 has just been struck by
        ([*begun, "shift-1", "part-1"], [*ons, *loud]),
        ([*begun, "shift-1", "part-2"], ["off-60", *ons, *loud]),
        ([*begun, "shift-1", "off-60", "part-2"], [*ons, *loud]),
    ):
        state = State(rules).advance(*map(vocabulary.id, words))
        may = [vocabulary.word(int(id)) for id in np.flatnonzero(state.allowed())]
        assert sorted(may) == sorted(expected), words


def test_a_note_may_end_by_its_word_at_the_longest_age_and_ends_past_it_by_itself():
    rules = performance_rules(FULL, longest_note=1240, most_notes=9, longest_pause=5000)
    begun = ("velocity-20", "on-60", "shift-100", "shift-24")
    assert "off-60" in allowed(rules, *begun)
    assert "off-60" not in allowed(rules, *begun, "shift-1")


def test_notes_begin_before_a_limit_and_end_by_it():
    rules = performance_rules(FULL, longest_note=5000, most_notes=9, longest_pause=5000)
    begun = ("velocity-20", "on-60", "shift-24")
    assert allowed(rules, *begun, limit=240) == ["off-60"]
    assert allowed(rules, *begun, limit=250) == ["off-60", *ONS, "shift-1", *VELOCITIES]
    assert allowed(rules, *begun, "off-60", limit=240) == [PIECE_END]
    # At the limit nothing that sounds could end: the shift would be for nothing.
    assert "shift-1" not in allowed(rules, *begun, "off-60", limit=250)
    assert "shift-1" in allowed(rules, *begun, "off-60", limit=251)
