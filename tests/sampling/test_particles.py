"""Particles: what is given is kept, its likelihood estimated, and the same words compiled."""

import math

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy

from lstm_music.evaluation.music.voices import chords_of, faults_of
from lstm_music.midi.piece import Part, Piece
from lstm_music.midi.repair import sorted_messages
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.recall_rules import candidates_of, recall_rules
from lstm_music.ops import get_ops
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of
from lstm_music.sampling.craft import voices_of
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.harmonising import Asked, given_of
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import sample_particles, shares_of, systematic
from lstm_music.sampling.sampler import Draft, sample
from lstm_music.sampling.word_rules import event_rules
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.parts import Player
from lstm_music.tokenizers.vocabulary import Vocabulary

NAMES = ("Soprano", "Alto", "Tenor", "Bass")
ROSTER = tuple(Player(name) for name in NAMES)
TOLD = {"name": "event", "layout": "merge"}
DEVICE = "the CPU's stand-in for a GPU"
HELD = 1920  # the longest note, in ticks


def words_of(parts):
    """Few words: two bars' lengths, four places, a few pitches of each part, cadences."""
    pitches = [(72, 74, 76), (67, 69), (60, 64), (48, 53, 55)]
    words = ["piece-end", "bar-960", "bar", "cadence", *(f"at-{n}" for n in (0, 240, 480, 720))]
    for part in range(parts):
        for pitch in pitches[part]:
            words += [f"to-{pitch}/{part + 1}", f"off-{pitch}/{part + 1}"]
    return Vocabulary(words)


class Case:
    """A network that has learnt nothing, on a backend, whose words tell so many parts."""

    def __init__(self, backend, parts=4, copy=True, seed=1, dtype="float32"):
        self.vocabulary, self.roster = words_of(parts), ROSTER[:parts]
        copies = candidates_of("event", self.vocabulary) if copy else 0
        config = Config(len(self.vocabulary.words), 6, 8, 1, copy=copies)
        ops = CupyOps(dtype, cupy=HostCupy()) if backend == DEVICE else get_ops(backend, dtype)
        self.model = Model(config, ops, seed)
        for name, value in self.model.parameters.items():  # else all words are about as likely
            if name.startswith("head") or name == "copy.G":
                value[...] = ops.asarray(np.random.default_rng(seed).normal(size=value.shape))
        self.rules = event_rules(self.vocabulary, HELD)
        self.recall = recall_rules(self.vocabulary, TOLD) if copy else None
        self.tokenizer = EventTokenizer(None, self.roster)
        self.voices = voices_of(self.roster)

    def given(self, tune, parts, phrases=()):
        """What is given by a tune of the first part, of which other parts are composed."""
        notes = np.array(tune, np.int64)
        phrases = np.array(phrases, np.int32)
        piece = Piece(
            "tune", [sorted_messages(*notes.T)], parts=(Part("Soprano"),), phrases=phrases,
            meter=np.array([[0, 960]], np.int32),
        )  # fmt: skip
        ids = [self.vocabulary.id(word) for word in self.tokenizer.words(piece)[:-1]]
        return given_of(ids, self.rules, Asked(parts), len(phrases) > 0, int(notes[-1, 1]))

    def drawn(self, given=None, num=1, **options):
        """Pieces drawn by particles."""
        rules, asked = self.rules._replace(longest_piece=0), Options(**options)
        how = (lambda *_: None), self.recall, self.voices, given
        return sample_particles(self.model, [[]] * num, asked, rules, *how)

    def words(self, ids):
        """The words of ids."""
        return [self.vocabulary.word(id) for id in ids]


TUNE = [(0, 480, 72), (480, 960, 74), (960, 1440, 76), (1440, 1920, 74), (1920, 2880, 72)]
BOTH = ["numpy", "numba"]


# As without ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(
    "asked",
    [
        {"bars": 5},
        {"length": 60, "top_p": 0.7},
        {"limit": 4000, "temperature": 0.6},
        {"greedy": True, "bars": 3},
    ],
)
def test_one_draft_without_a_tune_or_craft_is_what_the_sampler_draws(backend, copy, asked):
    case = Case(backend, copy=copy)
    options = Options(seed=4, **asked)
    expected = sample(case.model, [[]] * 3, options, case.rules, recall=case.recall)
    found = sample_particles(case.model, [[]] * 3, options, case.rules, recall=case.recall)
    assert [one.ids for one in found] == expected
    assert [one.nats for one in found] == pytest.approx([0.0] * 3, abs=1e-6)


def test_drafts_of_equal_weight_are_all_gone_on_with():
    case = Case("numpy")
    alone = [one.ids for one in case.drawn(num=4, bars=4)]
    together = case.drawn(bars=4, particles=4)
    assert together[0].ids in alone and together[0].nats == 0.0


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("craft", [0.0, 2.0])
@pytest.mark.parametrize("particles", [1, 6])
def test_compiled_drafts_draw_the_same_words(copy, craft, particles):
    asked = {"craft": craft, "particles": particles, "top_p": 0.9, "num": 2, "seed": 3}
    both = []
    for backend in BOTH:
        case = Case(backend, copy=copy)
        given = case.given(TUNE, (1, 2, 3), phrases=(960, 2880))
        both.append([*case.drawn(given, **asked), *case.drawn(bars=6, **asked)])
    assert [one.ids for one in both[0]] == [one.ids for one in both[1]]
    nats = [[one.nats for one in some] for some in both]
    assert nats[0] == pytest.approx(nats[1], rel=1e-4, abs=1e-4)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
@pytest.mark.parametrize("particles", [1, 6, 70])
def test_a_network_on_a_device_draws_the_same_words(particles):
    """More drafts than rows that are always computed among them."""
    both = []
    for backend in ("numpy", DEVICE):
        case = Case(backend)
        given = case.given(TUNE, (1, 2, 3), phrases=(960, 2880))
        asked = {"craft": 2.0, "particles": particles, "num": 2}
        both.append(
            [one.ids for one in (*case.drawn(given, **asked), *case.drawn(bars=3, **asked))]
        )
    assert both[0] == both[1]


# What is given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("particles", [1, 5])
def test_what_is_given_comes_and_no_part_that_isnt_asked_for(backend, particles):
    case = Case(backend)
    given = case.given(TUNE, (1, 3), phrases=(960, 2880))
    for one in case.drawn(given, num=3, particles=particles, craft=1.0):
        piece = case.tokenizer.piece(case.words(one.ids), "x")
        by_part = dict(zip([part.name for part in piece.parts], piece.tracks, strict=True))
        assert by_part["Soprano"].tolist() == sorted_messages(*np.array(TUNE).T).tolist()
        assert {*by_part} <= {"Soprano", "Alto", "Bass"}
        assert piece.phrases.tolist() == [960, 2880]
        assert max(track[-1, 0] for track in piece.tracks) == 2880
        assert math.isfinite(one.nats)


def test_a_tune_without_phrases_closes_with_its_last_note():
    case = Case("numpy")
    piece = case.tokenizer.piece(case.words(case.drawn(case.given(TUNE, (1,)))[0].ids), "x")
    assert piece.phrases[-1] == 2880


def exactly(case, given_words):
    """The log-likelihood of words under the rules, by the network alone."""
    draft = Draft(0, [], case.rules._replace(longest_piece=0), Options())
    draft.piece.least = 0
    state, x, total = case.model.zero_state(1), case.rules.start, 0.0
    for id in [*given_words, case.rules.start]:
        logits, state = case.model.step(np.array([x], np.int32), state)
        allowed = draft.allowed
        p = np.exp(logits[0, allowed] - logits[0, allowed].max())
        total += math.log(p[allowed == id].sum() / p.sum())
        draft.take(id)
        x = id
    return total


@pytest.mark.parametrize("backend", BOTH)
def test_of_a_tune_to_which_nothing_is_added_the_likelihood_is_exact(backend):
    case = Case(backend, copy=False)
    given = case.given(TUNE, (1,))._replace(start=0, stop=0)
    one, *_ = case.drawn(given, particles=3)
    assert one.nats == pytest.approx(exactly(case, one.ids), rel=1e-5)
    assert [word for word in case.words(one.ids) if word.startswith("to")] == [
        f"to-{pitch}/1" for *_, pitch in TUNE
    ]


def test_the_estimate_is_right_on_average_whatever_the_number_of_drafts():
    """Without bias: the mean of many estimates by one draft is that of some by eight."""
    case = Case("numba", parts=2, copy=True)
    given = case.given([(0, 480, 72), (480, 720, 74)], (1,))
    means = []
    for particles, num in ((1, 20000), (8, 2500)):
        p = np.exp([one.nats for one in case.drawn(given, num=num, particles=particles)])
        means.append((p.mean(), p.std() / math.sqrt(num)))
    (one, error), (eight, smaller) = means
    assert abs(one - eight) < 4 * math.hypot(error, smaller)
    assert max(smaller, error) < 0.2 * one


def test_more_drafts_find_likelier_settings():
    case = Case("numba")
    given = case.given(TUNE, (1, 2, 3))
    few, many = (
        np.mean([one.nats for one in case.drawn(given, num=20, particles=n)]) for n in (1, 16)
    )
    assert many > few + 1


@pytest.mark.parametrize("backend", BOTH)
def test_what_the_rules_forbid_comes_all_the_same(backend):
    """A rest as long as the rules let no bars of silence follow one another."""
    case = Case(backend)
    case.rules = case.rules._replace(longest_note=480, rings=481)
    tune = [(0, 480, 72), (6 * 960, 6 * 960 + 480, 74)]
    given = case.given(tune, (1,))._replace(stop=0, start=0)  # where nothing else sounds
    one, *_ = case.drawn(given)
    words = case.words(one.ids)
    assert words.count("bar") == 6 and [w for w in words if w[:2] == "to"] == ["to-72/1", "to-74/1"]
    assert one.nats < -50


def test_craft_makes_fewer_faults():
    """Of the bundled model, which knows its voices' places but not each other's motion."""
    checkpoint = read_checkpoint(bundled_model())
    composer = composer_of(checkpoint, model_of(checkpoint, "numba"))

    def faults(craft, particles):
        options = Options(bars=4, craft=craft, particles=particles, top_p=0.8)
        made = composer.compose([[]] * 8, options, lambda *_: None)
        pieces = [composer.piece(ids, options, "x", []) for ids in made]
        found = [faults_of(chords_of(piece)) for piece in pieces]
        return sum(sum(one[name] for name in ("fifths", "octaves")) for one in found)

    without, alone, four = faults(0.0, 1), faults(4.0, 1), faults(4.0, 4)
    assert without > 10 and max(alone, four) < without / 2


def test_where_faults_cost_nothing_one_draft_is_drawn_unless_more_are_asked_for():
    checkpoint = read_checkpoint(bundled_model())
    composer = composer_of(checkpoint, model_of(checkpoint, "numpy"))
    assert (composer.options().craft, composer.options().particles) == (4.0, 4)
    assert composer.options(craft=0.0).particles == 1
    assert composer.options(craft=0.0, particles=8).particles == 8
    assert composer.options(craft=2.0).particles == 4


def test_what_is_done_is_shown_in_tokens():
    checkpoint = read_checkpoint(bundled_model())
    composer = composer_of(checkpoint, model_of(checkpoint, "numpy"))
    shown = []
    composer.compose([[]], composer.options(length=30), lambda *seen: shown.append(seen))
    assert {most for _, most in shown} == {30} and shown[-1][0] == 30
    assert shown == sorted(shown)


def test_pieces_are_the_same_whatever_is_drawn_beside_them():
    case = Case("numba")
    given = case.given(TUNE, (1, 2, 3))
    asked = {"particles": 16, "craft": 2.0, "seed": 9}
    many = [one.ids for one in case.drawn(given, num=7, **asked)]
    alone = [case.drawn(given, first=n, **asked)[0].ids for n in range(7)]
    assert many == alone and len({tuple(ids) for ids in many}) > 1


def test_primers_are_begun_with():
    case = Case("numpy")
    primer = [case.vocabulary.id(word) for word in ("bar-960", "at-0", "to-72/1", "to-67/2")]
    options = Options(bars=3, beyond=True, particles=4, craft=2.0)
    (one,) = sample_particles(
        case.model, [primer], options, case.rules, recall=case.recall, voices=case.voices
    )
    assert (
        one.ids[:4] == primer and sum(word.startswith("bar") for word in case.words(one.ids)) >= 3
    )


# Resampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("u", [0.0, 0.3, 1 - 2**-32])
def test_each_draft_goes_on_as_often_as_its_share_up_or_down(u):
    rng = np.random.default_rng(0)
    for N in (1, 2, 7, 128):
        shares = rng.dirichlet(np.full(N, 0.3))
        times = systematic(shares, u)
        assert times.sum() == N
        assert (times >= np.floor(N * shares - 1e-9)).all()
        assert (times <= np.ceil(N * shares + 1e-9)).all()


def test_on_average_as_often_as_its_share():
    shares = np.array([0.05, 0.6, 0.25, 0.1])
    mean = np.mean([systematic(shares, u) for u in (np.arange(1000) + 0.5) / 1000], axis=0)
    assert mean == pytest.approx(4 * shares, abs=0.005)


def test_shares_of_log_weights():
    shares, total = shares_of(np.array([-1000.0, -1000.0 + math.log(3)]))
    assert shares == pytest.approx([0.25, 0.75]) and total == pytest.approx(-1000 + math.log(2))
