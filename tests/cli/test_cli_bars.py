"""Bars in the meter of the piece: what a primer says, what events say, else 4/4; and silence."""

import re
from pathlib import Path

import mido
import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Piece
from lstm_music.midi.timing import bars_of
from lstm_music.report.page import PRIMER_LENGTH
from lstm_music.runs.opened import model_of, open_run
from lstm_music.sampling import sampler
from lstm_music.sampling.composer import primers_of
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options

BAR, THREE, FIVE = 1920, 1440, 2400
KINDS = {
    "flatten": ("--tracks", "flatten"),
    "merge": ("--tracks", "merge"),
    "event": ("--representation", "event", "--no-parts"),
    "chord": ("--representation", "chord"),
    "note": ("--representation", "note", "--head", "sigmoid"),
}


@pytest.fixture(params=KINDS)
def kind(request, train_small, folder):
    """A run `r` of each representation, on music in 5/4, some with an upbeat; returns which."""
    for seed in range(8):
        meter = np.array([[0, 480], [480, FIVE]] if seed % 2 else [[0, FIVE]], np.int32)
        write_midi(Piece("", piece_of(seed, 2, 30).tracks, meter=meter), f"music/{seed}.mid")
    train_small("--max-steps", 20, *KINDS[request.param], "--run", "r", "--quiet")
    return request.param


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    return request.param


def signatures(path):
    """The ticks at which the meter of a MIDI file changes, and to what."""
    now, found = 0, []
    for message in mido.MidiFile(path).tracks[0]:
        now += message.time
        if message.type == "time_signature":
            found.append((now, message.numerator, message.denominator))
    return found


def end_of(path):
    return max(int(track[-1, 0]) for track in read_midi(Path(path), "").tracks)


def composed(lines):
    """The files that lines name, and how long each is said to be."""
    found = [re.match(r"(\S+)  \(.*? s, (\d+) ", line) for line in lines]
    return [(match[1], int(match[2])) for match in found]


def in_five(notes=30):
    """A primer of three bars of 5/4, the first of which is an upbeat of a quarter note."""
    track = track_of([(240 * n, 240 * n + 240, 60 + 2 * (n % 3)) for n in range(notes)])
    write_midi(Piece("", [track], meter=np.array([[0, 480], [480, FIVE]], np.int32)), "five.mid")
    return int(track[-1, 0])


def test_a_primer_in_five_four_is_followed_by_bars_of_five_four(kind, command, backend):
    end = in_five(22)  # in the third bar, the last note to be continued ends
    line = 480 + -(-(end - 480) // FIVE) * FIVE
    given = ("--primer", "five.mid", "--primer-length", 5000, "--backend", backend)
    for bars in (1, 3):
        done = command("sample", "r", *given, "--bars", bars, "--num", 3, "--out", "here")
        assert done.status == 0
        made = composed(done.out)
        for path, size in made:
            assert signatures(path)[:2] == [(0, 1, 4), (480, 5, 4)]
            assert size > 0
            # Events complete the bar of the upbeat at the end.
            stop = line + bars * FIVE - 480 * (kind == "event")
            assert end < end_of(path) <= stop
            if kind in ("chord", "note"):
                assert (end + size * 240, kind) == (stop, kind)
    # The longest of some ends within the last bar.
    assert max(end_of(path) for path, _ in made) > stop - 2 * FIVE


def test_a_primer_longer_than_the_limit_is_followed_by_music(kind, command, backend, monkeypatch):
    """The smallest limits: of 8 tokens where none is asked for, of 7 tokens, of less than a bar."""
    monkeypatch.setattr(sampler, "WHOLE_PIECE", 8)
    in_five(22)
    given = ("--primer", "five.mid", "--primer-length", 5000, "--backend", backend, "--num", 3)
    for words, sizes in (
        ([], range(1, 161)),
        (["--length", 7], [7]),
        (["--seconds", 1], range(1, 99)),
    ):
        done = command("sample", "r", *given, *words, "--out", "here")
        assert done.status == 0
        assert all(size in sizes for _, size in composed(done.out))
        seeds = [Path(path).read_bytes() for path, _ in composed(done.out)]
        assert len({*seeds}) > 1 or words
    if kind not in ("chord", "note"):  # where no time that the model knows fits, more than asked
        (line,) = command("sample", "r", *given[:-2], "--seconds", 0.1, "--out", "x.mid").out
        assert int(re.search(r"22 notes of five.mid and (\d+) new", line)[1]) > 0


def test_a_report_composes_more_than_an_opening(kind):
    """However little room its page leaves."""
    checkpoint = open_run("r", print)[0]
    composer = composer_of(checkpoint, model_of(checkpoint, "numpy"))
    options = composer.fitted(Options(limit=2 * BAR))
    openings = primers_of(composer, options, 3, PRIMER_LENGTH)
    assert all(0 < composer.ticks(opening.music) <= BAR for opening in openings)


def test_meter_that_changes_behind_the_primer_is_not_known_yet(kind, command):
    track = track_of([(480 * n, 480 * n + 480, 60) for n in range(40)])
    meter = np.array([[0, THREE], [6 * THREE, FIVE]], np.int32)
    write_midi(Piece("", [track], meter=meter), "waltz.mid")
    for length, found in ((8 if kind in ("chord", "note") else 12, (3, 4)), (0, (4, 4))):
        words = ("--primer", "waltz.mid", "--primer-start", "--primer-length", length, "--bars", 2)
        assert command("sample", "r", *words, "--quiet", "--out", "w.mid").status == 0
        if kind != "event":
            assert signatures("w.mid") == [(0, *found)]


def test_without_a_primer_only_events_know_their_meter(kind, ok, backend):
    words = ("--primer-length", 0, "--bars", 4, "--num", 6, "--temperature", 2, "--seed", 1)
    made = composed(ok("sample", "r", *words, "--out", "here", "--backend", backend))
    if kind != "event":
        assert all(signatures(path) == [(0, 4, 4)] for path, _ in made)
        assert all(end_of(path) <= 4 * BAR for path, _ in made)
        return
    for path, _ in made:
        piece = read_midi(Path(path), "")
        starts, lengths = bars_of(piece.meter, end_of(path) - 1)
        upbeats = np.count_nonzero(lengths[:-1] < lengths[1:])  # each completes the bar before
        assert 3 <= len(starts) - upbeats <= 4
    assert max(end_of(path) for path, _ in made) > 4 * BAR


def first_note(path):
    return min(int(track[0, 0]) for track in read_midi(Path(path), "").tracks)


def test_silence_before_a_primer_is_left_out(kind, command):
    """85 s of it at the usual tempo; the first note keeps its place in the bar."""
    late, notes = 32 * BAR - 240, [(240 * n, 240 * n + 240, 60 + 2 * (n % 3)) for n in range(9)]
    write_midi(Piece("", [track_of([(late + a, late + b, p) for a, b, p in notes])]), "late.mid")
    write_midi(Piece("", [track_of([(1680 + a, 1680 + b, p) for a, b, p in notes])]), "soon.mid")
    made = {}
    for name in ("late.mid", "soon.mid"):
        words = ("--primer", name, "--bars", 2, "--out", "x.mid")
        done = command("sample", "r", *words)
        assert done.status == 0
        warned = f"warning: {name} begins with 31 bars of silence: left out"
        assert (warned in done.err) == (name == "late.mid")
        made[name] = Path("x.mid").read_bytes(), done.out[0].replace(name, "")
    assert first_note("x.mid") == 1680 or kind not in ("chord", "note")  # others know few times
    assert made["late.mid"] == made["soon.mid"]


@pytest.mark.parametrize("how", KINDS)
def test_silence_that_a_model_begins_with_is_left_out(how, command, train_small):
    for seed in range(8):
        notes = [(9600 + 480 * n, 9840 + 480 * n, 60 + (n + seed) % 3) for n in range(9)]
        write_midi(Piece("", [track_of(notes)]), f"music/{seed}.mid")
    train_small("--max-steps", 100, *KINDS[how], "--lr", 0.03, "--run", "s", "--quiet")
    for n, words in enumerate((["--primer-length", 0], [], ["--primer-length", 60])):
        done = command("sample", "s", *words, "--length", 80, "--num", 3, "--out", f"here-{n}")
        assert done.status == 0 and not done.err
        for line in done.out:
            assert ", 0 tracks" in line or first_note(line.split("  (")[0]) < BAR
    if how in ("merge", "chord", "note"):  # of flattened tracks another may begin sooner
        assert line.endswith("; silent at first, 5 bars left out)")
