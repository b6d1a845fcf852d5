"""--drums: what is trained on drums is written, primed and drawn as drums."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import mido
import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.cli import listen
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.listening import making
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import DRUMS, Piece, notes_of
from lstm_music.runs.checkpoint import read_run

KINDS = {
    "flatten": ("--tracks", "flatten"),
    "merge": ("--tracks", "merge"),
    "event": ("--representation", "event", "--no-parts"),
    "chord": ("--representation", "chord"),
    "note": ("--representation", "note", "--head", "sigmoid"),
}
KIT = (36, 42, 38, 42)


def beat(seed=0, notes=40):
    """A track of drums."""
    return track_of([(240 * n, 240 * n + 120, KIT[(n + seed) % 4]) for n in range(notes)])


def write_beats(folder, zero=False):
    """A folder of files with drums alone; zero: hits that end as they begin."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for seed in range(6):
        track = beat(seed)
        if zero:
            track[1::2, 0] = track[0::2, 0]
        write_midi(Piece("", [track], drums=(True,)), folder / f"{seed}.mid")


def write_bands(folder):
    """A folder of files with a melody, and drums as the first or the second track."""
    for seed in range(6):
        tracks = [piece_of(seed, 1, 30).tracks[0], beat(seed)]
        first = seed % 2
        write_midi(
            Piece("", tracks[::-1] if first else tracks, drums=(bool(first), not first)),
            folder / f"{seed}.mid",
        )


def channels(path):
    """The channels of the notes of each track of a MIDI file, and of its programs."""
    tracks = mido.MidiFile(path).tracks[1:]
    notes = [{m.channel for m in track if m.type == "note_on"} for track in tracks]
    programs = {m.channel for track in tracks for m in track if m.type == "program_change"}
    return notes, programs


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def train(folder, ok):
    def call(kind, *words):
        sizes = ("--hidden", 8, "--embedding", 8, "--batch", 3, "--seq", 20, "--max-steps", 30)
        return ok("train", "music", *sizes, *KINDS[kind], "--run", "d", *words)

    return call


@pytest.mark.slow(keep=4)
@pytest.mark.parametrize("zero", [False, True])
def test_a_model_of_drums_alone_writes_drums(kind, train, ok, folder, zero):
    write_beats(folder / "music", zero)
    with_warning = ("--quiet",) if zero else ()  # hits were mended
    train(kind, "--drums", *with_warning)
    assert read_run(Path("runs/d"), print)[0].meta["corpus"]["drums"] == list(range(128))
    made = ok("sample", "d", "--num", 3, "--program", 19, "--quiet", "--temperature", 2)
    for path in made:
        notes, programs = channels(path)
        assert all(found == {DRUMS} for found in notes) and not programs
    assert any(channels(path)[0] for path in made)


def test_primers_of_drums_are_read_where_the_model_was_trained_with_them(kind, train, ok, fails):
    write_midi(Piece("", [beat()], drums=(True,)), "beat.mid")
    train(kind, "--quiet")
    refused = fails("sample", "d", "--primer", "beat.mid")
    assert "has no notes (drum notes left out: 40, which bin/train --drums keeps)" in refused
    shutil.rmtree("runs/d")
    write_beats(Path("music"))
    train(kind, "--quiet", "--drums")
    (line,) = ok("sample", "d", "--primer", "beat.mid", "--primer-start", "--length", 30)
    assert "primed with the first" in line
    path = line.split("  (")[0]
    opening = notes_of(read_midi(Path(path), "", drums=True).tracks[0])
    assert [row[::2].tolist() for row in opening[:8]] == [[240 * n, KIT[n % 4]] for n in range(8)]
    assert channels(path)[0] == [{DRUMS}]


@pytest.mark.slow(keep=2)
def test_flattened_tracks_are_drums_by_their_pitches_and_merged_ones_are_not(kind, folder, command):
    write_bands(folder / "music")
    sizes = (
        "--hidden",
        16,
        "--embedding",
        16,
        "--batch",
        3,
        "--seq",
        20,
        "--lr",
        0.02,
        "--average",
        0,
    )
    done = command("train", "music", *sizes, *KINDS[kind], "--run", "d", "--drums",
                   "--max-steps", 300)  # fmt: skip
    assert done.status == 0
    said = "warning: drums and other notes share one track"
    assert any(line.startswith(said) for line in done.err) == (kind != "flatten")
    pitches = read_run(Path("runs/d"), print)[0].meta["corpus"]["drums"]
    assert pitches == sorted({*KIT})
    words = ("--num", 6, "--quiet", "--primer-length", 30, "--length", 200, "--out", "here")
    found = [channels(path) for path in command("sample", "d", *words).out]
    flat = [next(iter(some)) for notes, _ in found for some in notes]
    if kind != "flatten":
        assert DRUMS not in flat
        return
    assert {DRUMS} < {*flat} <= {DRUMS, 0, 1}
    for path in sorted(Path("here").iterdir()):
        piece = read_midi(path, "", drums=True)
        for track, drums in zip(piece.tracks, piece.drums, strict=True):
            assert (np.isin(track[:, 2], KIT).mean() > 0.5) == drums


def test_hits_of_no_length_make_a_corpus(kind, ok, fails):
    write_beats(Path("music"), zero=True)
    asked = KINDS[kind][:2] if kind == "note" else KINDS[kind]
    assert "--drums keeps" in fails("corpus", "music", *asked)
    lines = ok("corpus", "music", "--drums", *asked, "--json", "x.json")
    assert "mended: drum hits of length zero, 240 in 6 of the files" in lines
    found = json.loads(Path("x.json").read_text())
    assert found["pieces"] == 6 and found["skipped"] == []
    corpus = load_corpus("music", reading=Reading(drums=True))
    assert notes_of(corpus.decoded(0).tracks[0])[0].tolist()[:2] == [0, 120]  # a sixteenth


def test_figures_and_clips_of_drums(train, command, ok, folder, monkeypatch):
    """Of files, of a run, and of a corpus beside it: nothing is left out or refused."""
    write_beats(folder / "music")
    train("note", "--quiet", "--drums")
    shutil.copytree(folder / "music", folder / "beats")
    assert command("figures", "beats/0.mid", "--out", "one").status == 0
    assert Path("one/0.png").is_file()
    done = command("figures", "d", "--bars", 2, "--out", "all")
    left_out = [line for line in done.err if "is left out" in line]
    assert all(line.startswith("warning: embedding.png") for line in left_out)  # three pitches
    assert Path("all/chord-frequency.png").is_file()
    shutil.make_archive("beats", "zip", "beats")
    played = []

    def heard(system, piece, tempo):
        assert tempo == 90  # that of the files, which the checkpoint says
        played.append(piece)
        return SimpleNamespace(system=system, name=piece.name)

    monkeypatch.setattr(making, "sound_of_piece", heard)
    wanted = [listen.named("d"), listen.named("d")._replace(baseline="chord-frequency")]
    wanted.append(listen.named("beats.zip")._replace(control=True))
    monkeypatch.setattr(making.clips, "alike", lambda sounds, *_: ([b""] * len(sounds), 1.0, 0.0))
    making.clips_of(wanted, making.Asked(2, 4.0, 0, "numpy", print), lambda *_: None)
    assert len(played) > 4
    assert all(piece.drums and all(piece.drums) for piece in played)
    assert making.sound_of_file("beat", folder / "beats" / "0.mid").system == "beat"
