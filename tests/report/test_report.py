import base64
import hashlib
import io
import json
import struct
import wave
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import small_corpus, small_model, small_rolls, track_of, write_music

from lstm_music.cli.report import Steps
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.piece import Piece
from lstm_music.network.config import Config
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.ops import get_ops
from lstm_music.rendering.charts import Curve, curves, ticks
from lstm_music.rendering.html import Html, joined, json_in_html, tag
from lstm_music.report.browser_model import LARGEST, in_16_bits, page_model, weights_size
from lstm_music.report.gathering import Room, compose, room_for
from lstm_music.report.media import RATE, small_svg, small_wav
from lstm_music.report.page import MOST, annealed, page, sample_data
from lstm_music.report.told import Picture, Row, RunReport, Sample, Table, settings_of
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.rules import BAR_LINE, NOTE_OFF, NOTE_ON, PIECE_END, PLACE, TRACK_END
from lstm_music.tokenizers import chords, messages

HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&$title ]]>"""


class Page(HTMLParser):
    """What a page is made of: elements as (name, attributes), text, data and scripts."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.words, self.scripts, self.inside = [], [], [], None
        self.feed(content)
        data = next(text for kind, text in self.scripts if kind == "application/json")
        self.data = json.loads(data)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        self.inside = dict(attributes).get("type", "code") if name == "script" else None

    def handle_endtag(self, name):
        self.inside = None

    def handle_data(self, text):
        if self.inside:
            self.scripts.append((self.inside, text))
        else:
            self.words.append(text)

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))


def checkpoint_of(corpus, head=None):
    """An untrained checkpoint of a corpus, not on any disk."""
    model = small_model(corpus, head=head)
    meta = {
        "tokenizer": corpus.tokenizer_json(),
        "corpus": {"name": corpus.name, **corpus.habits()},
        "primers": corpus.primers(),
        "settings": {"lr": 0.005, "epochs": None, "batch": 50},
        "progress": {"epoch": 3, "tokens": 1234, "seconds": 90.0, "best": 1.5},
        "step": 40,
    }
    return Checkpoint(Path("x"), meta, model.config, corpus.vocabulary, model.parameters)


def report_of(checkpoint, name="a-run", metrics=(), samples=True, pictures=()):
    model = small_model_of(checkpoint)
    composer = composer_of(checkpoint, model)
    args, steps = SimpleNamespace(seed=1, num=1), Steps(1)
    made = compose(composer, 1.0, Room(2, 10**6), args, steps) if samples else []
    return RunReport(name, checkpoint, list(metrics), composer.top_p, made, list(pictures))


def small_model_of(checkpoint):
    return Model(checkpoint.config, get_ops("numpy"), parameters=checkpoint.parameters)


@pytest.fixture
def checkpoint(tmp_path):
    return checkpoint_of(small_corpus(tmp_path, "merge"))


def test_a_model_of_events_is_in_the_page(tmp_path):
    path = str(write_music(tmp_path / "events"))
    checkpoint = checkpoint_of(load_corpus(path, reading=Reading("event")))
    made = Page(page([report_of(checkpoint)], [], []))
    assert "as bars and what happens in them" in made.text
    (model,) = made.data["models"]
    assert model["rules"]["kinds"][0] == PIECE_END
    assert {*model["rules"]["kinds"]} == {NOTE_OFF, NOTE_ON, PLACE, BAR_LINE, PIECE_END}


def test_bars_of_a_sample_are_those_of_its_meter():
    music = [track_of([(0, 2500, 60)])]
    meter = np.array([(0, 480), (480, 1920)], np.int32)
    plain, pickup = (
        Sample(piece, 1.0, "", b"", None, None, [])
        for piece in (Piece("p", music), Piece("p", music, meter=meter))
    )
    assert [sample_data(sample)["bars"] for sample in (plain, pickup)] == [[], [0, 480, 2400]]


# The page ---------------------------------------------------------------------------------------


def test_hostile_names_are_words_and_nothing_else(checkpoint):
    checkpoint.meta["corpus"]["name"] = HOSTILE
    checkpoint.meta["primers"][:] = [
        {**primer, "name": HOSTILE} for primer in checkpoint.meta["primers"]
    ]
    picture = Picture(HOSTILE, b"png", HOSTILE, HOSTILE)
    metrics = [Row(1, "valid", 2.0, 0.1), Row(2, "valid", 1.0, 0.1)]
    report = report_of(checkpoint, HOSTILE, metrics, pictures=[picture])
    table = Table(HOSTILE, [HOSTILE], [(HOSTILE, [HOSTILE], True)])
    hostile = Page(page([report], [table], [HOSTILE]))
    mild = Page(page([replace(report, name="mild")], [table], []))
    assert len(hostile.scripts) == len(mild.scripts) == 2
    for name in ("script", "img", "b", "a"):
        assert len(hostile.all(name)) == len(mild.all(name))
    handlers = [key for _, given in hostile.elements for key in given if key.startswith("on")]
    assert handlers == []
    assert hostile.text.count("onerror=alert(1)") > 5  # as words
    assert hostile.data["models"][0]["name"] == HOSTILE
    assert hostile.data["models"][0]["primers"][0]["name"] == HOSTILE


def test_nothing_in_the_page_is_elsewhere(checkpoint):
    made = Page(page([report_of(checkpoint)], [], []))
    places = [given[key] for _, given in made.elements for key in ("src", "href") if key in given]
    assert len(places) > 4
    assert all(place.startswith(("data:", "#")) for place in places)
    ids = {given["id"] for _, given in made.elements if "id" in given}
    assert {place[1:] for place in places if place[0] == "#"} <= ids
    assert not made.all("link")


def test_the_policy_lets_only_the_page_s_own_script_run(checkpoint):
    made = Page(page([report_of(checkpoint, samples=False)], [], []))
    policy = next(m["content"] for m in made.all("meta") if "http-equiv" in m)
    script = next(text for kind, text in made.scripts if kind == "code")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")


def test_what_labels_and_describes_is_there(checkpoint):
    made = Page(page([report_of(checkpoint)], [], []))
    ids = [given["id"] for _, given in made.elements if "id" in given]
    assert len(ids) == len(set(ids))
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        named = [given[attribute] for _, given in made.elements if attribute in given]
        assert named
        assert set(named) <= set(ids)
    labelled = {label["for"] for label in made.all("label")}
    for control in (*made.all("select"), *made.all("input")):
        assert control["id"] in labelled


def test_a_sample_offers_its_midi_file_and_its_notes(checkpoint):
    report = report_of(checkpoint)
    made = Page(page([report], [], []))
    (link,) = [given for given in made.all("a") if "download" in given]
    assert base64.b64decode(link["href"].split(",")[1]) == report.samples[0].midi
    assert link["download"] == "a-run-temperature-1.mid"
    (sample,) = made.data["samples"]
    assert len(sample["notes"]) == sum(len(track) for track in report.samples[0].piece.tracks) / 2
    assert sample["ticks"] == max(note[1] for note in sample["notes"])


def test_samples_go_at_the_tempo_of_the_corpus(checkpoint):
    """In the file, in the sound, in the roll that moves with it, and where the page composes."""
    bars, models = [], []
    for tempo in (240, 90, 30):
        if tempo != 90:  # that of a corpus that says none
            checkpoint.meta["corpus"]["tempo"] = tempo
        report = report_of(checkpoint)
        made = Page(page([report], [], []))
        midi = mido.MidiFile(file=io.BytesIO(report.samples[0].midi))
        (said,) = [m.tempo for m in midi.tracks[0] if m.type == "set_tempo"]
        assert said == round(60e6 / tempo)
        assert f", {midi.length:.0f} s" in made.text
        assert made.data["samples"][0]["tempo"] == pytest.approx(tempo, rel=1e-5)
        models += [model["tempo"] for model in made.data["models"]]
        chosen = [("a", checkpoint, None)]
        bars.append([room_for(chosen, samples).bars for samples in (1, 4)])
        checkpoint.meta["corpus"].pop("tempo", None)
    assert models == [240, 90, 30]
    assert [few for few, _ in bars] == [8, 8, 8]
    assert [many for _, many in bars] == [8, 8, 4]  # slow music lasts longer, the page stays small


def test_a_silent_sample_says_so(tmp_path):
    report = report_of(checkpoint_of(small_rolls(tmp_path)), samples=False)
    loud = report_of(report.checkpoint).samples[0]
    silent = replace(loud, piece=replace(loud.piece, tracks=[]), wav=None, remarks=["No sound."])
    made = Page(page([replace(report, samples=[silent])], [], []))
    assert not made.all("audio")
    assert "No sound." in made.text
    assert made.data["samples"][0]["notes"] == []


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_network_too_large_for_the_page_is_left_out_and_named(checkpoint, room):
    report = report_of(checkpoint, samples=False)
    whole = page([report], [], [])
    without = len(page([report], [], [], 0).encode())
    made = page([report], [], [], without + room)
    if room == 0:
        assert len(made.encode()) < without + 1000
        assert Page(made).data["models"] == []
        assert "too large for this page" in Page(made).text
        assert "bin/sample a-run" in Page(made).text
        assert len(whole) > len(made) + weights_size(report.checkpoint.config)
    else:
        assert Page(made).data["models"]


@pytest.mark.parametrize("most", [60_000, 80_000, 100_000, MOST])
def test_networks_fill_the_page_but_no_more(checkpoint, most):
    reports = [report_of(checkpoint, f"run-{n}", samples=False) for n in range(4)]
    bare = len(page(reports, [], [], 0).encode())
    made = page(reports, [], [], most)
    assert len(made.encode()) <= max(most, bare)
    named = Page(made).text.count("too large for this page")
    assert named + len(Page(made).data["models"]) == 4


def test_settings_that_differ_stand_out(checkpoint):
    other = checkpoint._replace(meta={**checkpoint.meta, "step": 41})
    reports = [report_of(c, name, samples=False) for c, name in ((checkpoint, "a"), (other, "b"))]
    made = page(reports, [], [])
    assert '<tr class="own"><th scope="row">steps</th>' in made
    assert '<tr><th scope="row">corpus</th>' in made
    assert ">epochs<" not in made  # which nobody has set


# Curves -----------------------------------------------------------------------------------------


def test_curves_have_a_line_a_run_and_split_and_marks_where_the_rate_fell(checkpoint):
    metrics = [
        Row(step, split, 3 / step, rate)
        for step, rate in ((1, 0.1), (2, 0.1), (3, 0.05), (4, 0.05), (5, 0.02))
        for split in ("train", "valid")
    ]
    assert annealed(metrics) == [2.0, 4.0]
    one = Page(page([report_of(checkpoint, "a", metrics, samples=False)], [], []))
    assert sum("class" in line and line["class"] == "mark" for line in one.all("line")) == 2
    chart = next(svg for svg in one.all("svg") if svg.get("class") == "plot")
    assert "validation from 3.000 to 0.600" in chart["aria-label"]
    two = [report_of(checkpoint, name, metrics, samples=False) for name in "ab"]
    lines = [line["class"] for line in Page(page(two, [], [])).all("polyline")]
    assert sorted(lines[:4]) == ["colour-0", "colour-0 train", "colour-1", "colour-1 train"]


def test_a_curve_stays_within_its_chart():
    points = [(0.0, 3.0), (50.0, -1.0), (100.0, 0.5)]
    chart = curves([Curve(points, 0, False)], [], "x", "y", "label")
    drawn = chart.split('points="')[1].split('"')[0].split()
    places = [tuple(map(float, place.split(","))) for place in drawn]
    assert all(0 <= x <= 720 and 0 <= y <= 340 for x, y in places)
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[0][1] < places[2][1] < places[1][1]  # down the page is lower


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_a_range(low, span):
    found = ticks(low, low + span)
    assert len(found) >= 2
    slack = 1e-6 * max(1, abs(low) + span)
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack
    assert len(found) <= 12
    assert all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_hidden_units_of_a_head_are_told_where_it_has_some(tmp_path, head):
    found = settings_of(report_of(checkpoint_of(small_rolls(tmp_path), head), samples=False))
    assert found.get("nade") == (None if head == "sigmoid" else "6")
    assert not {"classes", "deltas"} & set(found)


@pytest.mark.parametrize(("words", "told"), [(0, None), (1024, "1,024")])
def test_a_sampled_softmax_is_told_where_there_is_one(tmp_path, words, told):
    run = report_of(checkpoint_of(small_rolls(tmp_path, "chord")), samples=False)
    run.checkpoint.meta["settings"]["sampled_softmax"] = words
    assert settings_of(run).get("sampled softmax") == told


# Markup -----------------------------------------------------------------------------------------


def test_only_markup_is_markup():
    assert tag("p", "<b>", class_="a&b") == '<p class="a&amp;b">&lt;b&gt;</p>'
    assert tag("p", tag("b", "x"), hidden=True, id=False) == "<p hidden><b>x</b></p>"
    assert joined(Html("<br/>"), '"&') == "<br/>&quot;&amp;"
    assert tag("img", alt='"') == '<img alt="&quot;"/>'


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_json_in_a_page_holds_no_tag(data):
    text = json_in_html(data)
    assert "<" not in text
    assert json.loads(text) == data


# The network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["message", "chord", "sigmoid", "nade", "biaxial"])
def test_the_page_s_network_is_the_checkpoint_s(tmp_path, kind):
    representation = kind if kind in ("message", "chord") else "note"
    head = kind if representation == "note" else None
    corpus = small_rolls(tmp_path, representation) if kind != "message" else small_corpus(tmp_path)
    checkpoint = checkpoint_of(corpus, head)
    made = page_model("x", checkpoint, 0.9)
    weights = np.frombuffer(base64.b64decode(made["weights"]), "<f2").astype(np.float32)
    shapes, at = parameter_shapes(checkpoint.config), 0
    assert [name for name, _ in made["arrays"]] == list(shapes)
    for name, size in made["arrays"]:
        expected = checkpoint.parameters[name].ravel()
        np.testing.assert_allclose(weights[at : at + size], expected, rtol=2**-11, atol=2**-24)
        np.testing.assert_array_equal(
            weights[at : at + size], in_16_bits(checkpoint.parameters)[name].ravel()
        )
        at += size
    assert at == len(weights)
    assert len(made["weights"]) == weights_size(checkpoint.config)
    assert len(made["primers"]) == len(checkpoint.meta["primers"])


def test_words_are_numbers_that_spell_them(tmp_path):
    corpus = small_corpus(tmp_path)
    rules = page_model("x", checkpoint_of(corpus), 0.9)["rules"]
    words = zip(rules["kinds"], rules["numbers"], rules["steps"], strict=True)
    specials = {PIECE_END: messages.PIECE_END, TRACK_END: messages.TRACK_END}
    kinds = {NOTE_OFF: 0, NOTE_ON: 1}
    spelled = [specials.get(kind) or messages.spell(kinds[kind], *rest) for kind, *rest in words]
    assert spelled == list(corpus.vocabulary.words)
    rolls = small_rolls(tmp_path, "chord")
    words = page_model("x", checkpoint_of(rolls), 0.9)["chords"]
    assert [chords.chord_word(word) for word in words[1:]] == list(rolls.vocabulary.words[1:])


def test_weights_beyond_16_bits_become_the_largest():
    found = in_16_bits({"W": np.array([1e9, -1e9, 0.1], np.float32)})["W"]
    assert found[:2].tolist() == [LARGEST, -LARGEST]
    assert found[2] == pytest.approx(0.1, rel=2**-11)


def test_the_size_of_weights_is_known_before_they_are_made():
    assert weights_size(Config(1, 1, 1, 1)) == len(base64.b64encode(b"x" * 2 * (1 + 12 + 2)))


# Sound ------------------------------------------------------------------------------------------


def wav_of(samples, rate=48_000):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return content.getvalue()


def decoded(wav):
    """The samples of a mu-law file, by G.711's own words: sign, exponent, mantissa."""
    assert wav[:4] == b"RIFF"
    assert wav[8:16] == b"WAVEfmt "
    assert struct.unpack("<I", wav[4:8])[0] == len(wav) - 8
    form, channels, rate, speed, align, bits, _ = struct.unpack("<HHIIHHH", wav[20:38])
    assert (form, channels, rate, speed, align, bits) == (7, 1, RATE, RATE, 1, 8)
    at = wav.index(b"data")
    (size,) = struct.unpack("<I", wav[at + 4 : at + 8])
    codes = 255 - np.frombuffer(wav[at + 8 : at + 8 + size], np.uint8).astype(int)
    size = (((codes & 15) * 2 + 33) << (codes >> 4 & 7)) - 33
    return np.where(codes >= 128, -size, size) / 8192


def test_small_sound_is_the_sound_within_the_noise_of_8_bits():
    t = np.arange(48_000) / 48_000
    left, right = np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 1000 * t)
    loudness = np.linspace(1, 0.01, len(t))
    found = decoded(small_wav(wav_of(np.stack([left * loudness, right * loudness], axis=1))))
    expected = ((left + right) / 2 * loudness)[::2]
    assert len(found) == len(expected)
    inner = slice(1000, -1000)
    noise = (found - expected)[inner]
    decibels = 10 * np.log10((expected[inner] ** 2).sum() / (noise**2).sum())
    assert decibels > 30


def test_a_small_score_keeps_what_is_referred_to():
    svg = """<svg id="all">
      <style>#all path { stroke: red }</style>
      <g id="E0A4-x"> <path id="p" d="M1 2"/> </g>
      <use xlink:href="#E0A4-x" id="u"/>
    </svg>"""
    assert small_svg(svg) == (
        '<svg id="all"><style>#all path { stroke: red }</style><g id="E0A4-x"><path d="M1 2"/></g>'
        '<use xlink:href="#E0A4-x"/></svg>'
    )


@pytest.mark.parametrize("length", [0, 1, 480, 481 * 2])
def test_silence_stays_silent_and_as_long(length):
    found = decoded(small_wav(wav_of(np.zeros((length, 2)))))
    assert len(found) == -(-length // 2)
    assert not found.any()


def test_the_loudest_sounds_keep_their_sign():
    found = decoded(small_wav(wav_of(np.array([[1.0], [-1.0]]), RATE)))
    assert found[0] > 0.95
    assert found[1] < -0.95


def test_another_rate_is_refused():
    with pytest.raises(ValueError, match="not 16 bits at a multiple"):
        small_wav(wav_of(np.zeros((10, 1)), 44_100))
