import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from lstm_music.corpus.roll_files import LARGEST, SPLITS
from lstm_music.corpus.roll_files import rolls_in as read_rolls
from lstm_music.errors import UserError
from lstm_music.midi.roll import LOWEST, NOTES

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
JSB, MUSE = (DATA / "piano-roll" / name for name in ("JSB_Chorales.mat", "MuseData.mat"))
needs_jsb = pytest.mark.skipif(not JSB.exists(), reason=f"no {JSB.name} in LSTM_MUSIC_DATA")
needs_muse = pytest.mark.skipif(not MUSE.exists(), reason=f"no {MUSE.name} in LSTM_MUSIC_DATA")

MUSIC = {
    "train": [[(60, 64, 67), (60,), ()], [(21, 108)]],
    "valid": [[(62,)]],
    "test": [[(), (70,)]],
}


def frames_from(notes, steps):
    frames = np.zeros((steps, NOTES), np.uint8)
    for t, column in notes:
        frames[t, column] = 1
    return frames


def frames_with(steps):
    """Frames from a list of MIDI pitches for each step."""
    return frames_from([(t, p - LOWEST) for t, step in enumerate(steps) for p in step], len(steps))


def assert_frames(frames, expected):
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, expected)


def assert_music(rolls, music=MUSIC):
    assert list(rolls) == list(SPLITS)
    for split in SPLITS:
        for frames, steps in zip(rolls[split], music[split], strict=True):
            assert frames.flags.c_contiguous
            assert_frames(frames, frames_with([[int(p) for p in step] for step in steps]))


def written(folder, data, name="set.pickle"):
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        read_rolls(path)
    reason = str(caught.value)
    assert "\n" not in reason and len(reason) < len(str(path)) + 200
    return reason


# Pickles

AS_ARRAYS = {
    "tuples": tuple,
    "lists": list,
    "arrays": np.array,
    "big-endian": lambda step: np.array(step, ">i2"),
    "bytes": lambda step: np.array(step, np.uint8),
    "floats": lambda step: np.array(step, np.float64),
    "scalars": lambda step: [np.int64(pitch) for pitch in step],
    "float-scalars": lambda step: tuple(np.float32(pitch) for pitch in step),
}


def music_as(step_of):
    return {s: [[step_of(step) for step in roll] for roll in MUSIC[s]] for s in SPLITS}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("step_of", AS_ARRAYS.values(), ids=AS_ARRAYS.keys())
def test_pickles_of_every_protocol_are_read(tmp_path, protocol, step_of):
    data = pickle.dumps(music_as(step_of), protocol)
    assert_music(read_rolls(written(tmp_path, data)))
    old = data.replace(b"numpy._core", b"numpy.core")  # as NumPy 1 has it
    if protocol < 4:  # later ones count the letters
        assert_music(read_rolls(written(tmp_path, old, "set.PKL")))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_sequence_may_be_a_table(tmp_path, protocol, order):
    table = np.array([[60, 64], [62, 65], [64, 67]], order=order)
    music = {"train": (table, [table[0]]), "valid": [table], "test": [table.tolist()]}
    data = pickle.dumps(music, protocol)
    assert_music(read_rolls(written(tmp_path, data)), music)


# What Python 2.7 and NumPy 1.16 wrote: bytes are strings there.
PYTHON_2_INT64 = (
    b"cnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'i8'\np3\nI0\nI1\ntp4\nRp5\n"
    b"(I3\nS'<'\np6\nNNNI-1\nI-1\nI0\ntp7\nbS'<\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np8\ntp9\nRp10\n"
)
PYTHON_2_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04"
    b"\x87q\x05Rq\x06(K\x01K\x02\x85q\x07cnumpy\ndtype\nq\x08U\x02i8q\tK\x00K\x01\x87q\nRq\x0b"
    b"(K\x03U\x01<q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\rb\x89U\x10<\x00\x00\x00\x00"
    b"\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00q\x0etq\x0fb"
)


def test_pickles_of_python_2_are_read(tmp_path):
    text = b"(dp0\nS'train'\n(l(l(" + PYTHON_2_INT64 + b"I64\ntaasS'valid'\n(l(l(L60L\ntaas"
    text += b"S'test'\n(l(l(lI60\naaas."
    binary = b"\x80\x02}q\x10(U\x05train]]" + PYTHON_2_ARRAY + b"aaU\x05valid]]](K<K@eaaU\x04test]]"
    binary += b"h\x06aau."
    third = {"train": [[(60, 64)]], "valid": [[(60,)]], "test": [[(60,)]]}
    assert_music(read_rolls(written(tmp_path, text)), third)
    assert_music(read_rolls(written(tmp_path, binary)), {split: [[(60, 64)]] for split in SPLITS})
    assert pickle.loads(binary, encoding="latin1")["train"][0][0].tolist() == [60, 64]


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


class Odd(list):
    """A class of the tests."""


MALICE = {
    "system": Calls(os.system, "touch run"),
    "eval": Calls(eval, "open('run', 'w')"),
    "getattr": Calls(getattr, MUSIC, "keys"),
    "open": Calls(open, "run", "w"),
    "class": Odd([60]),
    "set": {60},
    "frozenset": frozenset([60]),
    "complex": 1j,
    "bytearray": bytearray(b"<"),
    "slice": slice(60),
    "objects": np.array([Calls(os.system, "touch run")], object),
    "dates": np.array(["2000-01-01"], "M8[D]"),
    "strings": np.array(["60"]),
    "records": np.array([(60,)], [("pitch", "i4")]),
    "complex-array": np.array([60j]),
    "masked": np.ma.array([60]),
    "dtype": np.dtype("O"),
    "zero-dimensional": np.array(60),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("thing", MALICE.values(), ids=MALICE.keys())
def test_anything_but_music_is_refused_and_never_run(tmp_path, monkeypatch, protocol, thing):
    monkeypatch.chdir(tmp_path)
    for n, place in enumerate([thing, [thing], [[thing]], [[[thing]]]]):
        data = pickle.dumps({**MUSIC, "test": place}, protocol)
        assert "set.pickle" in refusal(written(tmp_path, data)), n
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["system", "eval", "getattr", "open", "class"])
def test_a_name_is_refused_where_it_stands(tmp_path, name):
    reason = refusal(written(tmp_path, pickle.dumps({"name": MALICE[name]}, 2)))
    assert "it asks for" in reason and "neither a list nor a number" in reason


FAULTS = {
    "no dictionary": ([1], "not a dictionary of train, valid, test"),
    "no split": ({"train": [[(60,)]], "valid": [[(60,)]]}, "not a dictionary of"),
    "empty split": ({**MUSIC, "valid": []}, "no pieces in valid"),
    "empty sequence": ({**MUSIC, "valid": [[(60,)], []]}, "valid, sequence 2: it is empty"),
    "flat sequence": ({**MUSIC, "test": [[60, 62]]}, "test, sequence 1: a int where a list"),
    "low": ({**MUSIC, "train": [[()], [(), (21, 20)]]}, "train, sequence 2: 20 is no pitch"),
    "high": ({**MUSIC, "train": [[(109,)]]}, "train, sequence 1: 109 is no pitch from 21 to 108"),
    "between": ({**MUSIC, "train": [[(60.5,)]]}, "60.5 is no pitch"),
    "missing": ({**MUSIC, "train": [[(60.0, np.nan)]]}, "train, sequence 1"),
    "infinite": ({**MUSIC, "train": [[(np.inf,)]]}, "train, sequence 1"),
    "text": ({**MUSIC, "train": [[("60",)]]}, "a str is no pitch"),
    "truth": ({**MUSIC, "train": [[(True,)]]}, "a bool is no pitch"),
    "word": ({**MUSIC, "train": [["60"]]}, "a str where a list should be"),
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(("music", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_pickles_of_other_music_are_refused_by_place(tmp_path, protocol, music, reason):
    assert reason in refusal(written(tmp_path, pickle.dumps(music, protocol)))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_cut_anywhere_is_refused(tmp_path, protocol):
    data = pickle.dumps(MUSIC, protocol)
    for length in range(len(data)):
        refusal(written(tmp_path, data[:length]))


# MATLAB files


def cells(rolls):
    made = np.empty((1, len(rolls)), object)
    made[0] = rolls
    return made


def saved(folder, name="set.mat", compressed=True, **variables):
    path = folder / name
    scipy.io.savemat(path, variables, do_compression=compressed)
    return path


def variables(dtype=np.uint8):
    rolls = {s: [frames_with(steps).astype(dtype) for steps in MUSIC[s]] for s in SPLITS}
    return {f"{split}data": cells(rolls[split]) for split in SPLITS}


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"])
@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_of_every_number_are_read(tmp_path, dtype, compressed):
    path = saved(tmp_path, compressed=compressed, other=np.eye(3), **variables(dtype))
    assert_music(read_rolls(path))


NOT_MATRICES = {
    "wide": (np.zeros((5, 89)), "its shape is (5, 89)"),
    "turned": (np.zeros((88, 5)), "its shape is (88, 5)"),
    "deep": (np.zeros((5, 88, 2)), "its shape is (5, 88, 2)"),
    "twos": (np.full((5, 88), 2), "other numbers than 0 and 1"),
    "halves": (np.full((5, 88), 0.5), "other numbers than 0 and 1"),
    "negative": (np.full((5, 88), -1), "other numbers than 0 and 1"),
    "missing": (np.full((5, 88), np.nan), "other numbers than 0 and 1"),
    "nothing": (np.zeros((0, 0)), "its shape is (0, 0)"),
    "complex": (np.full((5, 88), 1j), "not a matrix of numbers"),
    "text": ("60", "not a matrix of numbers"),
    "cell": (cells([np.zeros((5, 88))]), "not a matrix of numbers"),
    "sparse": (scipy.sparse.csc_matrix(np.eye(88)), "not a matrix of numbers"),
}


@pytest.mark.parametrize(("thing", "reason"), NOT_MATRICES.values(), ids=NOT_MATRICES.keys())
def test_mat_files_of_other_cells_are_refused_by_place(tmp_path, thing, reason):
    content = variables() | {"validdata": cells([np.zeros((5, 88)), thing])}
    found = refusal(saved(tmp_path, **content))
    assert "validdata, sequence 2: " in found and reason in found


@pytest.mark.parametrize("thing", [np.zeros((5, 88)), "text"])
def test_mat_files_of_other_variables_are_refused(tmp_path, thing):
    path = saved(tmp_path, **variables() | {"testdata": thing})
    assert "testdata is not a cell array" in refusal(path)


def test_mat_files_without_a_split_are_refused(tmp_path):
    content = variables()
    del content["testdata"]
    assert "it has no testdata" in refusal(saved(tmp_path, **content))


def test_a_mat_file_cut_anywhere_is_refused(tmp_path):
    data = saved(tmp_path, **variables()).read_bytes()
    for length in range(0, len(data) - 8, 7):
        refusal(written(tmp_path, data[:length], "cut.mat"))


# Files


def test_other_files_are_refused(tmp_path):
    assert "choose another" in refusal(written(tmp_path, b"", "set.json"))
    assert "No such file" in refusal(tmp_path / "none.mat")
    (tmp_path / "folder.pickle").mkdir()
    assert "directory" in refusal(tmp_path / "folder.pickle")


@pytest.mark.parametrize("name", ["set.mat", "set.pickle"])
def test_files_too_large_are_refused(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "more than 64 MB" in refusal(tmp_path / name)


# Real music


def counts(rolls):
    return {s: (len(rolls[s]), sum(map(len, rolls[s]))) for s in SPLITS}


def assert_as_scipy_reads(path, rolls):
    content = scipy.io.loadmat(path)
    for split in SPLITS:
        for frames, expected in zip(rolls[split], content[f"{split}data"][0], strict=True):
            assert_frames(frames, expected)


@needs_muse
def test_musedata_is_whole():
    rolls = read_rolls(MUSE)
    assert counts(rolls) == {"train": (524, 245202), "valid": (135, 82755), "test": (124, 64339)}
    assert_as_scipy_reads(MUSE, rolls)


@needs_jsb
def test_the_chorales_are_whole():
    rolls = read_rolls(JSB)
    assert counts(rolls) == {"train": (229, 13807), "valid": (76, 4602), "test": (77, 4725)}
    assert_as_scipy_reads(JSB, rolls)
