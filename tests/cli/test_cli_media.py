"""What bin/sample writes beside a MIDI file, and how it opens it."""

import os
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread
from small import COMPUTE, track_of

from lstm_music.cli import opening, sample
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import Part, Piece
from lstm_music.rendering import audio, musicxml, score

FREQUENCY = ("--baseline", "chord-frequency", "--corpus", "music", "--bars", 2)
needs_score = pytest.mark.skipif(
    not score.is_available(), reason="the extra 'score' (music21, verovio) is not installed"
)
posix = pytest.mark.skipif(os.name != "posix", reason="xdg-open and open are of POSIX systems")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Put a program in xdg-open's place; return a function that lists what it was given.

    It refuses files whose names hold `refuse`.
    """
    log = tmp_path / "opened"
    program = tmp_path / "programs" / opening.opener()
    program.parent.mkdir()
    text = f'#!/bin/sh\necho "$1" >>"{log}"\ncase $1 in *refuse*) exit 3 ;; esac\n'
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_a_wav_file_stands_beside_each_midi_file(ok):
    lines = ok("sample", *FREQUENCY, "--num", 2, "--wav")
    assert [line.split("  (")[0] for line in lines] == [
        f"samples/sample-000{n}.{kind}" for n in (1, 2) for kind in ("mid", "wav")
    ]
    assert "LUFS" in lines[1]
    with wave.open("samples/sample-0001.wav") as file:
        assert file.getnframes() / file.getframerate() > 5  # 2 bars at 90 quarter notes a minute


def test_the_sound_is_of_the_program_asked_for(ok):
    sounds = []
    for program in (0, 19):
        ok("sample", *FREQUENCY, "--wav", "--quiet", "--program", program, "--out", "one.mid")
        sounds.append(Path("one.wav").read_bytes())
    assert sounds[0] != sounds[1]


def test_a_piano_roll_stands_beside_the_midi_file(ok):
    assert ok("sample", *FREQUENCY, "--png", "--out", "one.mid", "--quiet") == [
        "one.mid",
        "one.png",
    ]
    assert imread("one.png").std() > 0.02


@needs_score
def test_a_score_of_so_many_pages_stands_beside_the_midi_file(ok):
    words = (*FREQUENCY[:-1], 200, "--svg")
    for pages, options in ((2, ()), (1, ("--pages", 1))):
        lines = ok("sample", *words, *options, "--out", "one.mid")
        assert lines[1] == f"one.svg  (score, {pages} page{'s' * (pages > 1)})"
        root = ElementTree.parse("one.svg").getroot()
        assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == pages


def test_what_cannot_be_made_keeps_nothing_else_from_being_written(command, monkeypatch):
    monkeypatch.setattr(score, "find_spec", lambda name: None)
    done = command("sample", *FREQUENCY, "--num", 2, "--wav", "--png", "--svg", "--quiet")
    assert done.status == 2
    assert done.out == [
        f"samples/sample-000{n}.{kind}" for n in (1, 2) for kind in ("mid", "wav", "png")
    ]
    assert all(Path(line).stat().st_size for line in done.out)
    (line,) = done.err
    assert line.startswith("error: a score needs music21 and verovio: ")
    assert line.endswith("pip install music21 verovio")

    def refuse(*_):
        raise UserError("nothing here can make sound")

    monkeypatch.setattr(audio, "wav_bytes", refuse)
    done = command("sample", *FREQUENCY, "--wav", "--png", "--svg", "--out", "new.mid")
    assert done.status == 2 and Path("new.png").exists()
    assert done.err == [f"error: nothing here can make sound; {line.removeprefix('error: ')}"]


def test_a_disk_that_refuses_leaves_what_was_there(ok, fails, command):
    Path("one.wav").mkdir()
    done = command("sample", *FREQUENCY, "--wav", "--out", "one.mid")
    assert done.status == 2 and "can't write 'one.wav'" in done.err[0]
    assert Path("one.mid").exists() and not list(Path().glob(".one*"))


@posix
def test_open_shows_what_the_first_piece_was_made_into(ok, opened):
    ok("sample", *FREQUENCY, "--open", "--num", 2)
    assert opened() == ["samples/sample-0001.mid"]
    ok("sample", *FREQUENCY, "--open", "--wav", "--png", "--out", "two.mid")
    assert opened()[1:] == ["two.wav", "two.png"]


@posix
def test_a_file_that_no_program_opens_is_named(command, opened):
    done = command("sample", *FREQUENCY, "--open", "--out", "refuse.mid")
    assert done.status == 2
    assert done.err == [f"error: {opening.opener()} knows no program for 'refuse.mid': "
                        "open it yourself"]  # fmt: skip
    assert Path("refuse.mid").exists()


@posix
def test_without_an_opener_nothing_is_composed(fails, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "leave --open out" in fails("sample", *FREQUENCY, "--open")
    assert not Path("samples").exists()


def test_a_plain_sample_loads_nothing_that_draws_or_plays():
    """Half a second of imports for what wasn't asked for."""
    heavy = ("matplotlib", "music21", "verovio", "sklearn", "pyloudnorm", "scipy.signal")
    code = (
        "import sys; from lstm_music.cli.sample import main; main(sys.argv[1:]); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    words = ("--length", "4", "--quiet", *COMPUTE[:2])
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# Parts

CHOIR = Piece(
    "choir",
    [track_of([(480 * n, 480 * n + 480, low + n) for n in range(4)]) for low in (72, 64, 57, 45)]
    + [track_of([(0, 120, 36)])],
    drums=(False, False, False, False, True),
    parts=tuple(Part(name, 52) for name in ("Soprano", "Alto", "Tenor", "Bass", "Kit")),
)


@pytest.fixture
def choir(monkeypatch):
    """Let what is composed be a choir with drums, or the pieces given in turn."""

    def compose(*pieces):
        waiting = iter(pieces)
        made = sample.finished

        def finish(*what):
            done = made(*what)
            return done._replace(piece=replace(next(waiting, pieces[-1]), tempo=done.piece.tempo))

        monkeypatch.setattr(sample, "finished", finish)

    return compose


def programs_in(path):
    return [part.program for part in read_midi(Path(path), "", drums=True).parts]


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        ((), [52, 52, 52, 52, 0]),
        (("--program", "19"), [19, 19, 19, 19, 0]),
        (("--program", "soPRano=73", "--program", "4=32"), [73, 52, 52, 32, 0]),
        (("--program", "7", "--program", "Bass=32"), [7, 7, 7, 32, 0]),
        (("--program", "Bass=32", "--program", "7"), [7, 7, 7, 7, 0]),
    ],
)
def test_programs_are_of_all_parts_or_of_one(ok, choir, words, programs):
    choir(CHOIR)
    ok("sample", *FREQUENCY, *words, "--out", "one.mid")
    assert programs_in("one.mid") == programs


def test_a_part_that_only_some_pieces_have_is_theirs(ok, choir):
    alone = replace(CHOIR, tracks=CHOIR.tracks[:1], parts=CHOIR.parts[:1], drums=())
    choir(alone, CHOIR, Piece("silent", []))
    ok("sample", *FREQUENCY, "--num", 3, "--program", "Tenor=71", "--out", "some")
    assert programs_in("some/sample-0001.mid") == [52]
    assert programs_in("some/sample-0002.mid") == [52, 52, 71, 52, 0]


@pytest.mark.parametrize("part", ["Sopran", "Kit", "5", "0", "6", "4.0"])
def test_a_part_that_no_piece_has_is_refused_before_anything_is_written(fails, choir, part):
    choir(CHOIR)
    assert fails("sample", *FREQUENCY, "--program", f"{part}=73", "--out", "one.mid") == (
        f"--program {part}=73: there is no such part: name one of "
        "1 Soprano, 2 Alto, 3 Tenor, 4 Bass"
    )
    assert not Path("one.mid").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [("=7", "'=7' names no part"), ("Alto=128", "128"), ("Alto=", "''"), ("Alto", "'Alto'")],
)
def test_programs_that_make_no_sense_are_refused(fails, words, says):
    assert says in fails("sample", *FREQUENCY, "--program", words)


def test_drums_alone_have_no_part_to_play(fails, choir):
    choir(replace(CHOIR, tracks=CHOIR.tracks[4:], parts=CHOIR.parts[4:], drums=(True,)))
    assert "only drums" in fails("sample", *FREQUENCY, "--program", "Kit=7")


@needs_score
def test_musicxml_stands_beside_the_midi_file(ok, choir, command):
    from music21 import converter

    choir(CHOIR)
    words = ("--program", "Alto=41", "--tempo", 66, "--musicxml")
    lines = ok("sample", *FREQUENCY, *words, "--out", "one.mid")
    assert lines[1] == "one.musicxml  (MusicXML)"
    read = converter.parse("one.musicxml")
    assert [part.partName for part in read.parts] == ["Soprano", "Alto", "Tenor", "Bass", "Kit"]
    programs = [part.getInstrument().midiProgram for part in read.parts][:4]
    assert programs == programs_in("one.mid")[:4] == [52, 41, 52, 52]
    (mark,) = read.recurse().getElementsByClass("MetronomeMark")
    assert mark.number == 66
    assert len(read.parts[0].flatten().notes) == 4
    choir(Piece("silent", []))
    done = command("sample", *FREQUENCY, "--musicxml", "--out", "two.mid")
    assert done.status == 0 and not Path("two.musicxml").exists()
    assert done.err == ["warning: two.mid is silent: there is no score to write"]


def test_without_music21_all_else_is_written(command, choir, monkeypatch):
    monkeypatch.setattr(musicxml, "find_spec", lambda name: None)
    choir(CHOIR)
    done = command("sample", *FREQUENCY, "--musicxml", "--png", "--out", "one.mid")
    assert done.status == 2 and Path("one.png").exists()
    (line,) = done.err
    assert line.startswith("error: MusicXML needs music21: ") and line.endswith("install music21")
