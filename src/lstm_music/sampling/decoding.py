"""From sampled ids to a piece: pieces that follow one another, bar lines, and where it ends."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from lstm_music.midi.bytes import Meter
from lstm_music.midi.piece import (
    KIND,
    LAST_TICK,
    NOTE_OFF,
    NOTE_ON,
    PITCH,
    TICK,
    Messages,
    Piece,
    Velocities,
    no_phrases,
    no_tempo,
    notes_of,
)
from lstm_music.midi.repair import repair_track, tidy_track, velocities_of
from lstm_music.midi.roll import piece_of_frames, ticks_per_step
from lstm_music.sampling.automaton import Piece as Making
from lstm_music.sampling.automaton import advance, begin, extend, limit_of, line_after, next_bar
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import NO_LIMIT, Rules
from lstm_music.sampling.sampler import new_piece
from lstm_music.sampling.word_rules import chord_rules
from lstm_music.tokenizers.chords import frames_of_words
from lstm_music.tokenizers.messages import PITCHES, MessageTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary


def decode(
    ids: Sequence[int],
    vocabulary: Vocabulary,
    tokenizer: MessageTokenizer,
    rules: Rules,
    name: str,
    options: Options | None = None,
) -> Piece:
    """Turn what `sample` returned into one piece, tidied to the habits that the rules keep.

    Pieces that follow one another begin at bar lines, their tracks in the same order.
    """
    options = options or Options()
    tracks: list[list[Messages]] = []
    loud: list[list[Velocities]] = []
    tempo = no_tempo()
    meters, phrases = [rows_of(options.meter)], [no_phrases()]
    offset, sharps = 0, None
    made = [(group, replace(state)) for group, state in pieces_in(ids, rules, options)]
    for n, (group, state) in enumerate(made):
        piece = tokenizer.piece([vocabulary.word(id) for id in group], name, silent=True)
        tidy = [tidy_track(t, rules.longest_note, rules.most_notes) for t in piece.tracks]
        end = max((int(track[-1, TICK]) for track in tidy if len(track)), default=0)
        loud += [[] for _ in range(len(piece.velocities) - len(loud))]
        for number, velocities in enumerate(piece.velocities):
            struck = notes_of(piece.tracks[number])
            loud[number].append(velocities_of(tidy[number], struck, velocities))
        line = next_bar(state) if rules.merged else line_after(end, state.bar, state.line)
        # A note without an end rings on, but not into the next piece.
        until = line if n < len(made) - 1 else LAST_TICK
        for number, tidied in enumerate(tidy):
            tidied[:, TICK] = np.minimum(tidied[:, TICK], until)
            if number == len(tracks):
                tracks.append([])
            tracks[number].append(tidied + np.array([offset, 0, 0], np.int32))
        meters.append(piece.meter + np.array([offset, 0], np.int32))
        phrases.append(np.minimum(piece.phrases, until) + np.int32(offset))
        offset += line
        sharps = piece.sharps if sharps is None else sharps  # of the first
        tempo = piece.tempo
    whole = [np.concatenate(track) for track in tracks]
    heard = [number for number, track in enumerate(whole) if len(track)]
    who = [tokenizer.roster[number] for number in heard] if tokenizer.roster else []
    drums = tuple(player.drums for player in who)
    return Piece(
        name, [whole[number] for number in heard], meter=np.concatenate(meters),
        drums=drums if any(drums) else (), parts=tuple(player.part for player in who),
        velocities=tuple(np.concatenate(loud[number]) for number in heard if loud),
        tempo=tempo, phrases=np.unique(np.concatenate(phrases)), sharps=sharps,
    )  # fmt: skip


def pieces_in(
    ids: Sequence[int], rules: Rules, options: Options
) -> Iterator[tuple[list[int], Making]]:
    """Yield the ids of each of the pieces that follow one another, and the piece at its end."""
    state, sounding = new_piece(rules, options)
    for begins, group in groupby(ids, lambda id: id == rules.start):
        if begins:
            continue
        piece = list(group)
        for id in piece:
            advance(rules, state, sounding, id)
        yield piece, state
        begin(rules, state, sounding)


def decode_chords(
    ids: Sequence[int],
    vocabulary: Vocabulary,
    grid: int,
    name: str,
    restrike: bool = False,
    options: Options | None = None,
) -> Piece:
    """Turn what `sample` returned of chords into one piece of one track, or none of silence.

    Pieces that follow one another begin at bar lines. grid: chords a whole note; restrike: held
    notes are struck anew with each chord.
    """
    options = options or Options()
    rules = chord_rules(vocabulary, ticks_per_step(grid))
    parts: list[Messages] = []
    offset = 0
    for group, state in pieces_in(ids, rules, options):
        frames = frames_of_words([vocabulary.word(id) for id in group])
        piece = piece_of_frames(frames, grid, name, restrike)
        parts += [track + np.array([offset, 0, 0], np.int32) for track in piece.tracks]
        offset += next_bar(state)
    return Piece(name, [np.concatenate(parts)] if parts else [], meter=rows_of(options.meter))


def rows_of(meter: Sequence[tuple[int, int]]) -> Meter:
    """Return the meter of options as a piece has it."""
    return np.array(meter, np.int32).reshape(-1, 2)


def length_in_frames(ids: Sequence[int], rules: Rules, options: Options | None = None) -> int:
    """Return how many frames sampled chords last, with the rests before bar lines."""
    line = now = 0
    for _, state in pieces_in(ids, rules, options or Options()):
        now, line = line + state.now, line + next_bar(state)
    return (line if len(ids) and ids[-1] == rules.start else now) // rules.frame_ticks


def end_asked(
    ids: Sequence[int], primer: Sequence[int], rules: Rules, options: Options
) -> int | None:
    """Return the tick by which sampled ids, which begin with a primer, were to end, if any."""
    if options.limit is None and options.bars is None:
        return None
    state, sounding = new_piece(rules, options, primer)
    for id in ids:
        extend(rules, state, sounding, id)
    limit = limit_of(rules, state)
    return None if limit == NO_LIMIT else state.before + limit


def with_drums(piece: Piece, pitches: Sequence[int] | None, apart: bool = False) -> Piece:
    """Say which tracks of a piece are drums, by the pitches that were commoner in drums.

    Where those are all, there was nothing but drums. Else tokens don't tell: a track is drums if
    most of its notes have such pitches, as far as tracks are kept apart; merged, none is.
    """
    only = len(pitches or ()) == PITCHES
    if not pitches or not (only or apart):
        return piece
    strikes = (track[track[:, KIND] == NOTE_ON, PITCH] for track in piece.tracks)
    drums = tuple(bool(only or np.isin(some, pitches).mean() > 0.5) for some in strikes)
    return replace(piece, drums=drums)


def clipped(piece: Piece, limit: int, begin: int = 0) -> Piece:
    """End a piece at a limit in ticks, past which a note rings on that no token could end sooner.

    What begins only then, after a primer up to a tick, stays as it is: better too long than empty.
    """
    strikes = (track[track[:, KIND] == NOTE_ON, TICK] for track in piece.tracks)
    if not any(((begin <= ticks) & (ticks < limit)).any() for ticks in strikes):
        return piece
    shorter = []
    for track in piece.tracks:
        kept = track[(track[:, KIND] == NOTE_OFF) | (track[:, TICK] < limit)]
        kept[:, TICK] = np.minimum(kept[:, TICK], limit)
        shorter.append(kept)
    phrases = np.unique(np.minimum(piece.phrases, limit))
    tracks = [repair_track(track) for track in shorter]
    heard = [n for n, track in enumerate(tracks) if len(track)]
    return replace(
        piece,
        tracks=[tracks[n] for n in heard],
        phrases=phrases,
        parts=tuple(piece.parts[n] for n in heard if piece.parts),
        drums=tuple(piece.drums[n] for n in heard if piece.drums),
        velocities=tuple(
            velocities_of(tracks[n], notes_of(piece.tracks[n]), piece.velocities[n])
            for n in heard
            if piece.velocities
        ),
    )
