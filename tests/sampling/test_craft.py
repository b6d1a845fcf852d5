"""The craft counted as music is drawn: as evaluation/music/voices.py counts it afterwards."""

from itertools import product

import numpy as np
import pytest

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.music.excerpts import pieces_of_split
from lstm_music.evaluation.music.voices import chords_of
from lstm_music.evaluation.music.voices import faults_of as counted
from lstm_music.sampling import compiled_particles, craft
from lstm_music.sampling.craft import (
    Voices,
    faults_of,
    interval_faults,
    neighbour_faults,
    new_voices,
    out_of_range,
    sing,
    voices_of,
)
from lstm_music.sampling.word_rules import event_rules
from lstm_music.tokenizers.parts import Player

ALIKE = ("fifths", "octaves", "hidden", "crossed", "overlaps", "range", "spacing")


@pytest.fixture(scope="module")
def chorales():
    """The bundled chorales in parts, twelve of them in four voices, and their words as ids."""
    corpus = load_corpus("bach", None, Reading("event", parts=True, drums=False, common_key="A"))
    four = [piece for piece in pieces_of_split(corpus, "test") if len(piece.tracks) == 4]
    # In a chord that isn't whole the voices that do sound count here, and nothing afterwards.
    pieces = [piece for piece in four if chords_of(piece).full.all()][:12]
    words = [corpus.tokenizer.words(piece)[:-1] for piece in pieces]
    ids = [[corpus.vocabulary.id(word) for word in own] for own in words]
    return corpus, pieces, ids


def sung(rules, voices, ids):
    """How many faults the words of a piece make, one after the other."""
    faults = 0
    for id in [*ids, rules.start]:
        kind, number = int(rules.kinds[id]), int(rules.numbers[id])
        faults += faults_of(kind, number, voices, 0)
        sing(rules, voices, 0, id)
    return faults


def test_as_many_faults_are_counted_word_by_word_as_afterwards(chorales, monkeypatch):
    """Those that both know: a dissonance is judged at its first leap, before all is heard."""
    monkeypatch.setattr(craft, "dissonance_fault", lambda *pitches: 0)
    corpus, pieces, all_ids = chorales
    rules = event_rules(corpus.vocabulary, 1920)
    of_part = voices_of(corpus.tokenizer.roster)
    total = 0
    for piece, ids in zip(pieces, all_ids, strict=True):
        voices = Voices(*(array.tolist() for array in new_voices(of_part, 1)))
        expected = counted(chords_of(piece))
        found = sung(rules, voices, ids)
        assert found == sum(expected[name] for name in ALIKE)
        total += found
    assert len(pieces) == 12 and total > 20


def test_compiled_as_they_are(chorales):
    corpus, _, all_ids = chorales
    rules = event_rules(corpus.vocabulary, 1920)
    of_part = voices_of(corpus.tokenizer.roster)
    plain, arrays = Voices(*(a.tolist() for a in new_voices(of_part, 1))), new_voices(of_part, 1)
    for id in all_ids[0]:
        kind, number = rules.kinds[id], rules.numbers[id]
        both = (
            compiled_particles.faults_of(kind, number, arrays, 0),
            faults_of(int(kind), int(number), plain, 0),
        )
        assert both[0] == both[1]
        compiled_particles.sing(rules, arrays, 0, id)
        sing(rules, plain, 0, id)


@pytest.mark.parametrize(
    ("pitches", "outer", "faults"),
    [
        ((67, 69, 60, 62), False, 1),  # G-A over C-D: parallel fifths
        ((72, 74, 60, 62), False, 1),  # octaves
        ((67, 67, 60, 60), False, 0),  # repeated
        ((67, 62, 60, 67), False, 0),  # contrary: a fifth to a fifth
        ((67, 69, 60, 61), False, 0),  # to a minor sixth
        ((64, 69, 60, 62), True, 1),  # a leap into a fifth by similar motion: hidden
        ((64, 69, 60, 62), False, 0),  # of inner voices nobody minds
        ((67, 69, 57, 62), True, 0),  # the upper voice steps
        ((-1, 69, 60, 62), True, 0),  # from a rest
    ],
)
def test_parallels_and_hidden_ones(pitches, outer, faults):
    assert interval_faults(*pitches, outer) == faults


@pytest.mark.parametrize(
    ("pitches", "inner", "faults"),
    [
        ((67, 67, 64, 68), True, 1),  # crossed
        ((67, 67, 64, 67), True, 0),  # a unison
        ((67, 72, 64, 69), True, 1),  # the lower moves past where the upper was
        ((67, 62, 64, 60), True, 1),  # the upper past where the lower was
        ((67, 72, 60, 59), True, 1),  # more than an octave apart
        ((67, 72, 60, 59), False, 0),  # as tenor and bass may be
        ((64, 67, 67, 60), True, 0),  # crossed before: no overlap
    ],
)
def test_neighbours(pitches, inner, faults):
    assert neighbour_faults(*pitches, inner) == faults


@pytest.mark.parametrize(
    ("pitches", "faults"),
    [
        ((72, 71, 62, 62), 0),  # a seventh that falls by a step
        ((72, 67, 62, 62), 1),  # that leaps
        ((72, 72, 62, 60), 0),  # the lower steps
        ((72, 72, 62, 62), 0),  # held
        ((71, 67, 62, 62), 0),  # a sixth may leap
        ((72, 69, 62, 65), 1),  # both leap
        ((72, 71, 62, 57), 0),  # one steps
    ],
)
def test_dissonances_are_left_by_a_step(pitches, faults):
    assert craft.dissonance_fault(*pitches) == faults


def test_ranges_are_of_what_sounds():
    """A bass's written G2 in G sounds D2: the key's word moves it."""
    assert [out_of_range(3, pitch) for pitch in (39, 40, 64, 65)] == [True, False, False, True]
    assert [out_of_range(0, pitch) for pitch in (59, 60, 81, 82)] == [True, False, False, True]


@pytest.mark.parametrize(
    ("names", "voices"),
    [
        (("Soprano", "Alto", "Timpani", "Tenor", "Bass"), [0, 1, -1, 2, 3]),
        (("bass ", "TENOR", "alto", "soprano"), [3, 2, 1, 0]),
        (("Soprano", "Alto", "Tenor"), [-1, -1, -1]),
        (("Soprano", "Soprano", "Alto", "Tenor", "Bass"), [-1] * 5),
        ((), []),
    ],
)
def test_voices_by_name(names, voices):
    assert voices_of([Player(name) for name in names]) == voices


def test_faults_dont_change_with_the_key():
    """But for the range: what is counted is how voices lie to one another."""
    rng = np.random.default_rng(0)
    for pitches, outer in product(rng.integers(40, 80, (200, 4)).tolist(), (False, True)):
        moved = [pitch + 3 for pitch in pitches]
        assert interval_faults(*pitches, outer) == interval_faults(*moved, outer)
        assert neighbour_faults(*pitches, outer) == neighbour_faults(*moved, outer)
