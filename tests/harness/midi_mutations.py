"""Damaged MIDI files, seeded: what disks, careless programs and malice make of good ones."""

import io
import random
import struct
from itertools import pairwise

import numpy as np

from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece

MOST = 4  # kinds of damage in one file


def mutated(seed, originals):
    """One of the originals (bytes), damaged once to four times; the same for the same seed."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, MOST)):
        rng.choice(DAMAGE)(data, rng)
    return bytes(data)


def flip_bits(data, rng):
    for _ in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut_off(data, rng):
    del data[rng.randint(0, len(data)) :]


def cut_out(data, rng):
    begin, size = place(data, rng)
    del data[begin : begin + size]


def insert(data, rng):
    begin, size = place(data, rng)
    data[begin:begin] = rng.randbytes(size)


def overwrite(data, rng):
    begin, size = place(data, rng)
    data[begin : begin + size] = rng.choice((bytes, rng.randbytes, high))(size)


def duplicate(data, rng):
    begin, size = place(data, rng)
    at = rng.randint(0, len(data))
    data[at:at] = data[begin : begin + size]


def forge_length(data, rng):
    """The length of a track, or of the header: zero, a little wrong, or far too large."""
    begin = rng.choice([*chunks(data), 0])
    if begin + 8 <= len(data):
        length = int.from_bytes(data[begin + 4 : begin + 8], "big")
        near = max(0, length + rng.randint(-20, 20))
        forged = rng.choice((0, near, length // 2, 2 * length, 2**31, 2**32 - 1))
        data[begin + 4 : begin + 8] = struct.pack(">L", forged % 2**32)


def forge_header(data, rng):
    """The type, the number of tracks or the division."""
    field = rng.choice((8, 10, 12))
    if field + 2 <= len(data):
        value = rng.choice((0, 1, 2, 3, 96, 0x7FFF, 0x8001, 0xE728, 0xE250, rng.randrange(2**16)))
        data[field : field + 2] = struct.pack(">H", value)


def forge_event(data, rng):
    """A message in the middle: a bad meta event, a long time, a system message, an early end."""
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(
        (
            b"\x00\xff\x51\x00",
            b"\x00\xff\x59\x02\xff\xff",
            b"\x00\xff\x01\xff\xff\xff\x7f",
            b"\x00\xff\x60\x03abc",
            b"\xff\xff\xff\x7f",
            b"\x00\xf0\x03\x01\x02\xf7",
            b"\x00\xf4",
            b"\x00\xf8",
            b"\x00\xff\x2f\x00",
            b"\x00\x99\x24\x7f",
            b"\x00\x90\x3c\x40\x00\x90\x3c\x40",
        )
    )


def swap_chunks(data, rng):
    bounds = [*chunks(data), len(data)]
    if len(bounds) > 2:
        n, m = sorted(rng.sample(range(len(bounds) - 1), 2))
        parts = [bytes(data[a:b]) for a, b in pairwise(bounds)]
        parts[n], parts[m] = parts[m], parts[n]
        data[bounds[0] :] = b"".join(parts)


def add_chunk(data, rng):
    """A chunk that no MIDI file needs, or a wrapping of the whole."""
    size = rng.randrange(40)
    unknown = b"XFIH" + struct.pack(">L", size) + rng.randbytes(size)
    at = rng.choice([*chunks(data), 0, len(data)])
    data[at:at] = unknown


DAMAGE = (
    *(flip_bits, cut_off, cut_out, insert, overwrite, duplicate),
    *(forge_length, forge_header, forge_event, swap_chunks, add_chunk),
)


def place(data, rng):
    """Where something happens to the data, and to how many bytes: few, mostly."""
    begin = rng.randint(0, len(data))
    return begin, min(rng.choice((1, 2, 3, 10, 100, 1000)), len(data) - begin)


def high(size):
    return b"\xff" * size


def chunks(data):
    """Where the tracks begin."""
    found, at = [], data.find(b"MTrk")
    while at >= 0:
        found.append(at)
        at = data.find(b"MTrk", at + 4)
    return found


# What reading promises


def assert_tracks(tracks):
    """Tracks of whole notes: in order, each pitch struck and ended in turn, none of length zero."""
    assert tracks
    for track in tracks:
        assert track.dtype == np.int32 and track.shape[1] == 3 and len(track)
        assert (np.diff(track[:, 0], prepend=0) >= 0).all()
        for pitch in set(track[:, 2].tolist()):
            ticks, kinds, _ = track[track[:, 2] == pitch].T
            assert kinds.tolist() == [1, 0] * (len(kinds) // 2)
            assert (ticks[0::2] < ticks[1::2]).all()


def written(tracks, **settings):
    """The bytes of a MIDI file of these tracks."""
    file = io.BytesIO()
    write_midi(Piece("", tracks), file, **settings)
    return file.getvalue()
