"""Parts on the command line: learnt, composed, written and continued, drums among them."""

import io
import json
from pathlib import Path

import mido
import numpy as np
import pytest
from small import SMALL, track_of

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import DRUMS, Part, Piece
from lstm_music.runs.opened import open_run

HOW = (*SMALL, "--representation", "event")
BAND = (Part("Flute", 73), Part("Bass", 32), Part("Kit", 0))
DRUM = (False, False, True)


def band(seed):
    """A piece of three players, of whom the last drums."""
    rng = np.random.default_rng(seed)
    tracks = [
        track_of([(480 * k, 480 * k + 360, low + int(rng.integers(5))) for k in range(16)])
        for low in (72, 40, 36)
    ]
    return Piece("", tracks, parts=BAND, drums=DRUM)


@pytest.fixture
def run(ok, folder):
    (folder / "band").mkdir()
    for seed in range(8):
        write_midi(band(seed), folder / "band" / f"{seed}.mid")
    lines = ok("train", "band", *HOW, "--max-steps", 60, "--run", "b")
    assert not any(line.startswith("left out") for line in lines)
    return folder / "runs" / "b"


def test_an_ensemble_is_composed_with_its_players(ok, run):
    roster = open_run("b", print)[0].meta["tokenizer"]["parts"]
    assert roster == [["Flute", 73, False], ["Bass", 32, False], ["Kit", 0, True]]
    (path,) = ok("sample", "b", "--bars", 6, "--seed", 1, "--quiet")
    piece = read_midi(Path(path), "", drums=True)
    told = dict(zip(piece.parts, piece.drums, strict=True))
    assert told.items() <= dict(zip(BAND, DRUM, strict=True)).items() and len(told) > 1
    for track in mido.MidiFile(path).tracks[1:]:
        channels = {message.channel for message in track if not message.is_meta}
        assert (channels == {DRUMS}) == (track.name == "Kit")
    alone = ok("sample", "b", "--bars", 6, "--seed", 1, "--quiet", "--out", "x.mid")
    assert Path(alone[0]).read_bytes() == Path(path).read_bytes()


def test_the_compiled_sampler_writes_the_same_parts(command, run):
    made = []
    for backend in ("numpy", "numba"):
        words = ("b", "--num", 3, "--bars", 4, "--quiet", "--out", backend)
        from lstm_music.cli import sample

        assert sample.main([*map(str, words), "--backend", backend]) == 0
        made.append([path.read_bytes() for path in sorted(Path(backend).iterdir())])
    assert made[0] == made[1] and len(made[0]) == 3


def test_a_file_is_continued_part_by_part(ok, run):
    content = io.BytesIO()
    write_midi(band(99), content)
    Path("mine.mid").write_bytes(content.getvalue())
    ok("sample", "b", "--primer", "mine.mid", "--primer-start", "--bars", 2, "--out", "y.mid")
    theirs, ours = read_midi(Path("mine.mid"), "", True), read_midi(Path("y.mid"), "", True)
    by_name = {part.name: track for part, track in zip(ours.parts, ours.tracks, strict=True)}
    for part, track in zip(theirs.parts, theirs.tracks, strict=True):
        assert by_name[part.name][:4].tolist() == track[:4].tolist()


def test_parts_can_be_merged_and_drums_left_out(ok, command, run):
    words = ("train", "band", *HOW, "--no-parts", "--max-steps", 1, "--run", "m")
    lines = command(*words).out  # two voices of one pitch are one: mended
    assert any("16 tracks (merged)" in line and "128 drum hits" in line for line in lines)
    assert "parts" not in open_run("m", print)[0].meta["tokenizer"]
    command("train", "band", *HOW, "--no-drums", "--max-steps", 1, "--run", "n")
    players = open_run("n", print)[0].meta["tokenizer"]["parts"]
    assert [name for name, *_ in players] == ["Flute", "Bass"]
    title, *_ = ok("corpus", "band", "--representation", "event", "--json", "x.json")
    assert title == "band, events of 3 parts"
    assert json.loads(Path("x.json").read_text())["pieces"]


def test_a_run_in_parts_goes_on_and_is_judged(ok, run):
    assert any("resumed at" in line for line in ok("train", "--resume", "--max-steps", 62))
    lines = ok("evaluate", "b", "--split", "valid")
    assert any("runs/b" in line or line.startswith("b ") for line in lines)


def test_parts_are_for_events(fails):
    words = ("train", "music", *SMALL, "--representation", "message", "--parts")
    assert fails(*words).startswith("--parts is for events")
