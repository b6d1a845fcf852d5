"""MIDI -> WAV: the instruments of a sound font, at one loudness."""

import io
import math
import warnings
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np
import numpy.typing as npt

from lstm_music.errors import UserError, pip_install

SOUND_FONT = "TimGM6mb.sf2"  # comes with pretty_midi, under the GPL: used there, never copied
RATE = 48_000  # samples a second, the renderer's own
LOUDNESS = -18.0  # LUFS (ITU-R BS.1770), the level that ReplayGain 2 brings music to
PEAK = -1.0  # dBFS: no sample is louder, so that no player clips
RELEASE = 4.0  # seconds after the last event in which its notes may ring
SILENCE = -60.0  # dB below the peak: what ends so quietly is cut off
FADE = 0.02  # seconds
DRUM = 0.2  # seconds that a drum rings without a sound font
MOST_SECONDS = 1800  # a WAV file of it is 345 MB
MEASURED_SECONDS = 300  # whose loudness stands for a longer piece's

Samples = npt.NDArray[np.float32]
"""(n, channels) float32, -1 to 1."""


class Sound(NamedTuple):
    """What a WAV file holds.

    loudness: in LUFS, -inf of silence and of less than 0.4 s; peak: in dBFS; instruments: what
    rendered it; remark: a line to show, "" where it is a sound font.
    """

    seconds: float
    rate: int
    loudness: float
    peak: float
    instruments: str
    remark: str


def wav_bytes(midi: bytes) -> tuple[bytes, Sound]:
    """Return a MIDI file's content as a WAV file's, 16 bits, at 48 kHz.

    The loudness is -18 LUFS, or what peaks of -1 dBFS allow; the end rings out and is trimmed.
    Raises UserError where the music is too long, and where nothing installed can render it.
    """
    seconds = mido.MidiFile(file=io.BytesIO(midi), clip=True).length
    if seconds > MOST_SECONDS:
        raise UserError(
            f"music of {seconds:,.0f} s is too long to render, more than {MOST_SECONDS} s: compose "
            "less of it, or leave --wav out and play the MIDI file"
        )
    samples, instruments, remark = instruments_play(midi)
    samples, loud = levelled(trimmed(samples))
    sound = Sound(len(samples) / RATE, RATE, loud, peak(samples), instruments, remark)
    return to_wav(samples), sound


# Instruments ------------------------------------------------------------------------------------


def instruments_play(midi: bytes) -> tuple[Samples, str, str]:
    """Return the samples, what rendered them, and a remark where it is no sound font."""
    font = sound_font()
    if font is not None and find_spec("midirenderer"):
        return play_sound_font(midi, font), font.name, ""
    lacking = "midirenderer" if font else f"pretty_midi's {SOUND_FONT}"
    remark = (
        f"{lacking} is not installed, so a plain synthesiser plays: for instruments, "
        f"{pip_install('midirenderer', 'pretty_midi')}"
    )
    return synthesise(midi), "synthesiser", remark


def sound_font() -> Path | None:
    """Return the sound font that pretty_midi installed, without loading it; None where none is."""
    package = find_spec("pretty_midi")
    if package is None or package.origin is None:
        return None
    font = Path(package.origin).with_name(SOUND_FONT)
    return font if font.is_file() else None


def play_sound_font(midi: bytes, font: Path) -> Samples:
    """Return what midirenderer makes of a MIDI file, (n, 2)."""
    import midirenderer

    try:
        wav = midirenderer.render_wave_from(font.read_bytes(), with_release(midi))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"midirenderer can't render this music ({error}): play the MIDI file instead"
        ) from error
    with wave.open(io.BytesIO(wav)) as file:
        if file.getframerate() != RATE:
            raise UserError(f"midirenderer renders no {RATE} samples/s: pip install it anew")
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return raw.reshape(-1, file.getnchannels()).astype(np.float32) / np.float32(32768)


def with_release(midi: bytes) -> bytes:
    """Return the MIDI file with its first track ending later, so that the last notes ring out."""
    file = mido.MidiFile(file=io.BytesIO(midi), clip=True)
    first = file.tracks[0]
    tempos = [m.tempo for track in file.tracks for m in track if m.type == "set_tempo"]
    tempo = tempos[-1] if tempos else mido.bpm2tempo(120)
    most = max(sum(message.time for message in track) for track in file.tracks)
    own = sum(message.time for message in first if message.type != "end_of_track")
    ringing = mido.second2tick(RELEASE, file.ticks_per_beat, tempo)
    first[:] = [message for message in first if message.type != "end_of_track"]
    first.append(mido.MetaMessage("end_of_track", time=most - own + ringing))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def synthesise(midi: bytes) -> Samples:
    """Return what pretty_midi's synthesiser makes of a MIDI file with a few harmonics, (n, 1).

    It leaves drums silent: they are noise.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise UserError(
            f"nothing here can make sound: {pip_install('pretty_midi', 'midirenderer')}, or leave "
            "--wav out"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tempo changes in other tracks than the first
        players = pretty_midi.PrettyMIDI(io.BytesIO(midi)).instruments
    samples = np.zeros((0, 1), np.float32)
    for player in players:
        own = noise(player) if player.is_drum else player.synthesize(RATE, wave=harmonics)
        short, long = sorted((samples, np.asarray(own, np.float32)[:, None]), key=len)
        samples = long.copy()
        samples[: len(short)] += short
    return samples


def noise(drums: Any) -> Samples:
    """Return a burst of noise (n,) for each hit of pretty_midi's drums, as loud as it is."""
    samples = np.zeros(round(RATE * (drums.get_end_time() + 1)), np.float32)
    decay = np.exp(-np.arange(round(DRUM * RATE), dtype=np.float32) / (DRUM / 5 * RATE))
    burst = decay * np.random.default_rng(0).uniform(-1, 1, len(decay)).astype(np.float32)
    for hit in drums.notes:
        begin = round(RATE * hit.start)
        samples[begin : begin + len(burst)] += hit.velocity * burst
    return samples


def harmonics(phase: Any) -> Any:
    """Return a wave of four harmonics, at phases in radians."""
    return sum(np.sin(k * phase) / k**2 for k in range(1, 5))


# Levels -----------------------------------------------------------------------------------------


def trimmed(samples: Samples) -> Samples:
    """Return samples up to where only silence is left, faded out at the end."""
    levels = np.abs(samples).max(axis=1)
    loud = np.flatnonzero(levels > levels.max(initial=0) * gain(SILENCE))
    kept = samples[: loud[-1] + 1 if len(loud) else 0].copy()
    n = min(len(kept), round(FADE * RATE))
    kept[len(kept) - n :] *= np.linspace(1, 0, n, dtype=np.float32)[:, None]
    return kept


def levelled(samples: Samples) -> tuple[Samples, float]:
    """Return samples at LOUDNESS, or as loud as PEAK allows, and what loudness they have then."""
    before = loudness(samples)
    room = PEAK - peak(samples) if samples.any() else 0.0
    change = min(LOUDNESS - before, room) if math.isfinite(before) else room
    return samples * np.float32(gain(change)), before + change


def loudness(samples: Samples) -> float:
    """Return the loudness in LUFS of the first minutes, -inf where it can't be told."""
    if len(samples) < 0.4 * RATE or not samples.any():  # a block of the measure is 0.4 s
        return -math.inf
    from pyloudnorm import Meter

    return float(Meter(RATE).integrated_loudness(samples[: MEASURED_SECONDS * RATE]))


def peak(samples: Samples) -> float:
    """Return the loudest sample in dBFS, -inf of silence."""
    loudest = float(np.abs(samples).max(initial=0))
    return 20 * math.log10(loudest) if loudest else -math.inf


def gain(decibels: float) -> float:
    """Return the factor of a change in dB."""
    return float(10 ** (decibels / 20))


def to_wav(samples: Samples, rate: int = RATE) -> bytes:
    """Return samples as a WAV file of 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return content.getvalue()
