"""bin/play: phrases from a port are answered on another, interrupted, and kept."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import memory_midi as ports
import mido
import numpy as np
import pytest
from memory_midi import Time, notes
from real_ports import why_not_real
from small import COMPUTE, track_of

from lstm_music.cli import play
from lstm_music.cli.common import run
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import DRUMS, Part, Piece

BAR = 4 * 60 / 100  # seconds at --tempo 100
SCALE = notes(*((0.6 * n, 0.6 * n + 0.5, p) for n, p in enumerate((60, 62, 64, 65))))  # a bar
KINDS = {
    "event": ("--representation", "event", "--no-parts"),
    "parts": ("--representation", "event"),
    "flatten": ("--tracks", "flatten"),
    "chord": ("--representation", "chord"),
    "note": ("--representation", "note", "--head", "sigmoid"),
    "performance": ("--representation", "performance"),
}


@pytest.fixture(autouse=True)
def backend():
    """Ports in memory: an instrument to hear and to play on, `key`."""
    mido.set_backend("memory_midi")
    ports.forget()
    ports.INPUTS.append("key")
    ports.OUTPUTS.append("key")
    yield
    mido.set_backend()
    ports.forget()


@pytest.fixture
def small_run(train_small):
    """Train a run `r` of a representation for a step."""
    more = ("--max-steps", 1, "--run", "r", "--quiet")
    return lambda kind, *words: train_small(*KINDS[kind], *words, *more)


@pytest.fixture
def playing(capsys):
    """Play events to bin/play: what it sent and when, its lines, and its status."""

    def call(played, *words, run_name="r", after=30.0, stops=KeyboardInterrupt):
        clock = Time(played, after=after)
        clock.stops = stops
        capsys.readouterr()
        words = [run_name, *map(str, words), *COMPUTE]
        status = run(lambda argv: play.main(argv, clock), words)
        out, err = capsys.readouterr()
        sent = [(at, m) for at, m in clock.sent]
        rest = [(clock.now() - 100, m) for m in ports.SENT["key"][len(sent) :]]
        return SimpleNamespace(
            status=status, out=out.splitlines(), err=err.split("\n"), sent=sent + rest
        )

    return call


def struck(sent):
    """When each note began: seconds, channel, pitch, velocity."""
    return [(at, m.channel, m.note, m.velocity) for at, m in sent if m.type == "note_on"]


def lasted(sent):
    """The seconds from an answer's first note to the end of its last."""
    times = [at for at, m in sent if m.type in ("note_on", "note_off")]
    return times[-1] - times[0]


def sounding(sent):
    """What sounds after all was sent."""
    left = set()
    for _, m in sent:
        if m.type == "note_on":
            left.add((m.channel, m.note))
        elif m.type == "note_off":
            left.discard((m.channel, m.note))
    return left


# A conversation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_phrase_is_answered_by_any_model(kind, small_run, playing):
    small_run(kind)
    done = playing(SCALE, *(() if kind == "performance" else ("--tempo", 100)))
    assert done.status == 130
    assert all("its nearest ones stand in" in line for line in done.err if line)
    listening, told, kept = done.out
    assert listening.startswith("play on 'key', answers go to 'key': a phrase ends with 1.5 s of ")
    assert told.startswith("phrase 1: 4 notes, ") and "; answer: " in told
    heard = struck(done.sent)
    assert heard and not sounding(done.sent)
    assert heard[0][0] == pytest.approx(2.3 + 1.5, abs=0.01)  # the last key, the pause: at once
    assert {velocity for *_, velocity in heard} == {64} or kind == "performance"
    assert sum(v for *_, v in heard) / len(heard) == pytest.approx(64, abs=3)
    bar = 2.3 if kind == "performance" else BAR  # as long as the phrase
    assert lasted(done.sent) < bar + 0.01
    assert kept == "runs/r/samples/session-0001.mid  (all that was played and answered)"


def test_an_answer_is_as_long_as_it_is_asked(small_run, playing):
    small_run("event")
    for words, most in ((("--bars", 3), 3 * BAR), (("--seconds", 4), 4.0), ((), BAR)):
        took = []
        for seed in range(4):
            done = playing(SCALE, "--tempo", 100, "--seed", seed, *words)
            took.append(lasted(done.sent))
        assert most / 2 < max(took) < most + 0.01
    done = playing(notes((0, 1, 60), (BAR + 0.05, 2 * BAR + 0.2, 62)), "--tempo", 100)
    assert "phrase 1: 2 notes, 2 bars at " in done.out[1]


def test_an_answer_follows_the_tempo_of_the_player(small_run, playing):
    small_run("event")
    slow = [(1.08 * at, message) for at, message in SCALE]
    done = playing(slow, "--tempo", 100, "--save", "takes")
    assert done.out[1].startswith("phrase 1: 4 notes, a bar at 93; answer: ")
    piece = read_midi(Path("takes/phrase-0001.mid"), "")
    assert piece.tempo.tolist() == [[0, pytest.approx(648_000, rel=0.015)]]
    assert piece.notes["start"][:4].tolist() == [0, 480, 960, 1440]
    took = [
        lasted(playing(slow, "--tempo", 100, "--seconds", 20, "--seed", seed).sent)
        for seed in range(3)
    ]
    assert 18 < max(took) < 20.01


def test_chords_are_told_apart_and_the_bundled_model_answers_in_its_voices(playing):
    rows = ((72, 67, 64, 48), (71, 67, 62, 55), (72, 67, 64, 48))
    chords = [e for n, row in enumerate(rows) for e in notes(*((n, n + 0.9, p) for p in row))]
    done = playing(chords, "--tempo", 60, "--save", "takes", run_name="bach")
    assert done.out[1].startswith("phrase 1: 12 notes in 4 parts, a bar at 60; answer: ")
    piece = read_midi(Path("takes/phrase-0001.mid"), "")
    assert [part.name for part in piece.parts] == ["Soprano", "Alto", "Tenor", "Bass"]
    firsts = [track[track[:, 1] == 1][:3, 2].tolist() for track in piece.tracks]
    assert firsts == [list(voice) for voice in zip(*rows, strict=True)]
    assert {channel for _, channel, *_ in struck(done.sent)} == {0, 1, 2, 3}


def test_a_tune_is_accompanied_by_the_other_voices(playing):
    tune = (67, 69, 71, 72)
    played = notes(*((n, n + 0.9, pitch) for n, pitch in enumerate(tune)))
    done = playing(played, "--tempo", 60, "--accompany", "--save", "takes", run_name="bach")
    assert (
        done.out[1].startswith("phrase 1: 4 notes") and " in 4 parts, a bar, after " in done.out[1]
    )
    first = struck(done.sent)[0][1]
    assert [pitch for _, channel, pitch, *_ in struck(done.sent) if channel == first] == [*tune]
    assert len({channel for _, channel, *_ in struck(done.sent)}) == 4 and not sounding(done.sent)
    assert lasted(done.sent) == pytest.approx(4.0, abs=0.2)
    kept = read_midi(Path("takes/phrase-0001.mid"), "")
    assert [part.name for part in kept.parts] == ["Soprano", "Alto", "Tenor", "Bass"]


def test_who_tells_no_parts_cant_accompany(playing):
    done = playing(SCALE, "--accompany", run_name="jsb")
    assert done.status == 2
    assert done.err[0].startswith("error: --accompany needs a model of written music in parts")


def test_each_phrase_has_its_answer_and_a_seed_gives_it_again(small_run, playing):
    small_run("event")
    later = [(at + 20, message) for at, message in SCALE]
    first, again, other = (playing(SCALE + later, "--seed", n).sent for n in (3, 3, 4))
    assert [m for _, m in first] == [m for _, m in again] != [m for _, m in other]
    early = [row[1:] for row in struck(first) if row[0] < 20]
    late = [row[1:] for row in struck(first) if row[0] > 20]
    assert early and late and early != late  # the same phrase, another answer


def test_who_plays_interrupts_the_answer_and_is_answered(small_run, playing):
    small_run("event")
    begin = 2.3 + 1.5 + 0.3
    again = notes((begin, begin + 0.5, 67), (begin + 0.5, begin + 1, 65))
    done = playing(SCALE + again, "--bars", 20, "--tempo", 100)
    between = [m for at, m in done.sent if begin <= at < begin + 1 + 1.5 - 0.01]
    assert between and {m.type for m in between} == {"note_off"}  # at once, and then silence
    assert [line.split(" at ")[0] for line in done.out[1:-1]] == [
        "phrase 1: 4 notes, a bar", "phrase 2: 2 notes, a bar",
    ]  # fmt: skip
    assert not sounding(done.sent)


def test_nothing_sounds_on_after_the_end_and_all_is_kept(small_run, playing):
    small_run("event")
    ended = 0
    for n, after in enumerate((1.6, 1.9, 2.2, 2.5, 2.8)):
        done = playing(SCALE, "--bars", 20, "--top-p", 1, after=after)
        assert done.status == 130 and struck(done.sent) and not sounding(done.sent)
        ended += sum(at >= 2.3 + after for at, _ in done.sent)  # with Ctrl-C
        kept = mido.MidiFile(f"runs/r/samples/session-{n + 1:04d}.mid")
        assert [track.name for track in kept.tracks] == ["", "Played", "Answered"]
        assert [m.note for m in kept.tracks[1] if m.type == "note_on"] == [60, 62, 64, 65]
        answered = [m for m in kept.tracks[2] if not m.is_meta]
        assert [m.copy(time=0) for m in answered] == [m.copy(time=0) for _, m in done.sent]
    assert ended > 0


def test_what_ends_the_process_is_as_ctrl_c(small_run, playing):
    small_run("event")
    with pytest.raises(SystemExit) as end:
        playing(SCALE, "--bars", 20, after=2.0, stops=SystemExit(143))
    assert end.value.code == 143
    assert not sounding((0, m) for m in ports.SENT["key"])
    assert Path("runs/r/samples/session-0001.mid").is_file()


def test_a_session_is_kept_in_its_time(small_run, playing):
    small_run("event")
    done = playing(SCALE, "--tempo", 100, "--quiet")
    assert done.out == ["runs/r/samples/session-0001.mid"]
    piece = read_midi(Path(done.out[0]), "")
    played, answered = piece.tracks
    assert played[played[:, 1] == 1][:, 0].tolist() == pytest.approx([0, 480, 960, 1440], abs=4)
    assert answered[0, 0] == pytest.approx((2.3 + 1.5) * 800, abs=8)


def test_what_is_kept_where(small_run, playing, folder):
    small_run("parts")
    later = [(at + 20, message) for at, message in SCALE]
    done = playing(SCALE + later, "--save", "takes")
    made = sorted(path.name for path in Path("takes").iterdir())
    assert made == ["phrase-0001.mid", "phrase-0002.mid", "session-0001.mid"]
    whole = read_midi(Path("takes/phrase-0001.mid"), "")
    assert whole.notes["pitch"][whole.notes["start"] < 1920].tolist() == [60, 62, 64, 65]
    assert len(whole.notes) > 4
    assert playing(SCALE, "--no-save").out[-1].startswith("phrase 1: ")
    assert playing([]).out[-1].startswith("play on ")  # nothing to keep
    assert not list(Path("runs/r").rglob("session-*"))
    assert done.status == 130


def test_parts_have_channels_of_their_own_and_programs(folder, train_small, playing):
    low = track_of([(240 * n, 240 * n + 240, 48 + n % 5) for n in range(40)])
    high = track_of([(240 * n, 240 * n + 240, 72 + n % 7) for n in range(40)])
    parts = (Part("Flute", 73), Part("Cello", 42))
    for seed in range(8):
        late = high + np.array([240 * seed, 0, 0], np.int32)
        write_midi(Piece("", [late, low], parts=parts), f"music/{seed}.mid")
    train_small("--max-steps", 30, *KINDS["parts"], "--run", "r", "--quiet")
    high = notes(*((0.6 * n, 0.6 * n + 0.5, 72 + n) for n in range(4)))
    done = playing(high, "--bars", 4, "--top-p", 1)
    programs = {m.channel: m.program for _, m in done.sent if m.type == "program_change"}
    assert programs == {0: 73, 1: 42}
    off = [(m.channel, m.control) for _, m in done.sent if m.type == "control_change"]
    assert off == [(0, 123), (1, 123)]  # at the end
    assert {channel for _, channel, *_ in struck(done.sent)} == {0, 1}
    done = playing(high, "--bars", 4, "--top-p", 1, "--program", "Cello=32")
    programs = {m.channel: m.program for _, m in done.sent if m.type == "program_change"}
    assert programs == {0: 73, 1: 32}
    done = playing(SCALE, "--program", "Horn=60")
    assert done.status == 2 and "there is no such part: name one of 1 Flute, 2 Cello" in done.err[0]


def test_without_parts_the_instrument_plays_with_what_it_plays(small_run, playing):
    small_run("event")
    assert "program_change" not in {m.type for _, m in playing(SCALE).sent}
    sent = playing(SCALE, "--program", 19).sent
    assert [m.program for _, m in sent if m.type == "program_change"] == [19]


def test_a_meter_is_played_in(small_run, playing):
    small_run("flatten")
    waltz = notes(*((0.6 * n, 0.6 * n + 0.5, 60 + n) for n in range(6)))
    done = playing(waltz, "--tempo", 100, "--meter", "3/4", "--save", "takes")
    assert done.out[1].startswith("phrase 1: 6 notes, 2 bars at 100; ")
    assert read_midi(Path("takes/phrase-0001.mid"), "").meter.tolist() == [[0, 1440]]


# What is played ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("played", "told"),
    [
        (notes((0, 0.5, 60)), "phrase 1: 1 note, a bar"),
        (notes((0, 0.5, 60), (0, 0.5, 64), (0.01, 0.5, 67)), "phrase 1: 3 notes, a bar"),
        (notes((0, 0.5, 60), (0.25, 0.75, 60)), "phrase 1: 2 notes, a bar"),  # no end between
        (notes((0, 0.001, 60)), "phrase 1: 1 note, a bar"),
    ],
)
def test_phrases_of_every_shape(small_run, playing, played, told):
    small_run("event")
    done = playing(played, "--tempo", 100)
    assert done.out[1].startswith(told) and struck(done.sent)


def test_a_drum_alone_has_no_answer_and_a_model_of_drums_answers_on_theirs(
    folder, train_small, small_run, playing
):
    hits = notes((0, 0.1, 36), (0.6, 0.7, 38), channel=DRUMS)
    small_run("event")
    done = playing(hits + [(at + 10, m) for at, m in SCALE])
    assert done.err[0] == (
        "warning: phrase 1 has no notes (drum notes left out: 2, which bin/train --drums keeps): "
        "no answer"
    )
    assert struck(done.sent)[0][0] > 10 and done.status == 130
    for seed in range(8):
        beat = track_of([(240 * n, 240 * n + 120, (36, 38, 42)[n % 3]) for n in range(40)])
        write_midi(Piece("", [beat], drums=(True,)), f"music/{seed}.mid")
    words = ("--representation", "event", "--drums", "--run", "drums", "--quiet")
    train_small("--max-steps", 30, *words)
    done = playing(hits, run_name="drums")
    assert {channel for _, channel, *_ in struck(done.sent)} == {DRUMS}
    assert "program_change" not in {m.type for _, m in done.sent}


def test_notes_that_no_model_knows_have_no_answer(small_run, playing):
    small_run("note")
    done = playing(notes((0, 0.5, 5)))
    assert done.err[0] == "warning: the model knows none of the notes of phrase 1: no answer"
    assert done.status == 130 and not done.sent


def test_what_came_before_it_listens_is_no_phrase(small_run, playing):
    small_run("event")
    ports.TO["key"].append(mido.Message("note_on", note=50))
    done = playing(SCALE)
    assert done.out[1].startswith("phrase 1: 4 notes")


# Ports and errors -------------------------------------------------------------------------------


@pytest.fixture
def refused(playing):
    """Play to a command that should refuse; return its one line."""

    def call(*words, run_name="bach"):
        done = playing([], *words, run_name=run_name)
        assert (done.status, done.out) == (2, [])
        line, end = done.err
        assert line.startswith("error: ") and not end
        return line.removeprefix("error: ")

    return call


def test_errors_say_what_to_connect(refused):
    ports.INPUTS[:] = ["Roland 20:0", "Korg 24:0", "Korg 24:1"]
    ports.OUTPUTS[:] = ["Midi Through 14:0"]
    listed = "'Roland 20:0', 'Korg 24:0', 'Korg 24:1'"
    assert refused() == f"several MIDI inputs here: name --input (or --port) of {listed}"
    assert refused("--port", "yamaha") == (
        f"no MIDI inputs have 'yamaha' in their name: name one of {listed}"
    )
    assert refused("--input", "korg") == (
        "several MIDI inputs have 'korg' in their name: name one of 'Korg 24:0', 'Korg 24:1'"
    )
    assert refused("--input", "ROLAND") == (
        "no instrument is connected: connect one, or name --output of 'Midi Through 14:0'"
    )
    ports.OUTPUTS[:] = []
    assert refused("--input", "24:1") == (
        "no MIDI output here: connect an instrument, or add --virtual"
    )
    ports.INPUTS[:] = []
    assert refused() == "no MIDI input here: connect an instrument, or add --virtual"


def test_one_instrument_is_found_and_names_may_be_parts(small_run, playing):
    small_run("event")
    ports.INPUTS[:] = ["Midi Through 14:0", "key"]
    ports.OUTPUTS[:] = ["key", "Synth 1", "Synth 12"]
    assert playing([], "--output", "Synth 1").out == [
        "play on 'key', answers go to 'Synth 1': a phrase ends with 1.5 s of silence, Ctrl-C all"
    ]
    assert "on 'Midi Through 14:0'" in playing([], "--port", "thr", "--output", "12").out[0]


def test_a_system_without_midi_says_so(refused, monkeypatch):
    mido.set_backend("no_such_module")
    line = refused()
    assert line == f"MIDI ports need python-rtmidi: {sys.executable} -m pip install python-rtmidi"
    mido.set_backend()
    monkeypatch.setattr(play, "SEQUENCER", Path("no/such/seq"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert refused() == (
        "this system has no MIDI ports (no no/such/seq): connect an instrument to one that has, "
        "or load its sequencer with 'sudo modprobe snd-seq'"
    )
    mido.set_backend("memory_midi")

    def refuses(self, **_):
        raise OSError("no such thing")

    monkeypatch.setattr(ports.Common, "_open", refuses)
    assert refused("--virtual") == (
        "can't open virtual ports here (no such thing): name other ones with --input and --output"
    )


def test_what_a_model_cannot_do(small_run, refused):
    small_run("performance", "--no-copy")
    assert "a performance has none: use --seconds" in refused("--bars", 2, run_name="r")
    assert "--tempo is of beats" in refused("--tempo", 90, run_name="r")
    assert "--repetition is only for models with a copy gate" in refused(
        "--repetition", 1, run_name="r"
    )
    assert "no run or checkpoint 'none'" in refused(run_name="none")
    assert "not allowed with" in refused("--save", "x", "--no-save")
    assert "is not a number from 0.1 to 60" in refused("--pause", 0)


def test_a_port_that_vanishes_loses_nothing(small_run, playing, monkeypatch):
    """Its error is told; what was played is kept."""
    small_run("event")

    def gone(self, message):
        raise OSError("unplugged")

    monkeypatch.setattr(ports.Output, "_send", gone)
    done = playing(SCALE)
    assert done.status == 2 and "unplugged" in done.err[0]
    assert len(mido.MidiFile("runs/r/samples/session-0001.mid").tracks[1]) == 2 + 8


def wait_for(found, seconds=60):
    """Wait until something is found; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if got := found():
            return got
        time.sleep(0.01)
    raise AssertionError("it took too long")


def test_other_programs_connect_to_virtual_ports(small_run, folder):
    """The system's own, where it has them and python-rtmidi is there; else those in memory."""
    small_run("event")
    mido.set_backend("memory_midi" if why_not_real() else None)
    over, ended = threading.Event(), []

    def sleep(seconds):
        if over.is_set():
            raise KeyboardInterrupt
        time.sleep(seconds)

    def listens():
        words = ["r", "--virtual", "--pause", "0.3", "--quiet", *COMPUTE]
        try:
            play.main(words, play.Clock(sleep=sleep))
        except KeyboardInterrupt:
            ended.append(130)

    thread = threading.Thread(target=listens, daemon=True)
    thread.start()

    def there(names):
        return next((name for name in names() if play.OURS in name), None)

    with (
        mido.open_output(wait_for(lambda: there(mido.get_output_names))) as out,
        mido.open_input(wait_for(lambda: there(mido.get_input_names))) as into,
    ):
        # What comes before it listens is left out: play until it answers.
        for _ in range(100):
            out.send(mido.Message("note_on", note=60))
            time.sleep(0.05)
            out.send(mido.Message("note_off", note=60))
            time.sleep(0.6)
            if into.poll() is not None:
                break
        else:
            raise AssertionError("there was no answer")
        over.set()
        thread.join(60)
    assert ended == [130] and Path("runs/r/samples/session-0001.mid").is_file()
