"""Sounds and scores small enough to stand in a page."""

import io
import re
import struct
import wave

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

RATE = 24_000  # samples a second: a byte each, so 24 kB a second
MU_LAW = 7  # the format's number in a WAV file


def small_wav(wav: bytes) -> bytes:
    """Return a WAV file of 16 bits as one of 8-bit mu-law, mono, which every browser plays.

    Mu-law (ITU-T G.711) spaces its 256 levels so that quiet sounds keep their detail; no encoder
    is needed for it, as for MP3 or Opus. The file must have a whole multiple of RATE samples a
    second.
    """
    with wave.open(io.BytesIO(wav)) as file:
        times, rest = divmod(file.getframerate(), RATE)
        if rest or file.getsampwidth() != 2:
            raise ValueError(f"not 16 bits at a multiple of {RATE} samples/s")
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        samples = raw.reshape(-1, file.getnchannels()).mean(axis=1) / 32768
    if times > 1 and len(samples):
        samples = resample_poly(samples, 1, times)
    return mu_law_file(mu_law(samples))


def mu_law(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return samples (n,) of -1 to 1 as the bytes of G.711, whose bits are all turned round."""
    linear = np.minimum(np.abs(samples) * 32768, 32635).astype(np.int32) + 132
    segment = np.floor(np.log2(linear)).astype(np.int32) - 7
    step = (linear >> (segment + 3)) & 15
    sign = np.where(samples < 0, 128, 0)
    codes: npt.NDArray[np.uint8] = (~(sign | segment << 4 | step) & 255).astype(np.uint8)
    return codes


def mu_law_file(content: npt.NDArray[np.uint8]) -> bytes:
    """Return a WAV file of mu-law bytes, which Python's own `wave` can't write."""
    body = content.tobytes() + b"\0" * (len(content) % 2)
    form = struct.pack("<HHIIHHH", MU_LAW, 1, RATE, RATE, 1, 8, 0)
    chunks = b"".join(
        name + struct.pack("<I", size) + data
        for name, size, data in (
            (b"fmt ", len(form), form),
            (b"fact", 4, struct.pack("<I", len(content))),
            (b"data", len(content), body),
        )
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def small_svg(svg: str) -> str:
    """Return an SVG without the ids that nothing refers to, and the spaces between elements.

    Of an engraved score, they are half. Links refer to ids, and so do rules of style.
    """
    used = set(re.findall(r"#([\w-]+)", svg))
    without = re.sub(r' id="([^"]+)"', lambda id: id[0] if id[1] in used else "", svg)
    return re.sub(r">\s+<", "><", without)
