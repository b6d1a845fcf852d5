"""The compiled loop against the step-by-step sampler: the same ids from the same seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_corpus, small_events, small_rolls

from lstm_music.midi.piece import WHOLE_NOTE as BAR
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.ops.cpu.panels import PANEL, add_panel, pack, padded
from lstm_music.ops.philox import uniform
from lstm_music.sampling import compiled as compiled_sampling
from lstm_music.sampling import compiled_choice, sampler, word_rules
from lstm_music.sampling.composer import sample_on_cpu
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import choose, sample
from lstm_music.sampling.word_rules import chord_rules, event_rules, message_rules
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END
from lstm_music.tokenizers.vocabulary import Vocabulary

numba_ops = pytest.importorskip("lstm_music.ops.cpu.numba_ops")
START = 0


# Panels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("K", "N"), [(1, 1), (5, 64), (128, 600), (7, 129)])
def test_panels_are_the_product_and_each_row_alone(dtype, K, N):
    rng = np.random.default_rng(0)
    x, W, b = (rng.normal(size=shape).astype(dtype) for shape in ((11, K), (K, N), (N,)))

    def affine(rows):
        y = np.tile(padded(b), (len(rows), 1))
        for n, _ in enumerate(panels):
            add_panel(rows, panels, n, y)
        assert y.shape[1] % PANEL == 0
        return y[:, :N]

    panels = pack(W)
    together = affine(x)
    exact = x.astype(np.float64) @ W + b
    rounded = (K + 1) * np.finfo(dtype).eps * (np.abs(x) @ np.abs(W) + np.abs(b))
    assert (np.abs(together - exact) <= rounded).all()
    for n in range(1, len(x)):
        assert np.array_equal(affine(x[:n]), together[:n])  # the same bits


# Choosing ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    V=st.sampled_from([1, 2, 31, 300, 1025, 5000]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([5e-324, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 6000]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 1e-9]),
    greedy=st.booleans(),
    levels=st.sampled_from([1, 2, 5, 10**6]),  # few levels: many equal logits
    spread=st.sampled_from([8.0, 2000.0]),
    u=st.sampled_from([0.0, None, 1 - 2**-32]),
    keeps=st.booleans(),
)
def test_chooses_what_the_sampler_chooses(
    V, seed, temperature, top_k, top_p, greedy, levels, spread, u, keeps
):
    rng = np.random.default_rng(seed)
    logits = (rng.integers(levels, size=V) * (spread / levels)).astype(np.float32)
    mask = rng.random(V) < 0.5
    mask[rng.integers(V)] = True
    allowed = np.flatnonzero(mask)
    u = float(rng.random()) if u is None else u
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p, greedy=greedy)
    draw = compiled_choice.Draw(temperature, top_k, top_p, greedy, 0, 0)
    x = np.where(mask, logits, -np.inf).astype(np.float64)
    best = int(np.argmax(x))
    exact = int(rng.integers(V)) if keeps else -1
    found = compiled_choice.choose(x, np.empty(V), len(allowed), best, u, draw, exact)
    assert found == choose(logits, allowed, u, options, exact)


def test_a_draw_has_the_samplers_random_number():
    draw = compiled_choice.Draw(1.0, 0, 1.0, False, 7, 3)
    words = np.empty((4, 1), np.uint32)
    for t in (0, 1, 6, 1023, 1024, 5000):
        expected = uniform(7 + (3 << 32), 12, t // 1024, 1024)[t % 1024]
        assert compiled_choice.uniform(draw, 12, t, words) == expected


def test_no_number_is_an_id_all_the_same():
    for how in ({}, {"top_p": 0.9}, {"top_k": 3}, {"greedy": True}):
        options = Options(**how)
        draw = compiled_choice.Draw(1.0, options.top_k, options.top_p, options.greedy, 0, 0)
        x = np.full(700, np.nan)
        assert 0 <= compiled_choice.choose(x, np.empty(700), 700, 699, 0.5, draw, -1) < 700


# Pieces -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["flatten", "merge"])
def corpus(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_corpus(tmp_path_factory.mktemp("corpus"), request.param, pieces=4)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_events(tmp_path_factory.mktemp("corpus"), pieces=4)


@pytest.fixture(scope="module")
def rolls(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_rolls(tmp_path_factory.mktemp("rolls"), "chord", grid=4)


@pytest.fixture
def short(monkeypatch):
    """Pieces that end soon, few at once, so that little shows every rule."""
    monkeypatch.setattr(sampler, "WHOLE_PIECE", 90)
    monkeypatch.setattr(sampler, "PER_QUARTER", 2)
    monkeypatch.setattr(sampler, "WITHIN_LIMIT", 70)
    for module in (sampler, word_rules):
        monkeypatch.setattr(module, "SHORTEST", BAR)
    monkeypatch.setattr(sampler, "ROWS", 4)
    monkeypatch.setattr(compiled_sampling, "TOGETHER", 4)
    monkeypatch.setattr(compiled_sampling, "AT_ONCE", 16)
    monkeypatch.setattr(compiled_sampling, "SHARED", 1)


def model_for(vocabulary, sizes=(6, 5), bias=0.0, recall=None):
    """A model in float32, the only precision that anything is sampled in. sizes: E, H.

    recall: of a copy gate, how it compares words; it copies about half of them.
    """
    copy = recall.candidates if recall else 0
    model = Model(Config(len(vocabulary), *sizes, 2, copy=copy), get_ops("numba"), seed=5)
    model.parameters["head.W"] *= 8  # so that what is drawn depends on what is remembered
    model.parameters["head.b"][START] = bias
    if recall:
        rng = np.random.default_rng(6)
        for name, centre, spread in (("G", 0, 4), ("R", 1, 2)):
            p = model.parameters[f"copy.{name}"]
            p[...] = rng.normal(centre, spread, p.shape)
    return model


copying = pytest.mark.parametrize("copy", [False, True])


HOW = [
    {},
    {"length": 1},
    {"length": 60, "top_k": 7},
    {"limit": 1, "top_p": 0.9},
    {"limit": BAR, "temperature": 2.0},
    {"limit": 5 * BAR, "seed": 3},
    {"limit": 3 * BAR, "greedy": True},
    {"length": 70, "temperature": 3.0, "top_k": 9, "top_p": 0.8, "seed": 2**40 + 1},
    {"beyond": True},
    {"beyond": True, "length": 25, "seed": 5},
    {"beyond": True, "limit": 600, "seed": 6},
    {"beyond": True, "bars": 3, "meter": ((0, 480), (480, 1440))},
    {"length": 60, "repetition": 3.0, "temperature": 0.6},
]


def pieces_with_others(model, rules, primers, recall):
    """Compare what both loops draw in all ways; return how many pieces others follow.

    recall: of a copy gate, without whose copies most music is to be other.
    """
    several = changed = 0
    for how in HOW:
        options = Options(**how)
        some = [primer[: None if options.beyond else options.length] for primer in primers]
        if options.limit is not None and not options.beyond:
            some = [sampler.within(primer, rules, None, options.limit) for primer in some]
        expected = sample(model, some, options, rules, recall=recall)
        found = sample_on_cpu(model, some, options, rules, lambda *_: None, recall)
        assert found == expected
        alone = compiled_sampling.sample_compiled(model, some[:1], options, rules, recall=recall)
        assert alone == expected[:1]
        if recall:
            alone = sample(model, some, replace(options, repetition=-1e9), rules, recall=recall)
            changed += alone != expected
        several += sum(START in piece for piece in expected)
    assert (changed > len(HOW) / 2) == (recall is not None)
    return several


@copying
@pytest.mark.parametrize("sizes", [(6, 5), (4, 16)])
@pytest.mark.parametrize(("free", "narrow"), [(False, False), (False, True), (True, False)])
def test_pieces_are_the_samplers(corpus, short, free, narrow, sizes, copy):
    recall = corpus.recall if copy else None
    model = model_for(corpus.vocabulary, sizes, recall=recall)
    habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
    habits = (300, 1, 2) if narrow else habits
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, *habits, free)
    ids = corpus.piece_ids(0).tolist()
    primers = [(), ids[:3], [], ids[:20], ids[:5], ids[:1]]
    several = pieces_with_others(model, rules, primers, recall)
    assert several or corpus.tokenizer.layout == "flatten"


@copying
@pytest.mark.parametrize("sizes", [(6, 5), (4, 16)])
@pytest.mark.parametrize("narrow", [False, True])
def test_events_are_the_samplers(events, short, narrow, sizes, copy):
    recall = events.recall if copy else None
    model = model_for(events.vocabulary, sizes, recall=recall)
    habits = (300, 1) if narrow else (events.longest_note, events.most_notes)
    rules = event_rules(events.vocabulary, *habits)
    ids = events.piece_ids(0).tolist()
    primers = [(), ids[:3], [], ids[:20], ids[:5], ids[2:9]]  # the last out of order
    assert pieces_with_others(model, rules, primers, recall)


@copying
@pytest.mark.parametrize("bias", [-100.0, 0.0, 4.0, 100.0])
def test_chords_are_the_samplers(rolls, short, bias, copy):
    recall = rolls.recall if copy else None
    model = model_for(rolls.vocabulary, bias=bias, recall=recall)
    rules = chord_rules(rolls.vocabulary, 480)
    primers = [(), rolls.ids[:3].tolist(), ()]
    for how in (
        {},
        {"limit": 480},
        {"limit": 11 * 480, "top_p": 0.9},
        {"limit": BAR, "greedy": True},
        {"beyond": True},
        {"beyond": True, "bars": 2, "meter": ((0, 1440),)},
    ):
        options = Options(**how)
        expected = sample(model, primers, options, rules, recall=recall)
        found = sample_on_cpu(model, primers, options, rules, lambda *_: None, recall)
        assert found == expected


@copying
def test_past_the_first_random_numbers_and_rows(corpus, copy):
    recall = corpus.recall if copy else None
    model = model_for(corpus.vocabulary, recall=recall)
    habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, *habits)
    options = Options(length=1100, seed=4)
    (long,) = compiled_sampling.sample_compiled(model, [()], options, rules, recall=recall)
    assert [long] == sample(model, [()], options, rules, recall=recall)
    many = [()] * (compiled_sampling.TOGETHER + 3)
    options = Options(length=12, seed=4)
    pieces = compiled_sampling.sample_compiled(model, many, options, rules, recall=recall)
    assert pieces == sample(model, many, options, rules, recall=recall)
    assert len({tuple(piece) for piece in pieces}) > 3
    later = Options(length=12, seed=4, first=5)
    found = compiled_sampling.sample_compiled(model, many[5:], later, rules, recall=recall)
    assert found == pieces[5:]


def test_a_note_that_fits_no_limit_is_late_rather_than_missing():
    vocabulary = Vocabulary([PIECE_END, TRACK_END, "note-on-60-300", "note-off-60-100"])
    model = model_for(vocabulary)
    for free in (False, True):
        for layout in ("flatten", "merge"):
            rules = message_rules(vocabulary, layout, 480, 1, free=free)
            options = Options(limit=100)
            found = compiled_sampling.sample_compiled(model, [()] * 5, options, rules)
            assert found == sample(model, [()] * 5, options, rules)
            assert found[0][0] == vocabulary.id("note-on-60-300")


def test_an_event_that_fits_no_limit_is_late_rather_than_missing():
    vocabulary = Vocabulary([PIECE_END, "bar-480", "at-240", "on-60", "off-60"])
    model, options = model_for(vocabulary), Options(limit=100)
    rules = event_rules(vocabulary, 480)
    found = compiled_sampling.sample_compiled(model, [()] * 5, options, rules)
    assert found == sample(model, [()] * 5, options, rules)
    assert found[0][0] == vocabulary.id("bar-480")


def test_progress_is_shown_to_the_end(corpus):
    model, shown = model_for(corpus.vocabulary), []
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, 480, 2)
    options, primers = Options(length=150), [()] * (compiled_sampling.TOGETHER + 1)
    compiled_sampling.sample_compiled(model, primers, options, rules, lambda *a: shown.append(a))
    assert shown == [(n, 300) for n in (64, 128, 150, 214, 278, 300)]
