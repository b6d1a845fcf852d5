"""Damage a checkpoint's files at random, and forge them, and see that nobody is fooled.

    python tools/damage_campaign.py --damages 1000 --forgeries 1000

A damage flips bits, cuts a file short, or overwrites, repeats or drops a part of it: it must be
detected, or change nothing that is read. A forgery also has the right hashes: whatever fields,
headers and sizes it makes up, it must be read or be refused in one line, in little memory. Prints
what was seen; the exit status is 1 where anything went wrong.
"""

import argparse
import hashlib
import json
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.learning_rate import Annealing
from lstm_music.network.model import Model, init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import (
    META_FILE,
    MODEL_FILE,
    TRAIN_FILE,
    Checkpoint,
    read_arrays,
    read_checkpoint,
    sealed,
    write_checkpoint,
)
from lstm_music.runs.settings import Progress, Settings
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.tokenizers.vocabulary import Vocabulary

FILES = (MODEL_FILE, TRAIN_FILE, META_FILE)
MOST_MEMORY = 200 << 20  # bytes that reading may take at its highest
HEAD = 64  # bytes in which every third damage is: the headers
RESULTS = ("detected", "harmless")

Content = tuple[dict[str, Any], dict[str, bytes]]


def main() -> int:
    """Damage and forge, print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--forgeries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = small_checkpoint(Path(folder))
        whole = {name: (path / name).read_bytes() for name in FILES}
        content = read(path)
        before = peak()
        damages = Counter(damaged(path, whole, content, rng) for _ in range(args.damages))
        forgeries = Counter(forged(path, whole, rng) for _ in range(args.forgeries))
    grown = peak() - before
    print(f"damages: {shown(damages)}; forgeries: {shown(forgeries)}; memory +{grown >> 20} MB")
    wrong = {*damages, *forgeries} - {"detected", "harmless", "read", "refused"}
    return int(bool(wrong) or grown > MOST_MEMORY)


def shown(counts: Counter[str]) -> str:
    """Return counts in words."""
    return ", ".join(f"{n:,} {what}" for what, n in counts.most_common()) or "none"


def peak() -> int:
    """Return the most memory this process ever held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def small_checkpoint(run: Path) -> Path:
    """Write a checkpoint of a small model."""
    words = ["piece-end", *(f"note-o{k}-{p}-{d}" for k in ("n", "ff") for p in (60, 64)
                            for d in (0, 240))]  # fmt: skip
    vocabulary = Vocabulary(words)
    config = Config(len(words), embedding=4, hidden=6, layers=2)
    parameters = init_parameters(config, get_ops("numpy"), 0)
    slots = {f"slot.{s}.{k}": np.ones_like(p) for s in "mv" for k, p in parameters.items()}
    meta = {
        "model": config.to_json(),
        "vocabulary": vocabulary.to_json(),
        "tokenizer": {"name": "message", "layout": "merge"},
        "corpus": {"name": "a", "key": "b", "augment": 0, "longest_note": 480, "most_notes": 2,
                   "max_tracks": 1},
        "primers": [{"name": "a.mid", "ids": [1, 2, 3]}],
        "settings": Settings().__dict__,
        "progress": Progress(step=9, best=1.5).to_json(),
        "annealing": Annealing(0.01).to_json(),
        "optimizer_steps": 9,
    }  # fmt: skip
    return write_checkpoint(run, 9, parameters, slots, meta)


def read(path: Path) -> Content:
    """Read all of a checkpoint, as resuming does."""
    checkpoint = read_checkpoint(path)
    arrays = read_arrays(path, TRAIN_FILE, checkpoint.meta)
    found = {k: a.tobytes() for k, a in {**checkpoint.parameters, **arrays}.items()}
    return checkpoint.meta, found


def damaged(path: Path, whole: dict[str, bytes], content: Content, rng: random.Random) -> str:
    """Damage one file; return what came of it."""
    name = rng.choice(FILES)
    damage: Callable[[bytes, random.Random], bytes] = rng.choice(
        (flipped, flipped, cut, overwritten, repeated, dropped)
    )
    (path / name).write_bytes(damage(whole[name], rng))
    try:
        return "harmless" if read(path) == content else f"unnoticed in {name}"
    except UserError as error:
        return "detected" if "\n" not in str(error) else "told in many lines"
    except Exception as error:
        return f"a {type(error).__name__} in {name}"
    finally:
        (path / name).write_bytes(whole[name])


def place(data: bytes, rng: random.Random) -> int:
    """Return a place in a file, often in its head."""
    return rng.randrange(min(len(data), HEAD) if rng.random() < 1 / 3 else len(data))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return data with one to eight bits flipped."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        made[place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(made)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Return data without its end."""
    return data[: place(data, rng)]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """Return data with a part of zeros, as of a disk that never wrote it."""
    start = place(data, rng)
    stop = min(len(data), start + rng.randint(1, 4096))
    return data[:start] + bytes(stop - start) + data[stop:]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """Return data with a part of it twice."""
    start = place(data, rng)
    return data[: start + rng.randint(1, 4096)] + data[start:]


def dropped(data: bytes, rng: random.Random) -> bytes:
    """Return data with a part left out."""
    start = place(data, rng)
    return data[:start] + data[start + rng.randint(1, 4096) :]


# Forgeries --------------------------------------------------------------------------------------

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.5, 1e308,
    float("inf"), float("nan"), "", "x", "message", "chord", "note", "nade", "softmax",
    "note-on-60-99999999999", "\ud800", "<script>", [], {}, [[]], [1] * 50, {"a": 1}, "a" * 9999,
)  # fmt: skip


def forged(path: Path, whole: dict[str, bytes], rng: random.Random) -> str:
    """Forge a file, its hashes right; return what came of it."""
    meta = json.loads(whole[META_FILE])
    del meta["seal"]
    files = {name: whole[name] for name in (MODEL_FILE, TRAIN_FILE)}
    if rng.random() < 0.7:
        for _ in range(rng.randint(1, 3)):
            spoil(meta, rng)
    else:
        name = rng.choice((MODEL_FILE, TRAIN_FILE))
        files[name] = forged_arrays(files[name], rng)
    try:
        for name, data in files.items():
            (path / name).write_bytes(data)
            if isinstance(meta.get("sha256"), dict) and rng.random() < 0.95:
                meta["sha256"][name] = hashlib.sha256(data).hexdigest()
        words = meta.get("vocabulary")
        if isinstance(words, dict) and isinstance(words.get("words"), list):
            joined = "\n".join(map(str, words["words"])).encode(errors="replace")
            words["hash"] = hashlib.sha256(joined).hexdigest()
        (path / META_FILE).write_bytes(sealed(meta))
        read(path)
        compose(read_checkpoint(path))
        return "read"
    except UserError as error:
        return "refused" if "\n" not in str(error) else "told in many lines"
    except Exception as error:
        return f"a {type(error).__name__} ({error})"
    finally:
        for name in FILES:
            (path / name).write_bytes(whole[name])


def spoil(meta: dict[str, Any], rng: random.Random) -> None:
    """Change a field, at any depth, to something strange, or remove it."""
    holder: Any = meta
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(holder[key], dict | list) and rng.random() < 0.8:
            holder = holder[key]
            continue
        if rng.random() < 0.1:
            del holder[key]
        else:
            holder[key] = rng.choice(STRANGE)
        return


def forged_arrays(data: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose header says something else."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = rng.randrange(5)
    if kind == 0:  # a length that isn't the header's
        return (
            rng.choice((0, 1, size - 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)).to_bytes(
                8, "little"
            )
            + data[8:]
        )
    if kind == 1:  # very many arrays of nothing
        for n in range(rng.choice((10, 20_000))):
            header[f"a{n}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    elif kind == 2:  # nested deep
        text = b"[" * 50_000
        return len(text).to_bytes(8, "little") + text + body
    elif kind == 3:  # numbers that are none
        body = np.full(len(body) // 4, rng.choice((np.nan, np.inf)), np.float32).tobytes()
    else:
        spoil(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def compose(checkpoint: Checkpoint) -> None:
    """Compose a few tokens, as bin/sample does, with all that a checkpoint says of it."""
    from lstm_music.sampling.options import Options

    model = Model(checkpoint.config, get_ops("numpy"), 0, checkpoint.parameters)
    composer = composer_of(checkpoint, model)
    primers = [opening.music for opening in composer.openings()][:1] or [[]]
    options = composer.fitted(Options(length=max(4, len(primers[0]) + 2)))
    for music in composer.compose(primers, options, lambda done, most: None):
        composer.piece(music, options, "a")


if __name__ == "__main__":
    sys.exit(main())
