"""Frames in the page: by the same random numbers it composes what Python does."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from small import small_rolls
from test_copying_browser import NOTE_KINDS, frame_of, model_of, rules_of, with_gate
from test_report import checkpoint_of

from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.report.page import page
from lstm_music.report.told import RunReport
from lstm_music.sampling.copying import FramePast, copies_of
from lstm_music.sampling.frames import COLDEST, Reader
from lstm_music.sampling.options import Options

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
KINDS = [(head, gate) for head in NOTE_KINDS for gate in (False, True)]
TIE = 1e-6  # of a number and a probability, which the page rounds otherwise
COMPOSED = """
    const composer = new Composer(network, { seed: 3, temperature: TEMPERATURE, primer: PRIMER });
    const { random } = composer;
    const { notes } = network;
    const steps = [];
    for (let n = 0; n < 120; n++) {
        const drawn = [];
        let nearest = 1;
        composer.random = () => (drawn.push(random()), drawn[drawn.length - 1]);
        network.notes = (temperature, choose) =>
            notes.call(network, temperature, (p, d) => {
                const on = choose(p, d);
                nearest = Math.min(nearest, Math.abs(p - drawn[drawn.length - 1]));
                return on;
            });
        steps.push({ frame: composer.step(), drawn, nearest });
    }
    return steps;
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of each kind an untrained network, whose notes are as often likely as not."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(folder / "cache"))
        corpus = small_rolls(folder, grid=8)
    found = {}
    for head, gate in KINDS:
        checkpoint = checkpoint_of(corpus, head)
        for name, value in checkpoint.parameters.items():
            if name in ("head.W", "head.Wo", "head.Wv"):
                value *= 10
            if name in ("embedding.frame", "embedding.pitch"):
                value += rng.normal(0, 1, value.shape)
            if name.startswith("head.b"):
                value += rng.normal(0, 0.1, value.shape)
        if gate:
            checkpoint = with_gate(checkpoint)
            checkpoint.parameters["copy.R"] += 0.5
        found[head, gate] = checkpoint
    return found


@pytest.fixture(scope="module")
def opened(checkpoints, tmp_path_factory):
    """The browser, with a page that holds all those models."""
    reports = [RunReport(str(kind), one, [], 1.0, []) for kind, one in checkpoints.items()]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(reports, [], []), "utf-8")
    with Browser() as browser:
        browser.open(path)
        yield browser
        assert browser.complaints == []


@pytest.mark.parametrize("temperature", [1.2, COLDEST])
@pytest.mark.parametrize("primed", [0, 12])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}{'-copies' * kind[1]}")
def test_frames_are_those_of_python(opened, checkpoints, kind, primed, temperature):
    checkpoint = checkpoints[kind]
    primer = checkpoint.meta["primers"][0]["frames"][:primed]
    script = COMPOSED.replace("TEMPERATURE", str(temperature)).replace("PRIMER", json.dumps(primer))
    begin = f"const model = DATA.models[{KINDS.index(kind)}]; const network = networkOf(model);"
    steps = opened.run(f"(() => {{ {begin} {script} }})()")
    model, options = model_of(checkpoint), Options(temperature=temperature)
    copies = copies_of(model, rules_of(checkpoint) if model.gate else None, options)
    reader, past = Reader(model, 1), FramePast(copies) if copies else None
    counts = SimpleNamespace(drawn=0, copied=0)
    for n, step in enumerate(steps):
        frame, (_, *drawn) = frame_of(step["frame"]), step["drawn"]
        lot = drawn.pop(0) if past and drawn else 0.0
        own = reader.draw(np.array([drawn or [0.0] * NOTES]), options, None)[0]
        if past and n >= primed:
            past.copy(reader.copy_scores()[0], lot, options, own)
        if n >= primed and step["nearest"] > TIE:
            assert (LOWEST + np.flatnonzero(own)).tolist() == step["frame"]
            counts.drawn += len(drawn) > 0
            counts.copied += not drawn
        if past:
            past.take(frame)
        reader.read(frame[None], [past] if past else ())
    different = len({tuple(step["frame"]) for step in steps[primed:]})
    assert different > 5
    assert counts.drawn > 10
    assert (counts.copied > 10) == kind[1]
