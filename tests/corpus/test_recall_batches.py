"""What windows tell of copies: rows beside their targets, whatever the streams and shifts."""

import numpy as np
import pytest
from small import small_corpus, write_music

from lstm_music.arrays import NO_TARGET
from lstm_music.corpus.batches import Batches, TokenSource, cut_streams, on_device
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.whole_pieces import whole_streams
from lstm_music.network.recall import (
    LATEST,
    MATCH,
    NONE,
    PLACE,
    Recall,
    RecallRules,
    bucket_of,
    code_of,
    new_recall,
    observe,
)
from lstm_music.network.recall_rules import frame_words, ids_of
from lstm_music.ops import get_ops
from lstm_music.ops.reference.copying import HIT, NOTHING

KINDS = ("message", "event", "performance", "chord", "note")


@pytest.fixture(params=KINDS)
def corpus(request, tmp_path, monkeypatch):
    """Small music that training transposes."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    music = write_music(tmp_path / "music", notes=60)
    return load_corpus(str(music), reading=Reading(request.param, transpose_augment=3))


def words_of(corpus, source, piece):
    """A piece's steps as recall compares them, made from what the network reads of it."""
    steps = source.inputs(piece, 0, corpus.lengths[piece])
    return frame_words(steps[:, :88]) if steps.ndim == 2 else corpus.recall.words[steps]


def rows_of(rules, words):
    """Of each word what it could be copied from, and whether that is right; by plain Python."""
    m = Recall(*(array.tolist() for array in new_recall(rules, len(words))))
    rows = []
    for word in words.tolist():
        rows.append(
            [
                NOTHING if code == NONE else bucket_of(m, k) + HIT * (code == code_of(word))
                for k, code in enumerate(m.candidates)
            ]
        )
        observe(rules, m, word)
    return np.array(rows)


def check(corpus, batches):
    """Each stream's rows are those of its pieces' words; behind its end there is nothing."""
    found = np.concatenate([batch.recall for batch in batches])
    assert found.dtype == np.uint8 and found.shape[2] == corpus.recall.candidates
    whole, hits = {}, 0
    for b, stream in enumerate(batches.streams):
        at = 0
        for piece, start, stop in stream:
            words = words_of(corpus, batches.source, piece)
            rows = whole.setdefault(piece, rows_of(corpus.recall, words))[start:stop]
            asked = batches.source.asks(batches.source.targets(piece, start, stop))
            rows = np.where(asked[:, None], rows, NOTHING)
            assert np.array_equal(found[at : at + stop - start, b], rows)
            at += stop - start
            hits += int(((rows >= HIT) & (rows != NOTHING)).sum())
        assert (found[at:, b] == NOTHING).all()
    return hits


@pytest.mark.parametrize(("B", "T"), [(1, 7), (3, 5), (4, 64)])
def test_rows_stand_beside_their_targets(corpus, B, T):
    assert check(corpus, corpus.training_batches(B, T, 0, 0, copy=True)) > 100
    for split in ("valid", "test"):
        assert check(corpus, corpus.evaluation_batches(split, B, T, copy=True)) > 0
        check(corpus, corpus.evaluation_batches(split, B, T, most=40, copy=True))


def test_a_part_of_the_streams_has_their_rows(corpus):
    batches = corpus.training_batches(4, 9, 1, 0, copy=True)
    for part, whole in zip(batches.part(1, 3), batches, strict=True):
        assert np.array_equal(part.recall, whole.recall[:, 1:3])


def test_transposed_pieces_are_compared_as_they_are_read(corpus):
    """A shift moves every pitch, and so changes no row.

    Of LATEST too, but for what other words hide in the same slot of a table.
    """
    by_epoch = [corpus.training_batches(1, 8, 0, epoch, copy=True) for epoch in range(6)]
    rows = {}
    shifts = set()
    for batches in by_epoch:
        found = np.concatenate([batch.recall[:, 0] for batch in batches])
        at = 0
        for piece, start, stop in batches.streams[0]:
            shifts.add((piece, batches.source.shifts[piece]))
            rows.setdefault(piece, []).append(found[at : at + stop - start])
            at += stop - start
    assert len(shifts) > len(rows)
    for one, *rest in rows.values():
        for other in rest:
            differ = (one != other).mean(axis=0)
            assert differ[LATEST] < 0.1
            assert not np.delete(differ, LATEST).any()


def test_without_a_gate_windows_say_nothing(corpus):
    assert all(batch.recall is None for batch in corpus.training_batches(2, 6, 0, 0))


def by_hand(ids, unseen=None, B=1, T=4, cut=True):
    """Windows of one piece of ids, each a note of its own."""
    words = np.array([(0, n, PLACE, NONE, 1, 0) for n in range(20)])
    rules = RecallRules((2, 1, 3), (1,), 0, 0, NONE, words, ids_of(words))
    offsets = np.array([0, len(ids)])
    source = TokenSource(np.array(ids, np.int32), offsets, 0, unseen)
    streams = cut_streams([len(ids)], [0], B) if cut else whole_streams([len(ids)], [0], B)
    return Batches(source, streams, T, rules)


def test_a_piece_cut_by_streams_is_copied_from_as_a_whole():
    """The second stream begins in the middle, where the first half is its past."""
    phrase = [3, 4, 5, 6]
    batches = by_hand([*phrase, *phrase], B=2)
    (batch,) = batches
    assert batch.y[:, 1].tolist() == phrase
    assert (batch.recall[:, 0, MATCH] == NOTHING).all()
    # 3 4 is the match of two words that the rules ask for; then it tells 5 and 6.
    assert batch.recall[:, 1, MATCH].tolist() == [NOTHING, NOTHING, HIT + 2, HIT + 2]


def test_a_chord_that_stands_for_an_unseen_one_is_no_candidates():
    phrase = [3, 4, 5, 6]
    unseen = np.zeros(8, np.bool_)
    unseen[6] = True
    (batch,) = by_hand([*phrase, *phrase], unseen, T=8)
    assert batch.y[6, 0] == NO_TARGET
    assert (batch.recall[6, 0] == NOTHING).all()
    assert batch.recall[[5, 7], 0, MATCH].tolist() == [NOTHING, HIT + 2]  # its past stays


def test_rows_move_to_a_backend(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    corpus = small_corpus(tmp_path)
    batch = corpus.training_batches(2, 6, 0, 0, copy=True)[1]
    moved = on_device(get_ops("numpy"), batch)
    assert moved.recall.dtype == np.uint8
    assert np.array_equal(moved.recall, batch.recall)
