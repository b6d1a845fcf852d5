"""What a biaxial network reads at each step, against a plain recomputation of it."""

import numpy as np
import pytest
from small import small_model, write_music

from lstm_music.arrays import NO_NOTES
from lstm_music.corpus.batches import Batches, Segment
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.surroundings import Surroundings, candidates, start_rows
from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.network.biaxial import PLACES
from lstm_music.network.recall import MATCH, MOVED, NONE, PITCHES, bucket_of
from lstm_music.network.recall_rules import frame_words
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.sampling.copying import FramePast, copies_of
from lstm_music.sampling.options import Options


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Small music that training transposes, its last piece longer than PLACES frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        music = write_music(tmp_path_factory.mktemp("music") / "music", notes=40)
        return load_corpus(str(music), reading=Reading("note", transpose_augment=5))


def new_past(corpus):
    """The past of a piece, as sampling keeps it."""
    model = small_model(corpus, head="sigmoid", copy=True)
    return FramePast(copies_of(model, corpus.recall, Options()))


def expected_rows(corpus, frames, copy):
    """What is read before each frame of a piece and after its last, by plain Python."""
    K = corpus.recall.candidates * copy
    x = np.zeros((len(frames) + 1, NOTES + 2 + K * (NOTES + 1)), np.uint8)
    x[0, NOTES], past = 1, new_past(corpus)
    for t, frame in enumerate(frames, 1):
        past.take(frame)
        x[t, :NOTES], x[t, NOTES + 1] = frame, t % PLACES
        said, m = list(past.numbers), past.past.recall
        for k, code in enumerate(m.candidates if copy else ()):
            if code == NONE:
                continue
            says, lowest = said[code // PITCHES], code % PITCHES - 1 - LOWEST
            if says and not 0 <= lowest <= NOTES - len(says):
                continue  # a piano has no such frame
            told = x[t, NOTES + 2 + k * NOTES : NOTES + 2 + (k + 1) * NOTES]
            for n, on in enumerate(says):
                told[lowest + n] = on
            x[t, NOTES + 2 + K * NOTES + k] = bucket_of(m, k) + 1
    return x


def check(corpus, batches, copy):
    """Each stream reads the start, then its pieces, each from where it begins in that stream."""
    x, y = (np.concatenate([batch[n] for batch in batches]) for n in (0, 1))
    assert x.dtype == np.uint8
    start = expected_rows(corpus, np.zeros((0, NOTES), np.uint8), copy)[0]
    cut = 0
    for b, stream in enumerate(batches.streams):
        at = 0
        for piece, first, stop in stream:
            frames = batches.source.targets(piece, 0, corpus.lengths[piece])
            n, rows = stop - first, expected_rows(corpus, frames, copy)
            np.testing.assert_array_equal(y[at : at + n, b], frames[first:stop])
            np.testing.assert_array_equal(x[at : at + n, b], rows[first:stop])
            at += n
            cut += first > 0
        assert (y[at:, b, 0] == NO_NOTES).all()
        assert (x[at:, b] == start).all()
    return cut


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(("B", "T"), [(1, 7), (3, 5), (4, 64)])
def test_windows_of_training_are_read_as_a_piece_in_the_making(corpus, copy, B, T):
    """Transposed, and from the middle of pieces that streams share."""
    batches = corpus.training_batches(B, T, 0, 0, copy, around=True)
    assert len(set(batches.source.source.shifts)) > 2
    cut = check(corpus, batches, copy)
    assert cut > 0 or B == 1


@pytest.mark.parametrize("copy", [False, True])
def test_so_are_the_windows_of_evaluation(corpus, copy):
    for split in ("valid", "test"):
        check(corpus, corpus.evaluation_batches(split, 2, 9, copy=copy, around=True), copy)
    opening = corpus.evaluation_batches("valid", 1, 9, most=30, copy=copy, around=True)
    assert check(corpus, opening, copy) == 0


def test_there_is_something_to_read(corpus):
    batches = corpus.evaluation_batches("valid", 1, 300, copy=True, around=True)
    x = batches[0].x[:, 0]
    buckets = x[:, -corpus.recall.candidates :]
    assert x[:, NOTES + 1].max() == PLACES - 1
    assert len(np.unique(buckets)) > 5 and buckets.max() <= BUCKETS
    told = x[:, NOTES + 2 : -corpus.recall.candidates].reshape(len(x), -1, NOTES).any(axis=2)
    assert told[buckets > 0].mean() > 0.5
    assert not told[buckets == 0].any()


@pytest.mark.parametrize("copy", [False, True])
def test_any_steps_of_a_piece_are_those_of_the_whole(corpus, copy):
    """After its last frame, which nothing follows, its place and notes are read."""
    source = Surroundings(corpus.source([2] * len(corpus.pieces)), corpus.recall if copy else None)
    n = corpus.lengths[0]
    whole = source.inputs(0, 0, n)
    frames = source.targets(0, 0, corpus.lengths[0])
    assert len(frames) == n
    np.testing.assert_array_equal(whole[:-1], expected_rows(corpus, frames, copy)[1:-1])
    last = expected_rows(corpus, frames, copy)[-1]
    np.testing.assert_array_equal(whole[-1, : NOTES + 2], last[: NOTES + 2])
    for first, stop in ((0, 1), (3, 9), (n - 1, n), (n - 4, n), (5, 5)):
        np.testing.assert_array_equal(source.inputs(0, first, stop), whole[first:stop])


def test_what_was_found_for_one_piece_is_not_anothers(corpus):
    streams = [[Segment(0, 0, 9), Segment(1, 0, 9)], [Segment(1, 2, 12), Segment(0, 4, 12)]]
    source = Surroundings(corpus.source([0, 3] + [0] * (len(corpus.pieces) - 2)), corpus.recall)
    assert check(corpus, Batches(source, streams, 4, corpus.recall), True) == 2


def test_before_a_piece_there_is_the_start_alone():
    rows = start_rows((2, 3), 4)
    assert rows.shape == (2, 3, NOTES + 2 + 4 * (NOTES + 1))
    assert np.argwhere(rows).tolist() == [[t, b, NOTES] for t in range(2) for b in range(3)]
    assert start_rows((2,), 0).shape == (2, NOTES + 2)


@pytest.mark.parametrize(("begins", "follows"), [(70, [82, 86]), (71, [83, 87]), (72, [])])
def test_a_frame_that_would_leave_the_piano_is_no_candidate(corpus, begins, follows):
    """A figure of five frames, and its first four again so high that the fifth may not fit."""
    steps, frames = np.array([0, 2, 5, 6, 12]), np.zeros((10, NOTES), np.uint8)
    for t, low in enumerate([*(40 + steps), *(begins + steps[:4])]):
        frames[t, [low, low + 4]] = 1
    says, buckets = candidates(frame_words(frames), frames, corpus.recall)
    told = np.unpackbits(says, axis=-1, count=NOTES)
    assert np.flatnonzero(told[9, MOVED]).tolist() == follows
    assert (buckets[9, MOVED] > 0) == bool(follows)
    assert not buckets[0].any() and not told[0].any() and not buckets[:, MATCH].any()
    assert buckets.dtype == np.uint8 and buckets.max() <= BUCKETS
