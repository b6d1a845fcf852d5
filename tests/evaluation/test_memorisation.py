"""Memorisation: copies are found whatever their key, by an independent slow search too."""

import math

import numpy as np
import pytest
from small import piece_of

from lstm_music.evaluation.music.excerpts import EMPTY, Music, in_order, notes_of_piece
from lstm_music.evaluation.music.judgement import MusicSet, judge, memory_of, recites
from lstm_music.evaluation.music.memorisation import LONG, SHORT, Index, Recall
from lstm_music.midi.piece import BAR, TICKS_PER_QUARTER


def random_music(rng, name, n, pitches=12):
    start = np.sort(rng.integers(0, n, n)) * 120
    rows = [start, start + rng.choice([120, 240], n), rng.integers(60, 60 + pitches, n)]
    return Music(name, in_order(np.stack(rows, 1).astype(np.int32)))


def moved(music, ticks=0, semitones=0, name="copy"):
    return Music(name, music.notes + np.array([ticks, ticks, semitones], np.int32))


@pytest.fixture(scope="module")
def training():
    rng = np.random.default_rng(0)
    return [random_music(rng, f"piece {k}", 300, 40) for k in range(20)]


def test_a_copied_piece_is_all_copied(training):
    copied = moved(training[7])
    (found,) = Index(training).recall([copied])
    assert found.exact.notes == found.transposed.notes == found.notes == 300
    assert found.short == found.long == found.short_exact == found.long_exact == 1
    assert found.recited == 1
    assert found.exact.piece == "piece 7" and found.exact.semitones == 0


def test_a_transposed_and_moved_copy_is_found_with_its_place(training):
    part = Music("part", training[3].notes[100:160])
    first = int(part.notes[0, 0]) // BAR
    copied = moved(part, ticks=-first * BAR, semitones=5)
    (found,) = Index(training).recall([copied])
    assert found.transposed.notes == 60 and found.transposed.semitones == 5
    assert found.transposed.piece == "piece 3"
    assert found.long == 1 and found.long_exact == 0
    assert found.exact.notes < SHORT
    last = int(part.notes[-1, 0]) // BAR + 1
    assert found.transposed.there == (first + 1, last)
    assert found.transposed.here == (1, last - first)


def test_nothing_is_found_across_pieces(training):
    joined = np.concatenate([training[0].notes[-20:], training[1].notes[:20]])
    joined[20:, :2] += joined[19, 0] + TICKS_PER_QUARTER - joined[20, 0]
    (found,) = Index(training).recall([Music("joined", in_order(joined))])
    assert 19 <= found.transposed.notes <= 21


def slow(sample, training, transposed):
    """The longest run and shares by trying everything."""

    def tail(piece, at, n):
        part = piece[at : at + n]
        origin = part[0] * [1, 1, transposed]
        return tuple(map(tuple, (part - np.array([origin[0], origin[0], origin[2]])).tolist()))

    notes = sample.notes.astype(np.int64)
    pieces = [x.notes.astype(np.int64) for x in training]
    longest, shares = 0, {}
    for n in range(2, len(notes) + 1):
        known = {tail(p, k, n) for p in pieces for k in range(len(p) - n + 1)}
        hits = [tail(notes, k, n) in known for k in range(len(notes) - n + 1)]
        longest = n if any(hits) else longest
        shares[n] = float(np.mean(hits))
    return longest, shares


def test_as_a_slow_search_finds_it():
    rng = np.random.default_rng(3)
    training = [random_music(rng, str(k), 60, 3) for k in range(4)]
    samples = [random_music(rng, str(k), 40, 3) for k in range(3)]
    samples.append(moved(Music("x", training[1].notes[10:35]), semitones=1))
    samples[-1].notes[12:, 2] += 1
    for found, sample in zip(Index(training).recall(samples), samples, strict=True):
        for transposed, run in ((True, found.transposed), (False, found.exact)):
            longest, shares = slow(sample, training, transposed)
            assert run.notes == (longest if longest > 1 else 0)
            ours = (
                (found.short, found.long) if transposed else (found.short_exact, found.long_exact)
            )
            assert ours == pytest.approx((shares[SHORT], shares[LONG]))


def test_short_and_empty_pieces(training):
    tiny = Music("tiny", training[0].notes[:3])
    one, none, short = Index(training).recall([Music("1", tiny.notes[:1]), Music("0", EMPTY), tiny])
    assert one.transposed.notes == none.transposed.notes == 0
    assert math.isnan(none.short) and math.isnan(short.short)
    assert short.exact.notes == 3
    (nothing,) = Index([]).recall([training[0]])
    assert nothing.transposed.notes == 0 and nothing.short == 0
    assert Index(training).recall([]) == []


def test_a_model_that_recites_is_flagged_and_an_honest_one_is_not(training):
    rng = np.random.default_rng(5)
    index = Index(training)
    held_out = MusicSet(
        "held-out", "real", [random_music(rng, "h", 100, 40) for _ in range(8)], index
    )
    honest = MusicSet("honest", "run", [random_music(rng, "x", 100, 40) for _ in range(8)], index)
    parts = [Music("y", training[k].notes[20:120]) for k in range(8)]
    parrot = MusicSet("parrot", "run", [moved(p, semitones=2) for p in parts], index)
    once = MusicSet("once", "run", [*honest.pieces[:7], parrot.pieces[0]], index)
    real, *others = (memory_of(x, 0) for x in (held_out, honest, parrot, once))
    assert [recites(x, real) for x in others] == [False, True, True]
    assert others[1].worst.transposed.semitones == 2


def test_judgement_of_a_copied_piece_by_name():
    pieces = [Music(f"p{k}", notes_of_piece(piece_of(k, notes=40))) for k in range(4)]
    index = Index(pieces)
    real = MusicSet("real", "real", pieces, index)
    judged = judge(real, MusicSet("same", "run", pieces, index), 4)
    assert isinstance(judged.memory.worst, Recall)
    assert judged.memory.long.value == 1 and len(judged.memory.recited) == 4
