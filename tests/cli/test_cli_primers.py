"""Primers and tempo: what of a file is gone on with, what is the file's and what is new."""

import json
import re
from pathlib import Path

import mido
import numpy as np
import pytest
from small import track_of

from lstm_music.cli import sample
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.runs.checkpoint import read_run, sealed
from lstm_music.sampling import sampler
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END

EIGHTH, THREE, FOUR, FIVE = 240, 1440, 1920, 2400
KINDS = {
    "flatten": ("--tracks", "flatten"),
    "merge": ("--tracks", "merge"),
    "event": ("--representation", "event", "--no-parts"),
    "key": ("--representation", "event", "--common-key", "A", "--no-parts"),
    "chord": ("--representation", "chord"),
    "note": ("--representation", "note", "--head", "sigmoid"),
}
METERS = {
    "3/4": ([[0, THREE]], {}), "5/4": ([[0, FIVE]], {}), "6/8": ([[0, THREE]], {THREE: 8}),
    "4/4": ([[0, FOUR]], {}), "upbeat": ([[0, 480], [480, THREE]], {}),
}  # fmt: skip
TEMPO = 120.0  # of the corpus


def steps(n, first=0):
    """A note an eighth, up and down a scale."""
    pitches = (60, 62, 64, 65, 67, 65, 64, 62)
    rows = [(first + EIGHTH * k, first + EIGHTH * (k + 1), pitches[k % 8]) for k in range(n)]
    return track_of(rows)


def write(name, track, meter="3/4", tempo=(), **told):
    """Write a file of one track, in C."""
    rows, beats = METERS[meter]
    tempo = np.array(tempo or [[0, 500_000]], np.int32).reshape(-1, 2)
    told |= {"meter": np.array(rows, np.int32), "beats": beats, "tempo": tempo}
    write_midi(Piece("", [track], sharps=0, **told), name)


@pytest.fixture(params=KINDS)
def kind(request, folder, train_small):
    """A run `r` of each representation, on scales in all the meters."""
    for seed in range(10):
        write(f"music/{seed}.mid", steps(50 + seed), [*METERS][seed % 5], [[0, 500_000 + seed]])
    for seed in (3, 8):
        Path(f"music/{seed}.mid").unlink(missing_ok=False)
        write(f"music/{seed}.mid", steps(50 + seed), "4/4")
    train_small("--max-steps", 20, *KINDS[request.param], "--run", "r", "--quiet")
    return request.param


@pytest.fixture
def compose(command):
    """Sample from the run; return the line, the piece, and the warnings."""

    def call(*words, run="r"):
        done = command("sample", run, *words, "--out", "x.mid")
        assert done.status == 0
        (line,) = done.out
        return line, read_midi(Path("x.mid"), ""), done.err

    return call


def notes_in(piece):
    """The notes of all tracks, in order."""
    notes = np.concatenate([np.zeros((0, 3), np.int32), *map(notes_of, piece.tracks)])
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def counted(line):
    """How many notes are the primer's, and how many are new."""
    found = re.search(r"\((\d+) notes of \S+ and (\d+) new, ", line)
    return int(found[1]), int(found[2])


def said(kind_of):
    """What a written file says of its tempo or its meter, with the ticks."""
    now, found = 0, []
    for message in mido.MidiFile("x.mid").tracks[0]:
        now += message.time
        if message.type == kind_of == "set_tempo":
            found.append((now, message.tempo))
        elif message.type == kind_of:
            found.append((now, message.numerator, message.denominator))
    return found


# The end of a file ------------------------------------------------------------------------------


def test_the_last_bars_that_fit_are_gone_on_with(kind, compose):
    """Tokens: a note has two, of events three, and a bar one; a frame is an eighth."""
    write("long.mid", steps(60))
    whole = notes_of(steps(60))
    in_a_bar = {"flatten": 12, "merge": 12, "event": 16, "key": 16, "chord": 6, "note": 6}[kind]
    for length in (64, 20, 1):
        words = () if length == 64 else ("--primer-length", length)
        line, piece, err = compose("--primer", "long.mid", "--bars", 2, *words)
        bars = max((length - 4 * (kind in ("event", "key"))) // in_a_bar, 1)
        given, new = counted(line)
        assert (given, err) == (6 * bars, [])
        first = whole[-given:] - np.array([whole[-given, 0], whole[-given, 0], 0])
        assert whole[-given, 0] % THREE == 0
        assert notes_in(piece)[: given - 1].tolist() == first[:-1].tolist()
        assert 0 < new == len(notes_in(piece)) - given
        assert f"primed with the last {line.split('the last ')[1].split()[0]} " in line


def test_the_beginning_is_gone_on_with_where_it_is_asked_for(kind, compose):
    write("long.mid", steps(60))
    words = ("--primer", "long.mid", "--primer-start", "--primer-length", 20, "--bars", 2)
    line, piece, _ = compose(*words)
    assert "primed with the first 20 " in line
    given, _ = counted(line)
    assert notes_in(piece)[: given - 1].tolist() == notes_of(steps(60))[: given - 1].tolist()
    assert given == {"flatten": 10, "merge": 10, "chord": 20, "note": 20}.get(kind, given)


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "chord"], indirect=True)
def test_what_sounds_over_the_cut_begins_there(kind, compose):
    """A note of two bars, and above it eighths: the last bar has half of it.

    Of chords the nearest that a model knows stand in.
    """
    notes = [(0, 2 * THREE, 60)]
    notes += [(EIGHTH * n, EIGHTH * (n + 1), 64 + 3 * (n % 2)) for n in range(12)]
    write("over.mid", track_of(notes))
    _, piece, _ = compose("--primer", "over.mid", "--primer-length", 1, "--bars", 1)
    rows = notes_in(piece).tolist()
    assert [0, 60] in [row[::2] for row in rows]
    assert [[start, pitch] for start, _, pitch in rows][1] == [0, 64]


def test_whole_primers_of_all_kinds_are_followed_by_bars_of_their_own(kind, compose):
    """In any meter, beginning with silence or ending with a rest, shorter than what is asked for.

    The new bars are counted from the bar line after the primer.
    """
    for meter, (rows, beats) in METERS.items():
        bar = rows[-1][1]
        upbeat = rows[0][1] if len(rows) > 1 else 0
        for late in (0, 8 * bar):
            end = upbeat + 2 * bar - 480  # the second bar ends with a rest
            write("a.mid", steps(end // EIGHTH, upbeat * bool(late) + late), meter)
            line, piece, err = compose("--primer", "a.mid", "--primer-length", 500, "--bars", 3)
            silent = [f"warning: a.mid begins with {8 + (upbeat > 0)} bars of silence: left out"]
            assert err == silent * bool(late)
            given, new = counted(line)
            assert given == end // EIGHTH and new > 0
            stop = notes_in(piece)[:, 1].max()
            own = upbeat if not late else 0  # with the silence the upbeat's bar is left out
            assert stop <= own + (2 + 3 + 1) * bar
            number = 8 if beats else 4
            signature = (bar * number // FOUR, number)
            assert signature in [row[1:] for row in said("time_signature")]
            if kind in ("chord", "note"):
                assert (
                    f", {(2 + 3) * bar // EIGHTH - (end - own) // EIGHTH + (own - upbeat > 0)} "
                    in (line)
                    or late
                )


@pytest.mark.parametrize("how", ["--bars", "--seconds", "--length"])
def test_every_limit_counts_what_follows(kind, compose, how):
    """Also after an opening that nobody asked for; a length of nothing but it would be none."""
    for primer in ((), ("--primer", "long.mid")):
        write("long.mid", steps(60))
        line, piece, _ = compose(how, 2, "--seed", 3, *primer)
        given, new = counted(line)
        size = int(re.search(r" s, (\d+) (tokens|frames), ", line)[1])
        assert size == 2 or how != "--length"
        assert new > 0 or how == "--length"
        end = notes_in(piece)[: max(given - 1, 1), 1].max()  # at least
        most = {"--length": None, "--bars": 2 * FIVE + FIVE, "--seconds": 2 * 960}[how]
        if kind != "flatten":  # another track begins at 0
            assert most is None or notes_in(piece)[:, 1].max() <= end + 480 + most


# Pieces that end --------------------------------------------------------------------------------


def lean(monkeypatch, nats):
    """Have the network end pieces, and tracks, by so many nats rather than go on, and copy none."""
    models = sample.model_of

    def leaning(checkpoint, *args):
        model = models(checkpoint, *args)
        ends = [checkpoint.vocabulary.get(word) for word in (PIECE_END, TRACK_END)]
        for id in ends if "head.b" in model.parameters else ():
            if id is not None:
                model.parameters["head.b"][id] += nats
        if model.gate is not None:
            model.parameters["copy.R"] -= 100
        return model

    monkeypatch.setattr(sample, "model_of", leaning)


@pytest.fixture
def ending(monkeypatch):
    """Have the network end pieces wherever it may."""
    lean(monkeypatch, 50)


@pytest.mark.parametrize("length", [("--bars", 3), ("--length", 30), ()])
def test_a_primer_that_ends_its_piece_begins_another(kind, compose, ending, length):
    write("five.mid", steps(15), "5/4")  # a bar and a half
    line, piece, _ = compose("--primer", "five.mid", *length)
    given, new = counted(line)
    if kind == "note":  # which knows no end
        assert "another piece follows" not in line
        return
    assert "primed with the last " in line
    assert "of five.mid, which end there: another piece follows)" in line
    assert given == 15 and new > 0
    assert notes_in(piece)[15:, 0].min() >= 2 * FIVE
    if length == ("--bars", 3):
        assert notes_in(piece)[:, 1].max() <= (2 + 3) * FIVE
    if kind not in ("event", "key"):
        assert said("time_signature") == [(0, 5, 4)]
    compose("--primer", "five.mid", *length, "--without-primer")
    alone = read_midi(Path("x.mid"), "")
    assert notes_in(alone).tolist() == (notes_in(piece)[15:] - [2 * FIVE, 2 * FIVE, 0]).tolist()


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "note"], indirect=True)
def test_the_network_chooses_to_end_as_often_as_it_says(kind, command, monkeypatch):
    """Alone, together and on the compiled loop; frames know no end."""
    lean(monkeypatch, 3)
    write("five.mid", steps(15), "5/4")
    words = ("--primer", "five.mid", "--bars", 2, "--top-p", 1)
    lines = command("sample", "r", *words, "--num", 40, "--out", "many").out
    ended = ["another piece follows" in line for line in lines]
    assert 4 < sum(ended) < 36
    other = command("sample", "r", *words, "--num", 40, "--out", "x", "--backend", "numba").out
    assert ["another piece follows" in line for line in other] == ended
    command("sample", "r", *words, "--num", 3, "--out", "few")
    for n in (1, 2, 3):
        assert Path(f"few/sample-000{n}.mid").read_bytes() == (
            Path(f"many/sample-000{n}.mid").read_bytes()
        )


def test_a_primer_that_goes_on_in_its_file_ends_nothing(kind, compose, ending):
    write("long.mid", steps(80))
    line, _, _ = compose("--primer", "long.mid", "--primer-start", "--bars", 2)
    assert "another piece follows" not in line


# What is written --------------------------------------------------------------------------------


def test_a_primer_may_be_left_out(kind, compose):
    """What is new from the next bar line on, with its own bars, tempo and seconds."""
    write("a.mid", steps(9), "3/4", [[0, 500_000], [480, 400_000]])  # a bar and a half
    words = ("--primer", "a.mid", "--bars", 4, "--seed", 2)
    line, piece, _ = compose(*words)
    given, new = counted(line)
    whole = notes_in(piece)
    line, piece, _ = compose(*words, "--without-primer")
    later = whole[whole[:, 1] > 2 * THREE][:, :] - [2 * THREE, 2 * THREE, 0]
    later = later[(later[:, 0] >= 0) | (np.arange(len(whole))[whole[:, 1] > 2 * THREE] >= given)]
    rows = sorted([max(start, 0), end, pitch] for start, end, pitch in later.tolist())
    shift = rows[0][0] // THREE * THREE  # bars of silence are left out
    assert sorted(notes_in(piece).tolist()) == [[a - shift, b - shift, p] for a, b, p in rows]
    found = re.search(r"\((\d+) new notes, .*primed with the last", line)
    assert int(found[1]) == len(rows)
    left = re.search(r"; (\d+) notes before the first bar line left out", line)
    assert new - len(rows) == (int(left[1]) if left else 0)
    assert said("set_tempo") == [(0, 400_000)]
    if kind not in ("event", "key"):  # which may go on in another meter
        assert notes_in(piece)[:, 1].max() <= 4 * THREE


def test_a_line_tells_the_seconds_that_the_file_lasts(kind, compose):
    write("a.mid", steps(24), "3/4", [[0, 1_500_000], [THREE, 1_000_000]])
    for words in (("--primer", "a.mid"), ("--tempo", 33), ()):
        line, _, _ = compose("--bars", 6, *words)
        seconds = int(re.search(r"(\d+) s, ", line)[1])
        assert seconds == round(mido.MidiFile("x.mid").length)


# Tempo ------------------------------------------------------------------------------------------


def test_the_tempo_is_the_primers_else_the_corpus(kind, compose):
    changes = [[0, 500_000], [THREE, 400_000], [40 * EIGHTH, 300_000], [59 * EIGHTH, 250_000]]
    write("a.mid", steps(60), "3/4", changes)
    corpus = read_run(Path("runs/r"), print)[0].meta["corpus"]
    assert corpus["tempo"] == TEMPO
    compose("--bars", 2)
    assert said("set_tempo") == [(0, 500_000)]
    line, _, _ = compose("--primer", "a.mid", "--bars", 2)
    begin = (60 - counted(line)[0]) * EIGHTH
    expected = [(max(tick - begin, 0), value) for tick, value in changes]
    expected = [row for n, row in enumerate(expected) if not (expected[n + 1 : n + 2] and (
        expected[n + 1][0] == 0))]  # fmt: skip
    assert said("set_tempo") == expected and expected[-1][1] == 250_000
    words = ("--primer", "a.mid", "--primer-start", "--primer-length", 16, "--bars", 2)
    compose(*words)
    assert said("set_tempo") in ([(0, 500_000)], [(0, 500_000), (THREE, 400_000)])
    compose(*words, "--tempo", 75)
    assert said("set_tempo") == [(0, 800_000)]
    compose("--primer", "a.mid", "--primer-length", 0, "--bars", 2)
    assert said("set_tempo") == [(0, 500_000)]


def test_seconds_are_those_of_the_tempo_at_hand(kind, compose):
    write("a.mid", steps(30), "3/4", [[0, 500_000], [THREE, 2_000_000]])  # 30 a minute at its end
    for words, quarters in ((("--primer", "a.mid"), 6), ((), 24), (("--tempo", 60), 12)):
        line, piece, _ = compose("--seconds", 12, *words)
        size = int(re.search(r" s, (\d+) frames", line)[1]) if "frames" in line else None
        assert size in (None, 2 * quarters)
        if size is None:
            given = counted(line)[0]
            assert notes_in(piece)[given:, 1].max() <= notes_in(piece)[:given, 1].max() + (
                480 * quarters
            )


def test_a_checkpoint_without_a_tempo_is_played_at_90(train_small, compose):
    train_small("--max-steps", 3, "--run", "old", "--quiet")
    path = Path("runs/old/checkpoints/latest/meta.json")
    meta = json.loads(path.read_text())
    assert meta["corpus"].pop("tempo") == 90
    meta["corpus"]["tempo"] = 250
    del meta["seal"]
    path.write_bytes(sealed(meta))
    compose("--bars", 2, run="old")
    assert said("set_tempo") == [(0, 240_000)]
    del meta["corpus"]["tempo"]
    path.write_bytes(sealed(meta))
    compose("--bars", 2, run="old")
    assert said("set_tempo") == [(0, 666_667)]


# Meter ------------------------------------------------------------------------------------------


def test_a_meter_may_be_asked_for(kind, compose, fails):
    """Without a primer, after an opening, and in place of what a file says."""
    write("four.mid", steps(16), "4/4")
    for asked, bar in (("3/4", THREE), ("6/8", THREE), ("5/4", FIVE)):
        numbers = tuple(map(int, asked.split("/")))
        words = ((), ("--primer-length", 0), ("--primer", "four.mid"))
        for primer in words:
            _, piece, _ = compose("--meter", asked, "--bars", 4, "--seed", 5, *primer)
            signatures = said("time_signature")
            assert all(row[1:] == numbers for row in signatures[len(signatures) > 1 :])
            assert signatures[-1][1:] == numbers
            stop = notes_in(piece)[:, 1].max()
            if primer == ("--primer-length", 0):
                assert stop <= 4 * bar
    if kind in ("event", "key"):
        says = fails("sample", "r", "--meter", "7/8")
        assert says.startswith("the model knows no such meter: give --meter one of ")
        assert "3/4" in says and "5/4" in says
    for wrong in ("3", "3/5", "0/4", "three"):
        says = fails("sample", "r", "--meter", wrong)
        assert f"'{wrong}' is no meter such as 3/4 or 6/8" in says


@pytest.mark.parametrize("words", [("--primer-length", 0), ()])
def test_pieces_of_events_stay_in_the_meter_asked_for(train_small, command, words):
    """Also those that follow in one sample; what they begin with may have an upbeat."""
    for seed in range(20):
        write(f"music/{seed}.mid", steps(30 + seed), ["3/4", "5/4", "upbeat", "upbeat"][seed % 4])
    train_small("--max-steps", 40, *KINDS["event"], "--run", "r", "--quiet")
    lines = command("sample", "r", "--meter", "3/4", "--bars", 30, "--num", 6, *words).out
    upbeats = 0
    for line in lines:
        piece = read_midi(Path(line.split("  (")[0]), "")
        lengths = piece.meter[:, 1].tolist()
        upbeats += lengths[0] == 480
        assert {*lengths[lengths[0] == 480 :]} == {THREE}
    assert (upbeats > 0) == (words == ())


# Faults -----------------------------------------------------------------------------------------


def test_primers_without_music_are_told_in_a_line(kind, fails):
    write_midi(Piece("", []), "empty.mid")
    for words in ((), ("--primer-start",), ("--without-primer",)):
        says = fails("sample", "r", "--primer", "empty.mid", *words)
        assert says == "'empty.mid' has no notes: give --primer another MIDI file"
    write("high.mid", track_of([(0, 480, 126)]))
    says = fails("sample", "r", "--primer", "high.mid")
    assert "'high.mid'" in says and "choose another --primer" in says
    assert "--primer-start is only for use with --primer" in fails("sample", "r", "--primer-start")


def test_what_no_word_tells_of_a_primer_is_said_in_one_line(kind, command):
    rows = [(EIGHTH * n, EIGHTH * (n + 1), (60, 64, 67)[n % 3]) for n in range(12)]
    tracks = [track_of(rows), track_of(rows), track_of([(0, 480, 36)])]
    loud = (np.arange(60, 72, dtype=np.int32),) * 2 + (np.array([90], np.int32),)
    piece = Piece("", tracks, velocities=loud, parts=(Part("a", 40), Part("b", 0), Part("c", 0)),
                  drums=(False, False, True))  # fmt: skip
    write_midi(piece, "band.mid")
    done = command("sample", "r", "--primer", "band.mid", "--length", 5)
    lost = [line for line in done.err if "nearest" not in line]
    become = "its 2 tracks become one, " * (kind != "flatten")
    assert done.status == 0 and lost == [
        f"warning: band.mid: {become}its instruments are lost, how loudly its notes are struck is "
        "lost, its drums are left out (1 notes)"
    ]


def test_primers_longer_than_a_whole_piece_may_be(kind, compose, monkeypatch):
    monkeypatch.setattr(sampler, "WHOLE_PIECE", 8)
    write("long.mid", steps(60))
    line, _, _ = compose("--primer", "long.mid", "--primer-length", 5000)
    assert counted(line)[0] == 60 and counted(line)[1] > 0
