"""bin/evaluate --chorales: runs in parts, folders of MIDI files, and what can't be judged."""

import json
from pathlib import Path

import pytest
from small import SMALL, piece_of

from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece

CHOIR = tuple(Part(name, 52) for name in ("Soprano", "Alto", "Tenor", "Bass"))


@pytest.fixture
def choir(folder):
    """A folder of pieces for a choir."""
    (folder / "choir").mkdir()
    for seed in range(8):
        tracks = piece_of(seed, tracks=4, notes=16).tracks
        write_midi(Piece("", tracks, parts=CHOIR), folder / "choir" / f"{seed}.mid")
    return folder / "choir"


def test_a_run_in_parts_beside_its_corpus_and_files(ok, command, choir):
    ok("train", "choir", *SMALL, "--representation", "event", "--max-steps", 90, "--run", "c")
    how = ("--chorales", "c", "choir", "choir/3.mid", "--num", 3, "--bars", 3, "--json", "x.json")
    lines = ok("evaluate", *how)
    names = [line.split("  ")[0] for line in lines[1::2]]
    assert names[:2] == ["choir test, by name", "choir test, by pitch"]
    assert names[2].startswith("c, by ") and names[3:] == ["choir, by name", "3.mid, by name"]
    assert all(line.startswith("  95 % interval") for line in lines[2::2])
    told = json.loads(Path("x.json").read_text())
    rows = told["sources"]
    assert [sum(row["pieces"].values()) for row in rows] == [1, 1, 3, 8, 1]
    assert rows[1]["faults"]["crossed"]["value"] is None
    assert rows[3]["faults"]["range"]["value"] > 0 and rows[3]["chords"] > 50
    assert ok("evaluate", *how) == lines


def test_merged_music_is_told_by_pitch_and_bad_files_are_named(ok, command, choir, folder):
    ok("train", "music", *SMALL, "--max-steps", 9, "--run", "m")
    lines = ok("evaluate", "--chorales", "m", "--num", 2, "--bars", 2)
    assert len(lines) == 5 and all(", by pitch" in line for line in lines[1::2])
    (choir / "9.mid").write_bytes(b"MThd")
    done = command("evaluate", "--chorales", "choir", "--corpus", "choir", "--split", "train")
    assert done.status == 0 and done.out[1].startswith("choir train, by name")
    (line,) = done.err
    assert line.startswith("warning: '9.mid' ") and line.endswith(": left out")


def test_what_cannot_be_judged(fails, folder):
    (folder / "bad.mid").write_bytes(b"MThd")
    music = ("--corpus", "music")
    assert "no run or checkpoint 'nothing'" in fails("evaluate", "--chorales", "nothing", *music)
    assert fails("evaluate", "--chorales", "no.mid", *music).endswith("'no.mid': check the path")
    assert "--bar" in fails("evaluate", "--chorales", "music", "--barss", 3)
