"""Copying while sampling: what is chosen, how often, and what never is."""

import math

import numpy as np
import pytest
from small import small_corpus, small_ensembles, small_events, small_performances, small_rolls

from lstm_music.midi.roll import NOTES
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.recall import MOVED, NONE
from lstm_music.ops import get_ops
from lstm_music.sampling.copying import FramePast, copied, copies_of, ids_that
from lstm_music.sampling.frames import sample_frames
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import Draft, sample
from lstm_music.sampling.word_rules import (
    chord_rules,
    event_rules,
    message_rules,
    performance_rules,
)

ALWAYS, NEVER = 60.0, -60.0  # scores of a gate

# One choice -------------------------------------------------------------------------------------

FOUND = [(7, 0.5), (3, -1.0), (7, -0.2)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_each_is_chosen_as_often_as_the_gate_says(temperature):
    us = (np.arange(100_000) + 0.5) / 100_000
    drawn = [copied(FOUND, u, Options(temperature=temperature)) for u in us]
    weights = np.exp(np.array([0.0, *(score for _, score in FOUND)]) / temperature)
    p = weights / weights.sum()
    counts = {what: sum(w == what for w, _ in drawn) / len(us) for what in (None, 7, 3)}
    assert counts[None] == pytest.approx(p[0], abs=2e-5)
    assert counts[7] == pytest.approx(p[1] + p[3], abs=2e-5)
    assert counts[3] == pytest.approx(p[2], abs=2e-5)


def test_what_is_left_of_the_number_is_uniform_again():
    us = (np.arange(100_000) + 0.5) / 100_000
    left = np.array([u for what, u in (copied(FOUND, u, Options()) for u in us) if what is None])
    assert left.min() < 1e-4 and left.max() < 1
    counts, _ = np.histogram(left, 10, (0, 1))
    assert np.ptp(counts) <= 1


def test_the_largest_number_is_no_share_past_the_last():
    u = 1 - 2**-53
    assert copied([(4, 1.0)], u, Options())[0] == 4
    what, left = copied([(4, -800.0)], u, Options())
    assert what is None and left < 1
    assert copied([], u, Options()) == (None, u)


def test_a_copy_that_is_sure_of_itself_is_not_broken_off_by_chance():
    """The network has 1 / (1 + e) of it, 0.27: less than is left of a share of 0.7."""
    few, many = Options(top_p=0.7), Options(top_p=0.75)
    assert copied([(4, 1.0)], 0.0, few) == (4, 0.0)
    assert copied([(4, 1.0)], 0.0, many)[0] is None
    assert copied([(4, -5.0)], 0.999, few)[0] == 4  # and a copy may begin, however unlikely


def test_greedy_takes_what_its_candidates_make_likelier_than_the_network():
    greedy = Options(greedy=True)
    assert copied([(4, 0.1), (5, -0.1)], 0.9, greedy) == (4, 0.9)
    assert copied([(4, -0.1), (5, -0.2)], 0.9, greedy) == (None, 0.9)
    assert copied([(4, -0.1), (5, -0.5), (5, -0.5)], 0.9, greedy) == (5, 0.9)  # 2 · 0.61 > 1
    assert copied([(4, 1e9), (5, 1e9)], 0.0, greedy) == (4, 0.0)


def test_a_temperature_near_nothing_takes_the_likeliest():
    cold = Options(temperature=5e-324)
    assert copied([(4, 0.1), (5, 0.2)], 0.5, cold)[0] == 5
    assert copied([(4, -0.1), (5, -0.2)], 0.5, cold)[0] is None


def test_only_words_that_may_come_are_candidates():
    ids = [NONE, 5, 6, 7]
    found = ids_that([(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (9, 0.5)], ids, lambda id: id != 6)
    assert found == [(5, 0.2), (7, 0.4)]


# Pieces -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("music")
        return {
            "merge": small_corpus(folder, "merge"),
            "flatten": small_corpus(folder, "flatten"),
            "event": small_events(folder),
            "performance": small_performances(folder),
            "ensemble": small_ensembles(folder),
            "chord": small_rolls(folder, "chord", grid=8),
            "note": small_rolls(folder, "note", grid=8),
        }


WORDS = ("merge", "flatten", "event", "performance", "ensemble", "chord")


def rules_for(corpus, kind):
    if kind == "chord":
        return chord_rules(corpus.vocabulary, 240)
    if kind == "event":
        return event_rules(corpus.vocabulary, corpus.longest_note, corpus.most_notes)
    if kind in ("performance", "ensemble"):
        habits = corpus.longest_note, corpus.most_notes, corpus.longest_pause
        return performance_rules(corpus.vocabulary, *habits)
    habits = corpus.longest_note, corpus.max_tracks, corpus.most_notes
    return message_rules(corpus.vocabulary, kind, *habits)


def model_for(corpus, score, head=None, copy=True, backend="numpy"):
    """An untrained model, its gate's scores all the same; the same without a gate."""
    notes = corpus.tokenizer_json()["name"] == "note"
    K = corpus.recall.candidates
    head = head or ("sigmoid" if notes else "softmax")
    config = Config(len(corpus.vocabulary), 6, 5, 1, head=head, nade=4, copy=K)
    model = Model(config, get_ops(backend), seed=3)
    for name, p in model.parameters.items():
        if name.startswith("head"):
            p *= 8
    model.parameters["copy.R"][...] = score
    if copy:
        return model
    kept = {n: p for n, p in model.parameters.items() if not n.startswith("copy.")}
    plain = Config(len(corpus.vocabulary), 6, 5, 1, head=head, nade=4)
    return Model(plain, model.ops, parameters=kept)


def candidates_of(draft):
    """How many candidates a draft has, and the ids of those that may come."""
    allowed, past = set(draft.allowed.tolist()), draft._past
    found = past.candidates(np.zeros(past.copies.rules.candidates))
    return len(found), [id for id, _ in ids_that(found, past.copies.ids, allowed.__contains__)]


@pytest.mark.parametrize("kind", WORDS)
def test_what_the_rules_forbid_is_never_copied(corpora, kind):
    corpus = corpora[kind]
    rules, model = rules_for(corpus, kind), model_for(corpus, ALWAYS)
    primers = [[], corpus.primer(0)[:9], corpus.primer(1)]
    options = Options(limit=9 * 1920)
    offered = kept = 0
    pieces = sample(model, primers, options, rules, recall=corpus.recall)
    for primer, piece in zip(primers, pieces, strict=True):
        draft = Draft(0, [], rules, options, copies_of(model, corpus.recall, options))
        for id in piece:
            there, may = candidates_of(draft)
            offered, kept = offered + there, kept + len(may)
            assert id in draft.allowed or len(draft.ids) < len(primer)
            draft.take(id)
    assert 0 < kept < offered or kind == "chord"  # of chords all may come


@pytest.mark.parametrize("kind", WORDS)
def test_a_gate_that_always_copies_says_nothing_new(corpora, kind, monkeypatch):
    """Where a candidate is there that may come, no word comes that is none, and no logits."""
    corpus = corpora[kind]
    rules, model = rules_for(corpus, kind), model_for(corpus, ALWAYS)
    primer = corpus.primer(0)
    options = Options(length=len(primer) + 40, top_k=1)
    rows, logits = [], model.logits
    monkeypatch.setattr(model, "logits", lambda h: rows.append(len(h)) or logits(h))
    (piece,) = sample(model, [primer], options, rules, recall=corpus.recall)
    draft = Draft(0, primer, rules, options, copies_of(model, corpus.recall, options))
    copies = drawn = 0
    for n, id in enumerate(piece):
        if n >= len(primer):
            _, may = candidates_of(draft)
            assert not may or id in may
            copies, drawn = copies + bool(may), drawn + (not may)
        draft.take(id)
    assert copies > 10
    assert sum(rows) == drawn


@pytest.mark.parametrize("kind", WORDS)
def test_without_repetition_the_network_is_alone(corpora, kind):
    corpus = corpora[kind]
    rules, primers = rules_for(corpus, kind), [[], corpus.primer(0)[:7]]
    for how in ({}, {"top_p": 0.8}, {"greedy": True}, {"temperature": 2.0}):
        options = Options(limit=6 * 1920, **how)
        plain = sample(model_for(corpus, 2.0, copy=False), primers, options, rules)
        gated = model_for(corpus, 2.0)
        never = Options(limit=6 * 1920, repetition=-100, **how)
        assert sample(gated, primers, never, rules, recall=corpus.recall) == plain
        if kind != "performance" or "greedy" not in how:  # where it goes round by itself
            assert sample(gated, primers, options, rules, recall=corpus.recall) != plain


def test_more_repetition_is_more_of_the_past(corpora):
    corpus = corpora["event"]
    rules, model = rules_for(corpus, "event"), model_for(corpus, -2.0)
    new = []
    for x in (-6, 0, 6):
        options = Options(limit=16 * 1920, repetition=x)
        pieces = sample(model, [[]] * 6, options, rules, recall=corpus.recall)
        triples = [list(zip(p, p[1:], p[2:], strict=False)) for p in pieces]
        new.append(np.mean([len(set(t)) / len(t) for t in triples]))
    assert new[0] > new[1] > new[2]


def test_a_piece_is_the_same_beside_others(corpora):
    corpus = corpora["merge"]
    rules, model = rules_for(corpus, "merge"), model_for(corpus, 0.0)
    primers = [corpus.primer(0)[:5], [], corpus.primer(1)[:8]]
    together = sample(model, primers, Options(length=60), rules, recall=corpus.recall)
    for k, primer in enumerate(primers):
        options = Options(length=60, first=k)
        assert sample(model, [primer], options, rules, recall=corpus.recall) == [together[k]]


# Frames -----------------------------------------------------------------------------------------

SILENCE = np.zeros((0, NOTES), np.uint8)


@pytest.mark.parametrize("head", ["sigmoid", "nade"])
def test_frames_without_repetition_are_the_networks(corpora, head):
    corpus = corpora["note"]
    plain, gated = (model_for(corpus, 1.0, head, copy) for copy in (False, True))
    primers = [SILENCE, corpus.split_frames("valid")[0][:4]]
    expected = sample_frames(plain, primers, Options(length=30))
    never = Options(length=30, repetition=-100)
    found = sample_frames(gated, primers, never, recall=corpus.recall)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    found = sample_frames(gated, primers, Options(length=30), recall=corpus.recall)
    assert not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def shape_of(frame):
    """A frame but for its transposition."""
    notes = np.flatnonzero(frame)
    return tuple(notes - notes[0]) if len(notes) else ()


@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_frames_that_are_always_copied_are_of_the_past(corpora, head):
    corpus = corpora["note"]
    model = model_for(corpus, ALWAYS, head)
    primer = corpus.split_frames("valid")[0][:6]
    (piece,) = sample_frames(model, [primer], Options(length=40), recall=corpus.recall)
    assert np.array_equal(piece[:6], primer)
    known = {shape_of(frame) for frame in primer}
    assert {shape_of(frame) for frame in piece[6:]} <= known


@pytest.mark.parametrize(("begins", "follows"), [(70, [82, 86]), (71, [83, 87]), (72, [])])
def test_a_frame_that_would_leave_the_88_notes_is_not_copied(corpora, begins, follows):
    """A figure of five frames, and its first four again so high that the fifth may not fit."""
    corpus = corpora["note"]
    model = model_for(corpus, NEVER)
    model.parameters["copy.R"][MOVED] = ALWAYS
    past = FramePast(copies_of(model, corpus.recall, Options()))
    steps = np.array([0, 2, 5, 6, 12])
    for low in (*(40 + steps), *(begins + steps[:4])):
        frame = np.zeros(NOTES, np.uint8)
        frame[[low, low + 4]] = 1
        past.take(frame)
    drawn = np.zeros(NOTES, np.uint8)
    past.copy(np.zeros(corpus.recall.candidates), 0.5, Options(), drawn)
    assert np.flatnonzero(drawn).tolist() == follows


def test_a_share_is_the_softmax_of_the_scores(corpora):
    """Of one candidate at score 0: half of the frames are copied."""
    assert math.isclose(copied([(1, 0.0)], 0.49, Options())[1], 0.98)
    assert copied([(1, 0.0)], 0.51, Options()) == (1, 0.51)
