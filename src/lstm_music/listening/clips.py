"""Sounds for a listening test: of one length, at one loudness, in one format."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from lstm_music.errors import UserError
from lstm_music.rendering.audio import (
    FADE,
    LOUDNESS,
    PEAK,
    RATE,
    Samples,
    gain,
    loudness,
    peak,
    to_wav,
)
from lstm_music.rendering.audio import instruments_play as play

CLIP_RATE = 24_000  # samples a second, mono, 16 bits: 48 kB a second, which a phone can take
FADE_OUT = 0.5  # seconds: a clip may be cut in the middle of the music
MOST_WAV = 200_000_000  # bytes
LEAD = 0.02  # of the loudest sample: below it is silence before the music


class Sound(NamedTuple):
    """A system's name, the clip's own, and its samples (n, channels) at 48 kHz."""

    system: str
    name: str
    samples: Samples


def from_midi(system: str, name: str, midi: bytes) -> Sound:
    """Return a MIDI file's content played; raises UserError where it can't be."""
    return Sound(system, name, play(midi)[0])


def from_wav(system: str, name: str, wav: bytes) -> Sound:
    """Return a WAV file's content at 48 kHz. Raises UserError where it can't be read."""
    if len(wav) > MOST_WAV:
        raise UserError(f"'{name}' is larger than {MOST_WAV // 10**6} MB: cut it to the clip")
    try:
        rate, raw = wavfile.read(io.BytesIO(wav))
    except Exception as error:  # scipy raises whatever the rubbish leads it to
        raise UserError(f"'{name}' is no WAV file that can be read ({error})") from error
    raw = raw.reshape(len(raw), -1)
    if raw.dtype.kind in "iu":
        middle = 128 if raw.dtype == np.uint8 else 0
        raw = (raw.astype(np.float64) - middle) / (np.iinfo(raw.dtype).max - middle)
    if not len(raw) or not np.isfinite(raw).all() or not 1000 <= rate <= 400_000:
        raise UserError(f"'{name}' has no sound that can be used: give another WAV file")
    common = math.gcd(rate, RATE)
    samples = resample_poly(raw, RATE // common, rate // common, axis=0)
    return Sound(system, name, np.clip(samples, -1, 1).astype(np.float32))


def alike(sounds: Sequence[Sound], seconds: float) -> tuple[list[bytes], float, float]:
    """Return the sounds as WAV files of one length and loudness, the seconds and the LUFS.

    All are as long as the shortest or as asked, whichever is less, begin where the music does, and
    are as loud as all of them can be without a peak above -1 dBFS, at most -18 LUFS. Raises
    UserError where one is silent, or shorter than a second.
    """
    mono = [lead_cut(sound.samples.mean(axis=1, keepdims=True)) for sound in sounds]
    for sound, samples in zip(sounds, mono, strict=True):
        if len(samples) < RATE:
            raise UserError(
                f"the clip '{sound.name}' of {sound.system} has less than a second of sound: "
                "leave it out"
            )
    length = min(round(seconds * RATE), *(len(samples) for samples in mono))
    heard = [resample_poly(faded(x[:length]), 1, RATE // CLIP_RATE, axis=0) for x in mono]
    # Measured as it will be heard: without what lies above the clips' highest frequency.
    again = [resample_poly(samples, RATE // CLIP_RATE, 1, axis=0) for samples in heard]
    measured = [(loudness(samples), peak(samples)) for samples in again]
    level = min(LOUDNESS, *(loud + PEAK - high for loud, high in measured))
    files = [
        to_wav(samples * np.float32(gain(level - loud)), CLIP_RATE)
        for samples, (loud, _) in zip(heard, measured, strict=True)
    ]
    return files, length / RATE, level


def lead_cut(samples: Samples) -> Samples:
    """Return samples from where they are first heard."""
    levels = np.abs(samples).max(axis=1)
    heard = np.flatnonzero(levels > LEAD * levels.max(initial=0))
    return samples[max(0, heard[0] - round(FADE * RATE)) if len(heard) else len(samples) :]


def faded(samples: Samples) -> Samples:
    """Return samples that begin and end in silence."""
    made = samples.copy()
    for n, ends in (
        (round(FADE * RATE), slice(None)),
        (round(FADE_OUT * RATE), slice(None, None, -1)),
    ):
        n = min(n, len(made))
        made[ends][:n] *= np.linspace(0, 1, n, dtype=np.float32)[:, None]
    return made
