"""Feed the parsers of files rubbish, and see that they refuse it in one line.

    python tools/fuzz.py --seconds 600 [--only pickle] [--engine atheris|loop]

atheris (pip install atheris) is guided by the branches that an input takes; without it, a loop
mutates the seeds blindly. What isn't a UserError of one line is a finding: it is printed with the
input, and the exit status is 1. Memory is bounded, as it is for the reader of piano rolls.
"""

import argparse
import faulthandler
import hashlib
import inspect
import io
import json
import mmap
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
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
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint, arrays_of
from lstm_music.runs.folder import CONFIG, described_options
from lstm_music.runs.meta import check_meta
from lstm_music.runs.settings import Progress, Settings
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.untrusted import parse_json

MEMORY = 1 << 30  # bytes of address space beyond what is loaded
LARGEST = 1 << 16  # bytes of an input
FOLDER = Path(tempfile.gettempdir()) / "lstm-music-fuzz"


class Target(NamedTuple):
    """A parser: inputs to begin with, and a call that raises nothing but a UserError.

    apart: where the product has a process of its own for it, whose crash is one line too.
    """

    seeds: list[bytes]
    call: Callable[[bytes], object]
    apart: bool = False


def targets() -> dict[str, Target]:
    """Return every parser by name."""
    FOLDER.mkdir(exist_ok=True)
    return {
        "midi": Target(midi_seeds(), lambda data: read_midi(data, "a")),
        "mat": Target(mat_seeds(), lambda data: rolls_in(written("a.mat", data)), True),
        "pickle": Target(pickle_seeds(), lambda data: rolls_in(written("a.pickle", data)), True),
        "npy": Target(npy_seeds(), read_array),
        "meta": Target([json.dumps(meta()).encode()], read_meta),
        "safetensors": Target(safetensors_seeds(), read_arrays),
        "config": Target([json.dumps(described()).encode()], read_config),
        "primer": Target(midi_seeds(), read_primer),
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


def meta() -> dict[str, object]:
    """Return what meta.json of a checkpoint says."""
    words = ["piece-end", "note-on-60-0", "note-off-60-120"]
    return {
        "model": Config(3, 4, 4, 1).to_json(),
        "vocabulary": Vocabulary(words).to_json(),
        "tokenizer": {"name": "message", "layout": "merge"},
        "corpus": {"name": "a", "key": "b", "longest_note": 480, "most_notes": 2, "max_tracks": 1},
        "primers": [{"name": "a.mid", "ids": [1, 2]}],
        "settings": asdict(Settings()),
        "progress": Progress(step=9, best=1.5).to_json(),
        "annealing": Annealing(0.01).to_json(),
        "optimizer_steps": 9,
        "step": 9,
        "sha256": {},
    }


def safetensors_seeds() -> list[bytes]:
    """Return arrays as a checkpoint has them."""
    from safetensors.numpy import save

    return [save({"a": np.ones((2, 3), np.float32), "b": np.zeros(2)}), save({})]


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


def read_array(data: bytes) -> None:
    """Read a prepared corpus whose array is this and whose hash is right."""
    folder = FOLDER / "cache"
    folder.mkdir(exist_ok=True)
    (folder / "ids.npy").write_bytes(data)
    (folder / META).write_text("{}")
    (folder / HASH).write_text(cache_hash(folder))
    found = read_cache(folder)
    if found is not None and any(a.dtype.hasobject for a in found[1].values()):
        raise AssertionError("an array of objects")


def read_meta(data: bytes) -> None:
    """Check a checkpoint's meta.json as `read_checkpoint` does."""
    try:
        check_meta(dict(parse_json(data)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(" ".join(str(error).split())) from error


def read_arrays(data: bytes) -> None:
    """Read the arrays of a checkpoint as `read_arrays` does."""
    from safetensors import SafetensorError

    try:
        arrays_of(data)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(" ".join(str(error).split())) from error


def read_config(data: bytes) -> None:
    """Read the description of a run."""
    described_options(written(CONFIG, data).parent)


_composers: list[Checkpoint] = []


def read_primer(data: bytes) -> None:
    """Read a MIDI file as the opening of a piece."""
    if not _composers:
        config, vocabulary = check_meta(described_model := meta())
        parameters = Model(config, get_ops("numpy")).parameters
        _composers.append(Checkpoint(FOLDER, described_model, config, vocabulary, parameters))
    checkpoint = _composers[0]
    model = Model(checkpoint.config, get_ops("numpy"), parameters=checkpoint.parameters)
    composer = composer_of(checkpoint, model)
    opening = composer.opening_of(written("a.mid", data), lambda line: None)
    composer.cut(opening.music, 64, None)


# Fuzzing ----------------------------------------------------------------------------------------


def check(target: Target, data: bytes) -> str:
    """Feed a parser; return what is wrong with how it took it, or nothing."""
    try:
        target.call(data)
    except UserError as error:
        return "many lines" if "\n" in str(error) else ""
    except MemoryError:
        return ""  # the bound below; the reader's process has it too
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def mutated(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a seed with some parts changed, or rubbish."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])
        elif kind == 2:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 4:
            source = rng.choice(seeds)
            start = rng.randrange(len(source))
            data[at:at] = source[start : start + rng.randint(1, 64)]
        else:
            data[at : at + 4] = rng.choice((0, 2**31 - 1, 2**32 - 1, 2**16)).to_bytes(4, "little")
    return bytes(data[:LARGEST])


def loop(
    target: Target, seconds: float, seed: int, counter: Any = None
) -> tuple[int, dict[str, bytes]]:
    """Feed a parser mutations for so long; return how many, and an input of each finding.

    counter: memory that others see, in which to count.
    """
    rng, until = random.Random(seed), time.monotonic() + seconds
    count, findings = 0, dict[str, bytes]()
    while time.monotonic() < until:
        data = mutated(target.seeds, rng)
        count += 1
        if counter is not None:
            counter[:8] = count.to_bytes(8, "little")
        wrong = check(target, data)
        if wrong:
            findings.setdefault(wrong[:60], data)
    return count, findings


def loop_apart(target: Target, seconds: float, seed: int) -> tuple[int, dict[str, bytes], int]:
    """As `loop`, in a process that may crash; return how often it did, too."""
    until = time.monotonic() + seconds
    count, crashes, findings = 0, 0, dict[str, bytes]()
    counter = mmap.mmap(-1, 8)
    found = FOLDER / "findings"
    while (left := until - time.monotonic()) > 0:
        counter[:8] = bytes(8)
        child = os.fork()
        if not child:
            faulthandler.disable()  # a crash is counted, not told
            _, some = loop(target, left, seed, counter)
            found.write_text(json.dumps({k: data.hex() for k, data in some.items()}))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        count, seed = count + int.from_bytes(counter[:8], "little"), seed + 1
        if status:
            crashes += 1
        else:
            findings |= {k: bytes.fromhex(s) for k, s in json.loads(found.read_text()).items()}
    return count, findings, crashes


def guided(target: Target, seconds: float, seed: int) -> None:
    """Feed a parser what atheris makes up; it prints how many, and ends this process."""
    import atheris

    if target.apart:
        bound()
    folder = FOLDER / f"seeds-{hashlib.sha256(target.seeds[0]).hexdigest()[:8]}"
    folder.mkdir(exist_ok=True)
    for n, data in enumerate(target.seeds):
        (folder / f"seed-{n}").write_bytes(data)

    def one(data: bytes) -> None:
        if wrong := check(target, data):
            raise AssertionError(wrong)

    for function in followed():
        atheris.instrument_func(function)
    words = [f"-max_total_time={int(seconds)}", f"-seed={seed}", f"-max_len={LARGEST}"]
    atheris.Setup([sys.argv[0], *words, "-rss_limit_mb=4096", "-print_final_stats=1",
                   f"-artifact_prefix={FOLDER}/", str(folder)], one)  # fmt: skip
    atheris.Fuzz()


def followed() -> list[Any]:
    """Return the functions whose branches atheris follows: our own and mido's."""
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] in ("lstm_music", "mido")]
    holders = [*modules, *(c for m in modules for c in vars(m).values() if isinstance(c, type))]
    found = [f for holder in holders for f in vars(holder).values() if inspect.isfunction(f)]
    return [f for f in set(found) if f.__module__.split(".")[0] in ("lstm_music", "mido")]


def main() -> int:
    """Fuzz each parser for its share of the time; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", choices=list(targets()))
    parser.add_argument("--engine", choices=("atheris", "loop"), default="loop")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found = targets()
    if args.only and args.engine == "atheris":
        guided(found[args.only], args.seconds, args.seed)
    names = [args.only] if args.only else list(found)
    share = args.seconds / len(names)
    status = 0
    for name in names:
        if args.engine == "atheris":  # which ends the process
            words = [__file__, "--only", name, "--engine", "atheris", "--seconds", str(share)]
            done = subprocess.run([sys.executable, *words], check=False, stderr=subprocess.PIPE)
            lines = done.stderr.decode(errors="replace").splitlines()
            told = [s for s in lines if "executed_units" in s or "Error" in s or "cov:" in s]
            print(name, "rc", done.returncode, *told[-4:], sep="\n  ", flush=True)
            status |= done.returncode != 0
            continue
        bound()
        if found[name].apart:
            count, findings, crashes = loop_apart(found[name], share, args.seed)
            contained = f", {crashes} crashes of the process that reads it"
        else:
            count, findings = loop(found[name], share, args.seed)
            contained = ""
        print(f"{name}: {count:,} executions, {len(findings)} findings{contained}", flush=True)
        for wrong, data in findings.items():
            print(f"  {wrong}: {data[:400]!r}")
        status |= bool(findings)
    return status


def bound() -> None:
    """Bound this process's memory, where the system can."""
    try:
        import resource

        from lstm_music.corpus.roll_process import in_use

        resource.setrlimit(resource.RLIMIT_AS, (in_use() + MEMORY, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main())
