"""examples/minimal.py against the package: its tokens, its loss and gradients, its optimiser."""

import ast
import os
import subprocess
import sys

import mido
import numpy as np
import pytest
from documentation import ROOT
from gradcheck import check_gradients, dense
from small import piece_of, track_of, write_music

from lstm_music.arrays import Batch, RowGradient
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.network.config import Config, State
from lstm_music.network.model import Model
from lstm_music.network.optim import Optimizer, clip_scale, global_norm
from lstm_music.ops import get_ops
from lstm_music.tokenizers.messages import MessageTokenizer

EXAMPLE = ROOT / "examples" / "minimal.py"
MOST_LINES = 200
T, B, V, E, H = 5, 3, 7, 4, 6
ALONE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {"numpy", "mido", "packaging", *sys.stdlib_module_names}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def minimal():
    sys.path.insert(0, str(EXAMPLE.parent))
    import minimal

    sys.path.remove(str(EXAMPLE.parent))
    return minimal


def test_it_is_short_and_needs_two_packages():
    text = EXAMPLE.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    names = {alias.name for node in imported for alias in node.names}
    assert names - set(sys.stdlib_module_names) == {"mido", "numpy"}


# Tokens -----------------------------------------------------------------------------------------


def assert_tokens(minimal, content):
    words = MessageTokenizer("merge").words(read_midi(content, "x"))
    assert minimal.words_of(content) == words and len(words) > 10


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("which", [slice(0, 400, 20), slice(None)], ids=["some", "all"])
def test_bachs_tokens_are_the_packages(minimal, which):
    for content in minimal.read(minimal.BACH)[which]:
        assert_tokens(minimal, content)


def test_what_tracks_play_together_is_one_note(minimal, tmp_path):
    one = track_of([(0, 480, 60), (480, 960, 62), (960, 1200, 62), (2000, 2400, 65)])
    two = track_of([(0, 240, 60), (480, 1200, 62), (2100, 2200, 65), (2200, 3000, 65)])
    write_midi(Piece("", [one, two]), tmp_path / "a.mid")
    assert_tokens(minimal, (tmp_path / "a.mid").read_bytes())


def test_folders_files_drums_and_resolutions(minimal, tmp_path):
    found = minimal.read(write_music(tmp_path / "music"))
    assert len(found) == 8 and minimal.read(tmp_path / "music" / "3.mid") == [found[3]]
    for content in found:
        assert_tokens(minimal, content)
    drums = track_of([(0, 60, 36), (240, 300, 38)])
    write_midi(Piece("", [*piece_of(1).tracks, drums], drums=(False, False, True)), tmp_path / "a")
    midi = mido.MidiFile(tmp_path / "a")
    midi.ticks_per_beat = 96
    midi.save(tmp_path / "a")
    assert_tokens(minimal, (tmp_path / "a").read_bytes())


def test_windows_are_the_pieces_end_to_end(minimal, monkeypatch):
    monkeypatch.setattr(minimal, "T", T)
    monkeypatch.setattr(minimal, "B", B)
    pieces = [np.array([*range(1, n), minimal.END]) for n in (9, 12, 20, 22)]
    found = minimal.windows(pieces, np.random.default_rng(0))
    size = sum(map(len, pieces)) // B // T
    x, y, keep = (
        np.concatenate(part) for part in zip(*(next(found) for _ in range(size)), strict=True)
    )
    assert x.shape == y.shape == (size * T, B) and keep.shape == (size * T, B, 1)
    np.testing.assert_array_equal(x[1:], y[:-1])
    np.testing.assert_array_equal(keep[1:, :, 0] == 0, y[:-1] == minimal.END)
    assert not keep[0].any()
    counts = [np.bincount(ids.ravel(), minlength=22) for ids in (y, np.concatenate(pieces))]
    assert (counts[0] <= counts[1]).all() and counts[0].sum() > 0.7 * counts[1].sum()
    assert (y[1:] == np.where(y[:-1] == minimal.END, 1, y[:-1] + 1))[y[1:] != minimal.END].all()
    assert not np.array_equal(next(found)[1], y[:T])  # another order


# Network ----------------------------------------------------------------------------------------


@pytest.fixture
def given(minimal, monkeypatch):
    """Parameters, a window with two new pieces in it, and a state, in float64."""
    monkeypatch.setattr(minimal, "E", E)
    monkeypatch.setattr(minimal, "H", H)
    rng = np.random.default_rng(3)
    p = {k: a.astype(float) for k, a in minimal.new_parameters(V, rng).items()}
    x, y = rng.integers(V, size=(2, T, B))
    keep = np.ones((T, B, 1))
    keep[0, 1] = keep[3, 2] = 0
    h0, c0 = rng.standard_normal((2, B, H))
    return p, x, y, keep, h0, c0


def model_of(p):
    return Model(Config(V, E, H, layers=1), get_ops("numpy", "float64"), parameters=p)


def test_new_networks_are_alike(minimal, given):
    p, own = given[0], model_of(None).parameters
    assert {k: a.shape for k, a in p.items()} == {k: a.shape for k, a in own.items()}
    np.testing.assert_array_equal(p["lstm.0.b"], own["lstm.0.b"])
    for name in ("lstm.0.Wx", "lstm.0.Wh", "head.W"):
        assert np.abs(p[name]).max() <= 1 / np.sqrt(H) < 1.2 * np.abs(p[name]).max()


def test_loss_and_gradients_are_the_packages(minimal, given):
    p, x, y, keep, h0, c0 = given
    loss, grads, h, c = minimal.loss_and_grads(*given)
    batch = Batch(x.astype(np.int32), y.astype(np.int32), keep[..., 0], T * B)
    own, theirs, state = model_of(p).loss_and_grads(batch, State(h0[None], c0[None]))
    assert abs(loss - own) < 1e-10
    assert grads.keys() == theirs.keys()
    for name, g in theirs.items():
        g = dense(g, p[name].shape) if isinstance(g, RowGradient) else g
        np.testing.assert_allclose(grads[name], g, rtol=1e-10, atol=1e-12, err_msg=name)
    np.testing.assert_allclose([h, c], [state.h[0], state.c[0]], rtol=1e-10)


def test_gradients_are_the_finite_differences(minimal, given):
    p = given[0]
    check_gradients(lambda: minimal.loss_and_grads(*given)[0], p, minimal.loss_and_grads(*given)[1])


def test_adam_is_the_packages(minimal, given):
    p = given[0]
    own = {k: a.copy() for k, a in p.items()}
    m, v = ({k: np.zeros_like(a) for k, a in p.items()} for _ in range(2))
    optimizer = Optimizer(get_ops("numpy", "float64"), "adam", own)
    rng = np.random.default_rng(1)
    for t in range(1, 6):  # the last two gradients are clipped
        grads = {k: 3.0 ** (t - 5) * rng.standard_normal(a.shape) for k, a in p.items()}
        norm = global_norm(optimizer.ops, grads)
        assert (norm > minimal.CLIP) == (t > 3)
        minimal.adam_step(p, grads, m, v, t, 0.01)
        optimizer.step(own, grads, 0.01, clip_scale(norm, minimal.CLIP))
    for name in p:
        np.testing.assert_allclose(p[name], own[name], rtol=1e-10, atol=1e-12, err_msg=name)


# Composing --------------------------------------------------------------------------------------


def notes_in(track):
    """(start, end) of each note of a track, after seeing that it makes sense."""
    now, began, notes = 0, {}, []
    for message in track:
        now += message.time
        if message.type == "note_on":
            assert message.note not in began
            began[message.note] = now
        elif message.type == "note_off":
            notes.append((began.pop(message.note), now))
        assert len(began) <= 4
    assert not began
    return notes


def test_what_is_composed_makes_sense(minimal, given, monkeypatch):
    """By a network that knows nothing: few notes at once, none too long, an end in silence."""
    messages = [(on, pitch) for on in ("off", "on") for pitch in (55, 60, 64, 67, 69, 72)]
    words = ["piece-end", *(f"note-{on}-{p}-{d}" for on, p in messages for d in (0, 120, 600))]
    p = minimal.new_parameters(len(words), np.random.default_rng(1))
    monkeypatch.setattr(minimal, "TOP_P", 1.0)
    monkeypatch.setattr(minimal, "SHORTEST", 8 * minimal.QUARTER)
    tracks = [minimal.compose(p, words, np.random.default_rng(seed)) for seed in range(20)]
    pieces = list(map(notes_in, tracks))
    lengths = [end - start for notes in pieces for start, end in notes]
    assert minimal.LONGEST <= max(lengths) <= minimal.LONGEST + 4 * 600
    whole = [len(track) < minimal.MOST_TOKENS for track in tracks]
    ends = [max(end for _, end in notes) for notes, own in zip(pieces, whole, strict=True) if own]
    assert min(ends) >= minimal.SHORTEST and len(set(ends)) > 5
    assert {message.time for track in tracks for message in track[1:]} == {0, 120, 600}
    monkeypatch.setattr(minimal, "MOST_TOKENS", 4)  # two notes sound at the last: they end there
    for seed in range(10):
        track = minimal.compose(p, words, np.random.default_rng(seed))
        assert len(track) in (5, 7) and notes_in(track)


def test_the_likeliest_are_drawn(minimal, given, monkeypatch):
    p, words = given[0], ["piece-end", *(f"note-on-{60 + n}-{n}" for n in range(6))]
    p["head.W"][:], p["head.b"][:] = 0, np.log([0.01, 0.5, 0.3, 0.1, 0.05, 0.03, 0.01])
    monkeypatch.setattr(minimal, "MOST_TOKENS", 2)
    monkeypatch.setattr(minimal, "TOP_P", 0.9)
    rng = np.random.default_rng(0)
    first = [minimal.compose(p, words, rng)[1].note for _ in range(1000)]
    shares = np.bincount(first, minlength=67)[60:] / len(first)
    # Of 0.99 without piece-end, a share of 0.9 is that of the first three: 0.9 is above 0.891.
    np.testing.assert_allclose(shares, [5 / 9, 3 / 9, 1 / 9, 0, 0, 0, 0], atol=0.05)


# The whole --------------------------------------------------------------------------------------


def run(folder, *words):
    command = [sys.executable, "-c", ALONE, EXAMPLE, *words]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_runs_with_numpy_and_mido_alone(tmp_path):
    write_music(tmp_path / "music", pieces=30, notes=30)
    done = run(tmp_path, "music", "--steps", "60")
    assert not done.stderr and done.returncode == 0
    first, *steps, last = done.stdout.splitlines()
    assert first.startswith("30 pieces, 3,") and last == "minimal.mid"
    losses = [float(line.split()[2]) for line in steps]
    assert [line.split()[1] for line in steps] == ["50:", "60:"] and losses[1] < losses[0] < 3.6
    (track,) = read_midi(tmp_path / "minimal.mid", "a").tracks
    assert len(notes_of(track)) > 3


def test_too_little_music_is_an_error_of_one_line(tmp_path):
    done = run(tmp_path, write_music(tmp_path / "music"))
    assert done.returncode == 2
    assert "fewer than 2048 tokens: give more music" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", [None, b"", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk", b"no music"])
def test_a_file_that_cant_be_read_is_an_error_of_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "a.mid").write_bytes(content)
    done = run(tmp_path, "a.mid")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("minimal.py: error: a file can't be read (") and "give other" in last
