import io
import math
import wave
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from pyloudnorm import Meter
from small import piece_of, track_of

from lstm_music.errors import UserError
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece
from lstm_music.rendering import audio

needs_font = pytest.mark.skipif(
    not (audio.sound_font() and find_spec("midirenderer")), reason="no sound font or midirenderer"
)
MELODY = (60, 67, 64, 72, 55, 48, 76, 62)
QUARTER = 60 / 90  # seconds, at write_midi's tempo


def midi_of(piece, **settings):
    content = io.BytesIO()
    write_midi(piece, content, **settings)
    return content.getvalue()


def tune(pitches=MELODY):
    notes = [(480 * n, 480 * n + 470, pitch) for n, pitch in enumerate(pitches)]
    return midi_of(Piece("tune", [track_of(notes)]))


def samples_of(content):
    """A WAV file's samples (n, channels), -1 to 1."""
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (audio.RATE, 2)
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return raw.reshape(-1, file.getnchannels()) / 32768


def heard_pitch(samples, start):
    """The MIDI pitch whose first harmonics are loudest in the 0.3 s after a time in seconds."""
    window = samples[round((start + 0.05) * audio.RATE) :][: round(0.3 * audio.RATE)]
    power = np.abs(np.fft.rfft(window * np.hanning(len(window)), 2**17)) ** 2

    def strength(pitch):
        f = 440 * 2 ** ((pitch - 69) / 12)
        bins = [round(k * f * 2**17 / audio.RATE) for k in (1, 2, 3, 4)]
        return sum(math.log(power[n - 3 : n + 4].max() + 1e-9) for n in bins)

    return max(range(36, 85), key=strength)


@pytest.fixture
def plain(monkeypatch):
    """Take midirenderer away."""
    found = audio.find_spec
    monkeypatch.setattr(audio, "find_spec", lambda name: name != "midirenderer" and found(name))


def check_melody(content):
    samples = samples_of(content).mean(axis=1)
    heard = [heard_pitch(samples, QUARTER * n) for n in range(len(MELODY))]
    assert heard == list(MELODY)


@needs_font
def test_each_note_of_a_melody_is_heard_at_its_time():
    check_melody(audio.wav_bytes(tune())[0])


def test_the_plain_synthesiser_plays_the_same_melody_and_says_so(plain):
    content, sound = audio.wav_bytes(tune())
    check_melody(content)
    assert sound.instruments == "synthesiser"
    assert sound.remark.startswith("midirenderer is not installed")
    assert "-m pip install midirenderer" in sound.remark


@pytest.mark.parametrize("piece", [piece_of(1), piece_of(2, tracks=1, notes=40)])
def test_music_is_as_loud_as_stated_and_never_clips(piece):
    content, sound = audio.wav_bytes(midi_of(piece))
    measured = Meter(audio.RATE).integrated_loudness(samples_of(content))
    assert sound.loudness == pytest.approx(measured, abs=0.02)
    assert sound.loudness == pytest.approx(audio.LOUDNESS, abs=0.02)
    peak = np.abs(samples_of(content)).max()
    assert 20 * math.log10(peak) == pytest.approx(sound.peak, abs=0.05)
    assert sound.peak <= audio.PEAK


def test_a_click_of_a_note_is_bounded_by_its_peak():
    """Less than a block of the loudness measure."""
    short = midi_of(Piece("click", [track_of([(0, 10, 100)])]), program=115)
    sound = audio.wav_bytes(short)[1]
    assert sound.peak <= audio.PEAK + 1e-3


@needs_font
def test_the_last_note_rings_out_and_silence_is_cut():
    piece = Piece("end", [track_of([(0, 480, 60), (480, 960, 72)])])
    quiet = Piece(
        "end", [np.concatenate([piece.tracks[0], [[480 * 20, 1, 20], [480 * 20, 0, 20]]])]
    )
    for one in (piece, quiet):
        content, sound = audio.wav_bytes(midi_of(one))
        samples = np.abs(samples_of(content)).max(axis=1)
        assert sound.seconds > 2 * QUARTER  # it isn't cut where the note-off stands
        last = samples[-round(0.5 * audio.RATE) :]
        assert last.max() > 0.001 * samples.max()
        assert samples[-1] == 0


@pytest.fixture(params=["sound font", "plain"])
def player(request):
    """Both that can play: what is played must follow what the file says."""
    if request.param == "plain":
        request.getfixturevalue("plain")
    elif not (audio.sound_font() and find_spec("midirenderer")):
        pytest.skip("no sound font or midirenderer")
    return request.param


def levels(piece, n, **asked):
    """The RMS of each of n quarter notes of a piece, and its samples."""
    samples = samples_of(audio.wav_bytes(midi_of(piece, **asked))[0]).mean(axis=1)
    length = round(QUARTER * audio.RATE)
    energies = [np.sum(samples[k * length :][:length] ** 2) for k in range(n)]
    return [math.sqrt(energy / length) for energy in energies], samples


@pytest.mark.parametrize("drums", [False, True])
def test_a_louder_note_is_louder(player, drums):
    velocities = (16, 127, 64, 32, 100)
    notes = [(480 * n, 480 * n + 240, 38) for n in range(5)]
    piece = Piece("x", [track_of(notes)], drums=(drums,), velocities=(np.array(velocities),))
    found, _ = levels(piece, 5)
    assert np.argsort(found).tolist() == np.argsort(velocities).tolist()
    assert found[1] > 4 * found[0]
    same, _ = levels(replace(piece, velocities=()), 5)
    assert max(same) < 1.2 * min(same)


def test_drums_are_heard_beside_others(player):
    """Where the melody rests, and otherwise than the same notes of a piano."""
    tune, beat = track_of([(480, 960, 60)]), track_of([(0, 120, 38), (960, 1080, 42)])
    piece = Piece("x", [tune, beat], drums=(False, True))
    found, samples = levels(piece, 3)
    assert found[0] > 0.02 * max(found) and found[2] > 0.02 * max(found)
    assert not np.array_equal(samples, levels(replace(piece, drums=()), 3)[1])


@needs_font
def test_each_part_sounds_as_its_program():
    tracks = [track_of([(0, 900, 60)]), track_of([(960, 1860, 60)])]
    piece = Piece("x", tracks, parts=(Part("", 0), Part("", 73)))
    heard = [levels(piece, 4, program=program)[1] for program in (None, [0, 73], [73, 0], 73, 0)]
    assert np.array_equal(heard[0], heard[1])
    assert all(not np.array_equal(heard[0], other) for other in heard[2:])


def test_silence_has_no_level_and_no_length(plain):
    content, sound = audio.wav_bytes(midi_of(Piece("rest", [])))
    assert sound.seconds == 0 and sound.peak == -math.inf
    assert len(samples_of(content)) == 0


def test_the_same_music_gives_the_same_file():
    assert audio.wav_bytes(tune())[0] == audio.wav_bytes(tune())[0]


def test_music_that_is_too_long_is_refused():
    long = midi_of(Piece("long", [track_of([(0, 480 * 90 * 31, 60)])]))
    with pytest.raises(UserError, match="too long to render"):
        audio.wav_bytes(long)


def test_with_nothing_installed_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(audio, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "pretty_midi", None)
    with pytest.raises(UserError, match="-m pip install pretty_midi"):
        audio.wav_bytes(tune())
