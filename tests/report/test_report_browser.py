"""The page in a real browser: nothing asked from outside, and the network computes as in Python."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from browser import CHROMIUM, MEASURED, Browser
from played import played_file
from rule_states import State
from small import small_corpus, small_ensembles, small_rolls, small_trainer, track_of

from lstm_music.arrays import Batch
from lstm_music.cli.report import Steps
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.midi.timing import bars_of
from lstm_music.network import biaxial
from lstm_music.network.model import Model, part
from lstm_music.ops import get_ops
from lstm_music.ops.reference.copying import NOTHING
from lstm_music.ops.reference.maths import sigmoid
from lstm_music.report.browser_model import in_16_bits
from lstm_music.report.gathering import Room, compose
from lstm_music.report.page import page
from lstm_music.report.told import RunReport
from lstm_music.runs.checkpoint import read_checkpoint, read_run
from lstm_music.runs.opened import bundled_model
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
OPS = get_ops("numpy")
TOLERANCE = 1e-3  # of probabilities
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&"""
RUNS = (
    "bundled",
    "merge",
    "flatten",
    "factored",
    "event",
    "drums",
    "performance",
    "ensemble",
    "chord",
    "sigmoid",
    "nade",
    "biaxial",
)


def trained(folder, kind):
    """The checkpoint of a small run."""
    if kind in ("merge", "flatten"):
        corpus, head = small_corpus(folder / "messages", kind), None
    elif kind == "event":
        music = str(phrased(folder / "messages" / "music"))
        corpus, head = load_corpus(music, reading=Reading(kind, common_key="A")), None
    elif kind == "drums":
        reading = Reading("event", common_key="A", parts=True, drums=True)
        corpus, head = load_corpus(str(drummed(folder)), reading=reading), None
    elif kind == "performance":
        corpus, head = load_corpus(str(recorded(folder)), reading=Reading(kind)), None
    elif kind == "ensemble":
        corpus, head = small_ensembles(folder), None
    elif kind == "factored":
        corpus, head = small_corpus(folder / "messages", "merge"), kind
    else:
        representation = "chord" if kind == "chord" else "note"
        head = None if kind == "chord" else kind
        corpus = small_rolls(folder / "rolls", representation, grid=16)
    trainer = small_trainer(corpus, folder / kind, head=head, max_steps=80)
    trainer.train()
    return read_run(folder / kind, pytest.fail)[0]


def drummed(folder):
    """Tunes in D and in A, and drums, which have no key."""
    music = folder / "drummed"
    music.mkdir()
    for n in range(6):
        steps = [(62, 66, 69, 67, 64)[(k + n) % 5] + 7 * (n % 2) for k in range(16)]
        tune = track_of([(480 * k, 480 * k + 480, pitch) for k, pitch in enumerate(steps)])
        beat = track_of([(480 * k, 480 * k + 240, (36, 38)[k % 2]) for k in range(16)])
        parts, sharps = (Part("Flute", 73), Part("Kit")), (2, 3)[n % 2]
        piece = Piece("", [tune, beat], parts=parts, drums=(False, True), sharps=sharps)
        write_midi(piece, music / f"{n}.mid")
    return music


def recorded(folder):
    """Recordings, with velocities and pedal."""
    music = folder / "recorded"
    music.mkdir()
    for seed in range(6):
        (music / f"{seed}.mid").write_bytes(played_file(seed, 40)[0])
    return music


def phrased(folder):
    """Copies of MIDI files in which a phrase ends every two bars, three semitones higher."""
    copies = folder.parent / "phrased"
    copies.mkdir()
    for path in folder.glob("*.mid"):
        piece = read_midi(path, "")
        tracks = [track + np.array([0, 0, 3], np.int32) for track in piece.tracks]
        ends = np.arange(3840, tracks[0][-1, 0], 3840, dtype=np.int32)
        write_midi(replace(piece, tracks=tracks, phrases=ends), copies / path.name)
    return copies


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The bundled model and a small run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(folder / "cache"))
        for name in ("messages", "rolls"):
            (folder / name).mkdir()
        small = {kind: trained(folder, kind) for kind in RUNS[1:]}
    return {"bundled": read_checkpoint(bundled_model())} | small


@pytest.fixture(scope="module")
def opened(checkpoints, tmp_path_factory):
    """The browser, with a page that holds all those models and a sample of the first one."""
    reports = []
    for name, checkpoint in checkpoints.items():
        composer = composer_of(checkpoint, model(checkpoint, checkpoint.parameters))
        args = SimpleNamespace(seed=1, num=1)
        steps = Steps(1)
        samples = [] if reports else compose(composer, 1.0, Room(2, 10**6), args, steps)
        called = HOSTILE if name == "merge" else name
        reports.append(RunReport(called, checkpoint, [], composer.top_p, samples))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(reports, [], []), "utf-8")
    with Browser() as browser:
        browser.open(path)
        yield browser


@pytest.fixture(params=RUNS)
def kind(request):
    return request.param


@pytest.fixture
def checkpoint(checkpoints, kind):
    return checkpoints[kind]


def model(checkpoint, parameters):
    """The model of a checkpoint, with these parameters."""
    arrays = {name: OPS.asarray(value) for name, value in parameters.items()}
    return Model(checkpoint.config, OPS, parameters=arrays, words=checkpoint.words)


def with_network(kind, script):
    """JavaScript in which `network` is a run's, and `model` what the page has of it."""
    return f"""(() => {{
        const model = DATA.models[{RUNS.index(kind)}];
        const network = networkOf(model);
        {script}
    }})()"""


def primer_of(checkpoint):
    """The longest opening that a checkpoint knows: ids, or the pitches of frames."""
    primers = checkpoint.meta["primers"]
    return max((p.get("ids") or p["frames"] for p in primers), key=len)


# The same network -------------------------------------------------------------------------------


def probabilities(model, music):
    """What a model gives each token, or note given those below it, before each of a music's."""
    x, y = inputs(model, music)
    h, _ = model.outputs(Batch(x, y, None, len(music)), model.zero_state(1))
    p, h = part(model.parameters, "head"), h[:, 0]
    if not model.config.reads_notes:
        logits = model.head.logits(OPS, p, h)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
    if model.config.head == "sigmoid":
        return sigmoid(h @ p["W"] + p["b"])
    if model.config.head == "biaxial":
        return sigmoid(biaxial._logits(OPS, p, h, y[:, 0], OPS.workspace())[0])
    logits, hidden = h @ p["Wv"] + p["bv"], h @ p["Wh"] + p["bh"]
    for d in range(NOTES):
        logits[:, d] += sigmoid(hidden) @ p["U"][d]
        hidden += y[:, 0, d, None] * p["W"][d]
    return sigmoid(logits)


def inputs(model, music):
    """What a model reads and is to predict for one piece: x (T, 1, …), y (T, 1, …)."""
    if not model.config.reads_notes:
        ids = np.array(music, np.int32)[:, None]
        return np.concatenate([[[0]], ids[:-1]]).astype(np.int32), ids
    y = np.zeros((len(music), 1, NOTES), np.uint8)
    for t, pitches in enumerate(music):
        y[t, 0, np.array(pitches, int) - LOWEST] = 1
    x = np.zeros((len(music), 1, NOTES + 1 + (model.config.rows > 1)), np.uint8)
    if model.config.rows > 1:
        x[:, 0, NOTES + 1] = np.arange(len(music)) % biaxial.PLACES
    x[0, 0, NOTES] = 1
    x[1:, :, :NOTES] = y[:-1]
    return x, y


READ = """
    const composer = new Composer(network);
    const chances = (input) => {
        if (model.rules) return network.probabilities();
        const found = [];
        network.notes(1, (p, n) => (found.push(p), input.includes(n + LOWEST)));
        return found;
    };
    return MUSIC.map((input) => {
        const found = chances(input);
        composer.read(input);
        return found;
    });
"""


def test_probabilities_are_those_of_python(opened, checkpoint, kind):
    music = primer_of(checkpoint)
    script = with_network(kind, READ.replace("MUSIC", json.dumps(music)))
    browser = np.array(opened.run(script))
    assert len(browser) == len(music) > 8
    worst = {}
    for bits, parameters in (
        (16, in_16_bits(checkpoint.parameters)),
        (32, checkpoint.parameters),
    ):
        expected = probabilities(model(checkpoint, parameters), music)
        assert browser.shape == expected.shape
        worst[bits] = np.abs(browser - expected).max()
    MEASURED.append(
        f"largest difference of a probability between browser and Python, {kind}: "
        f"{worst[16]:.1e} with the same 16-bit weights, {worst[32]:.1e} with 32 bits"
    )
    assert worst[16] < TOLERANCE
    assert worst[32] < TOLERANCE


def test_the_probabilities_compared_are_those_of_the_loss(checkpoint):
    """What the test above takes for Python's adds up to the nats that training counts.

    Without anything to copy, the network's are all there is.
    """
    music, tested = primer_of(checkpoint), model(checkpoint, checkpoint.parameters)
    x, y = inputs(tested, music)
    nothing = np.full((len(music), 1, tested.config.copy), NOTHING, np.uint8)
    recall = nothing if tested.config.copy else None
    batch = Batch(x, y, None, len(music), recall=recall)
    losses, _ = tested.losses(batch, tested.zero_state(1))
    p = probabilities(tested, music).astype(np.float64)
    if tested.config.head == "factored":  # of the words of all parts, some are in no vocabulary
        nats = -np.log(p[np.arange(len(music)), music])
        assert (losses[:, 0] > nats).all()
        return
    if not tested.config.reads_notes:
        nats = -np.log(p[np.arange(len(music)), music])
    else:
        nats = -np.log(np.where(y[:, 0], p, 1 - p)).sum(axis=1)
    np.testing.assert_allclose(losses[:, 0], nats, rtol=1e-3, atol=1e-4)


# The same rules ---------------------------------------------------------------------------------

COMPOSED = """
    const composer = new Composer(network, { seed: SEED, temperature: 1.3 });
    const steps = [];
    for (let n = 0; n < 500; n++) {
        const allowed = composer.music.allowed();
        steps.push([allowed, composer.step()]);
    }
    return { steps, notes: composer.notes };
"""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "kind", ["bundled", "merge", "flatten", "event", "performance", "ensemble", "chord"]
)
def test_tokens_allowed_are_those_of_strict_sampling(opened, checkpoint, kind, seed):
    composed = opened.run(with_network(kind, COMPOSED.replace("SEED", str(seed))))
    rules = composer_of(checkpoint, model(checkpoint, checkpoint.parameters)).rules
    state = State(rules)
    for allowed, id in composed["steps"]:
        assert allowed == np.flatnonzero(state.allowed_as_asked()).tolist()
        state = State(rules) if id == 0 else state.advance(id)


@pytest.mark.parametrize(
    "kind",
    [
        "bundled",
        "merge",
        "flatten",
        "event",
        "drums",
        "performance",
        "ensemble",
        "chord",
        "nade",
    ],
)
def test_notes_are_those_that_python_decodes(opened, checkpoint, kind):
    """Of openings of real music: in what a network invents, ties of age may be cut otherwise."""
    music = primer_of(checkpoint)
    if kind == "ensemble":  # whose drums nobody tells how loudly to play
        told = [checkpoint.vocabulary.word(id) for id in music]
        quiet = [word.startswith("velocity") and "/" in word for word in told]
        assert any(quiet)
        music = [id for id, said in zip(music, quiet, strict=True) if not said]
    if kind in ("performance", "ensemble"):  # to where nothing was struck just then, and rings on
        words = [checkpoint.vocabulary.word(id) for id in music]
        music = music[: max(n for n, word in enumerate(words) if word.startswith("off")) + 1]
    played = opened.run(
        with_network(
            kind,
            f"""
            const composer = new Composer(network, {{ primer: {json.dumps(music)} }});
            {json.dumps(music)}.forEach(() => composer.step());
            composer.music.endPiece();
            return composer.notes;
            """,
        )
    )
    composer = composer_of(checkpoint, model(checkpoint, checkpoint.parameters))
    if kind == "nade":
        _, y = inputs(composer.model, music)
        music = y[:, 0]
    piece = composer.piece(music, Options(), "opening")
    numbers = sorted(
        {note[3] for note in played}
    )  # of parts, of which those that play have a track
    if kind == "ensemble":  # both play, and the page knows the drums among them by their number
        assert numbers == [0, 1] and opened.run(with_network(kind, "return model.drums")) == [1]
    for note in played:
        note[3] = numbers.index(note[3])
    expected = [
        [*note, number, *([int(piece.velocities[number][n])] if piece.velocities else [])]
        for number, track in enumerate(piece.tracks)
        for n, note in enumerate(notes_of(track).tolist())
    ]
    assert sorted(played) == sorted(expected)
    assert played


def test_bars_of_events_are_those_that_python_decodes(opened, checkpoints):
    """Of a piece and of the next, which begins at a bar line of the first."""
    checkpoint = checkpoints["event"]
    music = [*primer_of(checkpoint), 0, *primer_of(checkpoint)]
    bars, notes, data = opened.run(
        with_network(
            "event",
            f"""
            const composer = new Composer(network, {{ primer: {json.dumps(music)} }});
            {json.dumps(music)}.forEach(() => composer.step());
            const {{ bars }} = composer.music;
            composer.music.endPiece();
            return [bars, composer.notes, [...midiFile(composer.notes, 90, bars, model)]];
            """,
        )
    )
    composer = composer_of(checkpoint, model(checkpoint, checkpoint.parameters))
    piece = composer.piece(music, Options(), "opening")
    assert len(bars) > 1 and bars == bars_of(piece.meter, bars[-1])[0].tolist()
    assert sorted(note[:3] for note in notes) == sorted(notes_of(piece.tracks[0]).tolist())
    last = bars_of(read_midi(bytes(data), "page").meter, bars[-1])[0].tolist()
    assert last == bars


# Composing --------------------------------------------------------------------------------------


def test_a_seed_is_a_piece(opened, kind):
    first, again, other = (
        opened.run(with_network(kind, COMPOSED.replace("SEED", seed))) for seed in ("1", "1", "2")
    )
    assert first == again
    assert first != other


def test_composes_without_end(opened, kind):
    """Faster than 50 tokens a second: reported, since a test may not depend on the clock."""
    count = 1500
    tokens, seconds, notes = opened.run(
        with_network(
            kind,
            f"""
            const composer = new Composer(network, {{ seed: 3 }});
            const begun = performance.now();
            let tokens = 0;
            while (tokens < {count}) {{ composer.step(); tokens++; }}
            return [tokens, (performance.now() - begun) / 1000, composer.notes];
            """,
        )
    )
    assert tokens == count
    assert len(notes) > 20
    assert all(0 <= start < end and 0 <= pitch < 128 for start, end, pitch, *_ in notes)
    MEASURED.append(f"composed in the browser, {kind}: {tokens / seconds:,.0f} tokens/s")


def test_temperature_tells_careful_from_bold(opened):
    """The entropy of what is drawn: near 0 always the likeliest."""
    drawn = opened.run(
        with_network(
            "bundled",
            """
            network.read([0]);
            const logits = network.logits();
            const ids = model.rules.classes.map((_, id) => id);
            const random = randomNumbers(1);
            const many = (temperature, share) =>
                Array.from({ length: 3000 }, () => draw(logits, ids, temperature, share, random()));
            return [many(0.0001, 1), many(1, 1), many(1, 0.5), [...network.probabilities()]];
            """,
        )
    )
    cold, plain, half, p = (np.array(part) for part in drawn)
    assert set(cold) == {p.argmax()}
    frequencies = np.bincount(plain, minlength=len(p)) / len(plain)
    assert np.abs(frequencies - p).max() < 0.03  # 3 standard deviations of 3000 draws
    order = np.argsort(-p)
    kept = order[: np.searchsorted(np.cumsum(p[order]), 0.5) + 1]
    assert set(half) == set(kept)


def test_midi_of_the_page_is_read_back(opened):
    notes, data, drums = opened.run(
        with_network(
            "flatten",
            """
            const composer = new Composer(network, { seed: 3 });
            while (composer.notes.length < 200) composer.step();
            const { notes } = composer;
            const written = (model) => [...midiFile(notes, 77, [], model)];
            return [notes, written(model), written({ drums_alone: true })];
            """,
        )
    )
    assert all(read_midi(bytes(drums), "page", drums=True).drums)
    piece = read_midi(bytes(data), "page")
    tracks = sorted({note[3] for note in notes})
    assert len(piece.tracks) == len(tracks)
    for track, number in zip(piece.tracks, dict.fromkeys(note[3] for note in notes), strict=True):
        expected = sorted(note[:3] for note in notes if note[3] == number)
        assert sorted(notes_of(track).tolist()) == expected


@pytest.mark.parametrize("kind", ["drums"])
def test_drums_of_the_page_are_drums(opened, checkpoint, kind):
    music = primer_of(checkpoint)
    read = f"{json.dumps(music)}.forEach(() => composer.step()); composer.music.endPiece();"
    found = opened.run(
        with_network(
            kind,
            f"""
            const composer = new Composer(network, {{ primer: {json.dumps(music)} }});
            {read}
            return [...midiFile(composer.notes, 90, [], model)];
            """,
        )
    )
    piece = read_midi(bytes(found), "page", drums=True)
    assert sorted(piece.drums) == [False, True]
    drums = piece.tracks[piece.drums.index(True)]
    assert {*notes_of(drums)[:, 2].tolist()} <= {36, 38}


# The page ---------------------------------------------------------------------------------------


def test_keys_play_and_pause(opened):
    assert opened.run("byId('compose-save').disabled")
    opened.press("#compose-play")
    opened.wait("player.position > 2 * QUARTER")  # a beat or two were heard
    assert opened.run("byId('compose-play').textContent") == "Pause"
    assert opened.run("player.composer.notes.length") > 5
    facts = opened.run("byId('compose-facts').textContent")
    assert re.match(r"Bar \d+ · \d+ tokens composed, [\d,]+ a second", facts)
    drawn = opened.run("byId('compose-roll').getContext('2d').getImageData(0, 0, 300, 200).data")
    assert len(set(drawn.values())) > 3  # colours
    opened.press("#compose-play", key="\r", code="Enter")
    assert opened.run("byId('compose-status').textContent").startswith("Paused in bar")
    assert not opened.run("player.playing")
    opened.run("HTMLAnchorElement.prototype.click = function () { saved = this; }")
    opened.press("#compose-save")
    assert opened.run("saved.download") == "composed-0.mid"
    assert opened.run("saved.href").startswith("blob:")
    opened.press("#compose-again")
    assert opened.run("player.position") == 0


def test_every_run_can_be_chosen(opened):
    opened.run(f"byId('compose-run').value = '{RUNS.index('nade')}'")
    opened.run("byId('compose-run').dispatchEvent(new Event('change'))")
    assert opened.run("player.network.model.name") == "nade"
    openings = opened.run("byId('compose-primer').options.length")
    assert openings == opened.run("player.network.model.primers.length") + 1
    opened.run("player.network.model.tempo = 133")
    opened.run("byId('compose-run').dispatchEvent(new Event('change'))")
    assert opened.run("player.tempo") == 133  # that of its corpus
    assert opened.run("byId('compose-tempo-value').textContent") == "133"
    opened.run("byId('compose-run').value = '0'")
    opened.run("byId('compose-run').dispatchEvent(new Event('change'))")
    assert opened.run("player.tempo") == opened.run("player.network.model.tempo") != 133


def test_a_hostile_name_is_only_a_name(opened):
    assert opened.run("byId('compose-run').options[1].textContent") == HOSTILE
    assert opened.run("document.querySelectorAll('script').length") == 2
    assert opened.run("document.querySelectorAll('img:not(.paper)').length") == 0


def test_a_sample_sounds_and_its_roll_moves(opened):
    roll = "document.querySelector('.sample canvas').toDataURL()"
    before = opened.run(roll)
    opened.press(".sample audio")
    opened.wait("document.querySelector('.sample audio').currentTime > 0.3")
    assert opened.run(roll) != before
    opened.run("document.querySelector('.sample audio').pause()")
    seconds = opened.run("document.querySelector('.sample audio').duration")
    assert 5 < seconds < 12  # two bars of 4/4 at 90, which is 5.3, and their ringing


def test_every_control_has_a_name(opened):
    named = opened.run(
        """[...document.querySelectorAll("button, input, select, audio, canvas, a, summary, img")]
            .map((e) => e.ariaLabel || e.alt || e.labels?.[0]?.textContent || e.textContent)"""
    )
    assert len(named) > 10
    assert all(name.strip() for name in named)


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_page_fits_the_screen(opened, width, dark):
    with Browser(width, 844, dark) as browser:
        browser.page("Page.navigate", url=opened.run("location.href"))
        browser.wait("document.readyState === 'complete' && typeof player === 'object'")
        assert browser.run("document.documentElement.scrollWidth") <= width
        paper = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 300) == dark


def test_page_asks_for_nothing_and_complains_of_nothing(opened):
    """Last, after all that the tests above did in it."""
    assert opened.requests
    outside = [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1
    assert opened.complaints == []
