"""Play docs/sample.mid into docs/sample.mp3, the sound at the top of the README.

    pip install soundfile
    python tools/encode_sample.py

What plays is what plays for `bin/sample --wav`; soundfile brings the encoder (LAME).
"""

import io
from pathlib import Path

import soundfile

from lstm_music.rendering.audio import wav_bytes

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUALITY = 0.65  # 0 the best, 1 the smallest


def main() -> None:
    """Write the file and say how large it is."""
    content, sound = wav_bytes((DOCS / "sample.mid").read_bytes())
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    path = DOCS / "sample.mp3"
    soundfile.write(path, samples, rate, format="MP3", compression_level=QUALITY)
    print(
        f"{path}: {sound.seconds:.1f} s, {path.stat().st_size / 1e3:.0f} kB ({sound.instruments})"
    )


if __name__ == "__main__":
    main()
