"""Feed the parsers of files rubbish, and see that they refuse it in one line.

    python tools/fuzz.py --seconds 600 [--only pickle] [--engine atheris|loop]

atheris (pip install atheris) is guided by the branches that an input takes; without it, a loop
mutates the seeds blindly. What isn't a UserError of one line is a finding: it is printed with the
input, and the exit status is 1. Memory is bounded, as it is for the reader of piano rolls.

`damage-…` damages a checkpoint's file: that must be noticed, or change nothing that is read. `meta`
and `safetensors` are forged, with the right hashes: whatever fields, headers and sizes they make
up, the checkpoint must be read and composed with, or be refused.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import inspect
import json
import mmap
import os
import random
import resource
import subprocess
import sys
import time
from typing import Any

import fuzz_targets
from fuzz_targets import Target, targets
from lstm_music.corpus.roll_process import in_use
from lstm_music.errors import UserError

MEMORY = 1 << 30  # bytes of address space beyond what is loaded
LARGEST = 1 << 16  # bytes of an input
HEAD = 64  # bytes in which every third change is: the headers


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
        at = rng.randrange(min(len(data), HEAD) + 1 if rng.random() < 1 / 3 else len(data) + 1)
        kind, n = rng.randrange(8), rng.randint(1, rng.choice((8, 8, 4096)))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])
        elif kind == 2:
            del data[at : at + n]
        elif kind == 3:
            data[at:at] = rng.randbytes(min(n, 8))
        elif kind == 4:
            source = rng.choice(seeds)
            start = rng.randrange(len(source))
            data[at:at] = source[start : start + n]
        elif kind == 5:
            data[at : at + n] = bytes(len(data[at : at + n]))  # as of a disk that never wrote it
        elif kind == 6:
            del data[at:]
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
        data = (target.mutate or mutated)(target.seeds, rng)
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
    found = fuzz_targets.FOLDER / "findings"
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
    folder = fuzz_targets.FOLDER / f"seeds-{hashlib.sha256(target.seeds[0]).hexdigest()[:8]}"
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
                   f"-artifact_prefix={fuzz_targets.FOLDER}/", str(folder)], one)  # fmt: skip
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
            before = peak()
            count, findings = loop(found[name], share, args.seed)
            contained = f", memory +{peak() - before >> 20} MB"
        print(f"{name}: {count:,} executions, {len(findings)} findings{contained}", flush=True)
        for wrong, data in findings.items():
            print(f"  {wrong}: {data[:400]!r}")
        status |= bool(findings)
    return status


def peak() -> int:
    """Return the most memory this process ever held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def bound() -> None:
    """Bound this process's memory, where the system can."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (in_use() + MEMORY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main())
