"""What tools/fuzz.py feeds: parsers with inputs to begin with, and how a checkpoint is forged."""

import hashlib
import io
import json
import os
import pickle
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from lstm_music.corpus.disk import HASH, META, cache_hash, read_cache
from lstm_music.corpus.load import Reading
from lstm_music.corpus.roll_files import SPLITS, rolls_in
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Piece
from lstm_music.network.config import Config
from lstm_music.network.learning_rate import Annealing
from lstm_music.network.model import Model, init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import (
    META_FILE,
    MODEL_FILE,
    TRAIN_FILE,
    read_arrays,
    read_checkpoint,
    sealed,
    write_checkpoint,
)
from lstm_music.runs.folder import CONFIG, described_options
from lstm_music.runs.settings import Progress, Settings
from lstm_music.sampling.composer import Composer, Primer
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.untrusted import parse_json

# Of this process alone: two that damage the same checkpoint would find each other's damage.
FOLDER = Path(tempfile.gettempdir()) / f"lstm-music-fuzz-{os.getpid()}"


class Target(NamedTuple):
    """A parser: inputs to begin with, and a call that raises nothing but a UserError.

    apart: where the product has a process of its own for it, whose crash is one line too. mutate:
    makes an input of the seeds.
    """

    seeds: list[bytes]
    call: Callable[[bytes], object]
    apart: bool = False
    mutate: Callable[[list[bytes], random.Random], bytes] | None = None


def targets() -> dict[str, Target]:
    """Return every parser by name."""
    FOLDER.mkdir(exist_ok=True)
    path = small_checkpoint(FOLDER)
    whole = {name: (path / name).read_bytes() for name in (MODEL_FILE, TRAIN_FILE, META_FILE)}
    content, composer = content_of(path), composer_in(path)
    return {
        "midi": Target(midi_seeds(), lambda data: read_midi(data, "a")),
        "mat": Target(mat_seeds(), lambda data: rolls_in(written("a.mat", data)), True),
        "pickle": Target(pickle_seeds(), lambda data: rolls_in(written("a.pickle", data)), True),
        "npy": Target(npy_seeds(), read_npy),
        "meta": Target(
            [whole[META_FILE]], lambda data: read_forged(whole | {META_FILE: data}), False, spoiled
        ),
        "safetensors": Target(
            [whole[MODEL_FILE]],
            lambda data: read_forged(whole | {MODEL_FILE: data}),
            False,
            forged_arrays,
        ),
        **{
            f"damage-{name.partition('.')[0]}": Target([data], damage_reader(whole, name, content))
            for name, data in whole.items()
        },
        "config": Target([json.dumps(described()).encode()], read_config),
        "primer": Target(midi_seeds(), lambda data: read_primer(composer, data)),
    }


def written(name: str, data: bytes) -> Path:
    """Write a file into the folder of inputs."""
    path = FOLDER / name
    path.write_bytes(data)
    return path


# Seeds ------------------------------------------------------------------------------------------


def midi_seeds() -> list[bytes]:
    """Return a small MIDI file of two tracks."""
    track = np.array([(0, 1, 60), (240, 0, 60), (240, 1, 64), (480, 0, 64)], np.int32)
    made = io.BytesIO()
    write_midi(Piece("a", [track, track + np.array([120, 0, 3], np.int32)]), made)
    return [made.getvalue()]


def mat_seeds() -> list[bytes]:
    """Return a data set as MATLAB has it, compressed and not."""
    cells = np.empty((1, 2), object)
    cells[0] = [np.eye(3, 88, dtype=np.uint8), np.eye(2, 88)]
    made = []
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, {f"{s}data": cells for s in SPLITS}, do_compression=compressed)
        made.append(file.getvalue())
    return made


def pickle_seeds() -> list[bytes]:
    """Return a data set in each protocol, as tuples and as arrays."""
    tuples = {split: [[(60, 64), ()], [(21,)]] for split in SPLITS}
    arrays = {split: [[np.array([60, 64])], [[np.int64(60)]]] for split in SPLITS}
    return [pickle.dumps(music, n) for n in range(6) for music in (tuples, arrays)]


def npy_seeds() -> list[bytes]:
    """Return an array as a prepared corpus has it."""
    file = io.BytesIO()
    np.save(file, np.arange(12, dtype=np.int32).reshape(6, 2))
    return [file.getvalue()]


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


def described() -> dict[str, object]:
    """Return what config.json of a run says."""
    return {
        "format": 1,
        "source": {"corpus": "bach", "data": None},
        "tokenizer": {"name": "message", "layout": "merge"},
        "reading": asdict(Reading()),
        "model": Config(3).to_json(),
        "training": asdict(Settings()),
    }


# Calls ------------------------------------------------------------------------------------------


def read_npy(data: bytes) -> None:
    """Read a prepared corpus whose array is this and whose hash is right."""
    folder = FOLDER / "cache"
    folder.mkdir(exist_ok=True)
    (folder / "ids.npy").write_bytes(data)
    (folder / META).write_text("{}")
    (folder / HASH).write_text(cache_hash(folder))
    found = read_cache(folder)
    if found is not None and any(a.dtype.hasobject for a in found[1].values()):
        raise AssertionError("an array of objects")


def laid_out(files: dict[str, bytes]) -> Path:
    """Write the files of a checkpoint; return its folder."""
    for name, data in files.items():
        written(name, data)
    return FOLDER


def content_of(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read all of a checkpoint, as resuming does."""
    checkpoint = read_checkpoint(path)
    arrays = read_arrays(path, TRAIN_FILE, checkpoint.meta)
    found = {k: a.tobytes() for k, a in {**checkpoint.parameters, **arrays}.items()}
    return checkpoint.meta, found


def damage_reader(whole: dict[str, bytes], name: str, content: Any) -> Callable[[bytes], None]:
    """Return what reads a checkpoint with another file of that name; content: what was in it."""

    def read(data: bytes) -> None:
        if content_of(laid_out(whole | {name: data})) != content:
            raise AssertionError("a damage that nobody noticed")

    return read


def read_forged(files: dict[str, bytes]) -> None:
    """Read a checkpoint, with hashes that are right, and compose with it."""
    try:
        meta = dict(parse_json(files[META_FILE]))
    except (TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    meta.pop("seal", None)
    if isinstance(meta.get("sha256"), dict):
        for name in (MODEL_FILE, TRAIN_FILE):
            meta["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
    words = meta.get("vocabulary")
    if isinstance(words, dict) and isinstance(words.get("words"), list):
        joined = "\n".join(map(str, words["words"])).encode(errors="replace")
        words["hash"] = hashlib.sha256(joined).hexdigest()
    path = laid_out(files | {META_FILE: sealed(meta)})
    content_of(path)
    composer = composer_in(path)
    primers = [opening.music for opening in composer.openings()][:1] or [[]]
    options = composer.fitted(Options(length=max(4, len(primers[0]) + 2)))
    for music in composer.compose(primers, options, lambda done, most: None):
        composer.piece(music, options, "a")


def composer_in(path: Path) -> Composer[Any]:
    """Return what composes with a checkpoint."""
    checkpoint = read_checkpoint(path)
    return composer_of(
        checkpoint, Model(checkpoint.config, get_ops("numpy"), 0, checkpoint.parameters)
    )


def read_config(data: bytes) -> None:
    """Read the description of a run."""
    described_options(written(CONFIG, data).parent)


def read_primer(composer: Composer[Any], data: bytes) -> None:
    """Read a MIDI file as what a piece begins with: its end, and its beginning."""
    path = written("a.mid", data)
    for from_start in (False, True):
        composer.opening_of(Primer(path, 64, from_start), lambda line: None)


# Forgeries --------------------------------------------------------------------------------------

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.5, 1e308,
    float("inf"), float("nan"), "", "x", "message", "chord", "note", "nade", "softmax",
    "note-on-60-99999999999", "\ud800", "<script>", [], {}, [[]], [1] * 50, {"a": 1}, "a" * 9999,
)  # fmt: skip


def spoiled(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a JSON object with one to three fields changed."""
    meta = json.loads(rng.choice(seeds))
    for _ in range(rng.randint(1, 3)):
        spoil(meta, rng)
    return json.dumps(meta).encode()


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


def forged_arrays(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a safetensors file whose header says something else."""
    data = rng.choice(seeds)
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
