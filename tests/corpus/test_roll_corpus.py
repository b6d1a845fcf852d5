import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from small import flip, piece_of, small_rolls, track_of, write_music

from lstm_music.arrays import NO_TARGET
from lstm_music.corpus import load as corpora
from lstm_music.corpus import rolls as roll_corpus
from lstm_music.corpus.load import FORMAT, Reading, load_corpus
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.midi.roll import LOWEST, NOTES, estimate_key, frames_of, to_common_key
from lstm_music.tokenizers.chords import chord_words
from lstm_music.tokenizers.chords import transpose_word as transpose_chord
from lstm_music.tokenizers.messages import PIECE_END

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
needs_jsb = pytest.mark.skipif(
    not (DATA / "piano-roll" / "JSB_Chorales.mat").exists(),
    reason="no JSB_Chorales.mat in LSTM_MUSIC_DATA",
)
needs_muse = pytest.mark.skipif(
    not (DATA / "piano-roll" / "MuseData.mat").exists(),
    reason="no MuseData.mat in LSTM_MUSIC_DATA",
)

C, F, G = (60, 64, 67), (60, 65, 69), (59, 62, 67)
MUSIC = {
    "train": [[C, C, F, C], [(), G, C, (21, 108)], [(60,)]],
    "valid": [[F, (60, 64, 67, 72), ()]],  # one chord more than C
    "test": [[(59, 62, 66, 67), (21,), G], [(30,)]],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(folder))
    monkeypatch.delenv("LSTM_MUSIC_DATA", raising=False)
    return folder


def frames_with(steps):
    """Frames from a list of MIDI pitches for each step."""
    frames = np.zeros((len(steps), NOTES), np.uint8)
    for frame, pitches in zip(frames, steps, strict=True):
        frame[np.array(pitches, int) - LOWEST] = 1
    return frames


def write_rolls(path, music=None):
    """A file as Boulanger-Lewandowski's, and its path."""

    def cell(pieces):
        made = np.empty((1, len(pieces)), object)
        made[0, :] = [frames_with(piece) for piece in pieces]
        return made

    path.parent.mkdir(exist_ok=True)
    music = music or MUSIC
    scipy.io.savemat(path, {f"{split}data": cell(music[split]) for split in SPLITS})
    return path


def counts_of(row):
    """What the first columns of a row of the table hold."""
    return {key: row[key] for key in ("pieces", "tokens", "unique_tokens")}


def in_memory(corpus):
    """The corpus with arrays of its own: a mapped file changes when it is damaged on purpose."""
    names = ("packed", "offsets", "ids", "unseen", "shifts")
    return replace(corpus, **{name: np.array(getattr(corpus, name)) for name in names})


@pytest.fixture
def rolls(tmp_path):
    return write_rolls(tmp_path / "rolls.mat")


def load(path, representation="note", **reading):
    return load_corpus(str(path), reading=Reading(representation, **reading))


def piece_words(corpus, piece):
    """The words that a piece's ids stand for."""
    first, last = corpus.id_offsets[piece : piece + 2]
    return [corpus.vocabulary.word(int(id)) for id in corpus.ids[first:last]]


def same(a, b):
    """Whether two corpora are equal but for their names and where their arrays lie."""
    fields = ("key", "pieces", "splits", "skipped", "reading", "augment")
    arrays = ("packed", "offsets", "ids", "unseen", "shifts")
    return (
        all(getattr(a, field) == getattr(b, field) for field in fields)
        and a.vocabulary.words == b.vocabulary.words
        and all(np.array_equal(getattr(a, array), getattr(b, array)) for array in arrays)
    )


# Frames -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["chord", "note"])
@pytest.mark.parametrize("grid", [None, 4, 16])
def test_midi_files_become_frames_of_a_grid(tmp_path, representation, grid):
    corpus = small_rolls(tmp_path, representation, grid=grid)
    assert corpus.reading.grid == (grid or 8)
    assert corpus.pieces == [f"{seed}.mid" for seed in range(8)]
    for seed in range(8):
        expected, _ = frames_of(piece_of(seed), grid or 8)
        np.testing.assert_array_equal(corpus.frames(seed), expected)
    assert [len(frames) for frames in map(corpus.frames, range(8))] == [
        length - (representation == "chord") for length in corpus.lengths
    ]


@pytest.mark.parametrize("representation", ["chord", "note"])
def test_a_file_of_rolls_keeps_its_splits(rolls, representation):
    corpus = load(rolls, representation)
    assert corpus.pieces == ["train-1", "train-2", "train-3", "valid-1", "test-1", "test-2"]
    assert corpus.splits == {"train": [0, 1, 2], "valid": [3], "test": [4, 5]}
    for split, pieces in MUSIC.items():
        for found, steps in zip(corpus.split_frames(split), pieces, strict=True):
            np.testing.assert_array_equal(found, frames_with(steps))


@pytest.mark.parametrize(
    ("name", "grid"), [("jsb", 4), ("muse", 8), ("nottingham", 8), ("piano-midi", 8)]
)
def test_a_named_set_has_a_grid_of_its_own(rolls, name, grid):
    assert load_corpus(name, rolls, Reading("note")).reading.grid == grid
    assert load_corpus(name, rolls, Reading("note", grid=2)).reading.grid == 2


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_full_chords_are_thinned_by_the_seed(tmp_path, most):
    clusters = [[range(40, 48 - n % 5) for n in range(12)] for _ in range(2)]
    path = write_rolls(tmp_path / "full.mat", MUSIC | {"train": clusters})
    whole = load(path)
    thinned = load(path, max_polyphony=most)
    assert thinned.splits == whole.splits
    for piece in range(len(whole.pieces)):
        before, after = whole.frames(piece), thinned.frames(piece)
        assert not (after > before).any()
        full = before.sum(axis=1) > most
        np.testing.assert_array_equal(after[~full], before[~full])
        assert (after[full].sum(axis=1) == max(1, most - 1)).all()
    np.testing.assert_array_equal(load(path, max_polyphony=most).packed, thinned.packed)
    assert (load(path, max_polyphony=most, seed=1).packed != thinned.packed).any()
    assert (thinned.frames(0) != thinned.frames(1)).any()  # each piece has its own luck


@pytest.mark.parametrize("minor", ["A", "C"])
def test_pieces_come_to_a_common_key(tmp_path, minor):
    scales = [[(tonic + step,) for step in (0, 2, 4, 5, 7, 9, 11, 12, 0, 7)] for tonic in (50, 57)]
    scales += [[(tonic + step,) for step in (0, 2, 3, 5, 7, 8, 11, 12, 0, 7)] for tonic in (51, 65)]
    path = write_rolls(tmp_path / "scales.mat", MUSIC | {"train": scales})
    whole, corpus = load(path), load(path, common_key=minor)
    for before, after in zip(
        whole.split_frames("train"), corpus.split_frames("train"), strict=True
    ):
        _, mode = estimate_key(before)
        assert estimate_key(after) == ((9 if minor == "A" else 0) * (mode == "minor"), mode)
        np.testing.assert_array_equal(after, to_common_key(before, minor)[0])
    assert {estimate_key(f)[0] for f in whole.split_frames("train")} == {2, 9, 3, 5}


def test_files_without_a_frame_of_notes_are_skipped_and_named(tmp_path):
    music = write_music(tmp_path / "music")
    write_midi(Piece("", [track_of([(0, 480, 10), (0, 480, 120)])]), music / "8-beyond.mid")
    write_midi(Piece("", [track_of([(10, 20, 60)])]), music / "9-between.mid")
    (music / "bad.mid").write_bytes(b"rubbish")
    corpus = load(music)
    assert len(corpus.pieces) == 8
    assert [s.file for s in corpus.skipped] == ["8-beyond.mid", "9-between.mid", "bad.mid"]
    beyond, between, _ = (s.reason for s in corpus.skipped)
    assert beyond == "has no note that sounds on the grid (2 lie outside the piano's 88)"
    assert between == "has no note that sounds on the grid"
    assert corpus.summary()["skipped"][0] == {"file": "8-beyond.mid", "reason": beyond}
    with pytest.raises(UserError, match=r"no usable MIDI file among 1 in .*on the grid"):
        load(music / "9-between.mid")


# Chords -----------------------------------------------------------------------------------------


def test_ids_are_the_chords_of_every_piece_and_its_end(tmp_path):
    corpus = small_rolls(tmp_path, "chord")
    for piece in corpus.splits["train"]:
        words = chord_words(frames_of(piece_of(piece))[0])
        assert piece_words(corpus, piece) == [*words, PIECE_END]
    assert corpus.ids.dtype == np.int32
    assert len(corpus.ids) == len(corpus.unseen) == sum(corpus.lengths)


def test_the_vocabulary_is_of_the_training_chords_by_falling_count(rolls):
    corpus = load(rolls, "chord")
    assert list(corpus.vocabulary.words) == [
        PIECE_END, "60-64-67", "21-108", "59-62-67", "60", "60-65-69", "rest",
    ]  # fmt: skip


def test_an_unseen_chord_is_read_as_the_nearest_and_asks_for_nothing(rolls):
    corpus = load(rolls, "chord")
    assert piece_words(corpus, 3) == ["60-65-69", "60-64-67", "rest", PIECE_END]
    assert piece_words(corpus, 4) == ["59-62-67", "21-108", "59-62-67", PIECE_END]
    unseen = [bool(u) for p in (3, 4) for u in corpus.unseen[slice(*corpus.id_offsets[p : p + 2])]]
    assert unseen == [False, True, False, False, True, True, False, False]
    (batch,) = corpus.evaluation_batches("valid", B=1, T=9)
    ids = {word: id for id, word in enumerate(corpus.vocabulary.words)}
    own = [ids[word] for word in piece_words(corpus, 3)]
    assert batch.x[:4, 0].tolist() == [ids[PIECE_END], *own[:3]]
    assert batch.y[:4, 0].tolist() == [own[0], NO_TARGET, own[2], ids[PIECE_END]]
    assert batch.targets == 3
    assert not corpus.unseen[: corpus.id_offsets[3]].any()


def test_the_chord_vocabulary_has_training_chords_transposed(rolls):
    words = load(rolls, "chord", transpose_augment=2).vocabulary.words
    train = load(rolls, "chord").vocabulary.words[1:]
    moved = {transpose_chord(word, shift) for word in train for shift in range(-2, 3)}
    assert set(words[1:]) == moved - {None}
    assert list(words[:2]) == [PIECE_END, "60-64-67"]


def test_notes_have_no_ids(rolls):
    corpus = load(rolls)
    assert len(corpus.ids) == len(corpus.unseen) == 0
    assert list(corpus.vocabulary.words) == [str(LOWEST + n) for n in range(NOTES)]


# What is kept -----------------------------------------------------------------------------------


def unprepared(patch):
    """Make preparing a corpus an error, so that only the cache is left."""

    def no_prepare(*_):
        raise AssertionError("prepared again")

    for name in ("prepare_rolls", "prepare_file"):
        patch.setattr(corpora, name, no_prepare)


@pytest.fixture(params=["midi", "mat"])
def place(request, tmp_path):
    """Where music is, as MIDI files and as a file of rolls."""
    if request.param == "mat":
        return write_rolls(tmp_path / "rolls.mat")
    return write_music(tmp_path / "music")


@pytest.mark.parametrize(
    "reading",
    [
        Reading("note"),
        Reading("chord"),
        Reading("chord", "merge", 4, 2, "A", 3, 5),
    ],
    ids=str,
)
def test_the_second_load_is_from_the_cache(place, monkeypatch, reading):
    if place.is_dir():
        (place / "bad.mid").write_bytes(b"rubbish")
    first = load_corpus(str(place), reading=reading)
    unprepared(monkeypatch)
    moved = place.rename(place.with_name(f"moved{place.suffix}"))
    second = load_corpus(str(moved), reading=reading)
    assert same(first, second)
    assert isinstance(second.packed, np.memmap)
    assert bool(second.skipped) == moved.is_dir()
    assert first.summary() == second.summary()


@pytest.mark.slow(keep=4)
@pytest.mark.parametrize(
    "file",
    ["packed.npy", "offsets.npy", "ids.npy", "unseen.npy", "shifts.npy", "corpus.json", "sha256"],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_cache_is_made_anew(rolls, cache, monkeypatch, file, damage):
    first = in_memory(load(rolls, "chord"))
    path = cache / f"{first.key}-{FORMAT}" / file
    if damage == "flip":
        flip(path, 0.95)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    assert same(first, load(rolls, "chord"))
    unprepared(monkeypatch)
    assert same(first, load(rolls, "chord"))  # and is whole again
    assert [p.name for p in cache.glob("*-*")] == [f"{first.key}-{FORMAT}"]


def test_each_setting_makes_another_corpus(place):
    base = Reading("chord", grid=8, max_polyphony=3, common_key="A", transpose_augment=1, seed=0)
    others = [
        {"representation": "note"}, {"grid": 4}, {"max_polyphony": 2}, {"max_polyphony": 0},
        {"common_key": "C"}, {"common_key": None}, {"transpose_augment": 2}, {"seed": 1},
    ]  # fmt: skip
    readings = [base, *(replace(base, **other) for other in others), Reading("message")]
    if not place.is_dir():
        readings.pop()
    keys = {load_corpus(str(place), reading=reading).key for reading in readings}
    assert len(keys) == len(readings)


def test_settings_that_change_nothing_make_no_other_corpus(rolls):
    keys = {
        load_corpus(name, rolls, reading).key
        for name in ("muse", "nottingham")
        for reading in (
            Reading("chord"), Reading("chord", seed=3), Reading("chord", "merge"),
            Reading("chord", grid=8),
        )
    }  # fmt: skip
    assert len(keys) == 1


def test_other_content_makes_another_corpus(rolls):
    before = load(rolls).key
    assert load(write_rolls(rolls, MUSIC | {"test": [[C]]})).key != before


def test_primers_open_validation_pieces(rolls, tmp_path):
    (primer,) = load(rolls, "chord").primers()
    corpus = load(rolls, "chord")
    assert primer["name"] == "valid-1"
    assert [corpus.vocabulary.word(id) for id in primer["ids"]] == ["60-65-69", "60-64-67", "rest"]
    (primer,) = load(rolls, "note").primers()
    assert primer == {"name": "valid-1", "frames": [list(F), [60, 64, 67, 72], []]}
    long = write_rolls(tmp_path / "long.mat", MUSIC | {"valid": [[C] * 65]})
    assert len(load(long, "chord").primers()[0]["ids"]) == 64
    assert len(load(long, "note").primers()[0]["frames"]) == 64


def test_the_tokenizer_says_how_to_read_again(rolls):
    reading = Reading("chord", grid=4, max_polyphony=2, common_key="A", seed=5)
    corpus = load_corpus(str(rolls), reading=reading)
    described = corpus.tokenizer_json()
    again = load_corpus(str(rolls), reading=Reading(described.pop("name"), **described))
    assert same(corpus, again)


@pytest.mark.parametrize("representation", ["chord", "note"])
def test_the_summary_counts_frames_and_different_frames(rolls, representation):
    summary = load(rolls, representation).summary()
    assert {split: counts_of(counts) for split, counts in summary["splits"].items()} == {
        "train": {"pieces": 3, "tokens": 9, "unique_tokens": 6},
        "valid": {"pieces": 1, "tokens": 3, "unique_tokens": 3},
        "test": {"pieces": 2, "tokens": 4, "unique_tokens": 4},
    }
    assert [summary[k] for k in ("pieces", "tokens", "unique_tokens")] == [6, 16, 10]
    assert summary["skipped"] == []


# Where rolls are --------------------------------------------------------------------------------


@pytest.mark.slow(keep=4)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("jsb", "JSB_Chorales.mat"), ("jsb", "JSB Chorales.mat"), ("jsb", "deep/jsb.MAT"),
        ("muse", "MuseData.mat"), ("nottingham", "Nottingham.mat"),
        ("piano-midi", "Piano_midi.mat"), ("piano-midi", "Piano-midi.de.mat"),
        ("piano-midi", "piano-midi.mat"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", ["data", "environment"])
def test_a_named_set_is_found_in_a_folder(tmp_path, monkeypatch, name, file, by):
    folder = tmp_path / "data"
    folder.mkdir()
    for other in ("other.mat", "JSB_Chorales.txt"):
        (folder / other).write_bytes(b"rubbish")
    write_rolls(folder / file)
    if by == "environment":
        monkeypatch.setenv("LSTM_MUSIC_DATA", str(folder))
    corpus = load_corpus(name, folder if by == "data" else None, Reading("note"))
    assert corpus.name == name
    assert len(corpus.pieces) == 6


@pytest.mark.parametrize(
    ("name", "data", "representation", "says"),
    [
        ("jsb", None, "note", "the folder that LSTM_MUSIC_DATA should name: say where it is"),
        ("jsb", None, "message", "'jsb' holds piano rolls, which have no MIDI messages"),
        ("jsb", "music", "chord", "no JSB_Chorales.mat or JSB_Chorales.pickle in 'music'"),
        ("jsb", ".", "chord", "no JSB_Chorales.mat or JSB_Chorales.pickle in '.'"),
        ("jsb", "rolls.mat", "message", "read it with --representation chord or note"),
        ("jsb", "none.mat", "note", "no file or folder 'none.mat': check the path"),
        ("rolls.mat", None, "message", "'rolls.mat' holds piano rolls"),
        ("none.mat", None, "note", "no file or folder 'none.mat'"),
        ("bad.mat", None, "chord", "can't use 'bad.mat'"),
        ("jsb", "bad.mat", "chord", "can't use 'bad.mat'"),
    ],
)
def test_what_is_no_set_of_rolls(rolls, tmp_path, monkeypatch, name, data, representation, says):
    monkeypatch.chdir(tmp_path)
    write_music(tmp_path / "music", pieces=3)
    Path("bad.mat").write_bytes(b"rubbish")
    with pytest.raises(UserError) as error:
        load_corpus(name, data and Path(data), Reading(representation))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_folder_of_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_DATA", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no MuseData.mat or MuseData.pickle in '.*/none'"):
        load_corpus("muse", None, Reading("note"))


def test_a_named_set_may_be_midi_files(tmp_path):
    music = write_music(tmp_path / "music", pieces=3)
    assert load_corpus("jsb", music, Reading("message")).pieces == ["0.mid", "1.mid", "2.mid"]
    one = load_corpus("jsb", music / "0.mid", Reading("note"))
    np.testing.assert_array_equal(one.frames(0), frames_of(piece_of(0), 4)[0])


@pytest.mark.parametrize("grid", [7, 1921, -1])
def test_a_grid_that_divides_no_whole_note_is_refused(rolls, grid):
    with pytest.raises(UserError, match=f"the grid must divide 1920, not be {grid}"):
        load(rolls, grid=grid)


# The real sets ----------------------------------------------------------------------------------


@pytest.fixture
def quickly(monkeypatch):
    """Let the first chord stand in for each unseen one: the nearest takes seconds to find."""

    class First:
        def __init__(self, known):
            self.known = known

        def many(self, frames):
            return np.zeros(len(frames), int)

    monkeypatch.setattr(roll_corpus, "NearestChord", First)


@needs_muse
def test_musedata_has_the_papers_chords(quickly):
    """Muse-All: 39,289 unique tokens, the very number."""
    corpus = load_corpus("muse", DATA, Reading("chord"))
    train = {"pieces": 524, "tokens": 245_202, "unique_tokens": 39_289}
    assert counts_of(corpus.summary()["splits"]["train"]) == train
    assert len(corpus.vocabulary) == 39_289 + 1
    test = corpus.splits["test"]
    at = slice(corpus.id_offsets[test[0]], corpus.id_offsets[test[-1] + 1])
    assert corpus.unseen[at].sum() / 64_339 == pytest.approx(0.200, abs=5e-4)


@pytest.mark.slow
@needs_muse
def test_musedata_thinned_has_about_as_many_chords_as_the_papers(quickly):
    """Muse-Truncated: 21,510."""
    summary = load_corpus("muse", DATA, Reading("chord", max_polyphony=4)).summary()
    assert abs(summary["splits"]["train"]["unique_tokens"] - 21_500) <= 100


@needs_jsb
def test_the_chorales_have_as_many_chords_as_in_the_literature():
    corpus = load_corpus("jsb", DATA, Reading("chord"))
    train = {"pieces": 229, "tokens": 13_807, "unique_tokens": 2_420}
    assert counts_of(corpus.summary()["splits"]["train"]) == train
    assert len(corpus.vocabulary) == 2_420 + 1
    test = corpus.splits["test"]
    at = slice(corpus.id_offsets[test[0]], corpus.id_offsets[test[-1] + 1])
    assert corpus.unseen[at].sum() / 4_725 == pytest.approx(0.100, abs=5e-4)
