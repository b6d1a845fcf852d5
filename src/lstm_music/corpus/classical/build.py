"""The corpus `classical`: the scores that music21 carries -> one zip of MIDI files."""

import io
import shutil
import signal
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from lstm_music.corpus.classical.notation import midi_of
from lstm_music.corpus.composer_names import composer_of
from lstm_music.corpus.sources import Skipped
from lstm_music.errors import UserError, pip_install
from lstm_music.files import write_whole

REQUIREMENT = "music21==10.5.1"
FORMAT = 1  # of converted scores; a new number makes those of an unfinished build unused
TIME_LIMIT = 300.0  # seconds of computing a score, where the system has alarms (not on Windows)
SUFFIXES = (".mxl", ".musicxml", ".xml", ".krn", ".abc")  # of several of a score, the first is read
FOLDERS = """
bach beach beethoven chopin ciconia corelli cpebach handel haydn johnson_j_r joplin josquin
liliuokalani luca lusitano monteverdi mozart palestrina schoenberg schubert schumann_clara
schumann_robert trecento verdi weber webern
"""
POLYMETRIC = "its parts stand in different meters, whose bars are not of one length"
FLAWED = {
    "schumann_robert/dichterliebe_no2": "the same song as schumann_robert/opus48no2",
    "schumann_robert/opus41no1-movement1": "its viola is encoded off the beat",
    "trecento/PMFC_24_17-Doctorum_principem-Melodia_suavissima-Vir_mitis": POLYMETRIC,
    "trecento/PMFC_24_6-Gloria_Spiritus_et_alme": POLYMETRIC,
}


@dataclass(frozen=True)
class Built:
    """What a build gave: pieces by composer ("" where no name tells), and the scores left out."""

    pieces: dict[str, int]
    skipped: list[Skipped]


class TooLong(BaseException):
    """A score takes longer than it may; no Exception, for music21 catches those here and there."""


def check_music21() -> None:
    """Raise UserError where music21, which reads the scores, is missing."""
    if not find_spec("music21"):
        raise UserError(f"the scores need music21 to be read: {pip_install(REQUIREMENT)}")


def build(out: Path, jobs: int, progress: bool, folder: Path | None = None) -> Built:
    """Write the corpus to the zip `out`; an interrupted build goes on where it stopped.

    jobs: processes at once; folder: of scores by composer, music21's own where None. Until the zip
    is whole, what is converted lies in a folder beside it. Raises UserError where there are no
    scores, OSError where the disk refuses.
    """
    if folder is None:
        check_music21()
        folder = corpus_folder()
    scores, skipped = find_scores(folder)
    if not scores:
        raise UserError(f"no scores in '{folder}': is music21 whole? {pip_install(REQUIREMENT)}")
    kept = out.with_name(f"{out.name}.parts-{FORMAT}")
    waiting = {name: path for name, path in scores.items() if not is_done(kept, name)}
    bar = tqdm(
        total=len(scores), initial=len(scores) - len(waiting), desc="converting scores",
        unit="score", disable=not progress, leave=False, file=sys.stderr,
    )  # fmt: skip
    with bar:
        for _ in convert_all(waiting, kept, jobs, midi_of):
            bar.update()
    files, left_out = gather(scores, kept)
    skipped = sorted(skipped + left_out)
    write_whole(zip_files(files), out)
    shutil.rmtree(kept)
    composers = Counter(composer_of(name) or "" for name, _ in files)
    return Built(dict(sorted(composers.items())), skipped)


def corpus_folder() -> Path:
    """Return the folder of music21's own corpus."""
    import music21

    return Path(music21.__file__).parent / "corpus"


def find_scores(folder: Path) -> tuple[dict[str, Path], list[Skipped]]:
    """Return the scores to convert, by name such as `beethoven/opus18no1-movement1`, and the rest.

    Of a score that is there in several formats one is taken; old versions and those that FLAWED
    names are not.
    """
    found: dict[str, Path] = {}
    skipped = []
    paths = [path for composer in FOLDERS.split() for path in (folder / composer).rglob("*")]
    by_format = [path for path in paths if path.suffix in SUFFIXES]
    for path in sorted(by_format, key=lambda path: (SUFFIXES.index(path.suffix), path)):
        file = path.relative_to(folder)
        first, *others = file.with_suffix("").parts
        name = f"{first}/{'-'.join(others)}".replace(" ", "_")
        if name in found:
            reason = f"the same score as {found[name].relative_to(folder).as_posix()}"
        elif name.endswith(("_old", "_bak")):
            reason = "an old version of another score"
        elif name in FLAWED:
            reason = FLAWED[name]
        else:
            found[name] = path
            continue
        skipped.append(Skipped(file.as_posix(), reason))
    return dict(sorted(found.items())), skipped


def is_done(kept: Path, name: str) -> bool:
    """Return whether a score was converted, or found to be of no use."""
    return (kept / f"{name}.mid").exists() or (kept / f"{name}.reason").exists()


def convert_all(
    scores: dict[str, Path], kept: Path, jobs: int, read: Callable[[Path], bytes]
) -> Iterator[str]:
    """Convert scores into the folder `kept`; yield the name of each that is done.

    Where a process that reads scores is killed, those that were being read are tried again, each in
    a process of its own; one that is killed there too is left out. A single job runs in this
    process: killed with it, the next build begins with what was being read.
    """
    waiting = dict(scores)
    while waiting:
        suspects = [name for name in waiting if (kept / f"{name}.begun").exists()]
        for name in suspects:
            try:
                list(converted({name: waiting[name]}, kept, 2, read))
            except BrokenProcessPool:
                write_whole(b"the process that reads it is killed", kept / f"{name}.reason")
            (kept / f"{name}.begun").unlink(missing_ok=True)
        # A pool that breaks also loses what it was about to report.
        for name in [name for name in waiting if is_done(kept, name)]:
            del waiting[name]
            yield name
        before = len(waiting)
        try:
            for name in converted(waiting, kept, jobs, read):
                del waiting[name]
                yield name
        except BrokenProcessPool as error:
            ended = (is_done(kept, name) or (kept / f"{name}.begun").exists() for name in waiting)
            if len(waiting) == before and not any(ended):
                raise UserError("the processes that read scores die: try --jobs 1") from error


def converted(
    scores: dict[str, Path], kept: Path, jobs: int, read: Callable[[Path], bytes]
) -> Iterator[str]:
    """Convert scores in several processes; yield the name of each that is done."""
    tasks = [delayed(convert)(name, path, kept, read) for name, path in scores.items()]
    # No more are handed out than are read: those that a killed process leaves were being read.
    run = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    names: Iterator[str] = run(tasks)
    yield from names


def convert(name: str, path: Path, kept: Path, read: Callable[[Path], bytes]) -> str:
    """Convert a score to `name`.mid in the folder, or write `name`.reason; return the name."""
    mark, result = kept / f"{name}.begun", kept / f"{name}.reason"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        try:
            with time_limit(TIME_LIMIT):
                data, result = read(path), kept / f"{name}.mid"
        except TooLong:
            data = f"takes more than {TIME_LIMIT:g} s of computing".encode()
        except Exception as error:  # music21 raises whatever a broken score leads it to
            said = " ".join(str(error).split()) or type(error).__name__
            data = f"can't be read: {said}".encode()
        write_whole(data, result)
    finally:
        mark.unlink()
    return name


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooLong after some seconds of computing: a busy machine makes no score too long."""

    def ring(*_: object) -> None:
        raise TooLong

    if not hasattr(signal, "SIGVTALRM"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def gather(names: Iterable[str], kept: Path) -> tuple[list[tuple[str, bytes]], list[Skipped]]:
    """Return the converted files and those left out; of files with the same notes, the first."""
    files: dict[str, bytes] = {}
    first: dict[bytes, str] = {}
    skipped = []
    for name in names:
        reason = kept / f"{name}.reason"
        if reason.exists():
            skipped.append(Skipped(name, reason.read_text(encoding="utf-8", errors="replace")))
            continue
        data = (kept / f"{name}.mid").read_bytes()
        parts = data.split(b"MTrk", 2)[-1]  # all but the first track, of meters and tempi
        if parts in first:
            skipped.append(Skipped(name, f"has the same notes as {first[parts]}"))
        else:
            first[parts] = name
            files[f"{name}.mid"] = data
    return sorted(files.items()), skipped


def zip_files(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Pack files into a zip whose bytes depend on nothing but names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            # ZipInfo left alone would record this computer's system and the present time.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=9)
    return buffer.getvalue()
