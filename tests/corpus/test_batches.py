import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import piece_of, small_corpus, small_rolls, track_of

from lstm_music.arrays import NO_NOTES, NO_TARGET
from lstm_music.corpus.batches import (
    Batches,
    TokenSource,
    cut_streams,
    on_device,
    transposed_ids,
)
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import NoteSource
from lstm_music.corpus.whole_pieces import openings, whole_streams
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.midi.roll import LOWEST, NOTES, frames_of, pack, transpose
from lstm_music.network.recall_rules import recall_rules
from lstm_music.ops import get_ops
from lstm_music.ops.reference.copying import HIT, NOTHING
from lstm_music.tokenizers import chords, messages
from lstm_music.tokenizers.vocabulary import Vocabulary

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
    check(Batches(TokenSource(ids, offsets, START), streams, T), lengths, cuts)


@given(**problems)
@settings(deadline=None)
def test_evaluation_reads_every_piece_whole(lengths, B, T):
    ids, offsets = ids_of(lengths)
    streams = whole_streams(lengths, range(len(lengths)), B)
    check(Batches(TokenSource(ids, offsets, START), streams, T), lengths, cuts=set())


@given(**problems)
@settings(deadline=None)
def test_a_window_is_the_same_by_number_and_in_a_row(lengths, B, T):
    ids, offsets = ids_of(lengths)
    batches = Batches(
        TokenSource(ids, offsets, START), cut_streams(lengths, range(len(lengths)), B), T
    )
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
    batches = Batches(TokenSource(ids, offsets, START), cut_streams([4], [0], 1), 3)
    assert len(batches) == 2
    for window in (2, -1):
        with pytest.raises(IndexError):
            batches[window]


def test_evaluation_streams_are_of_similar_length():
    streams = whole_streams([9, 1, 1, 1, 5, 4], range(6), 3)
    assert sorted(sum(s.stop for s in stream) for stream in streams) == [6, 6, 9]


@given(lengths=problems["lengths"], B=problems["B"], most=st.integers(1, 60))
@settings(deadline=None)
def test_openings_are_as_many_ids_as_asked_for_and_none_is_long(lengths, B, most):
    pieces = list(range(0, len(lengths), 2))
    read = openings(lengths, pieces, most, B)
    assert read == openings(lengths, pieces, most, B)
    assert set(read) <= set(pieces)
    share = max(1, most // B)
    assert all(0 < n <= min(lengths[piece], share) for piece, n in read.items())
    assert sum(read.values()) == min(most, sum(min(lengths[p], share) for p in pieces))


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    return small_corpus(tmp_path)


def targets(batches):
    return np.concatenate([batch.y[batch.y != NO_TARGET] for batch in batches])


def test_a_long_split_can_be_read_in_part(corpus):
    whole = corpus.evaluation_batches("train", 3, 5)
    size = len(targets(whole))
    for enough in (None, size, size + 1):
        same = corpus.evaluation_batches("train", 3, 5, enough)
        assert same.streams == whole.streams
    part = corpus.evaluation_batches("train", 3, 5, size // 2)
    assert len(part.streams) == 3 and len(part) < len(whole)
    assert size // 4 < len(targets(part)) <= size // 2
    for stream in part.streams:
        assert all(start == 0 for _, start, _ in stream)


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


# Ids that are no targets, and frames --------------------------------------------------------------


@given(**problems, data=st.data())
@settings(deadline=None)
def test_an_unseen_id_is_read_and_never_asked_for(lengths, B, T, data):
    ids, offsets = ids_of(lengths)
    unseen = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    streams = cut_streams(lengths, range(len(lengths)), B)
    plain = Batches(TokenSource(ids, offsets, START), streams, T)
    batches = Batches(TokenSource(ids, offsets, START, unseen), streams, T)
    for a, b in zip(plain, batches, strict=True):
        np.testing.assert_array_equal(b.x, a.x)
        hidden = np.isin(a.y, ids[unseen])
        np.testing.assert_array_equal(b.y, np.where(hidden, NO_TARGET, a.y))
        assert b.targets == np.count_nonzero(b.y != NO_TARGET)


def test_nothing_is_copied_where_nothing_is_asked():
    """So that a copy gate learns nothing there; a step asked for has what the piece said before."""
    vocabulary = Vocabulary([messages.PIECE_END, "rest", "60", "62", "60-64"])
    rules = recall_rules(vocabulary, {"name": "chord", "grid": 8})
    ids = np.array([*[2, 3, 2, 4] * 5, 0], np.int32)
    unseen = np.arange(len(ids)) % 7 == 5
    source = TokenSource(ids, np.array([0, len(ids)]), START, unseen)
    (batch,) = Batches(source, whole_streams([len(ids)], [0], 1), len(ids), rules)
    assert (batch.recall[unseen] == NOTHING).all()
    there = batch.recall[~unseen] != NOTHING
    assert there[8:].any(axis=-1).all() and (batch.recall[~unseen][there] >= HIT).any()


def frames_like(ids):
    """A frame for each id: the notes of its binary digits, and the highest note in all of them."""
    frames = np.zeros((len(ids), NOTES), np.uint8)
    frames[:, :8] = (np.asarray(ids)[:, None] >> np.arange(8)) & 1
    frames[:, -1] = 1
    return frames


@given(**problems, seed=st.integers(0, 99))
@settings(deadline=None)
def test_frames_make_the_windows_that_ids_make(lengths, B, T, seed):
    ids, offsets = ids_of(lengths)
    order = [int(p) for p in np.random.default_rng(seed).permutation(len(lengths))]
    streams = cut_streams(lengths, order, B)
    source = NoteSource(pack(frames_like(ids)), offsets, [0] * len(lengths))
    of_ids = Batches(TokenSource(ids, offsets, START), streams, T)
    for a, b in zip(of_ids, Batches(source, streams, T), strict=True):
        assert b.targets == a.targets
        assert (b.keep is None) == (a.keep is None)
        assert b.keep is None or np.array_equal(b.keep, a.keep)
        assert b.x.shape == (*a.x.shape, NOTES + 1)
        assert b.y.shape == (*a.y.shape, NOTES)
        assert b.x.dtype == b.y.dtype == np.uint8
        starts, none = a.x == START, a.y == NO_TARGET
        np.testing.assert_array_equal(b.x[~starts][:, :NOTES], frames_like(a.x[~starts]))
        np.testing.assert_array_equal(b.x[..., NOTES], starts)
        assert not b.x[starts][:, :NOTES].any()
        np.testing.assert_array_equal(b.y[~none], frames_like(a.y[~none]))
        assert (b.y[none][:, 0] == NO_NOTES).all()


# Transposition ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "transpose_word", "shift", "becomes"),
    [
        (["piece-end", "60-64", "62-66", "rest"], chords.transpose_word, 2, [0, 2, 2, 3]),
        (["piece-end", "60-64", "62-66", "rest"], chords.transpose_word, -2, [0, 1, 1, 3]),
        (["21", "22", "rest"], chords.transpose_word, -1, [0, 0, 2]),
        (
            ["piece-end", "note-on-60-0", "note-off-60-0", "note-on-61-0", "note-on-61-9"],
            messages.transpose_word,
            1,
            [0, 3, 2, 3, 4],
        ),
    ],
)
def test_a_table_maps_each_id_to_its_transposition_or_to_itself(
    words, transpose_word, shift, becomes
):
    tables = transposed_ids(words, [0, shift, shift, 0], transpose_word)
    assert list(tables) == [shift]
    assert tables[shift].tolist() == becomes
    assert tables[shift].dtype == np.int32


AUGMENT = 3


def low_and_high(folder):
    """Small music, and two pieces that can hardly be moved; they are training pieces."""
    corpus = small_corpus(folder)
    lowest, highest = track_of([(0, 480, LOWEST + 1)]), track_of([(0, 480, LOWEST + NOTES - 2)])
    write_midi(Piece("", [lowest, highest]), folder / "music" / "wide.mid")
    write_midi(Piece("", [track_of([(0, 480, LOWEST)]), highest]), folder / "music" / "wider.mid")
    return corpus


@pytest.fixture(params=["message", "chord", "note"])
def augmented(request, tmp_path, monkeypatch):
    """The same corpus with transposition and without."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    low_and_high(tmp_path)
    return [
        load_corpus(
            str(tmp_path / "music"), reading=Reading(request.param, transpose_augment=semitones)
        )
        for semitones in (AUGMENT, 0)
    ]


def piece_targets(corpus, batches, piece):
    """The words, or frames as bytes, of a whole piece as batches have them."""
    ends = corpus.lengths[piece]
    found = batches.source.targets(piece, 0, ends)
    inputs = batches.source.inputs(piece, 0, ends)
    if found.ndim == 1:
        np.testing.assert_array_equal(inputs, found)
        return [corpus.vocabulary.word(int(id)) for id in found]
    np.testing.assert_array_equal(inputs, np.pad(found, ((0, 0), (0, 1))))
    return [frame.tobytes() for frame in found]


def moved(corpus, words, shift):
    """What a piece's words or frames become some semitones higher."""
    kind = corpus.tokenizer_json()["name"]
    if kind == "note":
        frames = [np.frombuffer(frame, np.uint8)[None] for frame in words]
        return [transpose(frame, shift).tobytes() for frame in frames]
    transpose_word = messages.transpose_word if kind == "message" else chords.transpose_word
    return [transpose_word(word, shift) for word in words]


def shifts_of(augmented, seed, epoch):
    """By how much each training piece is transposed in an epoch; each as a whole."""
    corpus, plain = augmented
    batches = corpus.training_batches(3, 5, seed, epoch)
    untouched = plain.training_batches(3, 5, seed, epoch)
    assert batches.streams == untouched.streams  # the order is what it is without
    found = {}
    for piece in corpus.splits["train"]:
        own = piece_targets(plain, untouched, piece)
        now = piece_targets(corpus, batches, piece)
        low, high = plain.shifts[piece].tolist()
        within = range(max(low, -AUGMENT), min(high, AUGMENT) + 1)
        (found[piece],) = (shift for shift in within if moved(corpus, own, shift) == now)
    return found


def test_training_pieces_are_transposed_as_seed_and_epoch_say(augmented):
    found = [shifts_of(augmented, 1, epoch) for epoch in range(8)]
    assert shifts_of(augmented, 1, 0) == found[0]
    assert shifts_of(augmented, 2, 0) != found[0]
    assert found[0] != found[1]
    corpus, _ = augmented
    free = corpus.splits["train"][0]
    assert {shifts[free] for shifts in found} > {min(s[free] for s in found)}
    drawn = {shift for shifts in found for shift in shifts.values()}
    assert drawn == set(range(-AUGMENT, AUGMENT + 1))


def test_no_piece_is_transposed_further_than_its_notes_go(augmented):
    corpus, _ = augmented
    numbers = {name: n for n, name in enumerate(corpus.pieces)}
    assert {numbers["wide.mid"], numbers["wider.mid"]} <= set(corpus.splits["train"])
    found = [shifts_of(augmented, 1, epoch) for epoch in range(30)]
    if corpus.tokenizer_json()["name"] == "message":  # whose pitches go beyond the piano's
        wide = wider = set(range(-AUGMENT, AUGMENT + 1))
    else:
        wide, wider = {-1, 0, 1}, {0, 1}
    assert {shifts[numbers["wide.mid"]] for shifts in found} == wide
    assert {shifts[numbers["wider.mid"]] for shifts in found} == wider


def test_evaluation_transposes_nothing(augmented):
    corpus, plain = augmented
    batches, untouched = (c.evaluation_batches("train", 3, 5) for c in augmented)
    for piece in corpus.splits["train"]:
        own = piece_targets(plain, untouched, piece)
        assert piece_targets(corpus, batches, piece) == own


def test_without_augmentation_windows_hold_the_pieces_in_the_drawn_order(corpus):
    """Exactly those of the version that had no augmentation, so that its runs compare."""
    for epoch in range(2):
        order = np.random.default_rng([4, epoch]).permutation(corpus.splits["train"])
        streams = cut_streams(corpus.lengths, [int(p) for p in order], 3)
        expected = Batches(TokenSource(corpus.ids, corpus.offsets, START), streams, 5)
        for a, b in zip(corpus.training_batches(3, 5, 4, epoch), expected, strict=True):
            np.testing.assert_array_equal(a.x, b.x)
            np.testing.assert_array_equal(a.y, b.y)
            np.testing.assert_array_equal(a.keep, b.keep)


def test_a_corpus_of_frames_trains_on_its_training_pieces_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    corpus = small_rolls(tmp_path)
    for split, batches in [
        ("train", corpus.training_batches(B=3, T=5, seed=0, epoch=0)),
        ("valid", corpus.evaluation_batches("valid", 3, 5)),
        ("test", corpus.evaluation_batches("test", 3, 5)),
    ]:
        found = np.concatenate([batch.y[batch.y[..., 0] != NO_NOTES] for batch in batches])
        names = [corpus.pieces[p] for p in corpus.splits[split]]
        expected = [frames_of(piece_of(int(name[0])))[0] for name in names]
        assert sorted(map(bytes, found)) == sorted(map(bytes, np.concatenate(expected)))
