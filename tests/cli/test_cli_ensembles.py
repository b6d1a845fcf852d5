"""Ensembles as they were played, through every command: who plays what, and how loudly."""

import io
import json
import re
from pathlib import Path

import mido
import numpy as np
import pytest
from played import played_file
from small import COMPUTE

from lstm_music.cli import sample, train
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import DRUMS, Part
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import open_run
from lstm_music.tokenizers.parts import players_of
from lstm_music.tokenizers.performance import BIN, STEP

BAND = (("Flute", 73, 0), ("Bass", 32, 2), ("Kit", 0, DRUMS))
SIZES = ("--hidden", "8", "--embedding", "8", "--batch", "3", "--seq", "50")


def with_hits(content):
    """The content of a file with hits of length zero, a quarter note apart."""
    midi = mido.MidiFile(file=io.BytesIO(content))
    hits = mido.MidiTrack([mido.MetaMessage("track_name", name="Kit")])
    for _ in range(9):
        hits.append(mido.Message("note_on", note=38, velocity=99, time=384, channel=DRUMS))
        hits.append(mido.Message("note_off", note=38, channel=DRUMS))
    midi.tracks[-1] = hits
    file = io.BytesIO()
    midi.save(file=file)
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with recordings of a band, whose drums strike for no time, and a run of them."""
    place = tmp_path_factory.mktemp("band")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(place / "cache"))
        patch.chdir(place)
        Path("band").mkdir()
        for seed in range(8):
            content = played_file(seed, 40, players=BAND)[0]
            Path(f"band/{seed}.mid").write_bytes(with_hits(content))
        words = ("--run", "b", "--max-steps", "60", "--transpose-augment", "2", "--quiet")
        assert train.main(["band", *words, *SIZES, *COMPUTE]) == 0
    return place


@pytest.fixture(autouse=True)
def there(place, folder, monkeypatch):
    """Be there."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def read(path):
    return read_midi(Path(path), "x", drums=True, played=True)


def meta(run):
    return open_run(run, print)[0].meta


def test_played_music_of_several_is_learnt_in_parts_with_drums(ok, command):
    """Without an option: nothing of programs, drums or names is left out."""
    told = meta("b")["tokenizer"]
    assert told["name"] == "performance"
    assert told["parts"] == [["Flute", 73, False], ["Bass", 32, False], ["Kit", 0, True]]
    lines = command("train", "band", *SIZES, "--max-steps", 1, "--run", "again").out
    (lost,) = [line for line in lines if line.startswith("left out")]
    assert not re.search("program|drum|track|name|velocit|pedal", lost)
    title, *_ = ok("corpus", "band", "--representation", "performance")
    assert title == "band, performances of 3 parts"


def composed(capsys, *words, backend="numpy"):
    """The first piece that the run composes, and its file."""
    words = [str(word) for word in words]
    assert sample.main(["b", *words, "--quiet", "--backend", backend, "--threads", "1"]) == 0
    path = capsys.readouterr().out.splitlines()[0]
    return read(path), mido.MidiFile(path)


def test_what_is_composed_has_its_players_and_their_dynamics(capsys):
    """By a seed the same from NumPy and Numba; drums on channel 10, the others on none of it."""
    asked = ("--seconds", 20, "--temperature", 2, "--seed", 3)
    piece, midi = composed(capsys, *asked)
    assert [*map(tuple, piece.parts)] == [("Flute", 73), ("Bass", 32), ("Kit", 0)]
    assert piece.drums == (False, False, True)
    for track in midi.tracks[1:]:
        channels = {message.channel for message in track if not message.is_meta}
        assert (channels == {DRUMS}) == (track.name == "Kit")
    loud = [{*own.tolist()} for own in piece.velocities]
    assert all(velocity % BIN == BIN // 2 for own in loud for velocity in own)
    assert len(loud[0]) > 5 and 99 // BIN * BIN + BIN // 2 in loud[2]
    compiled, _ = composed(capsys, *asked, backend="numba")
    assert compiled.notes.tolist() == piece.notes.tolist()


def test_a_program_is_given_to_one_part(capsys, fails):
    asked = ("--seconds", 8, "--temperature", 2, "--seed", 3)
    piece, _ = composed(capsys, *asked, "--program", "Flute=40")
    assert dict(piece.parts) == {"Flute": 40, "Bass": 32, "Kit": 0}
    assert "there is no such part" in fails("sample", "b", *asked, "--program", "Horn=60")


def test_a_file_is_continued_part_by_part(capsys, command):
    path = "band/3.mid"
    primer = ("--primer", path, "--primer-start", "--primer-length", 90, "--seconds", 2)
    done = command("sample", "b", *primer, "--quiet", "--out", "x.mid")
    assert done.status == 0
    theirs, ours = read(path), read("x.mid")
    assert players_of(ours) == players_of(theirs)
    first, kept = int(theirs.notes["start"].min()), 0
    for was, now in zip(theirs.tracks, ours.tracks, strict=True):
        on = (was[was[:, 1] == 1], now[now[:, 1] == 1])
        early = on[0][:, 0] - first < 1500
        n = int(early.sum())
        assert on[1][:n, 2].tolist() == on[0][:n, 2].tolist()
        assert np.abs(on[1][:n, 0] - (on[0][:n, 0] - first)).max(initial=0) <= STEP // 2
        kept += n
    bins = [[v.tolist() for v in (a[:2] // BIN, b[:2] // BIN)] for a, b in zip(
        theirs.velocities, ours.velocities, strict=True)]  # fmt: skip
    assert kept > 6 and all(was == now for was, now in bins)


def test_parts_can_be_merged_as_before(command):
    words = ("train", "band", *SIZES, "--no-parts", "--max-steps", 1, "--run", "m")
    lines = command(*words).out
    (lost,) = [line for line in lines if line.startswith("left out")]
    assert "16 tracks (merged)" in lost and "2 programs" in lost and "72 drum hits" in lost
    assert meta("m")["tokenizer"] == {"name": "performance", "layout": "merge"}
    piece = read(command("sample", "m", "--seconds", 4, "--quiet").out[0])
    assert len(piece.tracks) == 1 and [*piece.parts] == [Part()]


def test_a_run_in_parts_goes_on_and_is_judged(command):
    assert command("train", "band", *SIZES, "--max-steps", 3, "--run", "r").status == 0
    lines = command("train", "--resume", "--run", "r", "--max-steps", 5).out
    assert any("resumed at" in line for line in lines)
    assert command("evaluate", "b", "--json", "x.json").status == 0
    ours = json.loads(Path("x.json").read_text())[0]
    assert ours["seconds"] > 10 and ours["nats_per_second"] > 0


def test_a_player_takes_over_from_the_likest(command):
    """What is begun with knows the band in another order."""
    Path("other").mkdir(exist_ok=True)
    for seed in range(8):
        content = played_file(seed, 40, players=(BAND[1], BAND[0]))[0]
        Path(f"other/{seed}.mid").write_bytes(content)
    done = command("train", "other", "--from", "b", "--max-steps", 1, "--run", "o", "--lr", 1e-30)
    assert done.status == 0
    before = read_checkpoint(Path("runs/b/checkpoints/best").resolve())
    after = read_checkpoint(Path("runs/o/checkpoints/latest").resolve())
    assert [name for name, *_ in after.meta["tokenizer"]["parts"]] == ["Bass", "Flute"]
    for word, there in (("part-1", "part-2"), ("part-2", "part-1"), ("shift-9", "shift-9")):
        rows = (after.parameters["embedding.W"][after.vocabulary.id(word)],
                before.parameters["embedding.W"][before.vocabulary.id(there)])  # fmt: skip
        np.testing.assert_array_equal(*rows)
