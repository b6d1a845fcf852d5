"""Composing with models of tokens that MIDI files are made of: messages, events, performances."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import Piece, no_phrases
from lstm_music.midi.roll import CommonKey
from lstm_music.midi.timing import signature_of
from lstm_music.network.model import Model
from lstm_music.network.recall_rules import recall_of, tells_phrases
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.composer import (
    Composer,
    Ids,
    Opening,
    Show,
    UnknownNotes,
    drums_of,
    sample_on_cpu,
    tempo_of,
)
from lstm_music.sampling.craft import sings, voices_of
from lstm_music.sampling.decoding import clipped, decode, end_asked, with_drums
from lstm_music.sampling.options import Options
from lstm_music.sampling.priming import ends_at_once
from lstm_music.sampling.rules import BAR_LINE, NONE, Rules
from lstm_music.sampling.sampler import most_of, ticks_of, within
from lstm_music.sampling.word_rules import rules_of
from lstm_music.tokenizers.events import SAME, EventTokenizer
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END, MessageTokenizer, parse, spell
from lstm_music.tokenizers.nearest import NearestEvent, NearestPerformance, NearestWord
from lstm_music.tokenizers.parts import Player
from lstm_music.tokenizers.performance import PerformanceTokenizer

CRAFT, PARTICLES = 4.0, 4  # of four voices; docs/results.md compares
METERS = 8  # that a model knows, of which an error tells


class TokenComposer(Composer[Ids]):
    """Composes with a model of tokens. tokenizer: of what MIDI files are made of, no chords'."""

    unit, top_p = "tokens", 0.9
    tokenizer: MessageTokenizer
    rules: Rules

    def __init__(self, checkpoint: Checkpoint, model: Model, free: bool = False) -> None:
        self.checkpoint, self.model, self.drums = checkpoint, model, drums_of(checkpoint)
        self.tempo = tempo_of(checkpoint)
        self.vocabulary, meta = checkpoint.vocabulary, checkpoint.meta
        self.rules = rules_of(self.vocabulary, meta["tokenizer"], meta.get("corpus", {}), free)
        self.recall = recall_of(model, self.vocabulary, meta["tokenizer"])
        self.merged, told = self.rules.merged, meta["tokenizer"]
        self.primer_grid = told.get("grid") if told["name"] in ("message", "event") else None

    def fitted(self, options: Options) -> Options:
        """As Composer.fitted: the sampler counts tokens and ticks."""
        return options

    def openings(self) -> list[Opening]:
        """As Composer.openings."""
        return [
            Opening(primer["name"], primer["ids"]) for primer in self.checkpoint.meta["primers"]
        ]

    def cut(self, music: Ids, n: int | None, limit: int | None) -> Ids:
        """As Composer.cut."""
        return within(music, self.rules, n, limit)

    def compose(self, primers: Sequence[Ids], options: Options, show: Show) -> list[Ids]:
        """As Composer.compose: on a GPU, the loop never leaves it, but for particles."""
        if options.craft or options.particles > 1:
            from lstm_music.sampling.particles import sample_particles

            voices = voices_of(self.roster) if not self.played else ()
            most = most_of(self.rules, options, primers)

            def show_tokens(done: int, of: int) -> None:
                show(most * done // of, most)

            how = self.model, primers, options, self.rules, show_tokens, self.recall, voices
            return [drawn.ids for drawn in sample_particles(*how)]
        if self.model.ops.name != "cupy":
            return sample_on_cpu(self.model, primers, options, self.rules, show, self.recall)
        from lstm_music.sampling.device import sample_on_device

        return sample_on_device(self.model, primers, options, self.rules, show, self.recall)

    def size(self, music: Ids, options: Options) -> int:
        """As Composer.size."""
        return len(music)

    def size_of(self, piece: Piece) -> int:
        """As Composer.size_of: without the end of the piece, and of its last track."""
        return len(self.tokenizer.codes(piece)) - 1 - (not self.merged)

    def ends_at_once(self, primer: Ids, options: Options, num: int) -> list[bool]:
        """As Composer.ends_at_once."""
        return ends_at_once(self.model, primer, options, self.rules, self.recall, num)

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

    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Ids:
        """As Composer.read, unseen durations replaced by the nearest seen.

        The time that a note left out would have taken goes to the next one of its track.
        """
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
        return ids


class EventComposer(TokenComposer):
    """Composes with a model of events, always by strict rules."""

    top_p = 0.8  # a note takes more draws than of messages; docs/results.md compares
    tells_bars = True
    bar: int | None = None  # the only length of bars, None for any

    def __init__(self, checkpoint: Checkpoint, model: Model) -> None:
        super().__init__(checkpoint, model)
        told = checkpoint.meta["tokenizer"]
        roster = [Player(*player) for player in told.get("parts", ())]
        self.tokenizer = EventTokenizer(told.get("common_key"), roster)
        self.roster = self.tokenizer.roster
        if sings(self.roster):
            self.craft, self.particles = CRAFT, PARTICLES

    def openings(self) -> list[Opening]:
        """As Composer.openings: those in its meter, where it keeps to one; some have an upbeat."""
        return [o for o in super().openings() if self.bar is None or self._is_in_meter(o.music)]

    def _is_in_meter(self, ids: Ids) -> bool:
        lengths = [length for length in self.rules.numbers[self._told(ids)].tolist() if length]
        upbeat = len(lengths) > 1 and lengths[0] < lengths[1]
        return lengths[upbeat : upbeat + 1] == [self.bar]

    def _told(self, ids: Ids) -> list[int]:
        return [id for id in ids if self.rules.kinds[id] == BAR_LINE]

    def keep_to(self, bar: int) -> None:
        """As Composer.keep_to: no other bar's length is ever said."""
        rules, self.bar = self.rules, bar
        lengths = np.where(rules.kinds == BAR_LINE, rules.numbers, SAME)
        known = list(dict.fromkeys(lengths[(lengths != SAME) & (rules.deltas < NONE)].tolist()))
        if bar not in known:
            spelled = ", ".join("{}/{}".format(*signature_of(n, {})) for n in known[:METERS])
            raise UserError(f"the model knows no such meter: give --meter one of {spelled}")
        others = (lengths != SAME) & (lengths != bar)
        self.rules = rules._replace(deltas=np.where(others, NONE, rules.deltas).astype(np.int32))

    def nearest(self) -> Callable[[str], str | None]:
        """Return what finds the vocabulary's word that is nearest to another."""
        return NearestEvent(self.vocabulary.words)

    def tokenizer_for(self, whole: Piece) -> MessageTokenizer:
        """Return what makes words of parts of a piece."""
        return InKeyOf(whole, self.tokenizer.common_key, self.tokenizer.roster)

    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Ids:
        """As Composer.read, unseen times replaced by the nearest seen.

        What they make of the piece is written anew, so that it is in order.
        """
        if not tells_phrases(self.vocabulary):
            piece = replace(piece, phrases=no_phrases())
        tokenizer = self.tokenizer_for(whole)
        words, nearest = tokenizer.words(piece)[:-1], self.nearest()
        found = [nearest(word) for word in words]
        changed = sum(new != word for new, word in zip(found, words, strict=True))
        if changed:
            piece = tokenizer.piece(filter(None, found), piece.name)
            found = [nearest(word) for word in tokenizer.words(piece)[:-1]]
        if not piece.tracks:
            raise no_known_notes(path)
        if changed:
            warn(
                f"{changed} of {len(words)} tokens of {path} are new to the model: "
                "its nearest ones stand in, or they are left out"
            )
        return [self.vocabulary.id(word) for word in filter(None, found)]


class InKeyOf(EventTokenizer):
    """Writes parts of a piece in the key of the whole."""

    def __init__(
        self, whole: Piece, common_key: CommonKey | None, roster: Sequence[Player]
    ) -> None:
        super().__init__(common_key, roster)
        self._key = super().key_of(whole)

    def key_of(self, piece: Piece) -> int | None:
        """Return the key of the whole; see EventTokenizer."""
        return self._key


class PerformanceComposer(EventComposer):
    """Composes with a model of performances, always by strict rules."""

    top_p = TokenComposer.top_p
    played = True
    tells_bars = False

    def __init__(self, checkpoint: Checkpoint, model: Model) -> None:
        super().__init__(checkpoint, model)
        self.tokenizer = PerformanceTokenizer(self.roster)
        self.craft, self.particles = 0.0, 1  # bars and places are what voices are led by

    def tokenizer_for(self, whole: Piece) -> MessageTokenizer:
        """As EventComposer.tokenizer_for."""
        return self.tokenizer

    def nearest(self) -> Callable[[str], str | None]:
        """As EventComposer.nearest."""
        return NearestPerformance(self.vocabulary.words)


def no_known_notes(path: Path, what: str = "--primer") -> UnknownNotes:
    """Return the error for a primer, or what else, of which a model knows nothing."""
    return UnknownNotes(
        f"the model knows none of the notes in '{path}': choose another {what}, "
        "or train a model on music like it"
    )
