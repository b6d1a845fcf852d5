"""Composing with models of tokens that MIDI files are made of: messages, events, performances."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import Piece, no_phrases
from lstm_music.network.model import Model
from lstm_music.network.recall_rules import recall_of, tells_phrases
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.composer import (
    Composer,
    Ids,
    Opening,
    Show,
    drums_of,
    meter_of,
    read_primer,
    sample_on_cpu,
)
from lstm_music.sampling.decoding import clipped, decode, end_asked, with_drums
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import Rules, rules_of
from lstm_music.sampling.sampler import ticks_of, within
from lstm_music.tokenizers.events import EventTokenizer, NearestEvent
from lstm_music.tokenizers.messages import (
    PIECE_END,
    TRACK_END,
    MessageTokenizer,
    NearestWord,
    parse,
    spell,
)
from lstm_music.tokenizers.performance import (
    BEATS,
    NearestPerformance,
    PerformanceTokenizer,
)


class TokenComposer(Composer[Ids]):
    """Composes with a model of tokens. tokenizer: of what MIDI files are made of, no chords'."""

    unit, top_p = "tokens", 0.9
    tokenizer: MessageTokenizer
    rules: Rules

    def __init__(self, checkpoint: Checkpoint, model: Model, free: bool = False) -> None:
        self.checkpoint, self.model, self.drums = checkpoint, model, drums_of(checkpoint)
        self.vocabulary, meta = checkpoint.vocabulary, checkpoint.meta
        self.rules = rules_of(self.vocabulary, meta["tokenizer"], meta.get("corpus", {}), free)
        self.recall = recall_of(model, self.vocabulary, meta["tokenizer"])

    def fitted(self, options: Options) -> Options:
        """As Composer.fitted: the sampler counts tokens and ticks."""
        return options

    def openings(self) -> list[Opening]:
        """As Composer.openings."""
        return [
            Opening(primer["name"], primer["ids"]) for primer in self.checkpoint.meta["primers"]
        ]

    def cut(self, music: Ids, n: int, limit: int | None) -> Ids:
        """As Composer.cut."""
        return within(music, self.rules, n, limit)

    def compose(self, primers: Sequence[Ids], options: Options, show: Show) -> list[Ids]:
        """As Composer.compose: on a GPU, the loop never leaves it."""
        if self.model.ops.name != "cupy":
            return sample_on_cpu(self.model, primers, options, self.rules, show, self.recall)
        from lstm_music.sampling.device import sample_on_device

        return sample_on_device(self.model, primers, options, self.rules, show, self.recall)

    def size(self, music: Ids, options: Options) -> int:
        """As Composer.size."""
        return len(music)

    def ticks(self, music: Ids) -> int:
        """As Composer.ticks: of several tracks, the longest."""
        return max(ticks_of(music, self.rules), default=0)

    def piece(self, music: Ids, options: Options, name: str, primer: Ids | None = None) -> Piece:
        """As Composer.piece."""
        piece = decode(music, self.vocabulary, self.tokenizer, self.rules, name, options)
        end = end_asked(music, primer or [], self.rules, options)
        piece = piece if end is None else clipped(piece, end, self.ticks(primer or []))
        return with_drums(piece, self.drums, self.tokenizer.layout == "flatten")


class MessageComposer(TokenComposer):
    """Composes with a model of messages. free: without the rules of strict sampling."""

    def __init__(self, checkpoint: Checkpoint, model: Model, free: bool = False) -> None:
        super().__init__(checkpoint, model, free)
        self.tokenizer = MessageTokenizer(checkpoint.meta["tokenizer"]["layout"])

    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """As Composer.opening_of, unseen durations replaced by the nearest seen.

        The time that a note left out would have taken goes to the next one of its track.
        """
        piece = read_primer(path, warn, self.drums is not None)
        words = [word for word in self.tokenizer.words(piece) if word != PIECE_END]
        nearest = NearestWord(self.vocabulary)
        ids: Ids = []
        changed, owed, notes, notes_in_track = 0, 0, 0, 0
        for word in words:
            message = parse(word)
            if message is None:  # the end of a track, which stays if something is left of it
                found = nearest(word) if notes_in_track else None
                owed, notes_in_track = 0, 0
            else:
                kind, pitch, delta = message
                found = nearest(spell(kind, pitch, delta + owed))
                owed = 0 if found else owed + delta
                notes_in_track += found is not None
                notes += found is not None
            changed += found != word
            if found is not None:
                ids.append(self.vocabulary.id(found))
        if not notes:
            raise no_known_notes(path)
        if ids[-1] == self.vocabulary.get(TRACK_END):  # the last track goes on
            ids.pop()
        if changed:
            warn(
                f"{changed} of {len(words)} tokens of {path} are new to the model: "
                "its nearest ones stand in, or they are left out"
            )
        return Opening(str(path), ids, meter_of(piece))


class EventComposer(TokenComposer):
    """Composes with a model of events, always by strict rules."""

    top_p = 0.8  # a note takes more draws than of messages; docs/results.md compares
    played = False  # how a primer is read

    def __init__(self, checkpoint: Checkpoint, model: Model) -> None:
        super().__init__(checkpoint, model)
        self.tokenizer = EventTokenizer(checkpoint.meta["tokenizer"].get("common_key"))

    def nearest(self) -> Callable[[str], str | None]:
        """Return what finds the vocabulary's word that is nearest to another."""
        return NearestEvent(self.vocabulary.words)

    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """As Composer.opening_of, unseen times replaced by the nearest seen.

        What they make of the piece is written anew, so that it is in order.
        """
        piece = read_primer(path, warn, self.drums is not None, self.played)
        if not tells_phrases(self.vocabulary):
            piece = replace(piece, phrases=no_phrases())
        words, nearest = self.tokenizer.words(piece)[:-1], self.nearest()
        found = [nearest(word) for word in words]
        changed = sum(new != word for new, word in zip(found, words, strict=True))
        if changed:
            piece = self.tokenizer.piece(filter(None, found), piece.name)
            found = [nearest(word) for word in self.tokenizer.words(piece)[:-1]]
        if not piece.tracks:
            raise no_known_notes(path)
        if changed:
            warn(
                f"{changed} of {len(words)} tokens of {path} are new to the model: "
                "its nearest ones stand in, or they are left out"
            )
        return Opening(str(path), [self.vocabulary.id(word) for word in filter(None, found)])


class PerformanceComposer(EventComposer):
    """Composes with a model of performances, always by strict rules."""

    top_p = TokenComposer.top_p
    tempo = BEATS
    played = True

    def __init__(self, checkpoint: Checkpoint, model: Model) -> None:
        super().__init__(checkpoint, model)
        self.tokenizer = PerformanceTokenizer()

    def nearest(self) -> Callable[[str], str | None]:
        """As EventComposer.nearest."""
        return NearestPerformance(self.vocabulary.words)


def no_known_notes(path: Path) -> UserError:
    """Return the error for a primer of which a model knows nothing."""
    return UserError(
        f"the model knows none of the notes in '{path}': choose another --primer, "
        "or train a model on music like it"
    )
