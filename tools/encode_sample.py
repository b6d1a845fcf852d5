"""Play docs/sample.mid and docs/harmonised.mid into MP3 files beside them, for the README.

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
    """Write the files and say how large they are."""
    for source in (DOCS / "sample.mid", DOCS / "harmonised.mid"):
        content, sound = wav_bytes(source.read_bytes())
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        path = source.with_suffix(".mp3")
        soundfile.write(path, samples, rate, format="MP3", compression_level=QUALITY)
        size = path.stat().st_size / 1e3
        print(f"{path}: {sound.seconds:.1f} s, {size:.0f} kB ({sound.instruments})")


if __name__ == "__main__":
    main()
