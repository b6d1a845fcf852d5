"""What composes: the contract of each representation's composer, and how its pieces begin."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from lstm_music.errors import UserError, Warn
from lstm_music.midi.bytes import Meter, Tempo
from lstm_music.midi.files import read_midi
from lstm_music.midi.grid import Grid, on_grid
from lstm_music.midi.piece import TEMPO, MidiError, Piece
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.excerpts import in_meter, last_bars, without_silence
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import Rules
from lstm_music.sampling.sampler import sample
from lstm_music.tokenizers.parts import Player, parts_of, players_of

Music = TypeVar("Music", bound=Sized)  # as a model reads it: ids, or frames (n, 88)
Ids = list[int]
Show = Callable[[int, int], None]
Rows = tuple[tuple[int, int], ...]  # of a piece's meter or tempo


class UnknownNotes(UserError):
    """A model knows none of the notes that it is to go on from."""


class Primer(NamedTuple):
    """What is asked of a MIDI file: so many tokens or frames at most, of its end or its beginning.

    bar: the ticks of its bars, None for what it says itself.
    """

    path: Path
    length: int
    from_start: bool = False
    bar: int | None = None


class Opening(NamedTuple):
    """How a piece begins: a name, ids or frames of the piece of that name, and what it says.

    meter: if ids don't tell it; tempo, beats: as Piece's. where: in that piece; ends: with it.
    """

    name: str
    music: Any
    meter: Rows = ()
    tempo: Rows = ()
    beats: Mapping[int, int] = MappingProxyType({})
    where: str = "first"
    ends: bool = False


class Composer(ABC, Generic[Music]):
    """What composes. unit: of its lengths; drums: as Corpus.drums.

    top_p, craft, particles: its defaults of these Options.

    tempo: of what it composes, in quarter notes a minute, where nothing says another. recall: how
    its copy gate compares words, None without one. merged: all tracks are one; tells_bars: so do
    its words. roster: the parts that they tell. primer_grid: on which a file is put, if any;
    played: whether as it is heard.
    """

    unit: str
    top_p: float
    craft: float = 0.0
    particles: int = 1
    drums: list[int] | None = None
    tempo: float = TEMPO
    recall: RecallRules | None = None
    merged: bool = True
    roster: tuple[Player, ...] = ()
    primer_grid: Grid | None = None
    played: bool = False
    tells_bars: bool = False

    def options(self, **asked: Any) -> Options:
        """Return Options as asked, with its defaults of those that are None or left out.

        Where faults cost nothing all drafts are as good: one is drawn.
        """
        own = {"top_p": self.top_p, "craft": self.craft, "particles": self.particles}
        told = {name: value for name, value in asked.items() if value is not None}
        if not told.get("craft", self.craft):
            own["particles"] = 1
        return Options(**own | told)

    @abstractmethod
    def fitted(self, options: Options) -> Options:
        """Return options with the length in what the sampler counts."""

    @abstractmethod
    def openings(self) -> list[Opening]:
        """Return the openings of held-out pieces that it knows."""

    def opening_of(self, asked: Primer, warn: Warn) -> Opening:
        """Return how a MIDI file is gone on with: its last bars that fit, or its first tokens.

        Raises UserError where nothing is left of it.
        """
        whole = read_primer(asked.path, warn, self.drums is not None, self.played, asked.bar)
        whole = on_grid(whole, self.primer_grid) if self.primer_grid else whole
        for lost in losses(whole, self.merged, self.roster, self.played):
            warn(f"{asked.path}: {lost}")
        return self.opening_in(whole, asked, warn)

    def opening_in(self, whole: Piece, asked: Primer, warn: Warn) -> Opening:
        """Return how a piece is gone on with that is on its grid; the path alone is told.

        Raises UnknownNotes where nothing is left of it.
        """
        part = whole if asked.from_start else last_bars(whole, asked.length, self.size_of)
        read = self.read(part, whole, asked.path, warn)
        music = self.cut(read, asked.length if asked.from_start or not asked.length else None, None)
        end = self.ticks(music)
        meter = () if self.tells_bars else rows_before(part.meter, end)
        tempo, where = rows_before(part.tempo, end), "first" if asked.from_start else "last"
        ends = 0 < len(music) == len(read)
        return Opening(str(asked.path), music, meter, tempo, whole.beats, where, ends)

    @abstractmethod
    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Music:
        """Return a piece of a file, which is part of a whole, as it knows one.

        Raises UnknownNotes where nothing is left of it.
        """

    @abstractmethod
    def size_of(self, piece: Piece) -> int:
        """Return how many tokens or frames a piece has, whether it knows them or not."""

    def ends_at_once(self, primer: Music, options: Options, num: int) -> list[bool]:
        """Return of so many pieces whether each ends with a primer. Frames know no end."""
        return [False] * num

    def keep_to(self, bar: int) -> None:
        """Compose in bars of so many ticks alone. Raises UserError where its words know none."""

    @abstractmethod
    def cut(self, music: Music, n: int | None, limit: int | None) -> Music:
        """Return the first n tokens or frames, or fewer that end by a limit in ticks."""

    @abstractmethod
    def compose(self, primers: Sequence[Music], options: Options, show: Show) -> list[Music]:
        """Return one piece for each primer; see `sampler.sample`."""

    @abstractmethod
    def size(self, music: Music, options: Options) -> int:
        """Return the length in units of what it composed with these options."""

    @abstractmethod
    def ticks(self, music: Music) -> int:
        """Return how long music that no piece's end is in lasts."""

    @abstractmethod
    def piece(
        self, music: Music, options: Options, name: str, primer: Music | None = None
    ) -> Piece:
        """Decode what it composed with these options after a primer (default: none)."""


def sample_on_cpu(
    model: Model,
    primers: Sequence[Ids],
    options: Options,
    rules: Rules,
    show: Show,
    recall: RecallRules | None = None,
) -> list[Ids]:
    """Return one piece for each primer: `sampler.sample`, compiled where the model is on Numba.

    A factored head's model has no compiled loop.
    """
    if model.ops.name != "numba" or model.words is not None:
        return sample(model, primers, options, rules, show, recall)
    from lstm_music.sampling.compiled import sample_compiled

    return sample_compiled(model, primers, options, rules, show, recall)


# How pieces begin --------------------------------------------------------------------------------


def primers_of(
    composer: Composer[Any],
    options: Options,
    num: int,
    n: int,
) -> list[Opening]:
    """Return how so many pieces begin: with at most n tokens or frames of a held-out piece each.

    Where the length counts them they are at most half of it, so that something is composed.
    """
    length, limit = options.length, options.limit
    if options.bars is not None:
        limit = options.bars * options.line_and_bar[1]
    length, limit = length and length // 2, limit and limit // 2
    if options.beyond:
        length = limit = None
    n = n if length is None else min(n, length)
    candidates = composer.openings() or [Opening("", [])]
    chosen = np.random.default_rng(options.seed).integers(len(candidates), size=num)
    some = (candidates[k] for k in chosen)
    return [one._replace(music=composer.cut(one.music, n, limit)) for one in some]


def origin_of(composer: Composer[Any], opening: Opening, options: Options) -> str:
    """Return in words where a piece's beginning comes from, "" where it has none."""
    if not len(opening.music):
        return ""
    size = composer.size(opening.music, options)
    return f"the {opening.where} {size} {composer.unit} of {opening.name}"


def from_silence(composer: Composer[Any], num: int, asked: Options) -> list[Piece]:
    """Return so many pieces that a composer makes without an opening, by number."""
    options = composer.fitted(asked)
    opening = (composer.openings() or [Opening("", [])])[0]
    silence = composer.cut(opening.music, 0, None)
    made = composer.compose([silence] * num, options, lambda *_: None)
    return [composer.piece(music, options, f"sample {n + 1}") for n, music in enumerate(made)]


def drums_of(checkpoint: Checkpoint) -> list[int] | None:
    """Return Corpus.drums of what a checkpoint was trained on."""
    pitches: list[int] | None = checkpoint.meta.get("corpus", {}).get("drums")
    return pitches


def tempo_of(checkpoint: Checkpoint) -> float:
    """Return the quarter notes a minute of what a checkpoint was trained on, TEMPO if unknown."""
    return float(checkpoint.meta.get("corpus", {}).get("tempo", TEMPO))


def read_primer(path: Path, warn: Warn, drums: bool, played: bool, bar: int | None) -> Piece:
    """Return the piece of a MIDI file, from its first note's bar on.

    drums, played: as of read_midi; bar: as Primer's. Raises UserError where there is none.
    """
    if not path.is_file():
        raise UserError(f"no file '{path}': give --primer a MIDI file")
    try:
        piece = read_midi(path, path.name, drums, played)
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give --primer another MIDI file") from error
    if played:  # it has no bars, and its words begin with its first note
        return piece
    piece, silent = without_silence(piece if bar is None else in_meter(piece, bar))
    if silent:
        warn(f"{path} begins with {bars_in_words(silent)} of silence: left out")
    return piece


def bars_in_words(bars: int) -> str:
    """Return so many bars in words."""
    return "a bar" if bars == 1 else f"{bars} bars"


def rows_before(rows: Meter | Tempo, tick: int) -> Rows:
    """Return what a piece says of its meter or tempo before a tick."""
    return tuple((at, value) for at, value in rows.tolist() if at < tick)


def changed_players(players: Sequence[Player], roster: Sequence[Player]) -> list[str]:
    """Return, in words, which players of a piece become others, of a roster."""
    known = [roster[part] for part in parts_of(players, roster)]
    pairs = [
        (one.name or f"program {one.program}", other.name or f"program {other.program}")
        for one, other in zip(players, known, strict=True)
        if (one.program, one.drums) != (other.program, other.drums)
    ]
    return [f"its {one} plays as {other}" for one, other in dict.fromkeys(pairs)]


def losses(
    piece: Piece, merged: bool, roster: Sequence[Player] = (), played: bool = False
) -> list[str]:
    """Return in a line what a primer has that no word tells; merged: of tracks neither.

    roster: the parts that words tell; played: they tell dynamics.
    """
    tracks, drums = len(piece.tracks), piece.repairs.get("drum notes left out", 0)
    loud = np.concatenate([np.zeros(0, np.int32), *piece.velocities])
    lost = [f"its {tracks} tracks become one"] * (merged and tracks > 1 and not roster)
    if roster:
        lost += changed_players(players_of(piece), roster)
    else:
        lost += ["its instruments are lost"] * any(part.program for part in piece.parts)
    lost += ["how loudly its notes are struck is lost"] * (len(np.unique(loud)) > 1 and not played)
    lost += [f"its drums are left out ({drums} notes)"] * (drums > 0)
    return [", ".join(lost)] if lost else []
