import argparse
import io
import os
import re
from pathlib import Path

import mido
import numpy as np
import pytest

from lstm_music import sampler
from lstm_music.checkpoint import read_run
from lstm_music.cli import sample
from lstm_music.midi import TICKS_PER_QUARTER, Piece, notes_of, read_midi, write_midi
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END, MessageTokenizer
from small import flip, piece_of, track_of

BAR = 4 * TICKS_PER_QUARTER


@pytest.fixture(params=["flatten", "merge"])
def layout(request):
    return request.param


@pytest.fixture
def run(train_small, layout, folder):
    """A run of 30 steps: its network is good for nothing, and so tries everything."""
    train_small("--max-steps", 30, "--tracks", layout, "--run", "a", "--quiet")
    (folder / "runs/a/samples/sample-0001.mid").unlink()
    return folder / "runs" / "a"


@pytest.fixture
def compose(ok, run):
    """Sample from the run; return the pieces' bytes."""

    def call(*words):
        paths = ok("sample", run, "--quiet", *words)
        return [Path(path).read_bytes() for path in paths]

    return call


@pytest.fixture
def tokens(monkeypatch):
    """The ids of every piece that is sampled."""
    seen = []

    def spy(*args):
        pieces = sampler.sample(*args)
        seen.extend(pieces)
        return pieces

    monkeypatch.setattr(sample, "sample", spy)
    return seen


def end_of(data):
    """The tick at which the last note of a MIDI file ends."""
    return max(int(track[:, 0].max()) for track in read_midi(data, "x").tracks)


def stuck_and_orphan(data):
    """How many notes of a MIDI file never end, or end without having begun."""
    wrong = 0
    for track in mido.MidiFile(file=io.BytesIO(data)).tracks:
        sounding = set()
        for message in track:
            if message.type == "note_on":
                wrong += message.note in sounding
                sounding.add(message.note)
            elif message.type == "note_off":
                wrong += message.note not in sounding
                sounding.discard(message.note)
        wrong += len(sounding)
    return wrong


# What comes out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["--strict", "--free"])
def test_pieces_are_whole(compose, rules):
    for data in compose("--num", 10, rules, "--temperature", 3):
        assert stuck_and_orphan(data) == 0
        assert read_midi(data, "x").tracks


def test_a_piece_is_the_same_beside_others(compose):
    many = compose("--num", 11, "--length", 50)
    assert compose("--num", 1, "--length", 50) == many[:1]
    assert compose("--num", 9, "--length", 50) == many[:9]
    assert len(set(many)) == len(many)


def test_a_seed_repeats_and_another_differs(compose):
    assert compose("--seed", 3) == compose("--seed", 3)
    assert compose("--seed", 3) != compose("--seed", 4)
    assert compose("--greedy", "--length", 30) == compose("--greedy", "--length", 30)


@pytest.mark.parametrize("rules", ["--strict", "--free"])
@pytest.mark.parametrize("length", [1, 5, 16, 77])
def test_a_length_in_tokens_is_exact(compose, tokens, rules, length):
    compose("--num", 3, "--length", length, rules)
    assert [len(ids) for ids in tokens] == [length] * 3


@pytest.mark.parametrize("rules", ["--strict", "--free"])
@pytest.mark.parametrize("bars", [1, 5])
def test_a_length_in_bars_is_kept(compose, layout, rules, bars):
    for data in compose("--num", 4, "--bars", bars, rules):
        assert bars - (2 if layout == "merge" else 1) < end_of(data) / BAR <= bars


def test_a_length_in_seconds_is_kept_at_any_tempo(compose):
    for tempo in (60, 150):
        for data in compose("--num", 3, "--seconds", 8, "--tempo", tempo):
            quarter = 60 / tempo
            assert 8 - 4 * quarter < end_of(data) / TICKS_PER_QUARTER * quarter <= 8
            midi = mido.MidiFile(file=io.BytesIO(data))
            (tempo_message,) = [m for m in midi.tracks[0] if m.type == "set_tempo"]
            assert tempo_message.tempo == round(60e6 / tempo)


def test_the_drawing_options_reach_the_sampler(compose, monkeypatch):
    seen = []

    def spy(model, start, primers, options, *rest):
        seen.append(options)
        return [list(primer) for primer in primers]

    monkeypatch.setattr(sample, "sample", spy)
    compose("--temperature", 0.7, "--top-k", 3, "--top-p", 0.8, "--seed", 8, "--length", 9)
    compose("--temperature", 1, "--top-k", 0, "--top-p", 1, "--bars", 2)
    compose("--temperature", 2, "--top-k", 1, "--top-p", 1, "--greedy", "--seconds", 4)
    assert seen == [
        sampler.Options(9, None, 0.7, 3, 0.8, False, 8),
        sampler.Options(None, 2 * BAR, 1.0, 0, 1.0, False, 0),
        sampler.Options(None, 6 * TICKS_PER_QUARTER, 2.0, 1, 1.0, True, 0),  # 90 a minute
    ]


# Where it goes ----------------------------------------------------------------------------------


def test_samples_are_numbered_and_none_is_replaced(ok, run, folder):
    first = ok("sample", "a", "--num", 2, "--quiet")
    assert first == ["runs/a/samples/sample-0001.mid", "runs/a/samples/sample-0002.mid"]
    (run / "samples" / "sample-0041.mid").write_bytes(b"")
    (run / "samples" / "sample-mine.mid").write_bytes(b"")
    assert ok("sample", "a", "--quiet") == ["runs/a/samples/sample-0042.mid"]
    assert ok("sample", "a", "--quiet", "--out", "new/place") == ["new/place/sample-0001.mid"]


def test_a_file_that_is_named_is_replaced(ok, run):
    for seed in (1, 2):
        assert ok("sample", "a", "--out", "x/y.mid", "--seed", seed, "--quiet") == ["x/y.mid"]
    assert os.listdir("x") == ["y.mid"]
    assert ok("sample", "a", "--out", "z.MID", "--num", 2, "--quiet") == ["z-1.MID", "z-2.MID"]


def test_a_line_says_what_was_composed(ok, run):
    (line,) = ok("sample", "a", "--length", 40)
    assert re.fullmatch(
        r"runs/a/samples/sample-0001.mid  \(\d+ notes, \d+ tracks, \d+ s, 40 tokens, "
        r"primed with the first 16 tokens of \d.mid\)",
        line,
    )
    (line,) = ok("sample", "a", "--length", 40, "--primer-length", 0)
    assert line.endswith("s, 40 tokens)")


def test_the_newest_run_is_the_default(ok, train_small, run):
    train_small("--max-steps", 1, "--run", "b", "--quiet")
    os.utime("runs/a/checkpoints", (9e9, 9e9))
    assert ok("sample", "--quiet") == ["runs/a/samples/sample-0001.mid"]


def test_a_checkpoint_may_be_named(ok, run, folder):
    for name in ("latest", "step-00000030"):
        (line,) = ok("sample", f"runs/a/checkpoints/{name}", "--quiet")
        assert Path(line).parent.samefile(run / "samples")
    (run / "checkpoints" / "step-00000030").rename(folder / "mine")
    assert ok("sample", "mine", "--quiet") == ["samples/sample-0001.mid"]


# Primers ----------------------------------------------------------------------------------------


def words_of(run, tokens):
    vocabulary = read_run(run, print)[0].vocabulary
    return [[vocabulary.word(id) for id in ids] for ids in tokens]


def test_a_primer_begins_every_piece(compose, run, layout, tokens):
    piece = piece_of(3)
    write_midi(piece, "primer.mid")
    compose("--primer", "primer.mid", "--num", 2, "--length", 300)
    expected = [w for w in MessageTokenizer(layout).words(piece) if w != PIECE_END]
    first, second = words_of(run, tokens)
    n = min(len(expected), 64)
    assert first[:n] == second[:n] == expected[:n]
    assert (TRACK_END in first[:n]) == (layout == "flatten")
    assert first != second
    tokens.clear()
    compose("--primer", "primer.mid", "--primer-length", 7, "--length", 300)
    (words,) = words_of(run, tokens)
    assert words[:7] == expected[:7]
    assert words[7:20] != expected[7:20]


def test_a_primer_takes_at_most_half_unless_told(ok, run):
    write_midi(piece_of(3), "primer.mid")
    (line,) = ok("sample", "a", "--primer", "primer.mid", "--length", 21)
    assert "21 tokens, primed with the first 10 tokens of primer.mid" in line
    (line,) = ok("sample", "a", "--primer", "primer.mid", "--length", 21, "--primer-length", 30)
    assert "21 tokens, primed with the first 21 tokens of primer.mid" in line


def test_durations_are_the_nearest_that_the_model_knows(command, run, layout, tokens):
    """The corpus has notes of 120, 240 and 480 ticks; pitches outside it are left out."""
    notes = [(0, 125, 60), (125, 125 + 230, 62), (355, 595, 99), (595, 595 + 250, 64)]
    write_midi(Piece("", [track_of(notes)]), "primer.mid")
    done = command("sample", "a", "--primer", "primer.mid", "--length", 100, "--quiet")
    assert done.status == 0
    (line,) = done.err
    assert line.startswith("warning: ")
    assert "tokens of primer.mid are new to the model" in line
    (words,) = words_of(run, tokens)
    assert words[:4] == ["note-on-60-0", "note-off-60-120", "note-on-62-0", "note-off-62-240"]
    # The 240 ticks of the note left out are a rest before the next.
    assert words[4:6] == ["note-on-64-240", "note-off-64-240"]


def test_primers_of_the_corpus_come_from_held_out_pieces(compose, run, tokens):
    compose("--num", 5, "--length", 100)
    known = [primer["ids"][:16] for primer in read_run(run, print)[0].meta["primers"]]
    assert all(ids[:16] in known for ids in tokens)
    tokens.clear()
    compose("--num", 5, "--length", 100, "--primer-length", 0)
    assert any(ids[:16] not in known for ids in tokens)


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flatten"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["b"], "no run or checkpoint 'b': train one with bin/train bach --run b"),
        (["runs/a/checkpoints/step-00000001"], "no checkpoint at"),
        (["runs/a/samples"], "has no checkpoint"),
        (["a", "--primer", "none.mid"], "no file 'none.mid': give --primer a MIDI file"),
        (["a", "--primer", "text.mid"], "'text.mid' is cut off"),
        (["a", "--primer", "rubbish.mid"], "'rubbish.mid' can't be read"),
        (["a", "--primer", "high.mid"], "the model knows none of the notes in 'high.mid'"),
        (["a", "--length", "0"], "'0' is not a whole number from 1"),
        (["a", "--length", "5", "--bars", "2"], "not allowed with argument"),
        (["a", "--temperature", "0"], "'0' is not a number above 0 to 100"),
        (["a", "--top-p", "1.1"], "'1.1' is not a number above 0 to 1"),
        (["a", "--free", "--strict"], "not allowed with argument"),
        (["a", "--out", "text.mid/x"], "can't write"),
        (["a", "--out", "text.mid/x.mid"], "choose another place with --out"),
    ],
)
def test_bad_input_is_one_line(fails, run, words, says):
    Path("text.mid").write_text("text")
    Path("rubbish.mid").write_text("rubbish, and more of it")
    write_midi(Piece("", [track_of([(0, 240, 120)])]), "high.mid")
    assert says in fails("sample", *words)


@pytest.mark.parametrize("layout", ["flatten"])
def test_without_a_run_the_bundled_model_is_used_or_missed(fails, ok, folder, monkeypatch, run):
    monkeypatch.setattr(sample, "BUNDLED", "data/none")
    run.rename(folder / "kept")
    assert "train one with bin/train bach" in fails("sample")
    monkeypatch.setattr(sample, "BUNDLED", str(folder / "kept" / "checkpoints" / "step-00000030"))
    assert ok("sample", "--quiet") == ["samples/sample-0001.mid"]


@pytest.mark.parametrize("layout", ["flatten"])
def test_a_damaged_checkpoint(command, fails, run):
    flip(run / "checkpoints/step-00000030/model.safetensors", 0.9)
    line = fails("sample", "runs/a/checkpoints/step-00000030")
    assert "is damaged" in line
    assert "use another checkpoint of the run" in line
    done = command("sample", "a", "--quiet")
    assert done.status == 0
    (line,) = done.err
    assert line.startswith("warning: ")
    assert "step-00000030" in line
    assert line.endswith("using step-00000018 instead")
    flip(run / "checkpoints/step-00000018/meta.json", 0.9)
    assert "no whole checkpoint is left in 'runs/a'" in fails("sample", "a")


@pytest.mark.parametrize("layout", ["flatten"])
def test_a_checkpoint_of_a_newer_version(fails, run):
    path = run / "checkpoints/step-00000030/meta.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    for name in ("a", "runs/a/checkpoints/latest"):
        assert "upgrade lstm-music" in fails("sample", name)


@pytest.mark.parametrize("layout", ["flatten"])
def test_a_full_disk_leaves_the_old_file(fails, run, monkeypatch):
    Path("x.mid").write_bytes(b"old")
    real = Path.write_bytes

    def full(self, data):
        if "x.mid" in self.name:
            real(self, data[:5])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "can't write 'x.mid' (No space left on device)" in fails("sample", "a", "--out", "x.mid")
    assert Path("x.mid").read_bytes() == b"old"
    assert not list(Path().glob(".x*"))


@pytest.mark.parametrize("layout", ["flatten"])
def test_the_bar_shows_the_tokens(run, monkeypatch):
    shown = []

    class FakeBar:
        n, total = 0, None

        def update(self, n):
            self.n += n
            shown.append((self.n, self.total))

        def close(self):
            shown.append("closed")

    with sample.Bar(quiet=True) as bar:
        bar.bar = FakeBar()
        for done in (1, 2, 5):
            bar.show(done, 9)
    assert shown == [(1, 9), (2, 9), (5, 9), "closed"]


def test_notes_sound_as_sampled(compose, run, tokens, layout):
    """The file holds the music of the tokens, whatever wrote it."""
    (data,) = compose("--length", 200)
    (ids,), checkpoint = tokens, read_run(run, print)[0]
    grammar = sample.grammar_of(argparse.Namespace(free=False), checkpoint)
    piece = sampler.decode(ids, checkpoint.vocabulary, MessageTokenizer(layout), grammar, "x")
    found = read_midi(data, "x")
    assert len(found.tracks) == len(piece.tracks)
    for a, b in zip(found.tracks, piece.tracks, strict=True):
        assert np.array_equal(notes_of(a), notes_of(b))
