"""The pasts of pieces on the device and what they copy, held to the functions in Python."""

import re
from random import Random

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from rule_walks import CHORDS, ENSEMBLES, EVENTS, MESSAGES, PERFORMANCES

from lstm_music.network import recall
from lstm_music.network.config import Config, State
from lstm_music.network.model import Model
from lstm_music.network.recall_rules import recall_rules
from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.philox import uniform
from lstm_music.sampling.copying import Past, copied, copies_of, ids_that
from lstm_music.sampling.device_recall import DeviceRecall
from lstm_music.sampling.options import Options
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
WORDS = {
    "event": [*EVENTS, *(f"on-{pitch}" for pitch in range(70, 80))],
    "message": MESSAGES,
    "performance": PERFORMANCES,
    "ensemble": ENSEMBLES,
    "chord": CHORDS,
}
N, START = 5, 0


def model_of(kind, cupy, seed=0):
    """A model that copies often, and how its words are compared."""
    vocabulary = Vocabulary([PIECE_END, *WORDS[kind]])
    name = {"ensemble": "performance"}.get(kind, kind)
    rules = recall_rules(vocabulary, {"name": name, "grid": 8})
    config = Config(len(vocabulary), 4, 5, 1, copy=rules.candidates)
    model = Model(config, CupyOps("float64", cupy=cupy), seed=seed)
    rng = np.random.default_rng(seed)
    for name in ("copy.G", "copy.R"):
        random = rng.normal(size=model.parameters[name].shape)
        model.parameters[name] = model.ops.asarray(random)
    return model, rules


def words_of(random, n, V, most):
    """What a piece says: the more often itself again the lower its number; some pieces end.

    Piece 0 has long passages that differ in their last word alone.
    """
    drawn = [random.randrange(1, V) for _ in range(most)]
    if n == 0:
        return [drawn[t % 46 if t % 46 < 45 else random.randrange(3)] for t in range(most)]
    said, period = [], 8 * n + 1
    for t in range(most):
        noise = t < period or random.random() < 0.03 * n
        said.append(drawn[t] if noise else said[-period])
        if random.random() < 0.004 * n:
            said[-1] = START
    return said


def phrases(random, most):
    """Events in phrases of two bars, each like an earlier one until it changes, if it does."""
    said, known = ["bar-1920"], []
    while len(said) < most:
        pitches = [random.randrange(70, 80) for _ in range(5)]
        if known and random.random() < 0.7:
            n = random.randrange(2, 6)
            pitches = known[random.choice((0, -1))][:n] + pitches[n:]
        known.append(pitches)
        a, b, c, d, e = (f"on-{pitch}" for pitch in pitches)
        said += ["at-0", a, "at-480", b, "at-960", c, "bar", "at-0", d, "at-960", "cadence", e]
        said.append("bar")
    return said[:most]


def walk(kind, cupy, most=300, seed=0, options=None):
    """Let device and Python take the same words; yield both pasts of each piece after each."""
    (model, rules), random = model_of(kind, cupy, seed), Random(seed)
    past = DeviceRecall(model, N, rules, most, options or Options())
    plain = [recall.new_recall(rules, most) for _ in range(N)]
    words, done = [words_of(random, n, len(rules.words), most) for n in range(N)], np.zeros(N)
    if kind == "event":
        ids = Vocabulary([PIECE_END, *WORDS[kind]]).id
        words[1] = list(map(ids, phrases(random, most)))
    for t, following in enumerate(zip(*words, strict=True)):
        done[N - 1] = t > most // 2
        past.advance(*(model.ops.asarray(a, np.int32) for a in (following, done)), START)
        for n in np.flatnonzero(done == 0):
            if following[n] == START:
                recall.forget(plain[n])
            else:
                recall.observe(rules, plain[n], rules.words[following[n]].tolist())
        yield past, plain


def check_walk(kind, cupy, seed=0):
    copied, hits = 0, 0
    for past, plain in walk(kind, cupy, seed=seed):
        for name in ("pointers", "candidates", "runs", "numbers"):
            found = past.ops.to_numpy(getattr(past, name))
            expected = np.array([getattr(one, name) for one in plain])
            np.testing.assert_array_equal(found, expected, name)
        copied += (expected := np.array([one.candidates for one in plain]) >= 0).sum()
        hits += np.array([one.runs for one in plain])[expected].max(initial=0) > 8
    assert copied > 1000 and hits > 100


@pytest.mark.parametrize("kind", WORDS)
def test_a_past_is_pythons_word_by_word(kind):
    for seed in range(2):
        check_walk(kind, HostCupy(), seed)


@pytest.mark.parametrize("file", ["recall", "copy_gate"])
def test_constants_are_pythons(file):
    found = re.findall(r"^constexpr (?:int|long long) (\w+) = (-?\d+);", source.text(file), re.M)
    assert len(found) > 2
    for name, value in found:
        assert getattr(recall, name, None) == int(value) or name == "THREADS", name


WALK_MUTATIONS = {
    "a match of too few words": ("best = order - 1;", "best = 0;"),
    "the earliest of equals": ("length > best", "length >= best"),
    "lanes that compare alike": ("first + threadIdx.x % 32;", "first;"),
    "half as far": ("first < FARTHEST;", "first < 32;"),
    "the word before last": ("m.before[kind * m.room + q]", "m.before[q]"),
    "a place not entered": (", m.heads[slot] = n;", ";"),
    "a hash of one word less": ("n - order + 1", "n - order + 2"),
    "a run that goes on": ("candidates[k] == code ? m.runs[k] + 1 : 0", "runs[k] + 1"),
    "a transposition by another pitch": ("pitch - pitch_before + SHIFT", "pitch + SHIFT"),
    "a bar that takes no time": ("numbers.base += numbers.length * RANKS,", ""),
    "the order at a place": ("* RANKS + word[RANK]", "* RANKS"),
    "what stands at the time itself": ("m.times[p] <= time - lag", "m.times[p] < time - lag"),
    "a track that remembers the one before": ("numbers.track_began = n + 1,", ""),
    "an opening told anew at each line": ("if (m.runs[OPENING] == 0) numbers", "numbers"),
    "phrases that begin anywhere": ("phrases.closes == 1;", "true;"),
    "an opening told on that is wrong": ("if (misses(m, opening, word)) numbers.lag = 0;", ""),
    "a phrase that begins as the piece": ("place - phrases.began,", "place - phrases.first,"),
    "an opening without a number": ("? phrases.phrases - 1 : 0;", "? 0 : 0;"),
    "bars that say their length again": ("code == numbers.meter ? same : code", "code"),
    "a piece that remembers the one before": ("m.heads[slot] = NONE;", ""),
    "lags of the next candidate": ("lags[k - OPENING - 1]", "lags[k - OPENING]"),
    "a piece that is done": ("if (done[piece]) return;", ""),
    "a word read before it is written": ("__syncthreads();  // the word stands there,", "//"),
    "a place read after it is written": ("__syncwarp();  // all lanes have read it", ""),
}


def mutated(change):
    """A device whose kernels have a bug; and whether it was planted."""
    cupy, planted = HostCupy(), []

    def mutate(code):
        planted.append(change[0] in code)
        return code.replace(*change)

    cupy.mutate = mutate
    return cupy, planted


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize("name", WALK_MUTATIONS)
def test_bugs_planted_in_the_past_are_caught(name):
    cupy, planted = mutated(WALK_MUTATIONS[name])
    with pytest.raises(AssertionError):
        for kind in WORDS:
            check_walk(kind, cupy)
    assert any(planted)


# Whether to copy --------------------------------------------------------------------------------

OPTIONS = [
    Options(seed=3),
    Options(seed=3, temperature=0.3),
    Options(seed=3, temperature=1e-60),
    Options(seed=3, temperature=4.0, repetition=1.5),
    Options(seed=3, repetition=-3),
    Options(seed=3, top_p=0.3, temperature=2.0),
    Options(seed=3, greedy=True),
    Options(seed=3, greedy=True, repetition=-0.5, first=2),
]


def check_choices(kind, cupy, options):
    """Hold choices along a walk to Python's; return how many words were copied."""
    rng, (model, rules) = np.random.default_rng(0), model_of(kind, cupy)
    copies, V, found = copies_of(model, rules, options), len(rules.words), []
    for t, (past, plain) in enumerate(walk(kind, cupy, 60, 0, options)):
        h = rng.normal(size=(1, N, 5))
        state = State(*(model.ops.asarray(a) for a in (h, h)))
        allowed = (rng.random((N, V)) < 0.7).astype(np.uint8)
        position = model.ops.asarray([t], np.int32)
        past.choose(state, model.ops.asarray(allowed, np.uint8), position, options.first)
        scores = model.ops.to_numpy(model.copy_scores(state))
        for n, one in enumerate(plain):
            own = Past(copies)
            own.recall = one
            may = allowed[n].__getitem__
            candidates = ids_that(own.candidates(scores[n]), copies.ids, may)
            u = float(uniform(options.seed, options.first + n, 0, 1024)[t])
            id, u = copied(candidates, u, options)
            assert past.ops.to_numpy(past.copied)[n] == (-1 if id is None else id)
            if id is None:
                np.testing.assert_allclose(past.ops.to_numpy(past.draws)[n], u, rtol=1e-12)
            found.append(id is not None)
    return sum(found), len(found)


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_copied_is_what_python_copies(kind, options):
    copied, all_words = check_choices(kind, HostCupy(("shuffled",)), options)
    assert 5 < copied < all_words - 5


CHOICE_MUTATIONS = {
    "what may not come": ("id != NONE && allowed[id] ? id : NONE", "id"),
    "runs of another candidate": ("bucket(runs[from],", "bucket(runs[0],"),
    "a match that never comes round": ("came_round(MATCH) ? MATCH : k", "false ? MATCH : k"),
    "a network that is never left out": ("own = 0;", ";"),
    "a network without its share": ("left = u * (own + total)", "left = u * total"),
    "a temperature of the candidates alone": ("exp(-top / temperature)", "exp(-top)"),
    "a number drawn twice": ("u = fmin(left / own", "u = fmin(left"),
    "the network's share counted twice": ("left -= own;", ""),
    "greedy without the sum": ("if (c.word(other) == id) sum +=", "if (other == k) sum +="),
    "greedy against nothing": ("double most = 1;", "double most = 0;"),
    "no run that has come round": ("if (run >= back)", "if (false)"),
    "a bucket too few": ("stop = LONG - 1", "stop = 2"),
}


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("name", CHOICE_MUTATIONS)
def test_bugs_planted_in_the_choice_are_caught(name):
    cupy, planted = mutated(CHOICE_MUTATIONS[name])
    with pytest.raises(AssertionError):
        for options in OPTIONS:
            check_choices("event", cupy, options)
    assert any(planted)
