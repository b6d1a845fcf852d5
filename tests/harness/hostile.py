"""Pickles and MATLAB files that mean harm: `python hostile.py FOLDER MODE` reads them all.

Each payload that runs leaves a file `ran` in the working folder. Modes: restricted, as the
reader's own process; plain, with `pickle.loads`, which shows that the payloads work.
"""

import base64
import json
import pickle
import struct
import sys
import time
import zlib
from pathlib import Path

CALLS = {
    "system": ("os", "system", "touch ran"),
    "posix": ("posix", "system", "touch ran"),
    "popen": ("os", "popen", "touch ran"),
    "eval": ("builtins", "eval", "open('ran', 'w')"),
    "exec": ("builtins", "exec", "open('ran', 'w')"),
    "eval-2": ("__builtin__", "eval", "open('ran', 'w')"),
    "output": ("subprocess", "getoutput", "touch ran"),
    "profile": ("cProfile", "run", "open('ran', 'w')"),
    "slow profile": ("profile", "run", "open('ran', 'w')"),
    "import": ("importlib", "import_module", "antigravity"),
    "runstring": ("numpy.testing._private.utils", "runstring", "open('ran', 'w')"),
    "dtype's class": ("numpy", "dtype.__class__", "x"),
    "globals": ("_codecs", "encode.__self__", "x"),
    "reconstructor": ("copyreg", "_reconstructor", "x"),
    "partial": ("functools", "partial", "x"),
    "reader": ("lstm_music.corpus.roll_files", "read_rolls", "x"),
}


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def call_forms(module, name, argument):
    """The same call by each of the opcodes that call something."""
    old = f"c{module}\n{name}\n".encode()
    new = text(module) + text(name) + b"\x93"
    a = text(argument)
    return {
        "REDUCE": old + b"(" + a + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + new + a + b"\x85R.",
        "INST": b"(" + a + f"i{module}\n{name}\n.".encode(),
        "OBJ": b"(" + old + a + b"o.",
        "NEWOBJ": b"\x80\x02" + old + a + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + new + a + b"\x85}\x92.",
        "BUILD": b"\x80\x02" + old + a + b"b.",
    }


def number(n, size):
    return n.to_bytes(size, "little")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
OBJECTS = b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
# A state of a type that crashed NumPy, found by atheris.
CRASH = zlib.decompress(base64.b85decode(
    'c-nPP$xg#C5OvcPvz4;%yOdKU4nTndWjPUvgHO3cmFq-uq%`eI9i$$RxU{8T4Nh7l4loCg^=9VHd-GwugP3-n5'
    'TYXPhsZcEOb1yJ#_evu+7zA0tG44n`8<kvpEe^;bi$sBVxcH<lQtT<lPdBS8K5BanCpoi^}^&sQM5C9LklIlpm'
    'V^LAD&@m2+A-!!W_fAX=N;9fQ2cctNL9%w`d!>->;!O{v2V6p<-Iul&g;A*OxCH>0=RvmDX4m?Q&8hlW0scR;A'
    'vx#;~ri(c%s^9c=w)uqSxHBZ_TV(R8I>bl6E~b{Y1D*k?H4+)EGl#slBQp@SoRxMP`<=@Cw(c6O?f^B?3QK`t3'
    ';Q?FOD@~`6SWYrBrUEwxSeCOa^{voN6^gS><4)MhBtR=<OZ~B~qhX'
))  # fmt: skip
BOMBS = {
    "dtype that crashed NumPy": CRASH,
    "memo of 2**31": b"\x80\x02N" + b"r" + number(2**31 - 1, 4) + b".",
    "memo of 2**32": b"\x80\x02N" + b"r" + number(2**32 - 1, 4) + b".",
    "memo by text": b"Np99999999999999\n.",
    "memo below zero": b"Np-1\n.",
    "memo of 2**27": b"\x80\x02N" + b"r" + number(2**27, 4) + b".",
    "unknown memo": b"\x80\x02j\xff\xff\xff\x7f.",
    "bytes of 2**60": b"\x80\x04\x8e" + number(2**60, 8) + b"x.",
    "bytes of 2**63": b"\x80\x04\x8e" + number(2**63, 8) + b"x.",
    "bytes of 2**32": b"\x80\x03B" + number(2**32 - 1, 4) + b"x.",
    "bytearray of 2**40": b"\x80\x05\x96" + number(2**40, 8) + b"x.",
    "bytearray of 2**31": b"\x80\x05\x96" + number(2**31, 8) + b"x.",
    "text of 2**60": b"\x80\x04\x8d" + number(2**60, 8) + b"x.",
    "text of 2**32": b"\x80\x02X" + number(2**32 - 1, 4) + b"x.",
    "string below zero": b"T" + number(2**32 - 1, 4) + b"x.",
    "frame of 2**62": b"\x80\x04\x95" + number(2**62, 8) + b"N.",
    "long of 2**31": b"\x80\x02\x8b" + number(2**31 - 1, 4) + b"x.",
    "long below zero": b"\x80\x02\x8b" + number(2**32 - 1, 4) + b"x.",
    "long in a million digits": b"L" + b"9" * 10**6 + b"L\n.",
    "int in a million digits": b"I" + b"9" * 10**6 + b"\n.",
    "long in a million bytes": b"\x80\x02\x8b" + number(10**6, 4) + b"\x7f" * 10**6 + b".",
    "lists a million deep": b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "tuples a million deep": b"\x80\x02)" + b"\x85" * 10**6 + b".",
    "a million marks": b"(" * 10**6 + b".",
    "a million duplicates": b"\x80\x02N" + b"2" * 10**6 + b"(t.",
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x01.",
    "extension 4": b"\x80\x02\x84\x01\x01\x01\x01.",
    "extension 0": b"\x80\x02\x84\x00\x00\x00\x00.",
    "extension below zero": b"\x80\x02\x84\xff\xff\xff\xff.",
    "registered extension": b"\x80\x02\x82\xf0(S'touch ran'\ntR.",
    "persistent": b"Ptouch ran\n.",
    "persistent by stack": b"\x80\x02N\x51.",
    "next buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05N\x98.",
    "protocol 255": b"\x80\xffN.",
    "empty stack": b"0000.",
    "build on a list": b"](S'a'\nS'b'\ndb.",
    "build on a dictionary": b"}}S'__class__'\nNsb.",
    "array of 10**10": ARRAY + b"(I1\n(L10000000000L\nt" + DTYPE + b"I00\nS'x'\ntb.",
    "array below zero": ARRAY + b"(I1\n(I-1\nt" + DTYPE + b"I00\nS'x'\ntb.",
    "array of objects": ARRAY + b"(I1\n(I3\nt" + OBJECTS + b"I00\n(NNNlb.",
    "dtype of objects": OBJECTS + b".",
    "dtype that grows": DTYPE + b"(I3\nS'<'\nNNNL1000000000000L\nI8\nI0\ntb.",
    "dtype of a dtype": DTYPE + b"(I3\nS'<'\n(" + DTYPE + b"(L9999999999L\nttNNI-1\nI-1\nI0\ntb.",
    "dtype by dictionary": b"cnumpy\ndtype\n(}S'names'\n(S'a'\nlsS'formats'\n(S'O'\nlstR.",
    "dtype with a shape": b"cnumpy\ndtype\n(S'(99999999,)f8'\ntR.",
    "scalar of nothing": b"cnumpy.core.multiarray\nscalar\n(" + DTYPE + b"S''\ntR.",
    "frombuffer": b"cnumpy.core.numeric\n_frombuffer\n(S'x'\n" + DTYPE
    + b"(L9999999999L\ntS'C'\ntR.",
    "no codec": b"c_codecs\nencode\n(Vx\nVzip\ntR.",
    "lists of lists of lists": b"\x80\x02}(" + text("train") + b"](" + b"](" + b"](" + b"K<" * 999
    + b"e\x94" + b"q\x00" + b"h\x00" * 10**5 + b"eq\x01" + b"h\x01" * 10**5 + b"e"
    + text("valid") + b"h\x01" + text("test") + b"h\x01u.",
}  # fmt: skip


def pickles():
    """Every malicious pickle by name."""
    made = dict(BOMBS)
    for what, call in CALLS.items():
        for form, data in call_forms(*call).items():
            made[f"{what} by {form}"] = data
    inner = call_forms("os", "system", "touch ran")["REDUCE"]
    made["a pickle in a pickle"] = (
        b"cpickle\nloads\n(" + b"C" + bytes([len(inner)]) + inner + b"tR."
    )
    return made


def mat_of(dims, kind=6, size=None, compressed=True, name=b"traindata"):
    """A MATLAB file of about 200 bytes, whose matrix says that it has these dimensions."""

    def element(code, data):
        return struct.pack("<II", code, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack("<II", kind, 0))
    body += element(5, struct.pack(f"<{len(dims)}i", *dims))
    body += element(1, name)
    body += struct.pack("<II", 2, size if size is not None else 8) + b"\x01" * 8
    data = struct.pack("<II", 14, len(body)) + body
    if compressed:
        packed = zlib.compress(data)
        data = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + data


def zeros(n):
    """A MATLAB file that is small and holds n bytes of zeros."""
    body = struct.pack("<II", 6, 8) + struct.pack("<II", 9, 0)
    body += struct.pack("<II", 5, 8) + struct.pack("<ii", n // 88, 88)
    body += struct.pack("<II", 1, 9) + b"traindata".ljust(16, b"\0")
    body += struct.pack("<II", 2, n // 88 * 88) + bytes(n // 88 * 88) + bytes(-(n // 88 * 88) % 8)
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body)
    data = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + data


MATS = {
    "cells of 2**27": lambda: mat_of((1, 2**27), kind=1),
    "cells of 2**31": lambda: mat_of((2**31 - 1, 2**31 - 1), kind=1),
    "objects of 2**26": lambda: mat_of((1, 2**26), kind=3),
    "structs of 2**26": lambda: mat_of((1, 2**26), kind=2),
    "numbers of 2**28": lambda: mat_of((2**28, 1)),
    "below zero": lambda: mat_of((-5, 88), kind=1),
    "element of 2**31": lambda: mat_of((1, 1), size=2**31 - 8),
    "not compressed": lambda: mat_of((1, 2**27), kind=1, compressed=False),
    "300 MB of zeros": lambda: zeros(300 << 20),
}


def peak():
    """The most memory that this process had, in MB, whatever that of its parent's was."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


def main():
    """Read every pickle; print what was refused, and the peak of memory."""
    import copyreg
    import os
    import resource

    from lstm_music.corpus.roll_files import rolls_in
    from lstm_music.corpus.roll_process import limit
    from lstm_music.errors import UserError

    copyreg.add_extension("os", "system", 240)
    mode, path = sys.argv[1], Path("hostile.pickle")
    forbidden = []
    acts = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.", "webbrowser.")

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & {*arguments[1]}
        if watching and (event.startswith(acts) or writes):
            forbidden.append(event)

    watching = False
    sys.addaudithook(watch)
    before = peak()
    refused, ran, slowest = 0, 0, 0.0
    for name, data in pickles().items():
        start = time.monotonic()
        path.write_bytes(data)
        if mode == "restricted":
            if refused == 0:
                limit(path)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))  # payloads may try
            watching = True
            try:
                rolls_in(path)
            except UserError as error:
                refused += "\n" not in str(error)
            watching = False
        elif name not in BOMBS:
            try:
                pickle.loads(data)
            except BaseException:
                refused += 1
        slowest = max(slowest, time.monotonic() - start)
        if Path("ran").exists():
            ran += 1
            os.unlink("ran")
    said = {"all": len(pickles()), "refused": refused, "ran": ran, "mb": peak() - before}
    said["seconds"] = slowest
    print(json.dumps(said | {"forbidden": forbidden}))


if __name__ == "__main__":
    main()
