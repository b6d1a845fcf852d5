from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_states import State
from scipy.stats import chisquare
from small import small_corpus, small_model, small_rolls, track_of

from lstm_music.arrays import Batch
from lstm_music.midi.piece import NOTE_ON, TICKS_PER_QUARTER, WHOLE_NOTE, Piece, notes_of
from lstm_music.midi.roll import frames_of, ticks_per_step
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.ops.philox import uniform
from lstm_music.sampling.decoding import clipped, decode, decode_chords, length_in_frames
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import NOTE_ON as STRIKES
from lstm_music.sampling.rules import SHORTEST
from lstm_music.sampling.sampler import ROWS, choose, find, sample, within
from lstm_music.sampling.word_rules import chord_rules, message_rules
from lstm_music.tokenizers.chords import chord_words
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, TRACK_END, parse
from lstm_music.tokenizers.vocabulary import Vocabulary

LAYOUTS = ("flatten", "merge")
BAR = WHOLE_NOTE
STRICT, FREE = False, True


class Composer:
    """An untrained model of a small corpus, which tries whatever the rules let it."""

    def __init__(self, folder, layout):
        self.corpus = small_corpus(folder, layout, pieces=4)
        self.model = small_model(self.corpus, seed=5)
        self.layout = layout

    def rules(self, free=STRICT):
        corpus = self.corpus
        habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
        return message_rules(corpus.vocabulary, self.layout, *habits, free)

    def sample(self, num=1, free=STRICT, primers=None, **options):
        primers = [()] * num if primers is None else primers
        return sample(self.model, primers, Options(**options), self.rules(free))

    def words(self, ids):
        return [self.corpus.vocabulary.word(id) for id in ids]

    def piece(self, ids):
        corpus = self.corpus
        return decode(ids, corpus.vocabulary, corpus.tokenizer, self.rules(), "piece")


@pytest.fixture(scope="module")
def composers(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {layout: Composer(tmp_path_factory.mktemp(layout), layout) for layout in LAYOUTS}


@pytest.fixture(params=LAYOUTS)
def composer(composers, request):
    return composers[request.param]


any_layout = st.sampled_from(LAYOUTS)
free_or_not = st.booleans()
any_seed = st.integers(0, 2**31 - 1)
options = settings(deadline=None, max_examples=25)


# Choosing ---------------------------------------------------------------------------------------

LOGITS = np.array([1.5, -0.5, 0.3, 2.0, 0.3, -3.0, 1.0], np.float32)
DRAWS = 20_000


def exact(temperature=1.0, top_k=0, top_p=1.0, allowed=None):
    """The distribution that `choose` should draw from, by its definition."""
    p = np.exp(LOGITS.astype(np.float64) / temperature)
    if allowed is not None:
        p[np.setdiff1d(np.arange(len(p)), allowed)] = 0
    order = np.argsort(-p, kind="stable")
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    if top_p < 1:
        n = 1
        while p[order[:n]].sum() < top_p:
            n += 1
        p[order[n:]] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 5, "temperature": 2.0},  # of two that are equal, the first is kept
        {"top_k": 100},
        {"top_p": 0.4},
        {"top_p": 0.7},
        {"top_p": 0.9, "temperature": 1.5},
        {"top_p": 1e-9},
        {"top_k": 4, "top_p": 0.8},
        {"allowed": np.array([1, 2, 5])},
        {"allowed": np.array([0, 2, 4, 6]), "top_k": 3, "top_p": 0.9, "temperature": 0.8},
    ],
    ids=str,
)
def test_draws_follow_the_exact_distribution(how):
    expected = exact(**how)
    allowed = how.get("allowed")
    drawing = Options(**{k: v for k, v in how.items() if k != "allowed"})
    draws = [choose(LOGITS, allowed, u, drawing) for u in uniform(1, 2, 3, DRAWS)]
    counts = np.bincount(draws, minlength=len(LOGITS))
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    if possible.sum() > 1:
        assert chisquare(counts[possible], DRAWS * expected[possible]).pvalue > 1e-3


@given(u=st.floats(0, 1, exclude_max=True), temperature=st.floats(1e-320, 100))
@settings(deadline=None)
def test_greedy_takes_the_likeliest_whatever_the_rest(u, temperature):
    drawing = Options(greedy=True, temperature=temperature)
    assert choose(LOGITS, None, u, drawing) == 3
    assert choose(LOGITS, np.array([1, 2, 4, 5]), u, drawing) == 2


@given(u=st.floats(2**-32, 1, exclude_max=True), temperature=st.floats(5e-324, 1e-3))
@settings(deadline=None)
@pytest.mark.filterwarnings("error")
def test_a_temperature_near_zero_is_greedy(u, temperature):
    assert choose(LOGITS, None, u, Options(temperature=temperature)) == 3


@given(
    logits=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=9),
    u=st.sampled_from([0.0, 0.5, 1 - 2**-32, 1 - 2**-53]),
    top_k=st.integers(0, 9),
    top_p=st.floats(1e-9, 1),
)
@settings(deadline=None)
def test_any_logits_give_an_id_of_some_probability(logits, u, top_k, top_p):
    logits = np.array(logits, np.float32)
    id = choose(logits, None, u, Options(top_k=top_k, top_p=top_p))
    assert logits[id] >= logits.max() - 1e3


# Pieces -----------------------------------------------------------------------------------------


def test_the_number_of_pieces_changes_none_of_them(composer):
    primers = [tuple(composer.corpus.piece_ids(0)[: k % 4].tolist()) for k in range(2 * ROWS + 3)]
    many = composer.sample(primers=primers, length=60, seed=9)
    for n in (1, 2, ROWS, ROWS + 1):
        assert composer.sample(primers=primers[:n], length=60, seed=9) == many[:n]
    assert len({tuple(ids) for ids in many}) == len(many)


def test_a_piece_of_many_has_the_logits_of_a_piece_alone(composer, monkeypatch):
    """Not only the same tokens, which differ rarely, but the same bits."""
    seen = []
    real = composer.model.step

    def spy(x, state):
        logits, state = real(x, state)
        seen.append(logits[0].copy())
        return logits, state

    monkeypatch.setattr(composer.model, "step", spy)
    composer.sample(num=1, length=30)
    alone = np.array(seen)
    seen.clear()
    composer.sample(num=ROWS, length=30)
    assert np.array_equal(alone, seen)


def test_a_seed_repeats_and_another_differs(composer):
    once = composer.sample(length=80, seed=1)
    assert once == composer.sample(length=80, seed=1)
    assert once != composer.sample(length=80, seed=2)


def test_a_longer_piece_begins_as_the_shorter(composer):
    """Past 1024 draws, when new random numbers are made, as before."""
    shorter, longer = (composer.sample(length=n, seed=3)[0] for n in (1000, 1300))
    assert longer[:999] == shorter[:999]  # the last of a number of tokens may not be an end
    assert composer.sample(primers=[longer[:1100]], length=1300, seed=3) == [longer]


def test_greedy_pieces_are_the_same_for_every_seed(composer):
    a, b = (composer.sample(greedy=True, length=50, seed=seed) for seed in (1, 2))
    assert a == b


@given(layout=any_layout, free=free_or_not, length=st.integers(1, 120), seed=any_seed)
@options
def test_a_length_is_exact(composers, layout, free, length, seed):
    for ids in composers[layout].sample(2, free, length=length, seed=seed):
        assert len(ids) == length
        assert ids[0] != 0 and ids[-1] != 0  # 0 stands where another piece follows


@given(layout=any_layout, free=free_or_not, limit=st.integers(1, 6000), seed=any_seed)
@options
def test_a_limit_is_kept_within_a_quarter_note_or_two_bars_where_pieces_follow(
    composers, layout, free, limit, seed
):
    composer = composers[layout]
    for ids in composer.sample(2, free, limit=limit, seed=seed):
        piece = composer.piece(ids)
        starts = [int(notes_of(track)[0, 0]) for track in piece.tracks]
        if min(starts) >= limit:
            continue  # no note of the vocabulary began sooner: better late than empty
        ends = [int(track[:, 0].max()) for track in clipped(piece, limit).tracks]
        shortest = limit - (2 * BAR if layout == "merge" else TICKS_PER_QUARTER)
        assert max(ends) <= limit
        # Free pieces may end with tokens that sound nothing.
        assert free or shortest <= max(ends)


@given(layout=any_layout, seed=any_seed, primed=st.booleans())
@options
def test_strict_pieces_keep_every_rule(composers, layout, seed, primed):
    composer = composers[layout]
    primer = composer.corpus.piece_ids(0)[:7].tolist() if primed else []
    (ids,) = composer.sample(primers=[primer], seed=seed, temperature=2.0)
    state, sounding = State(composer.rules()), set()
    for n, (id, word) in enumerate(zip(ids, composer.words(ids), strict=True)):
        assert n < len(primer) or state.allowed()[id]
        state.advance(id)
        message = parse(word)
        if message is None:
            assert layout == "flatten"
            sounding.clear()
        elif message[0] == NOTE_ON:
            sounding.add(message[1])
        else:
            sounding.remove(message[1])  # no orphan
    if len(ids) < 2000:
        assert state.allowed()[0]  # the piece ended where it may


@given(
    layout=any_layout,
    free=free_or_not,
    seed=any_seed,
    how=st.sampled_from([{}, {"length": 1}, {"length": 2}, {"limit": 1}, {"limit": 500}]),
)
@options
def test_no_piece_is_empty(composers, layout, free, seed, how):
    composer = composers[layout]
    for ids in composer.sample(3, free, seed=seed, temperature=5.0, **how):
        assert composer.piece(ids).tracks


@pytest.mark.parametrize("free", [STRICT, FREE])
def test_a_model_that_would_end_at_once_composes_something(composer, monkeypatch, free):
    bias = composer.model.parameters["head.b"].copy()
    bias[composer.corpus.vocabulary.id(PIECE_END)] = 100
    bias[composer.corpus.vocabulary.id(TRACK_END)] = 99
    monkeypatch.setitem(composer.model.parameters, "head.b", bias)
    for ids in composer.sample(4, free):
        assert composer.piece(ids).tracks
        if composer.layout == "flatten":
            assert len(ids) <= 10
        else:  # not before eight bars, and then at once
            ticks = np.cumsum(composer.rules(free).deltas[ids])
            assert ticks[-2] < SHORTEST <= ticks[-1]


def test_a_factored_model_draws_each_word_as_often_as_its_losses_say(tmp_path):
    corpus, draws = small_corpus(tmp_path, "merge", pieces=2), 3000
    model = small_model(corpus, head="factored")
    model.parameters["head.Wc"] *= 6
    model.parameters["head.U"] *= 6
    rules = message_rules(corpus.vocabulary, "merge", 480, 2, free=True)
    drawn = [ids[0] for ids in sample(model, [()] * draws, Options(length=1), rules)]
    words = np.flatnonzero(rules.kinds == STRIKES).astype(np.int32)  # what a piece can begin with
    x = np.zeros((1, len(words)), np.int32)
    batch = Batch(x, words[None], None, len(words))
    p = np.exp(-model.losses(batch, model.zero_state(len(words)))[0][0].astype(np.float64))
    assert p.max() > 5 * p.min()
    counts = np.bincount(drawn, minlength=len(corpus.vocabulary))
    assert counts.sum() == counts[words].sum() == draws
    assert chisquare(counts[words], draws * p / p.sum()).pvalue > 0.001


@pytest.mark.parametrize("free", [STRICT, FREE])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_note_that_fits_no_limit_is_late_rather_than_missing(free, layout):
    vocabulary = Vocabulary([PIECE_END, TRACK_END, "note-on-60-300", "note-off-60-100"])
    model = Model(Config(len(vocabulary), 4, 4, 1), get_ops("numpy"))
    rules = message_rules(vocabulary, layout, 480, 1, free=free)
    for ids in sample(model, [()] * 5, Options(limit=100), rules):
        assert ids[0] == vocabulary.id("note-on-60-300")


def test_free_pieces_break_the_rules(composer):
    """Otherwise they would be strict ones."""
    kinds = [parse(word) for word in composer.words(composer.sample(1, FREE, length=60)[0])]
    sounding, broken = set(), 0
    for kind, pitch, _ in filter(None, kinds):
        broken += (pitch in sounding) == (kind == NOTE_ON)
        (sounding.add if kind == NOTE_ON else sounding.discard)(pitch)
    assert broken


def test_a_primer_begins_the_piece_and_moves_the_network(composer):
    a, b = (composer.corpus.piece_ids(p)[:9].tolist() for p in (0, 1))
    assert a != b
    first, second, third = composer.sample(primers=[a, b, ()], length=40)
    assert first[:9] == a
    assert second[:9] == b
    primed = composer.model.zero_state(ROWS)
    for id in [0, *a]:
        logits, primed = composer.model.step(np.full(ROWS, id), primed)
    (greedy,) = composer.sample(primers=[a], length=10, greedy=True)
    allowed = np.flatnonzero(State(composer.rules()).advance(*a).allowed(may_end=False))
    assert greedy[9] == allowed[np.argmax(logits[0][allowed])]
    assert third[:9] not in (a, b)


def test_progress_is_shown_to_the_end(composer):
    shown = []
    rules, primers = composer.rules(), [()] * (ROWS + 1)
    sample(composer.model, primers, Options(length=5), rules, lambda *a: shown.append(a))
    assert shown == [(n, 10) for n in range(1, 11)]


# Cutting ----------------------------------------------------------------------------------------


def test_a_primer_is_cut_to_its_length_and_where_a_track_goes_past_the_limit(composer):
    rules = composer.rules()
    ids = composer.corpus.piece_ids(0)[:-1].tolist()
    assert within(ids, rules, None, None) == ids
    assert within(ids, rules, 3, None) == ids[:3]
    assert within(ids, rules, 0, None) == []
    cut = within(ids, rules, None, 1000)
    assert cut == ids[: len(cut)]
    state = State(rules)
    for id in cut:
        state.advance(id)
        assert state.now <= 1000
    state.advance(ids[len(cut)])
    assert state.now > 1000


def test_clipping_ends_notes_at_the_limit():
    long = track_of([(0, 480, 60), (480, 2000, 62), (1000, 1100, 64)])
    piece = Piece("x", [long, track_of([(1500, 1600, 60)])])
    clip = clipped(piece, 1000)
    (track,) = clip.tracks
    assert notes_of(track).tolist() == [[0, 480, 60], [480, 1000, 62]]
    assert clipped(piece, 5000).tracks[0].tolist() == long.tolist()
    late = Piece("x", [track_of([(1500, 1600, 60)])])
    assert clipped(late, 1000) is late
    assert long[:, 0].max() == 2000  # the piece itself is as it was


def test_where_a_piece_ends_early_another_follows_at_a_bar_line(composers):
    corpus = composers["flatten"].corpus
    vocabulary = Vocabulary([*SPECIALS, "note-on-60-0", "note-off-60-480", "note-on-64-240"])
    rules = message_rules(vocabulary, "flatten", 480, 4)
    end, on, off, late = 1, 2, 3, 4
    ids = [on, off, end, on, off, on, off, end, 0, late, off, end]
    piece = decode(ids, vocabulary, corpus.tokenizer, rules, "two")
    first, second = (notes_of(track).tolist() for track in piece.tracks)
    assert first == [[0, 480, 60], [1920 + 240, 1920 + 720, 64]]
    assert second == [[0, 480, 60], [480, 960, 60]]


def test_a_piece_that_follows_begins_from_nothing(composers):
    composer = composers["merge"]
    (ids,) = composer.sample(length=400, seed=1, temperature=3.0)
    assert 0 in ids  # the test's network ends its pieces early
    after = ids[: ids.index(0) + 1]
    (again,) = composer.sample(primers=[after], length=len(after) + 1, greedy=True)
    (alone,) = composer.sample(primers=[()], length=2, greedy=True)
    assert again[-1] == alone[0]


@pytest.mark.parametrize("cut", [{"top_p": 0.5}, {"top_k": 1}, {"top_p": 0.5, "temperature": 2.0}])
def test_one_id_keeps_its_probability_and_the_others_are_cut(cut):
    """Of four, the last has 0.1 and would be cut."""
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    options = Options(**cut)
    p = np.exp(logits / options.temperature)
    share, n = p[3] / p.sum(), 10_000
    drawn = [choose(logits, None, (k + 0.5) / n, options, 3) for k in range(n)]
    counts = np.bincount(drawn, minlength=4) / n
    kept = choose_all(p[:3], options)
    assert counts[3] == pytest.approx(share, abs=1e-3)
    assert counts[:3] == pytest.approx((1 - share) * kept, abs=1e-3)
    assert choose(logits, np.array([0, 1]), 0.0, options, 3) == 0  # where it may not come


def choose_all(p, options):
    """The probabilities that cuts leave of weights in falling order."""
    before = np.cumsum(p / p.sum()) - p / p.sum()
    kept = np.where((before < options.top_p) & (np.arange(len(p)) < (options.top_k or 9)), p, 0)
    return kept / kept.sum()


@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999]),
    u=st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None, max_examples=40)
def test_a_share_of_many_tokens_is_found_without_sorting_all(seed, spread, top_p, u):
    logits = np.random.default_rng(seed).normal(0, spread, 6000).astype(np.float32)
    chosen = choose(logits, None, u, Options(top_p=top_p))
    x = logits.astype(np.float64) - float(logits.max())
    order = np.argsort(-x, kind="stable")
    total = np.cumsum(np.exp(x[order]))
    n = int(np.searchsorted(total, top_p * total[-1] * (1 - 1e-9))) + 1
    at = int(np.searchsorted(total[:n], u * total[n - 1] * (1 - 1e-9), side="right"))
    nearby = order[max(0, at - 1) : at + 2]  # the last bits of a sum depend on its order
    assert chosen in nearby


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 3000), u=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=100)
def test_a_share_of_many_weights_is_found_by_blocks(seed, n, u):
    p = np.random.default_rng(seed).exponential(size=n) ** 4
    total = np.cumsum(p)
    found = find(p, u)
    assert found in range(n)
    assert total[found] >= u * total[-1] * (1 - 1e-9)
    assert found == 0 or total[found - 1] <= u * total[-1] * (1 + 1e-9)


# Chords -----------------------------------------------------------------------------------------

GRIDS = (4, 6)  # frames a bar


class ChordComposer:
    """An untrained model of the chords of a small corpus; bias: how much it likes to end."""

    def __init__(self, folder, grid):
        self.corpus = small_rolls(folder, "chord", grid=grid)
        self.model = small_model(self.corpus, seed=5)
        self.grid, self.ticks = grid, ticks_per_step(grid)
        self.rules = chord_rules(self.corpus.vocabulary, self.ticks)

    def sample(self, num=1, primers=None, frames=None, bias=0.0, **options):
        primers = [()] * num if primers is None else primers
        limit = None if frames is None else frames * self.ticks
        self.model.parameters["head.b"][0] = bias
        return sample(self.model, primers, Options(limit=limit, **options), self.rules)

    def piece(self, ids, restrike=False):
        return decode_chords(ids, self.corpus.vocabulary, self.grid, "x", restrike)


@pytest.fixture(scope="module")
def chord_composers(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {grid: ChordComposer(tmp_path_factory.mktemp("chords"), grid) for grid in GRIDS}


@pytest.fixture
def chords(chord_composers):
    return chord_composers[4]


any_bias = st.sampled_from([-100.0, 0.0, 4.0, 100.0])


@given(grid=st.sampled_from(GRIDS), frames=st.integers(1, 50), seed=any_seed, bias=any_bias)
@options
def test_a_length_of_chords_is_exact(chord_composers, grid, frames, seed, bias):
    composer = chord_composers[grid]
    for ids in composer.sample(2, frames=frames, seed=seed, bias=bias):
        assert length_in_frames(ids, composer.rules) == frames
        assert ids[0] != 0 and ids[-1] != 0
        assert all(a or b for a, b in pairwise(ids))  # no piece is empty
        assert bias > -100 or len(ids) == frames


@pytest.mark.parametrize("grid", GRIDS)
def test_pieces_of_chords_follow_at_bar_lines(chord_composers, grid):
    composer = chord_composers[grid]
    (ids,) = composer.sample(frames=9 * grid, bias=100)
    # It ends at once, so each bar but the last begins with the one chord of its piece.
    assert [id == 0 for id in ids[:16]] == [False, True] * 8
    assert len(ids) == 16 + grid
    chords = iter(frames_of_ids(composer, [id for id in ids if id]))
    frames = frames_of(composer.piece(ids), grid)[0]
    for bar in range(8):
        assert np.array_equal(frames[bar * grid], next(chords))
        assert not frames[bar * grid + 1 : bar * grid + grid].any()


def frames_of_ids(composer, ids):
    """The frame of each chord, by its word."""
    frames = np.zeros((len(ids), 88), np.uint8)
    for frame, id in zip(frames, ids, strict=True):
        word = composer.corpus.vocabulary.word(id)
        frame[[int(pitch) - 21 for pitch in word.split("-") if word != "rest"]] = 1
    return frames


def test_a_piece_of_chords_without_a_length_lasts_eight_bars(chords):
    for ids in chords.sample(2, bias=100):
        assert len(ids) == 8 * 4  # and then it ends at once
    assert [len(ids) for ids in chords.sample(2, bias=-100)] == [2000, 2000]


def test_the_number_of_pieces_of_chords_changes_none_of_them(chords):
    many = chords.sample(9, frames=30, seed=2)
    assert chords.sample(2, frames=30, seed=2) == many[:2]
    assert chords.sample(2, frames=30, seed=3) != many[:2]
    assert len(set(map(tuple, many))) == 9


def test_a_primer_of_chords_is_cut_by_frames_and_by_time(chords):
    ids = chords.corpus.ids[:12].tolist()
    assert within(ids, chords.rules, 5, None) == ids[:5]
    assert within(ids, chords.rules, 9, 3 * chords.ticks) == ids[:3]
    (piece,) = chords.sample(primers=[ids], frames=20)
    assert piece[:12] == ids


def test_a_piece_of_chords_that_follows_begins_from_nothing(chords):
    ids = chords.corpus.ids[:5].tolist()
    # The piece ended in its second bar, and another began in the third.
    (again,) = chords.sample(primers=[[*ids, 0]], frames=12, greedy=True, bias=-100)
    (alone,) = chords.sample(frames=4, greedy=True, bias=-100)
    assert again[6:] == alone


@given(seed=any_seed, bias=any_bias, restrike=st.booleans())
@options
def test_decoded_chords_sound_as_they_are_written(chord_composers, seed, bias, restrike):
    composer = chord_composers[4]
    (ids,) = composer.sample(frames=24, seed=seed, bias=bias)
    (track,) = composer.piece(ids, restrike).tracks
    sounding = set()
    for _, kind, pitch in track.tolist():
        assert (pitch in sounding) != (kind == NOTE_ON)
        (sounding.add if kind == NOTE_ON else sounding.remove)(pitch)
    assert not sounding
    if 0 not in ids:
        frames = frames_of(composer.piece(ids, restrike), 4)[0]
        words = [composer.corpus.vocabulary.word(id) for id in ids]
        assert chord_words(frames) == words[: len(frames)]
        assert set(words[len(frames) :]) <= {"rest"}


def test_held_notes_are_one_unless_they_are_struck_anew_or_another_piece_begins():
    vocabulary = Vocabulary([PIECE_END, "60-64", "60", "rest"])
    both, one, rest = 1, 2, 3
    ids = [both, one, one, one, 0, one, rest]  # the first piece fills a bar
    (track,) = decode_chords(ids, vocabulary, 4, "x").tracks
    expected = [[0, 480, 64], [0, 1920, 60], [1920, 2400, 60]]
    assert sorted(notes_of(track).tolist()) == expected
    (track,) = decode_chords(ids, vocabulary, 4, "x", restrike=True).tracks
    again = [[0, 480, 60], [0, 480, 64], *([n, n + 480, 60] for n in (480, 960, 1440, 1920))]
    assert sorted(notes_of(track).tolist()) == again
    assert decode_chords([rest, rest], vocabulary, 4, "x").tracks == []
