"""What a representation leaves out of a corpus, told in a line."""

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.splits import SPLITS
from lstm_music.corpus.survey import GRID, Survey
from lstm_music.corpus.words import MessageCorpus
from lstm_music.midi.grid import Grid, Moved
from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE

KEEPS = {  # by representation
    "message": ("onsets", "outside", "notes"),
    "event": ("onsets", "outside", "notes", "meters", "phrases"),
    "chord": (),
    "note": (),
    "performance": ("onsets", "outside", "notes", "velocities", "pedals"),
}
LAYOUT_KEEPS = {  # beside them, by the layout of tracks
    "flatten": ("parts", "unisons"),
    "merge": (),
    "parts": ("parts", "unisons", "programs", "names"),
}


def told_of(survey: Survey | None, reading: Reading, corpus: Corpus) -> list[str]:
    """Return the lines that say what a corpus leaves out, moves and doesn't hold out.

    survey: of its files, None where they are piano rolls.
    """
    lost = left_out(survey, reading, corpus) if survey else ""
    moved = how_moved(corpus.grid, corpus.moved) if isinstance(corpus, MessageCorpus) else ""
    return [line for line in (lost, moved, memorised(corpus)) if line]


def keeps(reading: Reading, parts: bool = False) -> set[str]:
    """Return what a corpus keeps of what its files hold, by the names that `counts_of` has.

    parts: whether its words tell them.
    """
    kept = {*KEEPS[reading.representation]}
    if reading.rolls("") is None:
        kept |= {*LAYOUT_KEEPS["parts" if parts else reading.messages().layout]}
        kept |= {"keys"} if reading.key else set()
    kept -= {"onsets"} if reading.grid else set()
    return kept | ({"drums"} if reading.drums else set())


def left_out(survey: Survey, reading: Reading, corpus: Corpus) -> str:
    """Return what a corpus leaves out of its files, with counts, in a line; "" for nothing."""
    kept = keeps(reading, "parts" in corpus.tokenizer_json())
    lost = [words for name, words in counts_of(survey, corpus).items() if name not in kept]
    told = ", ".join(words for words in lost if words)
    return f"left out: {told}" if told else ""


def counts_of(survey: Survey, corpus: Corpus) -> dict[str, str]:
    """Return what there is that may be left out, by name, each with its count; "" where none is.

    Of one velocity nothing is lost, nor of what is so anyway: program 0, bars of 4/4.
    """
    programs, meters = {*survey.programs} - {0}, {*survey.meters} - {WHOLE_NOTE}
    merged, frames = survey.notes - sum(corpus.notes), 0
    grid: Grid | None = getattr(corpus, "grid", None)
    if isinstance(corpus, RollCorpus):
        frames, merged, grid = max(merged - survey.outside, 0), 0, corpus.reading.grid
    off = survey.notes - survey.on_grid(grid) if grid else 0
    different = len(survey.velocities)
    velocities = f"{survey.notes:,} velocities ({different} different)" if different > 1 else ""
    return {
        "velocities": velocities,
        "pedals": some(survey.pedals, "pedal change"),
        "programs": some(len(programs), "program"),
        "tempos": some(survey.tempos, "tempo change"),
        "meters": some(len(meters), "meter"),
        "keys": some(survey.keys, "key signature"),
        "phrases": some(survey.phrases, "end of a phrase", "ends of phrases"),
        "parts": f"{survey.joined:,} tracks (merged)" if survey.joined else "",
        "names": some(len(survey.names), "name of a part", "names of parts"),
        "unisons": some(merged, "unison"),
        "outside": some(survey.outside, "note outside the piano", "notes outside the piano"),
        "onsets": some(off, "onset off the grid", "onsets off the grid"),
        "notes": f"{frames:,} notes joined or too short" if frames else "",
        "drums": some(survey.drums, "drum hit"),
    }


def some(n: int, one: str, many: str = "") -> str:
    """Return so many things in words, none in none."""
    return f"{n:,} {one if n == 1 else many or one + 's'}" if n else ""


def how_played(survey: Survey) -> str:
    """Return in words whether music was played or written, and by what that is told."""
    kind = "played" if survey.played else "written"
    share = f"{survey.on_grid(GRID):,} of {survey.notes:,} onsets"
    return f"{kind}: {share} lie on a grid of {GRID} to a whole note"


def how_moved(grid: Grid | None, moved: Moved) -> str:
    """Return what putting notes on a grid came to, in a line; "" without one."""
    if grid is None:
        return ""
    mean = moved.ticks / max(moved.notes, 1)
    error = f"{mean:.1f} ticks on average, {moved.furthest} at most"
    return (
        f"on the grid {grid}: {moved.notes:,} onsets moved by {error} ({TICKS_PER_QUARTER} a "
        f"quarter note), {moved.lengthened:,} notes lengthened to a step, {moved.joined:,} joined "
        "with others of their pitch"
    )


def memorised(corpus: Corpus) -> str:
    """Return what to know of a corpus with nothing to hold out, "" of others."""
    train = corpus.splits["train"]
    if any(corpus.splits[split] != train for split in SPLITS):
        return ""
    pieces = "the training piece" if len(train) == 1 else "the training pieces"
    return f"valid and test are {pieces}: what they measure is memory"
