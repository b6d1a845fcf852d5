import io
import os
import re
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
from small import flip, piece_of, track_of

from lstm_music.cli import sample
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, Piece, notes_of
from lstm_music.midi.roll import NOTES, estimate_key, frames_of
from lstm_music.network.baselines import fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs import opened as runs
from lstm_music.runs.checkpoint import FORMAT, read_run
from lstm_music.sampling import composer, decoding, from_checkpoint, sampler
from lstm_music.sampling.options import Options
from lstm_music.tokenizers.chords import chord_words, frames_of_words
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END, MessageTokenizer

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

    monkeypatch.setattr(composer, "sample", spy)
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
    assert [len(ids) for ids in tokens] == [16 + length] * 3  # and what they begin with
    tokens.clear()
    compose("--num", 3, "--length", length, rules, "--primer-length", 0)
    assert [len(ids) for ids in tokens] == [length] * 3


@pytest.mark.parametrize("rules", ["--strict", "--free"])
@pytest.mark.parametrize("bars", [1, 5])
def test_a_length_in_bars_is_kept(compose, layout, rules, bars):
    for data in compose("--num", 4, "--bars", bars, rules, "--primer-length", 0, "--seed", 1):
        assert bars - (2 if layout == "merge" else 1) < end_of(data) / BAR <= bars


def test_a_length_in_seconds_is_kept_at_any_tempo(compose):
    for tempo in (60, 150):
        for data in compose("--num", 3, "--seconds", 8, "--tempo", tempo, "--primer-length", 0):
            quarter = 60 / tempo
            assert 8 - 4 * quarter < end_of(data) / TICKS_PER_QUARTER * quarter <= 8
            midi = mido.MidiFile(file=io.BytesIO(data))
            (tempo_message,) = [m for m in midi.tracks[0] if m.type == "set_tempo"]
            assert tempo_message.tempo == round(60e6 / tempo)


def test_the_drawing_options_reach_the_sampler(compose, monkeypatch):
    seen = []

    def spy(model, primers, options, *rest):
        seen.append(options)
        return [list(primer) for primer in primers]

    monkeypatch.setattr(composer, "sample", spy)
    compose("--temperature", 0.7, "--top-k", 3, "--top-p", 0.8, "--seed", 8, "--length", 9)
    compose("--temperature", 1, "--top-k", 0, "--top-p", 1, "--bars", 2)
    compose("--temperature", 2, "--top-k", 1, "--top-p", 1, "--greedy", "--seconds", 4)
    compose("--repetition", -2.5, "--length", 9)
    assert seen == [
        Options(9, None, 0.7, 3, 0.8, False, 8, beyond=True),
        Options(None, None, 1.0, 0, 1.0, False, 0, bars=2, beyond=True),
        Options(None, 6 * TICKS_PER_QUARTER, 2.0, 1, 1.0, True, 0, beyond=True),  # 90 a minute
        Options(9, None, 1.0, 0, 0.9, False, 0, repetition=-2.5, beyond=True),
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
        r"runs/a/samples/sample-0001.mid  \(\d+ notes of \d.mid and \d+ new, \d+ tracks, \d+ s, "
        r"40 tokens, "
        r"primed with the first 16 tokens of \d.mid\)",
        line,
    )
    (line,) = ok("sample", "a", "--length", 40, "--primer-length", 0)
    assert re.search(r"\(\d+ notes, \d+ tracks, \d+ s, 40 tokens\)$", line)


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
    """All of it but the end of its last track, which goes on."""
    piece = piece_of(3, tracks=2 if layout == "flatten" else 1)
    write_midi(piece, "primer.mid")
    compose("--primer", "primer.mid", "--primer-start", "--num", 2, "--length", 300)
    expected = [w for w in MessageTokenizer(layout).words(piece) if w != PIECE_END]
    if layout == "flatten":
        assert expected.pop() == TRACK_END
    first, second = words_of(run, tokens)
    n = len(expected)
    assert n <= 64 and len(first) == n + 300
    assert first[:n] == second[:n] == expected
    assert (TRACK_END in first[:n]) == (layout == "flatten")
    assert first != second
    tokens.clear()
    compose("--primer", "primer.mid", "--primer-start", "--primer-length", 7, "--length", 300)
    (words,) = words_of(run, tokens)
    assert words[:7] == expected[:7]
    assert words[7:20] != expected[7:20]


def test_a_length_counts_what_follows_the_primer(command, run):
    write_midi(piece_of(3), "primer.mid")
    primer = ("--primer", "primer.mid")
    start = (*primer, "--primer-start")
    for words, says in (
        ((*primer, "--length", 21), "21 tokens, primed with the last 4[01] tokens of primer.mid"),
        ((*start, "--length", 21), "21 tokens, primed with the first 4[01] tokens of primer.mid"),
        ((*start, "--length", 21, "--primer-length", 30), "21 tokens, primed with the first 30"),
        (("--length", 21, "--primer-length", 30), "21 tokens, primed with the first 30"),
        (("--length", 21), "21 tokens, primed with the first 16"),
        (("--length", 1), "1 tokens, primed with the first 16"),
    ):
        assert re.search(says, command("sample", "a", *words).out[0])


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


def test_a_whole_piece_goes_on(command, run, layout, backend):
    """Whatever is asked for, as long as it may be: no end comes before something was composed."""
    piece = piece_of(3, tracks=2)
    write_midi(piece, "primer.mid")
    given = ("--primer", "primer.mid", "--primer-length", 5000, "--backend", backend)
    end = max(track[-1, 0] for track in piece.tracks)
    for words in ([], ["--length", 50], ["--bars", 2], ["--seconds", 0.1], ["--seconds", 9]):
        done = command("sample", "a", *given, *words, "--num", 4, "--out", "here")
        lost = ["warning: primer.mid: its 2 tracks become one"] * (layout == "merge")
        assert (done.status, done.err) == (0, lost)
        lines = done.out
        made = [read_midi(Path(line.split("  (")[0]), "x") for line in lines]
        notes = sum(len(track) // 2 for track in piece.tracks)
        for line, one in zip(lines, made, strict=True):
            given_and_new = re.search(r"\((\d+) notes of primer.mid and (\d+) new", line)
            assert int(given_and_new[1]) == notes and int(given_and_new[2]) > 0
            assert int(re.search(r"(\d+) tokens, primed", line)[1]) > 0
            if not words:
                assert max(track[-1, 0] for track in one.tracks) >= end
        assert len({tuple(map(bytes, one.tracks)) for one in made}) > 1


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    return request.param


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flatten"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["b"], "no run or checkpoint 'b': train one with bin/train bach --run b"),
        (["runs/a/checkpoints/step-00000001"], "no checkpoint at"),
        (["runs/a/samples"], "has no checkpoint"),
        (["a", "--primer", "none.mid"], "no file 'none.mid': give --primer a MIDI file"),
        (["a", "--primer", "text.mid"], "'text.mid' is no MIDI file"),
        (["a", "--primer", "rubbish.mid"], "'rubbish.mid' is no MIDI file"),
        (["a", "--primer", "high.mid"], "the model knows none of the notes in 'high.mid'"),
        (["a", "--length", "0"], "'0' is not a whole number from 1"),
        (["a", "--length", "5", "--bars", "2"], "not allowed with argument"),
        (["a", "--temperature", "0"], "'0' is not a number above 0 to 100"),
        (["a", "--top-p", "1.1"], "'1.1' is not a number above 0 to 1"),
        (["a", "--free", "--strict"], "not allowed with argument"),
        (["a", "--restrike"], "--restrike is only for piano-roll models, and this one writes"),
        (["a", "--out", "text.mid/x"], "can't write"),
        (["a", "--out", "text.mid/x.mid"], "choose another place"),
    ],
)
def test_bad_input_is_one_line(fails, run, words, says):
    Path("text.mid").write_text("text")
    Path("rubbish.mid").write_text("rubbish, and more of it")
    write_midi(Piece("", [track_of([(0, 240, 120)])]), "high.mid")
    assert says in fails("sample", *words)


def test_repetition_needs_a_copy_gate(fails, ok, train_small):
    train_small("--max-steps", 3, "--run", "plain", "--no-copy")
    train_small("--max-steps", 3, "--run", "copying", "--copy")
    says = "--repetition is only for models with a copy gate, and this one has none: leave it out"
    assert says in fails("sample", "plain", "--repetition", "1")
    made = {}
    for x in ("-100", "0", "5"):
        ok("sample", "copying", "--repetition", x, "--length", 60, "--out", f"by{x}.mid")
        made[x] = Path(f"by{x}.mid").read_bytes()
    assert made["-100"] != made["5"] != made["0"]


@pytest.mark.parametrize("layout", ["flatten"])
def test_without_a_run_the_bundled_model_is_used_or_missed(fails, ok, folder, monkeypatch, run):
    monkeypatch.setattr(runs, "PLACE", "data/none")
    run.rename(folder / "kept")
    assert "train one with bin/train bach" in fails("sample")
    monkeypatch.setattr(runs, "PLACE", str(folder / "kept" / "checkpoints" / "step-00000030"))
    assert ok("sample", "--quiet") == ["samples/sample-0001.mid"]


@pytest.mark.parametrize("name", runs.BUNDLED)
def test_a_bundled_model_has_a_name(ok, folder, name):
    (line,) = ok("sample", name, "--bars", 4, "--out", "a.mid", "--seed", 1)
    unit = "tokens" if name == "bach" else "frames"
    assert re.search(
        rf"a\.mid  \(\d+ notes of bwv.*, .*{unit}, primed with the first \d+ {unit} of bwv", line
    )
    tracks = read_midi(Path("a.mid").read_bytes(), "a").tracks
    assert len(tracks) == (4 if name == "bach" else 1)


@pytest.mark.parametrize("layout", ["flatten"])
def test_a_run_comes_before_a_bundled_model_of_its_name(ok, fails, folder, run):
    shutil.copytree(run, folder / "runs" / "muse")
    assert ok("sample", "muse", "--quiet") == ["runs/muse/samples/sample-0001.mid"]
    assert "no run or checkpoint 'mozart'" in fails("sample", "mozart")


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
    newer = path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}', 1)
    path.write_text(newer)
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

    with sample.Bar(quiet=True, units="tokens") as bar:
        bar.bar = FakeBar()
        for done in (1, 2, 5):
            bar.show(done, 9)
    assert shown == [(1, 9), (2, 9), (5, 9), "closed"]


def test_notes_sound_as_sampled(compose, run, tokens, layout):
    """The file holds the music of the tokens, whatever wrote it."""
    (data,) = compose("--length", 200)
    (ids,), checkpoint = tokens, read_run(run, print)[0]
    model = runs.model_of(checkpoint, "numpy")
    rules = from_checkpoint.composer_of(checkpoint, model).rules
    piece = decoding.decode(ids, checkpoint.vocabulary, MessageTokenizer(layout), rules, "x")
    found = read_midi(data, "x")
    assert len(found.tracks) == len(piece.tracks)
    for a, b in zip(found.tracks, piece.tracks, strict=True):
        assert np.array_equal(notes_of(a), notes_of(b))


# Piano rolls ------------------------------------------------------------------------------------

HEADS = {"chord": "softmax", "sigmoid": "sigmoid", "nade": "nade", "biaxial": "biaxial"}
EIGHTH = 240


@pytest.fixture
def train_rolls(train_small, folder):
    """Train a model of piano rolls as the run `r`: train_rolls("nade", "--grid", 16)."""

    def call(kind, *words):
        representation = "chord" if kind == "chord" else "note"
        model = ("--representation", representation, "--head", HEADS[kind])
        train_small("--max-steps", 12, *model, *words, "--run", "r", "--quiet")
        (folder / "runs/r/samples/sample-0001.mid").unlink()

    return call


@pytest.fixture(params=HEADS)
def roll_run(request, train_rolls):
    """A run of each kind of model of piano rolls; returns the kind."""
    train_rolls(request.param)
    return request.param


@pytest.fixture
def rolls(ok):
    """Sample from the run `r`; return the pieces' bytes."""
    return lambda *words: [Path(p).read_bytes() for p in ok("sample", "r", "--quiet", *words)]


def frames_in(data, grid=8):
    """The frames of a MIDI file, up to its last note."""
    return frames_of(read_midi(data, "x"), grid)[0]


def padded(frames, n):
    return np.concatenate([frames, np.zeros((n - len(frames), NOTES), np.uint8)])


def test_rolls_are_whole_repeat_and_depend_on_nothing_beside_them(roll_run, rolls):
    many = rolls("--num", 5, "--length", 40, "--seed", 3)
    assert all(stuck_and_orphan(data) == 0 for data in many)
    assert rolls("--num", 2, "--length", 40, "--seed", 3) == many[:2]
    assert len(set(many)) == 5
    assert rolls("--length", 40, "--seed", 4) != many[:1]
    assert rolls("--length", 40, "--temperature", 0.1, "--seed", 3) != many[:1]
    greedy = [rolls("--greedy", "--length", 30, "--seed", s, "--primer-length", 0) for s in (1, 2)]
    assert greedy[0] == greedy[1]


def test_a_length_of_a_roll_is_exact(roll_run, ok):
    asked = [("--length", 21), ("--bars", 3), ("--seconds", 10), ("--seconds", 0.001)]
    for words, frames in zip(asked, (21, 24, 30, 1), strict=True):
        lines = ok("sample", "r", *words, "--num", 3, "--primer-length", 0, "--out", "here")
        assert all(f", {frames} frames" in line for line in lines)
        for line in lines:
            piece = read_midi(Path(line.split("  (")[0]), "x") if ", 0 tracks" not in line else None
            assert piece is None or frames_of(piece)[0].shape[0] <= frames


def test_a_line_says_what_a_roll_is_made_of(roll_run, ok):
    (line,) = ok("sample", "r", "--length", 40)
    assert re.fullmatch(
        r"runs/r/samples/sample-0001.mid  \(\d+ notes of \d.mid and \d+ new, 1 tracks, \d+ s, "
        r"40 frames, "
        r"primed with the first \d+ frames of \d.mid\)",
        line,
    )


def test_a_note_model_composes_sixteen_bars_and_a_chord_model_to_an_end(roll_run, ok):
    (line,) = ok("sample", "r", "--seed", 1)
    frames = int(re.search(r"(\d+) frames,", line)[1])
    assert 64 <= frames < 2000 if roll_run == "chord" else frames == 128


def test_restriking_only_cuts_notes_into_frames(roll_run, rolls):
    ((held,), (struck,)) = (rolls("--length", 60, *words) for words in ([], ["--restrike"]))
    assert np.array_equal(frames_in(held), frames_in(struck))
    assert stuck_and_orphan(struck) == 0
    (notes,) = map(notes_of, read_midi(struck, "x").tracks)
    assert np.all(notes[:, 1] - notes[:, 0] == EIGHTH)
    (joined,) = map(notes_of, read_midi(held, "x").tracks)
    assert len(joined) < len(notes)


def test_a_file_begins_a_roll_at_the_models_grid(roll_run, rolls):
    write_midi(piece_of(3, tracks=1), "primer.mid")
    expected = frames_of(piece_of(3, tracks=1))[0]
    assert len(expected) < 40
    for words, n in (([], 64), (["--primer-length", 7], 7), (["--primer-length", 99], 99)):
        primer = ("--primer", "primer.mid", "--primer-start")
        (data,) = rolls(*primer, "--length", 40, *words)
        n = min(n, len(expected))
        assert np.array_equal(padded(frames_in(data), n + 40)[:n], expected[:n])
    (other,) = rolls("--primer", "primer.mid", "--length", 40, "--primer-length", 0)
    assert not np.array_equal(padded(frames_in(other), 40)[:20], expected[:20])


def test_openings_of_the_corpus_come_from_held_out_pieces(roll_run, rolls):
    corpus = load_corpus("music", reading=Reading("chord" if roll_run == "chord" else "note"))
    openings = [frames[:16] for frames in corpus.split_frames("valid")]
    if roll_run == "chord":  # with the nearest of the known chords
        ids = [corpus.primer(piece)[:16] for piece in corpus.splits["valid"]]
        openings = [frames_of_words([corpus.vocabulary.word(id) for id in some]) for some in ids]
    known = [frames.tobytes() for frames in openings]
    for data in rolls("--num", 4, "--length", 60, "--temperature", 5):
        assert padded(frames_in(data), 76)[:16].tobytes() in known


@pytest.mark.parametrize("kind", ["chord", "nade"])
def test_a_primer_is_read_as_the_corpus_was(train_rolls, rolls, kind):
    """On its grid, in its key, without the notes that are too many."""
    train_rolls(kind, "--grid", 16, "--common-key", "C", "--max-polyphony", 1)
    chord = [(0, 960, 62 + n) for n in (0, 4, 7)] + [(960, 1920, 62), (1920, 2880, 69)]
    write_midi(Piece("", [track_of(chord)]), "primer.mid")  # in D major
    done = rolls("--primer", "primer.mid", "--length", 48, "--primer-length", 24)
    frames = frames_in(done[0], 16)[:24]
    if kind == "chord":  # every chord has at most the one note that the corpus has
        assert frames.sum(axis=1).max() <= 1
    else:
        assert frames.sum(axis=1).tolist() == [1] * 24
        assert chord_words(frames[8:16]) == ["60"] * 8
        assert chord_words(frames[16:]) == ["67"] * 8
        assert estimate_key(frames)[0] == 0


def test_chords_that_are_new_are_replaced_by_the_nearest(train_rolls, command):
    train_rolls("chord")
    vocabulary = read_run(Path("runs/r"), print)[0].vocabulary
    notes = [(0, 240, 60), (0, 240, 48), (0, 240, 90), (240, 480, 20), (480, 720, 60)]
    write_midi(Piece("", [track_of(notes)]), "primer.mid")
    words = ("--primer", "primer.mid", "--length", 3, "--primer-length", 3, "--quiet")
    done = command("sample", "r", *words)
    assert done.status == 0
    outside, new = done.err
    assert outside == "warning: notes of primer.mid that a piano lacks are left out (1)"
    assert re.fullmatch(r"warning: \d of 3 chords of primer.mid are new to the model: .*", new)
    written = chord_words(frames_in(Path(done.out[0]).read_bytes()))
    assert all(vocabulary.get(word) is not None for word in written)
    assert "48" in written[0] or "60" in written[0]


@pytest.mark.parametrize("kind", ["sigmoid"])
def test_few_notes_sound_with_top_k_and_top_p(train_rolls, rolls, kind):
    train_rolls(kind)
    words = ("--primer-length", 0, "--length", 60, "--temperature", 5)
    for how, most in ((("--top-k", 2), 2), (("--top-p", 1e-6), 1)):
        (data,) = rolls(*words, *how)
        assert frames_in(data).sum(axis=1).max() <= most
    (free,) = rolls(*words)
    assert frames_in(free).sum(axis=1).max() > 2


@pytest.mark.parametrize("kind", ["chord"])
def test_bad_input_for_a_chord_model_is_one_line(train_rolls, fails, kind):
    train_rolls(kind)
    write_midi(Piece("", [track_of([(10, 20, 60)])]), "short.mid")
    for words, says in (
        (["--free"], "--free is only for models of messages"),
        (["--primer", "none.mid"], "no file 'none.mid': give --primer a MIDI file"),
        (["--primer", "short.mid"], "no note in 'short.mid' sounds on the model's grid of 8"),
        (["--length", 0], "'0' is not a whole number from 1"),
    ):
        assert says in fails("sample", "r", *words)


@pytest.mark.parametrize("kind", ["nade", "biaxial"])
def test_bad_input_for_a_note_model_is_one_line(train_rolls, fails, kind):
    train_rolls(kind, "--grid", 1)
    for words, says in (
        (["--top-k", 3], f"those of --head {kind} do: use --temperature"),
        (["--top-p", 0.9], f"those of --head {kind} do: use --temperature"),
        (["--free"], "--free is only for models of messages"),
        (["--length", 900_000], "a MIDI file holds at most 25000 frames of this grid"),
    ):
        assert says in fails("sample", "r", *words)


# Baselines --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_baselines_draw_by_the_frequencies_of_the_training_split(ok):
    corpus = load_corpus("music", reading=Reading("note"))
    train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
    shares = np.concatenate(train).mean(axis=0)
    for kind in ("chord-frequency", "note-unigram", "random"):
        words = ("--baseline", kind, "--corpus", "music", "--length", 2500, "--quiet")
        (path,) = ok("sample", *words, "--out", f"{kind}.mid")
        drawn = frames_in(Path(path).read_bytes()).mean(axis=0)
        assert np.abs(drawn - (0.5 if kind == "random" else shares)).max() < 0.04
        (two,) = ok("sample", *words, "--out", "again.mid", "--restrike")
        assert np.array_equal(frames_in(Path(two).read_bytes()).mean(axis=0), drawn)
    frames = frames_in(Path("chord-frequency.mid").read_bytes())
    known = {frame.tobytes() for piece in train for frame in piece}
    assert {frame.tobytes() for frame in frames} <= known
    expected = fit_baseline("chord-frequency", train, valid).draw(20, np.random.default_rng([0, 0]))
    assert np.array_equal(frames[:20], expected)


def test_a_baseline_is_numbered_and_the_same_beside_others(ok):
    words = ("--baseline", "random", "--corpus", "music", "--bars", 2)
    assert [line.split("  (")[0] for line in ok("sample", *words, "--num", 3)] == [
        f"samples/sample-000{n}.mid" for n in (1, 2, 3)
    ]
    (line,) = ok("sample", *words, "--out", "one.mid")
    assert line.endswith(", 16 frames)")
    first, second = (Path(f"samples/sample-000{n}.mid").read_bytes() for n in (1, 2))
    assert Path("one.mid").read_bytes() == first != second
    (whole,) = ok("sample", *words[:-2])
    assert ", 128 frames)" in whole


def test_an_untrained_model_is_the_run_before_its_first_step(roll_run, ok, monkeypatch):
    models = []
    monkeypatch.setattr(sample, "Model", lambda *a, **b: models.append(Model(*a, **b)) or models[0])
    words = ("--baseline", "untrained", "--length", 20, "--quiet")
    assert ok("sample", "r", *words) == ["samples/sample-0001.mid"]  # not among the run's own
    checkpoint, _ = read_run(Path("runs/r"), print)
    new = Model(checkpoint.config, models[0].ops, checkpoint.meta["settings"]["seed"])
    for name, value in new.parameters.items():
        assert np.array_equal(models[0].parameters[name], value)
    assert any(not np.array_equal(checkpoint.parameters[k], v) for k, v in new.parameters.items())


@pytest.mark.parametrize("layout", ["merge"])
def test_an_untrained_model_of_messages(ok, compose):
    words = ("--baseline", "untrained", "--length", 50, "--quiet")
    (path,) = ok("sample", "a", *words)
    assert [Path(path).read_bytes()] != compose("--length", 50)


def test_an_untrained_model_of_a_corpus(ok):
    (line,) = ok("sample", "--baseline", "untrained", "--corpus", "music", "--bars", 4)
    assert line.startswith("samples/sample-0001.mid  (")
    assert re.search(r", 32 frames, primed with the first 16 frames of \d.mid", line)


def test_bad_baselines_are_one_line(fails):
    frequency = ("--baseline", "chord-frequency", "--corpus", "music")
    for words, says in (
        (["--corpus", "music"], "--corpus is only for use with --baseline"),
        (["--data", "music"], "--data is only for use with --baseline"),
        (["--baseline", "random", "--data", "music"], "--data is only for use with --corpus"),
        (["--baseline", "random"], "--baseline random draws from a corpus: say which"),
        (["--baseline", "untrained"], "needs a RUN, or a --corpus, but not both"),
        (["r", "--baseline", "untrained", "--corpus", "music"], "but not both"),
        (["r", *frequency], "--baseline chord-frequency needs no run: leave 'r' out"),
        (["--baseline", "best"], "invalid choice: 'best'"),
        (["--baseline", "random", "--corpus", "nothing"], "unknown corpus 'nothing'"),
        (["--baseline", "untrained", "--corpus", "music", "--free"], "--free is only for models"),
        ([*frequency, "--greedy"], "draws by frequency alone: leave --greedy out"),
        ([*frequency, "--primer", "x.mid"], "leave --primer out"),
        ([*frequency, "--primer-length", 1], "leave --primer-length out"),
        ([*frequency, "--temperature", 2], "leave --temperature out"),
        ([*frequency, "--top-k", 2], "leave --top-k out"),
        ([*frequency, "--top-p", 1], "leave --top-p out"),
        ([*frequency, "--repetition", 1], "leave --repetition out"),
        ([*frequency, "--free"], "leave --free out"),
    ):
        assert says in fails("sample", *words)


def test_many_tokens_or_words_are_worth_the_compiled_loop():
    assert runs.ops_of("auto").name == "numpy"
    assert runs.ops_of("auto", 1000, 500).name == "numpy"
    assert runs.ops_of("auto", 50_000, 500).name == "numba"
    assert runs.ops_of("auto", 2000, 35_509).name == "numba"
    assert runs.ops_of("numpy", 50_000, 500).name == "numpy"
