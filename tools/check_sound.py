"""Listen by numbers: are the notes written heard, how loud is it, how long does it take?

    python tools/check_sound.py [--notes 200] [--pieces 20]

A note of a melody is heard where no other pitch's first four harmonics have, from just before its
start to just after it, become so much stronger. The pieces are the bundled model's, of 8 bars.
Times are medians of five.
"""

import argparse
import io
import statistics
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE, Piece
from lstm_music.midi.repair import repair_track
from lstm_music.rendering import audio
from lstm_music.rendering.figures import embedding_map, piano_roll
from lstm_music.rendering.score import draw_score, is_available
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options

TEMPO = 90.0
LOW, HIGH = 36, 84  # MIDI pitches of the melody
WINDOW, POINTS = 0.3, 2**17  # seconds and length of a Fourier transform
BLOCK, SILENT = 0.05, 10 ** (-60 / 20)  # seconds; full scale is 1


# Music ------------------------------------------------------------------------------------------


def midi_of(piece: Piece) -> bytes:
    """Return a piece as the content of a MIDI file."""
    content = io.BytesIO()
    write_midi(piece, content, TEMPO)
    return content.getvalue()


def tune(pitches: Sequence[int]) -> Piece:
    """Return a melody in quarter notes."""
    starts = np.arange(len(pitches)) * TICKS_PER_QUARTER
    ons = np.stack([starts, np.ones_like(starts), pitches], axis=1)
    offs = ons + np.array([TICKS_PER_QUARTER - 10, -1, 0])
    return Piece("tune", [np.stack([ons, offs], axis=1).reshape(-1, 3).astype(np.int32)])


def compose(pieces: int, bars: int) -> list[Piece]:
    """Return pieces by the bundled model."""
    checkpoint = read_checkpoint(bundled_model())
    composer = composer_of(checkpoint, model_of(checkpoint, "auto"))
    options = composer.fitted(Options(None, bars * WHOLE_NOTE, top_p=composer.top_p))
    made = composer.compose([[]] * pieces, options, lambda *_: None)
    return [composer.piece(music, options, f"{n}") for n, music in enumerate(made)]


def lasting(piece: Piece, seconds: float) -> Piece:
    """Return a piece, repeated, that ends after so many seconds."""
    ticks = round(seconds * TEMPO / 60 * TICKS_PER_QUARTER)
    (track,) = piece.tracks
    whole = -(-int(track[-1, 0]) // WHOLE_NOTE) * WHOLE_NOTE
    times = -(-ticks // whole)
    long = np.concatenate([track + np.array([n * whole, 0, 0]) for n in range(times)])
    long = long.astype(np.int32)
    long = long[long[:, 0] < ticks]
    return Piece(piece.name, [repair_track(long)])


# Sound ------------------------------------------------------------------------------------------


def samples_of(content: bytes) -> Array:
    """Return the samples (n, channels) of a WAV file, -1 to 1."""
    with wave.open(io.BytesIO(content)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return raw.reshape(-1, file.getnchannels()) / 32768


def heard(samples: Array, start: float) -> int:
    """Return the pitch that begins at a time in seconds."""
    after = spectrum(samples, start + 0.05)
    before = spectrum(samples, start - 0.05 - WINDOW) if start else np.zeros_like(after)
    rise = np.maximum(after - before, 0)

    def strength(pitch: int) -> float:
        tone = 440 * 2 ** ((pitch - 69) / 12) * POINTS / audio.RATE
        bins = [round(k * tone) for k in (1, 2, 3, 4)]
        # The weights tell a note from the one an octave below, whose even harmonics it has.
        return sum(float(rise[n - 3 : n + 4].max()) / k for k, n in enumerate(bins, 1))

    return max(range(LOW, HIGH + 1), key=strength)


def spectrum(samples: Array, start: float) -> Array:
    """Return the amplitudes of the frequencies in a window that begins at a time."""
    first = round(start * audio.RATE)
    window = samples[first : first + round(WINDOW * audio.RATE)]
    amplitudes: Array = np.abs(np.fft.rfft(window * np.hanning(len(window)), POINTS))
    return amplitudes


def silence(samples: Array) -> float:
    """Return the share of blocks in which nothing is louder than -60 dBFS."""
    size = round(BLOCK * audio.RATE)
    blocks = np.abs(samples).max(axis=1)[: len(samples) // size * size].reshape(-1, size)
    return float(np.mean(blocks.max(axis=1) < SILENT))


def melody_heard(render: Callable[[bytes], Array], pitches: Sequence[int]) -> int:
    """Return how many notes of a melody are heard as written."""
    samples = render(midi_of(tune(pitches))).mean(axis=1)
    return sum(heard(samples, 60 / TEMPO * n) == pitch for n, pitch in enumerate(pitches))


# Report -----------------------------------------------------------------------------------------


def seconds_for(work: Callable[[], object]) -> str:
    """Return how long something takes, in words."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return f"{statistics.median(times):.2f} s"


def spread(values: Sequence[float]) -> str:
    """Return the median and the bounds of some values."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--notes", type=int, default=200)
    parser.add_argument("--pieces", type=int, default=20)
    args = parser.parse_args()
    melody = np.random.default_rng(0).integers(LOW, HIGH + 1, args.notes).tolist()
    by_font = melody_heard(lambda midi: samples_of(audio.wav_bytes(midi)[0]), melody)
    font = audio.sound_font()
    print(f"notes heard, {font.name if font else 'no sound font'}: {by_font} of {len(melody)}")
    plain = melody_heard(audio.synthesise, melody)
    print(f"notes heard, plain synthesiser: {plain} of {len(melody)}")
    pieces = compose(args.pieces, bars=8)
    sounds = [audio.wav_bytes(midi_of(piece)) for piece in pieces]
    print("loudness, LUFS:", spread([sound.loudness for _, sound in sounds]))
    print("peak, dBFS:", spread([sound.peak for _, sound in sounds]))
    print("silent blocks:", spread([silence(samples_of(content)) for content, _ in sounds]))
    for seconds in (5, 60, 600):
        midi = midi_of(lasting(pieces[0], seconds))
        print(f"a WAV file of {seconds} s:", seconds_for(lambda midi=midi: audio.wav_bytes(midi)))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        print("a piano roll of 8 bars:", seconds_for(lambda: piano_roll(pieces[0], made)))
        if is_available():
            print("a score of 8 bars:", seconds_for(lambda: draw_score(pieces[0], made)))
        checkpoint = read_checkpoint(bundled_model())
        print("an embedding's map:", seconds_for(lambda: embedding_map(checkpoint, made)))


if __name__ == "__main__":
    main()
