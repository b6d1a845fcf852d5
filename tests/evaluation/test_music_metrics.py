"""Measures of music: by hand, by brute force, and beside muspy on real files."""

import math
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from small import piece_of, small_corpus, small_rolls, track_of

import lstm_music
from lstm_music.corpus.load import load_corpus
from lstm_music.evaluation.music import measures as m
from lstm_music.evaluation.music.excerpts import (
    EMPTY,
    Music,
    excerpts,
    in_order,
    message_notes,
    notes_of_piece,
    piece_of_music,
    split_music,
    told_notes,
    word_table,
)
from lstm_music.midi import piece as midi_piece
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Part, Piece
from lstm_music.midi.repair import merge_tracks

Q, BAR = 480, midi_piece.BAR


def notes(*rows):
    return in_order(np.array(rows, np.int32).reshape(-1, 3))


def random_notes(rng, n=60, bars=4):
    start = rng.integers(0, bars * BAR - 10, n)
    return in_order(
        np.stack([start, start + rng.integers(0, 900, n), rng.integers(50, 70, n)], 1).astype(
            np.int32
        )
    )


def test_known_answers():
    scale = notes(*((n * Q, n * Q + Q, p) for n, p in enumerate((60, 62, 64, 65, 67, 69, 71, 72))))
    assert m.pitch_range(scale) == 12
    assert m.scale_consistency(scale) == 1
    assert m.polyphony(scale) == 1
    assert m.polyphony_rate(scale) == 0
    assert m.pitch_class_entropy(scale) == pytest.approx(6 / 8 * 3 + 2 / 8 * 2)
    assert m.groove_consistency(scale) == pytest.approx(1 - 4 / (2 * BAR))  # muspy's third bar
    triad = notes((0, BAR, 60), (0, BAR, 64), (0, BAR, 67), (2 * BAR, 3 * BAR, 60))
    assert m.polyphony(triad) == 2
    assert m.polyphony_rate(triad) == pytest.approx(1 / 3)
    assert m.empty_bar_rate(triad) == 0  # each fills the bar that begins where it ends
    gap = notes((0, Q, 60), (3 * BAR, 3 * BAR + Q, 60))
    assert m.empty_bar_rate(gap) == 0.5


def test_silence_has_no_numbers():
    assert m.pitch_range(EMPTY) == 0
    assert all(math.isnan(x) for x in m.numbers(EMPTY).values())
    assert all(np.isnan(x).all() for x in m.histograms(EMPTY).values())


def test_polyphony_and_groove_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        some = random_notes(rng)
        length = int(some[:, 1].max())
        roll = np.zeros((length, 128), bool)
        bars = length // BAR + 1
        struck = np.zeros((bars, BAR), bool)
        for start, end, pitch in some:
            roll[start:end, pitch] = True
            struck[divmod(start, BAR)] = True
        sounding = roll.sum(1)
        assert m.polyphony(some) == pytest.approx(roll.sum() / (sounding > 0).sum(), abs=1e-12)
        assert m.polyphony_rate(some) == pytest.approx((sounding > 2).sum() / length, abs=1e-12)
        differ = (struck[1:] != struck[:-1]).sum()
        assert m.groove_consistency(some) == pytest.approx(1 - differ / (BAR * (bars - 1)))


def test_histograms_count_what_they_say():
    some = notes((0, Q, 60), (0, Q, 72), (Q, 2 * Q, 74), (2 * Q, 4 * Q, 50))
    assert m.top_line(some)[:, 2].tolist() == [72, 74, 50]
    steps = m.intervals(some)
    assert steps[m.WIDEST + 2] == 0.5 and steps[0] == 0.5  # 24 down counts as 12 down
    assert m.pitch_class_transitions(some)[0 * 12 + 2] == 0.5
    lengths = m.note_lengths(some)
    assert lengths[8] == 0.75 and lengths[10] == 0.25  # quarters, a half
    assert m.onset_gaps(some)[8] == 1
    assert m.pitch_classes(some)[0] == 0.5
    for histogram in m.histograms(some).values():
        assert histogram.sum() == pytest.approx(1)


@pytest.mark.skipif(
    find_spec("muspy") is None, reason="muspy is not here: pip install muspy==0.5.0"
)
def test_as_muspy_on_real_files(tmp_path):
    import muspy

    folder = os.environ.get("LSTM_MUSIC_DATA")
    archive = Path(folder or ".") / "classical-2000.zip"
    if folder and archive.is_file():
        files = zipfile.ZipFile(archive)
        names = sorted(n for n in files.namelist() if n.lower().endswith(".mid"))[::100][:20]
    else:
        files = zipfile.ZipFile(Path(lstm_music.__file__).with_name("data") / "bach.zip")
        names = sorted(n for n in files.namelist() if n.endswith(".mid"))[::20][:20]
    assert len(names) == 20
    for name in names:
        piece = read_midi(files.read(name), name)
        write_midi(piece, tmp_path / "piece.mid")
        theirs, ours = muspy.read_midi(tmp_path / "piece.mid"), notes_of_piece(piece)
        bar = 4 * theirs.resolution
        assert m.pitch_range(ours) == muspy.pitch_range(theirs)
        for mine, other in (
            (m.pitch_class_entropy(ours), muspy.pitch_class_entropy(theirs)),
            (m.scale_consistency(ours), muspy.scale_consistency(theirs)),
            (m.polyphony(ours), muspy.polyphony(theirs)),
            (m.polyphony_rate(ours), muspy.polyphony_rate(theirs)),
            (m.empty_bar_rate(ours), muspy.empty_measure_rate(theirs, bar)),
            (m.groove_consistency(ours), muspy.groove_consistency(theirs, bar)),
        ):
            assert mine == pytest.approx(other, abs=1e-6), name


# Where the notes come from ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flatten", "merge"])
def test_a_corpus_gives_the_notes_that_its_tokens_decode_to(tmp_path, layout):
    corpus = small_corpus(tmp_path, layout)
    words = word_table(corpus)
    for piece in range(len(corpus.pieces)):
        ids = corpus.piece_ids(piece)
        decoded = corpus.tokenizer.piece([corpus.vocabulary.word(int(i)) for i in ids], "")
        np.testing.assert_array_equal(message_notes(ids, words), notes_of_piece(decoded))


def test_notes_become_a_piece_again():
    for seed in range(5):
        merged = Piece("", [merge_tracks(piece_of(seed, tracks=3))])
        again = piece_of_music(Music("name", notes_of_piece(piece_of(seed, tracks=3))))
        np.testing.assert_array_equal(again.tracks[0], merged.tracks[0])


def test_frames_give_notes(tmp_path):
    rolls = small_rolls(tmp_path, grid=16)
    for name, some in split_music(rolls, "train"):
        assert name in rolls.pieces and len(some)


def test_excerpts_begin_with_pieces_and_share_no_bar():
    pieces = [Music(f"p{k}", notes_of_piece(piece_of(k, notes=12))) for k in range(9)]
    bars = [-(-int(p.notes[:, 1].max()) // BAR) for p in pieces]
    made = excerpts(pieces, 5, 100)
    assert max(bars) < 5 and 2 <= len(made) <= sum(bars) // 5
    by_name = {p.name: p.notes for p in pieces}
    for name, some in made:
        own = by_name[name]
        np.testing.assert_array_equal(some[: len(own)], own)  # a whole piece, then the next one
        assert some[len(own) :, 0].min() >= own[:, 1].max()
        assert some[:, 1].max() <= 5 * BAR
    assert len({name for name, _ in made}) == len(made)
    cut = excerpts(pieces, 2, 3)
    assert len(cut) == 3 and len(excerpts(pieces, 2, 3, seed=1)) == 3
    assert all(some[:, 1].max() <= 2 * BAR for _, some in cut)
    np.testing.assert_array_equal(cut[0].notes, excerpts(pieces, 2, 3)[0].notes)


def test_a_whole_corpus_is_measured_at_once():
    corpus = load_corpus("bach")
    for _, some in split_music(corpus, "test"):
        values = m.numbers(some)
        assert 2 < values["pitch_class_entropy"] < 3.585 and 2 < values["polyphony"] < 6


def test_a_unison_of_parts_is_one_note_where_words_told_it():
    track = track_of([(0, 480, 60)])
    piece = Piece("", [track, track], parts=(Part("a"), Part("b")))
    assert len(notes_of_piece(piece)) == 2
    assert told_notes(piece).tolist() == [[0, 480, 60]]
    assert len(told_notes(Piece("", [track, track]))) == 2
