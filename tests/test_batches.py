import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.batches import NO_TARGET, Batches, cut_streams, on_device, whole_streams
from lstm_music.ops import get_ops
from small import small_corpus

START = 0

problems = {
    "lengths": st.lists(st.integers(1, 12), min_size=1, max_size=10),
    "B": st.integers(1, 7),
    "T": st.integers(1, 9),
}


def ids_of(lengths):
    """Ids that tell each token of a corpus from every other: 1, 2, 3, …, and the offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets


def columns(batches):
    """Every stream as a list of (x, y, keep)."""
    found = [[] for _ in batches.streams]
    for batch in batches:
        keep = np.ones(batch.x.shape) if batch.keep is None else batch.keep
        for b, column in enumerate(found):
            column += zip(batch.x[:, b], batch.y[:, b], keep[:, b], strict=True)
    return found


def check(batches, lengths, cuts):
    """Every token once, after its predecessor or the start symbol; resets at starts and cuts."""
    first_ids = set(ids_of(lengths)[1][:-1] + 1)
    seen = []
    for column in columns(batches):
        used = [step for step in column if step[1] != NO_TARGET]
        assert column[: len(used)] == used  # only the end of a stream is padded
        before = None
        for x, y, keep in used:
            starts = y in first_ids
            assert x == (START if starts else y - 1)
            assert (keep == 0) == (starts or y in cuts)
            assert keep == 0 or y == before + 1  # nothing crosses from piece to piece
            before = y
            seen.append(y)
    assert sorted(seen) == list(range(1, sum(lengths) + 1))


@given(**problems, seed=st.integers(0, 99))
@settings(deadline=None)
def test_an_epoch_predicts_every_training_token_once(lengths, B, T, seed):
    ids, offsets = ids_of(lengths)
    order = [int(p) for p in np.random.default_rng(seed).permutation(len(lengths))]
    streams = cut_streams(lengths, order, B)
    cuts = {int(offsets[s.piece]) + s.start + 1 for stream in streams for s in stream if s.start}
    assert len(cuts) < B
    sizes = [sum(s.stop - s.start for s in stream) for stream in streams]
    assert max(sizes) == -(-sum(lengths) // B)
    check(Batches(ids, offsets, streams, T, START), lengths, cuts)


@given(**problems)
@settings(deadline=None)
def test_evaluation_reads_every_piece_whole(lengths, B, T):
    ids, offsets = ids_of(lengths)
    streams = whole_streams(lengths, range(len(lengths)), B)
    check(Batches(ids, offsets, streams, T, START), lengths, cuts=set())


@given(**problems)
@settings(deadline=None)
def test_a_window_is_the_same_by_number_and_in_a_row(lengths, B, T):
    ids, offsets = ids_of(lengths)
    batches = Batches(ids, offsets, cut_streams(lengths, range(len(lengths)), B), T, START)
    for window, batch in enumerate(batches):
        again = batches[window]
        assert batch.targets == again.targets == np.count_nonzero(batch.y != NO_TARGET) > 0
        for a, b in zip(batch[:3], again[:3], strict=True):
            assert (a is None) == (b is None)
            assert a is None or np.array_equal(a, b)
        assert batch.keep is None or not batch.keep.all()
        assert batch.x.shape == batch.y.shape == (T, len(batches.streams))
        assert batch.x.dtype == batch.y.dtype == np.int32
    assert window + 1 == len(batches)


def test_there_is_no_window_past_the_last():
    ids, offsets = ids_of([4])
    batches = Batches(ids, offsets, cut_streams([4], [0], 1), 3, START)
    assert len(batches) == 2
    for window in (2, -1):
        with pytest.raises(IndexError):
            batches[window]


def test_evaluation_streams_are_of_similar_length():
    streams = whole_streams([9, 1, 1, 1, 5, 4], range(6), 3)
    assert sorted(sum(s.stop for s in stream) for stream in streams) == [6, 6, 9]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    return small_corpus(tmp_path)


def targets(batches):
    return np.concatenate([batch.y[batch.y != NO_TARGET] for batch in batches])


def test_a_corpus_trains_on_its_training_pieces_alone(corpus):
    train = np.concatenate([corpus.piece_ids(p) for p in corpus.splits["train"]])
    found = targets(corpus.training_batches(B=3, T=5, seed=0, epoch=0))
    assert sorted(found) == sorted(train)
    for split in ("valid", "test"):
        pieces = np.concatenate([corpus.piece_ids(p) for p in corpus.splits[split]])
        assert sorted(targets(corpus.evaluation_batches(split, 3, 5))) == sorted(pieces)


def test_the_order_depends_on_seed_and_epoch(corpus):
    def order(seed, epoch):
        return targets(corpus.training_batches(1, 1000, seed, epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_short_corpus_fills_fewer_streams(corpus):
    total = sum(corpus.lengths[p] for p in corpus.splits["train"])
    assert len(corpus.training_batches(50, total // 2, 0, 0).streams) == 2
    assert len(corpus.training_batches(50, 10 * total, 0, 0).streams) == 1


def test_a_batch_moves_to_a_backend(corpus):
    batch = corpus.training_batches(2, 5, 0, 0)[0]
    moved = on_device(get_ops("numpy", "float64"), batch)
    assert moved.x.dtype == moved.y.dtype == np.int32
    assert moved.keep.dtype == np.float64
    assert np.array_equal(moved.x, batch.x)
    assert moved.targets == batch.targets
