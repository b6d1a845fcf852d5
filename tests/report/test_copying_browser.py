"""Copying in the page: its script finds, scores and chooses what Python does."""

import json
from dataclasses import replace

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from rule_states import State
from small import (
    small_corpus,
    small_ensembles,
    small_events,
    small_performances,
    small_rolls,
    small_trainer,
)

from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.network.recall import (
    BAR_LINE,
    OPENS,
    Recall,
    RecallRules,
    bucket_of,
    code_of,
    new_recall,
    observe,
)
from lstm_music.network.recall_rules import frame_words, recall_rules
from lstm_music.ops import get_ops
from lstm_music.report.browser_model import in_16_bits
from lstm_music.report.page import RunReport, page
from lstm_music.runs.checkpoint import read_run
from lstm_music.sampling.copying import FramePast, Past, copied, copies_of, ids_that
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
OPS = get_ops("numpy")
WORDS = ("merge", "flatten", "event", "performance", "ensemble", "chord")
NOTE_KINDS = ("sigmoid", "nade", "biaxial")
KINDS = (*WORDS, *NOTE_KINDS)


def with_gate(checkpoint):
    """The checkpoint of a network with a copy gate, which copies about half of its words."""
    rng = np.random.default_rng(4)
    config = replace(checkpoint.config, copy=rules_of(checkpoint).candidates)
    parameters = dict(checkpoint.parameters)
    for name, shape in parameter_shapes(config).items():
        more = shape[0] - len(parameters.get(name, ()))
        if name.startswith("copy."):
            centre = -2 if name == "copy.R" else 0
            parameters[name] = rng.normal(centre, 1, shape).astype(np.float32)
        elif more:  # what a biaxial network reads of candidates
            rows = rng.normal(0, 1, (more, *shape[1:])).astype(np.float32)
            parameters[name] = np.concatenate([parameters[name], rows])
    return checkpoint._replace(config=config, parameters=parameters)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small run of each kind, with a gate."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(folder / "cache"))
        music = folder / "music"
        corpora = {
            "merge": small_corpus(folder, "merge", notes=40),
            "flatten": small_corpus(folder, "flatten"),
            "event": small_events(folder),
            "performance": small_performances(folder),
            "ensemble": small_ensembles(folder),
            "chord": small_rolls(folder, "chord", grid=8),
        }
        corpora |= dict.fromkeys(NOTE_KINDS, small_rolls(folder, "note", grid=8))
        assert music.is_dir()
        for kind, corpus in corpora.items():
            head = kind if kind in NOTE_KINDS else None
            small_trainer(corpus, folder / kind, head=head, max_steps=60).train()
            found[kind] = with_gate(read_run(folder / kind, pytest.fail)[0])
    return found


@pytest.fixture(scope="module")
def opened(checkpoints, tmp_path_factory):
    """The browser, with a page that holds all those models."""
    reports = [RunReport(kind, checkpoint, [], 0.9, []) for kind, checkpoint in checkpoints.items()]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(reports, [], []), "utf-8")
    with Browser() as browser:
        browser.open(path)
        yield browser
        assert browser.complaints == []


def run(opened, kind, script):
    """What JavaScript gives in which `network` is a run's, and `model` what the page has of it."""
    begin = f"const model = DATA.models[{KINDS.index(kind)}]; const network = networkOf(model);"
    return opened.run(f"(() => {{ {begin} {script} }})()")


def model_of(checkpoint):
    """The network of a checkpoint as the page has it."""
    arrays = in_16_bits(checkpoint.parameters)
    parameters = {name: OPS.asarray(value) for name, value in arrays.items()}
    return Model(checkpoint.config, OPS, parameters=parameters)


def rules_of(checkpoint):
    return recall_rules(checkpoint.vocabulary, checkpoint.meta["tokenizer"])


# The same candidates ----------------------------------------------------------------------------

WALK = """
    const past = new (model.rules ? Past : FramePast)(model, network.p["copy.R"]);
    return MUSIC.map((step) => {
        past.take(step);
        const { candidates, runs } = past.recall;
        const buckets = runs.map((_, k) => recalling.bucketOf(past.recall, k));
        return [candidates.slice(), runs.slice(), buckets];
    });
"""


def walked(rules, words):
    """As the page's walk, in Python."""
    m, found = Recall(*(array.tolist() for array in new_recall(rules, len(words)))), []
    for word in words.tolist():
        observe(rules, m, word)
        found.append(
            [list(m.candidates), list(m.runs), [bucket_of(m, k) for k in range(len(m.runs))]]
        )
    return found


def music_of(checkpoint, kind):
    """Pieces that are hard to follow: phrases that return, and words in no order; no ends."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        if kind in WORDS:
            steps = rng.integers(1, len(checkpoint.vocabulary), size=60).tolist()
        else:
            drawn = rng.integers(3, size=60).tolist()
            low = rng.integers(LOWEST, LOWEST + NOTES - 12, size=60).tolist()
            steps = [[[], [p], [p, p + 4, p + 11]][n] for n, p in zip(drawn, low, strict=True)]
        music = []
        while len(music) < 900:
            first, n = rng.integers(50), rng.integers(1, 60)
            music += steps[first : first + n]
        yield music


def words_of(checkpoint, kind, music):
    """Music as recall compares its steps."""
    if kind in WORDS:
        return rules_of(checkpoint).words[music]
    return frame_words(np.stack([frame_of(pitches) for pitches in music]))


def frame_of(pitches):
    frame = np.zeros(NOTES, np.uint8)
    frame[np.array(pitches, int) - LOWEST] = 1
    return frame


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_of_walks_are_those_of_python(opened, checkpoints, kind):
    checkpoint = checkpoints[kind]
    for music in music_of(checkpoint, kind):
        found = run(opened, kind, WALK.replace("MUSIC", json.dumps(music)))
        expected = walked(rules_of(checkpoint), words_of(checkpoint, kind, music))
        assert found == expected
    assert max(max(runs) for _, runs, _ in expected) > 5


def rows(seed):
    """Rows of a word table of all kinds, at all pitches and places; phrases return, moved."""
    rng = np.random.default_rng(seed)
    n = 80
    phrase = np.stack(
        [
            rng.integers(3, size=n),
            np.where(rng.random(n) < 0.2, -1, rng.integers(128, size=n)),
            rng.choice(5, n, p=[0.5, 0.07, 0.03, 0.1, 0.3]),
            np.where(rng.random(n) < 0.6, -1, rng.integers(4, size=n) * 480),
            rng.integers(3, size=n) * 240,
            rng.integers(512, size=n),
            rng.integers(144, size=n),
        ],
        axis=1,
    )
    music = []
    for _ in range(12):
        first, stop = rng.integers(n // 2), rng.integers(n // 2, n)
        part = phrase[first:stop].copy()
        moved = part[:, 1] + rng.integers(-9, 10)
        part[:, 1] = np.where((part[:, 1] < 0) | (moved < 0) | (moved > 127), part[:, 1], moved)
        music.append(part)
    return np.concatenate([*music, *[phrase] * 6])


@pytest.mark.parametrize("phrases", [0, 3])
@pytest.mark.parametrize("line", [0, 1920])
def test_candidates_of_any_rows_are_those_of_python(opened, line, phrases):
    lags = tuple(bars * (line or 1) for bars in (1, 2, 4))
    for seed in range(6):
        words = rows(seed)
        bars = words[words[:, OPENS] == BAR_LINE].tolist()
        rules = RecallRules(
            (4, 2, 3), lags, line, phrases, code_of(bars[0]), np.zeros((0, 6)), np.zeros(0)
        )
        names = ("orders", "lags", "line", "phrases", "same")
        given = {name: getattr(rules, name) for name in names}
        script = f"""
            const m = recalling.newRecall({json.dumps(given)});
            return {json.dumps(words.tolist())}.map((row) => {{
                recalling.observe({json.dumps(given)}, m, row);
                const buckets = m.runs.map((_, k) => recalling.bucketOf(m, k));
                return [m.candidates.slice(), m.runs.slice(), buckets];
            }});
        """
        expected = walked(rules, words)
        assert run(opened, "merge", script) == expected
        assert max(max(runs) for _, runs, _ in expected) > 256


@pytest.mark.parametrize("begins", [91, 92, 93])
def test_a_frame_that_would_leave_the_88_notes_is_no_candidate(opened, checkpoints, begins):
    """A figure of five frames, and its first four again so high that the fifth may not fit."""
    steps = np.array([0, 2, 5, 6, 12])
    lows = [*(60 + steps), *(begins + steps[:4])]
    music = [[int(low), int(low) + 4] for low in lows]
    script = f"""
        const past = new FramePast(model, network.p["copy.R"]);
        {json.dumps(music)}.forEach((frame) => past.take(frame));
        const found = past.found(network.p["copy.R"].map(() => 0), LOWEST, LOWEST + PIANO - 1);
        return found.map(([frame]) => frame);
    """
    highest = begins + 12 + 4
    found = run(opened, "nade", script)
    assert ([highest - 4, highest] in found) == (highest <= 108)
    assert music[-1] in found


def test_a_choice_is_that_of_python(opened):
    rng = np.random.default_rng(5)
    cases = []
    for _ in range(500):
        scores = rng.normal(0, 10 ** rng.uniform(-1, 2), rng.integers(9)).tolist()
        found = [
            [int(what), score] for what, score in zip(rng.integers(4, size=9), scores, strict=False)
        ]
        share = float(rng.choice([1.0, rng.uniform(0.5, 1)]))
        cases.append([found, float(rng.random()), float(rng.uniform(0.1, 2)), share])
    ends = [[[1, 0.0]], 1 - 2**-53], [[[1, 900.0]], 0.0], [[[1, -900.0]], 0.5]
    cases += [[*case, 1.0, 1.0] for case in ends]
    drawn = run(opened, "merge", f"return {json.dumps(cases)}.map((case_) => copied(...case_))")
    counts = [0, 0]
    for (found, u, temperature, share), (what, left) in zip(cases, drawn, strict=True):
        pairs = [(what, score) for what, score in found]
        expected, still = copied(pairs, u, Options(temperature=temperature, top_p=share))
        assert what == expected
        assert left == pytest.approx(still, rel=1e-12, abs=1e-300)
        counts[what is None] += 1
    assert min(counts) > 100


# The same gate, composing -----------------------------------------------------------------------

COMPOSED = """
    const before = { copied, draw, copyScores: network.copyScores };
    const steps = [];
    let scores = null;
    network.copyScores = () => (scores = before.copyScores.call(network));
    copied = (found, u, ...others) => {
        const [what, left] = before.copied(found, u, ...others);
        steps.push({ scores: [...scores], found, u, what, left });
        return [what, left];
    };
    draw = (logits, allowed, temperature, topP, u) => {
        steps[steps.length - 1].drawnBy = u;
        return before.draw(logits, allowed, temperature, topP, u);
    };
    const composer = new Composer(network, { seed: SEED, temperature: 1.2, primer: PRIMER });
    for (let n = 0; n < 300; n++) {
        const before = steps.length;
        const next = composer.step();
        if (steps.length === before) steps.push({ scores: null });
        steps[steps.length - 1].next = next;
    }
    ({ copied, draw } = before);
    return steps;
"""


def composed(opened, checkpoints, kind, seed):
    """The steps of a piece and what the page's gate saw and chose at each."""
    primers = checkpoints[kind].meta["primers"]
    primer = primers[0]["ids" if kind in WORDS else "frames"][:12]
    script = COMPOSED.replace("SEED", str(seed)).replace("PRIMER", json.dumps(primer))
    return run(opened, kind, script)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", WORDS)
def test_words_are_copied_as_in_python(opened, checkpoints, kind, seed):
    checkpoint, counts = checkpoints[kind], [0, 0]
    model = model_of(checkpoint)
    copies = copies_of(model, rules_of(checkpoint), Options())
    composer = composer_of(checkpoint, model)
    rules, options = composer.rules, Options(temperature=1.2, top_p=composer.top_p)
    past, state, memory, x = Past(copies), State(rules), model.zero_state(1), 0
    for step in composed(opened, checkpoints, kind, seed):
        _, memory = model.step(np.array([x], np.int32), memory)
        if step["scores"]:
            scores = model.copy_scores(memory)[0]
            np.testing.assert_allclose(step["scores"], scores, rtol=1e-3, atol=1e-3)
            allowed = set(np.flatnonzero(state.allowed_as_asked()).tolist())
            candidates = past.candidates(np.array(step["scores"]))
            found = ids_that(candidates, copies.ids, allowed.__contains__)
            assert [id for id, _ in step["found"]] == [id for id, _ in found]
            np.testing.assert_allclose(
                [score for _, score in step["found"]], [score for _, score in found], rtol=1e-6
            )
            what, left = copied(found, step["u"], options)
            assert step["what"] == what
            assert step["left"] == pytest.approx(left, rel=1e-5, abs=1e-9)
            assert step.get("drawnBy") == (step["left"] if what is None else None)
            assert what in (None, step["next"])
            counts[what is None] += 1
        x = step["next"]
        if x == 0:
            past.forget()
            state, memory = State(rules), model.zero_state(1)
        else:
            past.take(copies.words[x])
            state = state.advance(x)
    assert min(counts) > 10


@pytest.mark.parametrize("kind", NOTE_KINDS)
def test_frames_are_copied_as_in_python(opened, checkpoints, kind):
    checkpoint, counts = checkpoints[kind], [0, 0]
    copies = copies_of(model_of(checkpoint), rules_of(checkpoint), Options())
    past = FramePast(copies)
    for step in composed(opened, checkpoints, kind, 3):
        if step["scores"]:
            frame = np.full(NOTES, 7, np.uint8)  # what the network would have drawn
            past.copy(np.array(step["scores"]), step["u"], Options(temperature=1.2), frame)
            if step["what"] is None:
                assert (frame == 7).all()
            else:
                assert step["what"] == step["next"]
                assert np.array_equal(frame, frame_of(step["next"]))
            counts[step["what"] is None] += 1
        past.take(frame_of(step["next"]))
    assert min(counts) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_piece(opened, checkpoints, kind):
    first, again, other = (composed(opened, checkpoints, kind, seed) for seed in (1, 1, 2))
    assert first == again != other
