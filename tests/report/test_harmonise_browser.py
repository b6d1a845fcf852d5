"""Harmonising in the page: the words that Python draws, for the same tune, seed and particles."""

import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from small import small_trainer, track_of

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.timing import bars_of, end_of
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.ops.philox import uniform
from lstm_music.report.browser_model import in_16_bits
from lstm_music.report.page import RunReport, page
from lstm_music.runs.checkpoint import read_checkpoint, read_run
from lstm_music.runs.opened import bundled_model
from lstm_music.sampling.craft import RANGES, VOICES, voices_of
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.harmonising import (
    Asked,
    given_of,
    harmonise,
    ids_of,
    longest_note,
    numbered,
)
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import sample_particles
from lstm_music.sampling.sampler import choose
from lstm_music.sampling.tunes import in_range, one_at_a_time, sharps_of
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.parts import parts_of, players_of

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here to run the page: apt-get install chromium"
)
OPS = get_ops("numpy")
RUNS = ("bundled", "small")  # with a copy gate, and without
QUARTER, BAR = 480, 1920
NAMES = tuple(voice.title() for voice in VOICES)
# Pitches and quarter notes, 0 for a rest; the pickup and the bar in quarter notes.
TUNES = {
    "hymn": ("67 1 67 1 69 1 71 1 72 1 71 1 69 2 67 1 69 1 71 1 67 1 69 1 66 1 67 2", 0, 4),
    "waltz": ("74 1 71 1 67 1 69 1.5 71 .5 72 1 71 2 0 1 69 1 67 .5 66 .5 64 1 62 2 62 1", 0, 3),
    "pickup": ("65 1 70 1 70 .5 72 .5 74 1 72 1 70 2 0 1 70 1 69 1 67 1 65 1 65 2", 1, 4),
    "held": ("67 1 69 1 71 2 72 12 73 1 71 3", 0, 4),
    "late": ("0 1 67 1 69 1 71 1 72 2 0 2 71 1 69 1 67 2", 0, 4),
    "high": ("67 1 69 1 98 1 72 1 71 1 69 1 67 2", 0, 4),
    "minor": ("76 1 75 1 76 2 74 .25 72 .25 71 .5 69 3 68 2 69 2", 0, 4),
}


def tune_of(name):
    """A tune's notes (start, end, pitch), its pickup and its bar in ticks."""
    told, pickup, bar = TUNES[name]
    numbers, now, notes = [float(word) for word in told.split()], 0, []
    for pitch, beats in zip(numbers[::2], numbers[1::2], strict=True):
        ticks = int(beats * QUARTER)
        if pitch:
            notes.append((now, now + ticks, int(pitch)))
        now += ticks
    return notes, pickup * QUARTER, bar * QUARTER


def piece_of(name, voice=0, up=0):
    notes, pickup, bar = tune_of(name)
    moved = [(start, end, pitch + up) for start, end, pitch in notes]
    meter = [(0, pickup), (pickup, bar)] if pickup else [(0, bar)]
    part = (Part(NAMES[voice], 0),)
    return Piece(name, [track_of(moved)], parts=part, meter=np.array(meter, np.int32))


def chorale(seed):
    """Four voices that move at every beat, and phrases of two bars."""
    rng = np.random.default_rng(seed)
    chords = rng.integers(4, size=16)
    tracks = []
    for voice in range(4):
        pitches = [
            (72, 67, 64, 48)[voice] + (0, 5, 7, 2)[chord] - 12 * (chord == 2) * (voice > 2)
            for chord in chords
        ]
        tracks.append(
            track_of([(QUARTER * n, QUARTER * n + QUARTER, p) for n, p in enumerate(pitches)])
        )
    ends = np.arange(2 * BAR, 4 * BAR + 1, 2 * BAR, dtype=np.int32)
    parts = tuple(Part(name, 0) for name in NAMES)
    return Piece(f"{seed}", tracks, parts=parts, phrases=ends)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The bundled model, and a small run of four voices with phrases."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "music").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(folder / "cache"))
        for seed in range(8):
            write_midi(chorale(seed), folder / "music" / f"{seed}.mid")
        reading = Reading("event", common_key="A", parts=True)
        corpus = load_corpus(str(folder / "music"), reading=reading)
        small_trainer(corpus, folder / "small", max_steps=80).train()
        small = read_run(folder / "small", pytest.fail)[0]
    return {"bundled": read_checkpoint(bundled_model()), "small": small}


@pytest.fixture(scope="module")
def opened(checkpoints, tmp_path_factory):
    """The browser, with a page that holds both models."""
    reports = [RunReport(name, checkpoint, [], 0.8, []) for name, checkpoint in checkpoints.items()]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(reports, [], []), "utf-8")
    with Browser() as browser:
        browser.open(path)
        yield browser
        assert browser.complaints == []


def run(opened, kind, script):
    """What JavaScript gives in which `network` is a run's, and `model` what the page has of it."""
    begin = f"const model = DATA.models[{RUNS.index(kind)}]; const network = new Network(model);"
    return opened.run(f"(() => {{ {begin} {script} }})()")


def composer_as_in_page(checkpoint):
    """The composer of a checkpoint with the weights that the page has."""
    arrays = in_16_bits(checkpoint.parameters)
    parameters = {name: OPS.asarray(value) for name, value in arrays.items()}
    return composer_of(checkpoint, Model(checkpoint.config, OPS, parameters=parameters))


class Task(NamedTuple):
    """What is drawn around: words, and of what they tell the end and the longest note, in ticks."""

    ids: list
    asked: Asked
    phrases: bool
    end: int
    longest: int


def told_by_number(composer, piece):
    """A piece as its words are made of it."""
    return numbered(piece, parts_of(players_of(piece), composer.roster))


def task_of(composer, piece, asked, phrases):
    ids = ids_of(composer, told_by_number(composer, piece), [].append)  # small models know few keys
    longest = max(composer.rules.longest_note, longest_note(piece))
    return Task(ids, asked, phrases, end_of(piece), longest)


def drawn_in_page(opened, kind, task, options):
    """The words that the page draws, and how likely it says that what is given is."""
    asked = json.dumps(task.asked._asdict())
    how = {
        "craft": options.craft,
        "temperature": options.temperature,
        "topP": options.top_p,
        "seed": options.seed,
        "particles": options.particles,
    }
    script = f"""
        const rules = rulesFor(model.rules, [[0, {task.longest}]]);
        const phrases = {json.dumps(task.phrases)};
        const given = givenOf({json.dumps(task.ids)}, rules, {asked}, phrases, {task.end});
        const group = new Group(network, {{ rules, given, ...{json.dumps(how)} }});
        while (!group.done) group.step();
        return group.chosen();
    """
    return run(opened, kind, script)


def drawn_in_python(composer, task, options):
    """As drawn_in_page."""
    longest = {"longest_note": task.longest, "rings": task.longest + 1}
    rules = composer.rules._replace(longest_piece=0, **longest)
    given = given_of(task.ids, rules, task.asked, task.phrases, task.end)
    voices = voices_of(composer.roster)
    (drawn,) = sample_particles(
        composer.model, [[]], options, rules, lambda *_: None, composer.recall, voices, given
    )
    return drawn


# Words ------------------------------------------------------------------------------------------


def compared(opened, checkpoints, kind, piece, asked, options, phrases=False):
    """The words of Python and the page, which are the same; and the composer."""
    composer = composer_as_in_page(checkpoints[kind])
    task = task_of(composer, piece, asked, phrases)
    ours = drawn_in_page(opened, kind, task, options)
    python = drawn_in_python(composer, task, options)
    assert ours["ids"] == python.ids
    assert ours["nats"] == pytest.approx(python.nats, rel=1e-3, abs=1e-3)
    return composer, python.ids


def others(composer, voice):
    """The parts of all voices but one."""
    voices = voices_of(composer.roster)
    return tuple(part for part, own in enumerate(voices) if own not in (-1, voice))


@pytest.mark.parametrize("craft", [0.0, 3.0])
@pytest.mark.parametrize("particles", [1, 4, 8])
@pytest.mark.parametrize("tune", ["hymn", "waltz", "pickup"])
def test_words_are_those_of_python(opened, checkpoints, tune, particles, craft):
    parts = others(composer_as_in_page(checkpoints["bundled"]), 0)
    options = Options(seed=7, top_p=0.8, particles=particles, craft=craft)
    composer, made = compared(opened, checkpoints, "bundled", piece_of(tune), Asked(parts), options)
    piece = composer.tokenizer.piece([composer.vocabulary.word(id) for id in made], "made")
    assert {part.name for part in piece.parts} == {*NAMES}
    (own,) = (
        t for t, part in zip(piece.tracks, piece.parts, strict=True) if part.name == "Soprano"
    )
    assert own.tolist() == piece_of(tune).tracks[0].tolist()


@pytest.mark.parametrize("particles", [1, 8])
def test_words_without_a_gate_are_those_of_python(opened, checkpoints, particles):
    options = Options(seed=3, temperature=1.1, particles=particles, craft=2.0)
    compared(opened, checkpoints, "small", chorale(90), Asked((1, 2)), options, phrases=True)
    compared(opened, checkpoints, "small", chorale(91), Asked((0,), BAR, 3 * BAR), options, True)


def test_cadences_and_bars_composed_anew_are_those_of_python(opened, checkpoints):
    """A piece with phrases, of the bundled model's own: lower parts, and two bars of all parts."""
    composer = composer_as_in_page(checkpoints["bundled"])
    words = [
        composer.vocabulary.word(id) for id in checkpoints["bundled"].meta["primers"][0]["ids"]
    ]
    piece = composer.tokenizer.piece(words, "own")
    assert len(piece.phrases)
    options = Options(seed=5, top_p=0.9, particles=4, craft=3.0)
    lower = Asked(others(composer, 0))
    compared(opened, checkpoints, "bundled", piece, lower, options, phrases=True)
    some = Asked((0, 1, 3, 4), 960, 960 + 2 * BAR)
    compared(opened, checkpoints, "bundled", piece, some, options, phrases=True)


def test_a_long_tune_is_set_to_its_end(opened, checkpoints):
    """However many words that takes."""
    notes = [(240 * n, 240 * n + 240, 60 + (4 * n + n // 8) % 20) for n in range(8 * 64)]
    piece = Piece("long", [track_of(notes)], parts=(Part("Soprano"),))
    parts = others(composer_as_in_page(checkpoints["bundled"]), 0)
    composer, made = compared(
        opened, checkpoints, "bundled", piece, Asked(parts), Options(seed=1, top_p=0.5)
    )
    assert len(made) > 2000
    piece = composer.tokenizer.piece([composer.vocabulary.word(id) for id in made], "made")
    assert {end_of(replace(piece, tracks=[track])) for track in piece.tracks} == {64 * BAR}


def test_what_nothing_fits_is_forced_as_in_python(opened, checkpoints):
    """A bass that the rules never let come so: a part's words in the order of another's."""
    composer = composer_as_in_page(checkpoints["small"])
    task = task_of(composer, piece_of("hymn", 3, -24), Asked((0, 1, 2)), False)
    ons = [id for id in task.ids if composer.vocabulary.word(id).startswith("to-")]
    at = task.ids.index(ons[3])
    ids = [*task.ids[:at], ons[3], ons[2], ons[3], *task.ids[at + 1 :]]  # at one place
    options = Options(seed=2, particles=4)
    ours = drawn_in_page(opened, "small", task._replace(ids=ids), options)
    python = drawn_in_python(composer, task._replace(ids=ids), options)
    assert ours["ids"] == python.ids
    assert python.nats < -50  # a forced word's weight
    assert ours["nats"] == pytest.approx(python.nats, rel=1e-3)


def test_the_page_composes_with_craft_as_python_does(opened, checkpoints):
    """Freely, as far as the first piece goes: without an opening, and with one."""
    composer = composer_as_in_page(checkpoints["bundled"])
    model = run(opened, "bundled", "return [model.craft, model.voices, model.top_p]")
    assert model == [composer.craft, voices_of(composer.roster), composer.top_p]
    for primer in ([], checkpoints["bundled"].meta["primers"][0]["ids"][:16]):
        options = composer.options(seed=4, particles=1)
        python = composer.compose([primer], options, lambda *_: None)[0]
        ours = run(
            opened,
            "bundled",
            f"""
            const composer = new Composer(network, {{ seed: 4, primer: {json.dumps(primer)} }});
            const ids = [];
            while (ids.length < 300 && ids[ids.length - 1] !== 0) ids.push(composer.step());
            return ids;
            """,
        )
        assert ours[:300] == [*python, 0][:300]


# What words are drawn by ------------------------------------------------------------------------


def test_random_numbers_are_those_of_python(opened):
    script = "return [0, 1, 5, 1023, 1024, 4099].map((t) => uniform(SEED, NUMBER, t))"
    for seed, number in ((0, 0), (4294967295, 3), (2**40 + 5, (1 << 30) + 2)):
        words = script.replace("SEED", str(seed)).replace("NUMBER", str(number))
        expected = [
            float(uniform(seed, number, t // 1024, 1024)[t % 1024])
            for t in (0, 1, 5, 1023, 1024, 4099)
        ]
        assert run(opened, "small", words) == expected


def test_a_draw_is_that_of_python(opened):
    rng = np.random.default_rng(6)
    cases, expected = [], []
    for _ in range(300):
        logits = rng.normal(0, 2, 30)
        allowed = np.flatnonzero(rng.random(30) < 0.7)
        share = float(rng.choice([1.0, rng.uniform(0.2, 1)]))
        temperature, u, exact = float(rng.uniform(0.2, 2)), float(rng.random()), int(rng.choice(30))
        cases.append([logits.tolist(), allowed.tolist(), temperature, share, u, exact])
        options = Options(temperature=temperature, top_p=share)
        expected.append(choose(logits, allowed, u, options, exact))
    drawn = run(opened, "small", f"return {json.dumps(cases)}.map((one) => draw(...one))")
    assert drawn == expected


# Tunes ------------------------------------------------------------------------------------------


def tune_json(name, up=0):
    notes, pickup, bar = tune_of(name)
    moved = [(start, end, pitch + up) for start, end, pitch in notes]
    return json.dumps({"notes": moved, "pickup": pickup, "bar": bar, "key": None})


@pytest.mark.parametrize("voice", [0, 2])
@pytest.mark.parametrize("tune", [*TUNES])
def test_a_tune_is_the_words_that_python_reads(opened, checkpoints, tune, voice):
    composer = composer_as_in_page(checkpoints["bundled"])
    piece = piece_of(tune, voice)
    script = f"return wordsOf(model, {tune_json(tune)}, model.voices.indexOf({voice}))"
    ids, unknown = run(opened, "bundled", script)
    key = 7 * sharps_of(piece, composer.tokenizer.key_of(piece)) % 12
    piece, left_out = replace(piece, sharps=(key * 7 + 5) % 12 - 5), []
    assert ids == ids_of(composer, told_by_number(composer, piece), left_out.append)
    assert bool(unknown) == bool(left_out)


@pytest.mark.parametrize(
    ("tune", "voice", "up"),
    [("waltz", 0, 0), ("minor", 2, -9), ("held", 3, -24), ("high", 0, 0), ("late", 0, 0)],
)
def test_a_setting_is_that_of_python(opened, checkpoints, tune, voice, up):
    """From notes to notes; one is held for three bars, and one is none of the model's."""
    composer = composer_as_in_page(checkpoints["bundled"])
    piece = piece_of(tune, voice, up)
    key = 7 * sharps_of(piece, composer.tokenizer.key_of(piece)) % 12
    piece = replace(piece, sharps=(key * 7 + 5) % 12 - 5)
    options = composer.options(seed=3, particles=4)
    asked = Asked(others(composer, voice))
    (setting,) = harmonise(composer, piece, asked, options)
    script = f"""
        const tune = {tune_json(tune, up)};
        const how = {{ seed: 3, particles: 4, temperature: 1 }};
        const {{ group }} = settingOf(network, tune, {voice}, how);
        while (!group.done) group.step();
        const {{ notes, bars }} = notesOf(model, group.chosen().ids, tune, {voice});
        return [notes.map((note) => [...note.slice(0, 3), model.parts[note[3]]]), bars];
    """
    notes, bars = run(opened, "bundled", script)
    made = setting.piece
    expected = [
        [*note, part.name]
        for track, part in zip(made.tracks, made.parts, strict=True)
        for note in notes_of(track).tolist()
    ]
    assert sorted(notes) == sorted(expected)
    last = max(end for _, end, *_ in notes)
    starts = bars_of(made.meter, last - 1)[0].tolist()
    assert [bar for bar in bars if bar < last] == starts


def random_tunes(n):
    """Tunes in scales of few and of many notes, here and there with a rest or notes at once."""
    rng = np.random.default_rng(8)
    tunes = []
    for _ in range(n):
        low, scale = rng.integers(24, 90), rng.choice(12, rng.integers(1, 8), replace=False)
        notes, now = [], 0
        for _ in range(rng.integers(1, 30)):
            ticks = int(rng.choice([120, 240, 480, 960]))
            later = int(rng.choice([0, 0, 60, ticks // 2]))
            notes.append([now, now + ticks + later, int(low + rng.choice(scale))])
            now += int(rng.choice([0, ticks, ticks, ticks]))
        alone = {(start, pitch): [start, end, pitch] for start, end, pitch in notes}
        tunes.append(list(alone.values()))
    return tunes


def test_what_is_made_of_a_tune_is_what_python_makes(opened):
    """One note at a time, moved by octaves into a voice, and its key."""
    tokenizer, tunes, keys = EventTokenizer("A"), random_tunes(80), set()
    script = f"""return {json.dumps(tunes)}.map((notes, n) => {{
        const alone = oneAtATime(notes);
        return [alone, octavesInto(alone, n % 4), keyOf(alone)];
    }})"""
    for n, (notes, ours) in enumerate(zip(tunes, run(opened, "small", script), strict=True)):
        alone, _ = one_at_a_time(np.array(sorted(notes), np.int32))
        tune = Piece("", [track_of(alone.tolist())])
        _, octaves = in_range(tune, *RANGES[n % 4])
        key = 7 * sharps_of(tune, tokenizer.key_of(tune)) % 12
        assert ours == [alone.tolist(), 12 * octaves, key]
        keys.add(key)
    assert len(keys) > 6
