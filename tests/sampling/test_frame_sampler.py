import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small import small_model, small_rolls

from lstm_music.arrays import Batch
from lstm_music.corpus.batches import Batches, Segment
from lstm_music.corpus.surroundings import Surroundings
from lstm_music.errors import UserError
from lstm_music.midi.roll import NOTES
from lstm_music.network.biaxial import PLACES
from lstm_music.network.config import Config
from lstm_music.network.model import Model, part
from lstm_music.network.recall import FIELDS
from lstm_music.network.recall_rules import frame_rules
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.philox import uniform
from lstm_music.sampling import frames as frame_sampler
from lstm_music.sampling import sampler
from lstm_music.sampling.copying import FramePast, copies_of
from lstm_music.sampling.frames import (
    FRAMES,
    Reader,
    choose_notes,
    fit_thresholds,
    sample_frames,
)
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import ROWS

HEADS = ("sigmoid", "nade", "biaxial")
NOTHING = np.zeros((0, NOTES), np.uint8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_rolls(tmp_path_factory.mktemp("rolls"))


@pytest.fixture(params=HEADS)
def model(request, corpus):
    return lively(small_model(corpus, seed=5, head=request.param))


def lively(model):
    """The model, changed so that what is drawn depends on what is remembered."""
    names = ("W", "Wv", "Wh", "U") if model.config.rows == 1 else ("Wx", "Wo")
    for name in (f"head.{name}" for name in names):
        if name in model.parameters:
            model.parameters[name] *= 6
    if model.config.rows > 1:  # without which all notes are as likely as not in a first frame
        model.parameters["embedding.frame"][0] = 1
    return model


def read(model, frames):
    """What a model without a gate reads before each of some frames, and after the last."""
    x = np.zeros((len(frames) + 1, NOTES + 1), np.uint8)
    x[0, NOTES], x[1:, :NOTES] = 1, frames
    if model.config.rows == 1:
        return x
    return np.append(x, np.arange(len(x))[:, None] % PLACES, axis=1).astype(np.uint8)


def compose(model, primers=(NOTHING,), thresholds=None, **options):
    return sample_frames(model, list(primers), Options(**{"length": 30} | options), thresholds)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Choosing independent notes ---------------------------------------------------------------------

LOGITS = np.array([1.5, -0.5, 0.3, 2.0, 0.3, -3.0, 1.0], np.float32)


def probabilities(temperature=1.0):
    return 1 / (1 + np.exp(-LOGITS.astype(np.float64) / temperature))


def kept(p, top_k, top_p):
    """Which notes may sound, by definition, one after the other."""
    may, share = np.zeros(len(p), bool), 0.0
    for n in np.argsort(-p, kind="stable")[: top_k or None]:
        if share >= top_p * p.sum():
            break
        may[n], share = True, share + p[n]
    return may


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 4},  # of two that are equal, the first is kept
        {"top_k": 100},
        {"top_p": 1e-9},
        {"top_p": 0.5},
        {"top_p": 0.9, "temperature": 2.0},
        {"top_k": 3, "top_p": 0.9, "temperature": 0.7},
    ],
    ids=str,
)
def test_each_note_sounds_with_its_own_probability(how):
    N = 20_000
    options = Options(**how)
    draws = uniform(1, 2, 3, N * len(LOGITS)).reshape(N, -1)
    notes = choose_notes(np.tile(LOGITS, (N, 1)), draws, options)
    p = probabilities(options.temperature)
    may = kept(p, options.top_k, options.top_p)
    assert not notes[:, ~may].any()
    for n in np.flatnonzero(may):
        counts = np.bincount(notes[:, n], minlength=2)
        assert chisquare(counts, N * np.array([1 - p[n], p[n]])).pvalue > 1e-4


@given(
    logits=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2),
    u=st.sampled_from([0.0, 2.0**-32, 0.5, 1 - 2**-32]),
    temperature=st.floats(5e-324, 100),
    top_p=st.floats(1e-9, 1),
)
@settings(deadline=None)
@pytest.mark.filterwarnings("error")
def test_any_log_odds_can_be_drawn_by(logits, u, temperature, top_p):
    options = Options(temperature=temperature, top_k=1, top_p=top_p)
    notes = choose_notes(np.array([logits], np.float32), np.full((1, 2), u), options)[0]
    assert notes.sum() <= 1
    assert not notes.any() or logits[int(notes.argmax())] == max(logits)


def test_greedy_notes_pass_their_thresholds_whatever_was_drawn():
    thresholds = np.array([1.5, -1, 0.4, 0, 0, np.inf, 2], np.float32)
    draws = np.random.default_rng(0).random((3, len(LOGITS)))
    notes = choose_notes(np.tile(LOGITS, (3, 1)), draws, Options(greedy=True), thresholds)
    assert notes.tolist() == [[1, 1, 0, 1, 1, 0, 0]] * 3
    options = Options(greedy=True, top_k=2)
    notes = choose_notes(np.tile(LOGITS, (3, 1)), draws, options, thresholds)
    assert notes.tolist() == [[1, 0, 0, 1, 0, 0, 0]] * 3


# Pieces -----------------------------------------------------------------------------------------


def test_the_number_of_pieces_changes_none_of_them(model, corpus):
    openings = corpus.split_frames("train")
    primers = [openings[k % len(openings)][: k % 4] for k in range(ROWS + 3)]
    many = compose(model, primers, seed=9)
    for n in (1, 2, ROWS + 1):
        assert same(compose(model, primers[:n], seed=9), many[:n])
    assert len({frames.tobytes() for frames in many}) == len(many)


@pytest.mark.parametrize(("head", "hidden", "length"), [("nade", 96, 30), ("biaxial", 24, 3)])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_piece_of_many_has_the_outputs_of_a_piece_alone(
    backend, head, hidden, length, monkeypatch
):
    """Not only the same notes, which differ rarely, but the same bits."""
    config = Config(NOTES, hidden, hidden, 2, head=head, nade=40)
    model, seen = Model(config, get_ops(backend), seed=1), []
    real = model.draw

    def spy(h, draws, temperature):
        seen.append(h[0].copy())
        return real(h, draws, temperature)

    monkeypatch.setattr(model, "draw", spy)
    (alone,), outputs = compose(model, length=length), np.array(seen)
    seen.clear()
    many = compose(model, [NOTHING] * 20, length=length)
    assert np.array_equal(many[0], alone)
    assert np.array_equal(seen, outputs)


def test_a_seed_repeats_and_another_differs(model):
    once = compose(model, seed=1)
    assert same(once, compose(model, seed=1))
    assert not same(once, compose(model, seed=2))


def test_a_longer_piece_begins_as_the_shorter(model):
    """Past the frames for which random numbers are made at once, as before."""
    n = FRAMES + 7
    (shorter,), (longer,) = (compose(model, length=length, seed=3) for length in (n, n + 80))
    assert np.array_equal(longer[:n], shorter)
    assert same(compose(model, [longer[: n + 40]], length=n + 80, seed=3), [longer])


@pytest.mark.parametrize("length", [1, 16, 77])
def test_a_length_is_exact(model, corpus, length):
    for primer in (NOTHING, corpus.frames(0)[:length]):
        (frames,) = compose(model, [primer], length=length)
        assert frames.shape == (length, NOTES)
        assert frames.dtype == np.uint8
        assert set(np.unique(frames)) <= {0, 1}


def test_a_primer_begins_the_piece_and_moves_the_network(model, corpus):
    a, b = (corpus.frames(p)[:9] for p in (0, 1))
    first, second, third = compose(model, [a, b, NOTHING])
    assert np.array_equal(first[:9], a)
    assert np.array_equal(second[:9], b)
    assert not np.array_equal(third[:9], a)
    # The same random numbers after another past draw other music.
    (altered,) = compose(model, [b])
    assert not np.array_equal(first[9:], altered[9:])
    # What is drawn is what the model gives after having read it.
    state = model.zero_state(1)
    for x in read(model, a):
        draws = uniform(0, 0, 0, 10 * NOTES).reshape(10, NOTES)[-1:]
        notes, state = model.step_and_draw(x[None], state, draws, 1.0)
    assert np.array_equal(notes[0], first[9])


def test_a_lower_temperature_surprises_less(model):
    def nats(temperature):
        (frames,) = compose(model, length=200, temperature=temperature)
        y, _ = model.outputs(x_only(read(model, frames[:-1])[:, None]), model.zero_state(1))
        return float(
            model.head.losses(
                model.ops, part(model.parameters, "head"), y[:, 0], frames, model.ops.workspace()
            ).mean()
        )

    assert nats(0.3) < nats(1.0) < nats(3.0)


def x_only(x):
    return Batch(x, np.zeros((*x.shape[:2], NOTES), np.uint8), None, 0)


def test_progress_is_shown_to_the_end(model):
    shown = []
    primers = [NOTHING] * (ROWS + 1)
    sample_frames(model, primers, Options(length=5), show=lambda *a: shown.append(a))
    assert shown == [(n, 10) for n in range(1, 11)]


# Greedy -----------------------------------------------------------------------------------------


def log_odds(model, frames):
    """Each note's log-odds before each frame, read a frame at a time."""
    state, found = model.zero_state(1), []
    for x in read(model, frames[:-1]):
        logits, state = model.step(x[None], state)
        found.append(logits[0])
    return np.array(found)


def test_with_fitted_thresholds_a_note_is_predicted_as_often_as_it_sounds(corpus):
    model = small_model(corpus, seed=5)
    pieces = [
        frames[:n] for frames, n in zip(corpus.split_frames("train"), (64, 9, 1), strict=False)
    ]
    thresholds = fit_thresholds(model, pieces)
    predicted = sum((log_odds(model, f) >= thresholds).sum(axis=0) for f in pieces)
    sounds = np.concatenate(pieces).sum(axis=0)
    assert predicted.tolist() == sounds.tolist()
    assert (thresholds[sounds == 0] == np.inf).all()


def test_greedy_sounds_where_every_note_is_unlikely(corpus):
    model = small_model(corpus, seed=5)
    model.parameters["head.b"][:] = -5
    pieces = corpus.split_frames("valid")
    assert (np.array([log_odds(model, f).max() for f in pieces]) < 0).all()
    thresholds = fit_thresholds(model, pieces)
    a, b = (compose(model, greedy=True, seed=s, thresholds=thresholds) for s in (1, 2))
    assert same(a, b)
    assert a[0].any()
    never = ~np.concatenate(pieces).any(axis=0)
    assert not a[0][:, never].any()


def test_greedy_can_be_fitted_to_nothing(corpus):
    with pytest.raises(UserError, match="leave --greedy out"):
        fit_thresholds(small_model(corpus), [])


def test_a_greedy_nade_takes_each_notes_likelier_value_given_those_below(corpus):
    model = lively(small_model(corpus, seed=5, head="nade"))
    (frames,) = compose(model, greedy=True, temperature=7.0, seed=1)
    p, state = model.parameters, model.zero_state(1)
    for x, frame in zip(read(model, frames[:-1]), frames, strict=True):
        _, state = model.step_and_draw(x[None], state, np.zeros((1, NOTES)), 1.0)
        h = state.h[-1, 0].astype(np.float64)
        below = h @ p["head.Wh"] + p["head.bh"]
        for note in range(NOTES):
            hidden = 1 / (1 + np.exp(-below))
            z = h @ p["head.Wv"][:, note] + p["head.bv"][note] + hidden @ p["head.U"][note]
            assert frame[note] == (z > 0) or abs(z) < 1e-4
            below = below + frame[note] * p["head.W"][note]


def test_a_temperature_near_zero_takes_the_likelier_value(model):
    for temperature in (1e-6, 1e-300, 5e-324):
        cold = compose(model, temperature=temperature, seed=4)
        assert same(cold, compose(model, temperature=1e-6, seed=5))
    zeros = np.zeros(NOTES) if model.config.head == "sigmoid" else None
    assert same(cold, compose(model, greedy=True, thresholds=zeros))


@pytest.mark.parametrize("head", ["nade", "biaxial"])
def test_top_k_and_top_p_are_not_for_notes_that_depend_on_one_another(corpus, head):
    model = small_model(corpus, head=head)
    for options in ({"top_k": 3}, {"top_p": 0.99}):
        with pytest.raises(UserError, match=f"those of --head {head} do: use --temperature"):
            compose(model, **options)


@pytest.mark.parametrize("how", [{"top_k": 2}, {"top_p": 0.1}], ids=str)
def test_top_k_and_top_p_thin_frames(corpus, how):
    model = small_model(corpus)
    (free,), (cut,) = compose(model, length=60), compose(model, length=60, **how)
    assert cut.sum(axis=1).max() < free.sum(axis=1).max()
    assert "top_k" not in how or cut.sum(axis=1).max() == 2


# What is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [False, True])
def test_a_biaxial_network_reads_in_the_making_what_it_read_in_training(corpus, gate):
    """Frame by frame beside another piece, and in a window: the same inputs and the same state."""
    model, n = small_model(corpus, seed=5, head="biaxial", copy=gate), 16
    pieces = [corpus.frames(p)[:n] for p in (0, 1)]
    reader, rows = Reader(model, 3), []
    copies = copies_of(model, corpus.recall, Options())
    pasts = [FramePast(copies) for _ in pieces] if gate else []
    for frames in zip(*pieces, strict=True):
        rows.append(reader.x[:2].copy())
        reader.state = model.read(reader.x, reader.state)
        for past, frame in zip(pasts, frames, strict=False):
            past.take(frame)
        reader.read(np.array(frames), pasts)
    source = Surroundings(corpus.source([0] * len(corpus.pieces)), corpus.recall if gate else None)
    batch = Batches(source, [[Segment(0, 0, n)], [Segment(1, 0, n)]], n)[0]
    assert batch.x[:, :, NOTES + 2 :].any() == gate
    np.testing.assert_array_equal(np.array(rows), batch.x)
    _, state = model.outputs(batch, model.zero_state(2))
    np.testing.assert_allclose(reader.state.h[:, :2], state.h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reader.state.c[:, :2], state.c, rtol=1e-4, atol=1e-6)


# On a stand-in for a GPU ------------------------------------------------------------------------


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
@pytest.mark.parametrize("head", HEADS)
def test_a_gpu_draws_the_same_frames(head, monkeypatch):
    for module in (sampler, frame_sampler):
        monkeypatch.setattr(module, "ROWS", 3)
    config = Config(NOTES, 4, 5, 2, head=head, nade=6)
    ops = NumpyOps("float64"), CupyOps("float64", cupy=HostCupy(("shuffled",)))
    on_cpu, on_gpu = (lively(Model(config, o, seed=5)) for o in ops)
    primers = [np.eye(NOTES, dtype=np.uint8)[k : 2 * k] for k in range(4)]
    length = 3 if head == "biaxial" else 12  # a launch for each of its notes
    expected = compose(on_cpu, primers, length=length)
    assert same(compose(on_gpu, primers, length=length), expected)
    assert same(compose(on_gpu, primers[:1], length=length), expected[:1])
    greedy = {"greedy": True, "length": length // 2}
    if head == "sigmoid":
        thresholds = [fit_thresholds(model, primers[1:]) for model in (on_cpu, on_gpu)]
        assert np.allclose(*thresholds)
        greedy["thresholds"] = thresholds[0] + 1e-9
    assert same(compose(on_gpu, **greedy), compose(on_cpu, **greedy))


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
@pytest.mark.parametrize("head", HEADS)
def test_a_gpu_copies_the_same_frames(head, monkeypatch):
    monkeypatch.setattr(sampler, "ROWS", 3)
    recall, found = frame_rules(4, np.zeros((0, FIELDS), np.int64)), []
    length = 8 if head == "biaxial" else 20
    config = Config(NOTES, 4, 5, 1, head=head, nade=6, copy=recall.candidates)
    for ops in (NumpyOps("float64"), CupyOps("float64", cupy=HostCupy(("shuffled",)))):
        model = lively(Model(config, ops, seed=5))
        model.parameters["copy.R"] *= 0  # a candidate is as likely as the network's own frame
        options = Options(length=length, seed=2)
        found.append(sample_frames(model, [NOTHING] * 3, options, recall=recall))
    assert same(*found)
    again = sum((piece[:-1] == piece[1:]).all(axis=1).sum() for piece in found[0])
    assert again > 0.4 * length
