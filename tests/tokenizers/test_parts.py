"""Events that tell parts: who plays what, and what each plays, comes back."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import track_of

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import MidiError, Piece, notes_of
from lstm_music.midi.repair import merge_tracks, repair_track
from lstm_music.midi.timing import bars_of
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.parts import (
    MOST_PARTS,
    OTHERS,
    Player,
    parts_of,
    players_of,
    roster_of,
)

REPO = Path(__file__).parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
CHOIR = tuple(Player(name, 52) for name in ("Soprano", "Alto", "Tenor", "Bass"))
FLUTE, DRUMS = Player("Flute", 73), Player("Drums", 0, True)

times = st.tuples(st.integers(0, 8), st.integers(1, 4), st.integers(40, 80))


def track(notes):
    """A track of notes, none of which is struck while it sounds."""
    told = track_of([(240 * at, 240 * (at + n), pitch) for at, n, pitch in notes])
    return merge_tracks(Piece("", [repair_track(told)]))


@st.composite
def ensembles(draw):
    """Pieces of some of five players, in any order."""
    players = draw(st.lists(st.sampled_from([*CHOIR, DRUMS]), unique=True, min_size=1))
    tracks = [track(draw(st.lists(times, min_size=1, max_size=8))) for _ in players]
    drums = tuple(player.drums for player in players)
    return Piece("", tracks, parts=tuple(player.part for player in players), drums=drums)


def played(piece):
    """The notes of each part, by name."""
    return {
        part.name: notes_of(merge_tracks(Piece("", [track]))).tolist()
        for part, track in zip(piece.parts, piece.tracks, strict=True)
    }


@settings(deadline=None)
@given(ensembles(), st.sampled_from([None, "A"]))
def test_each_part_comes_back(piece, common_key):
    tokenizer = EventTokenizer(common_key, [*CHOIR, DRUMS])
    words = tokenizer.words(piece)
    again = tokenizer.piece(words, "")
    assert played(again) == played(piece)
    assert {p.name for p, drum in zip(again.parts, again.drums, strict=False) if drum} <= {"Drums"}
    assert tokenizer.words(again) == words


@settings(deadline=None)
@given(ensembles())
def test_a_part_has_its_turn_once_a_place(piece):
    """By part; ends before the note that it moves to, and that before those that begin."""
    rank = (-1,)
    for word in EventTokenizer(None, [*CHOIR, DRUMS]).words(piece)[:-1]:
        kind, _, rest = word.partition("-")
        if kind in ("off", "to", "on"):
            pitch, part = map(int, rest.split("/"))
            new = part, ("off", "to", "on").index(kind), pitch
            assert rank < new and (kind != "to" or rank[:2] != new[:2])
            rank = new
        else:
            rank = (-1,)


def test_a_chorale_takes_a_word_a_note():
    """A note that follows another at once ends it; where nothing follows, an off does."""
    soprano, alto = track([(0, 2, 72), (2, 2, 74)]), track([(0, 1, 64), (3, 1, 65)])
    piece = Piece("", [soprano, alto], parts=(CHOIR[0].part, CHOIR[1].part))
    words = EventTokenizer(None, CHOIR).words(piece)
    assert words == [
        *("bar-1920", "at-0", "to-72/1", "to-64/2", "at-240", "off-64/2", "at-480", "to-74/1"),
        *("at-720", "to-65/2", "at-960", "off-74/1", "off-65/2", PIECE_END),
    ]


def test_unisons_stay_two_notes_and_a_held_note_is_not_moved():
    two = track([(0, 4, 60), (2, 1, 64)])
    piece = Piece("", [two, track([(0, 2, 60)])], parts=(CHOIR[2].part, CHOIR[3].part))
    tokenizer = EventTokenizer(None, CHOIR)
    words = tokenizer.words(piece)
    assert words[2:7] == ["to-60/3", "to-60/4", "at-480", "on-64/3", "off-60/4"]
    assert played(tokenizer.piece(words, "")) == played(piece)


def test_a_note_without_an_end_sounds_on_while_another_part_plays():
    words = ["bar-1920", "at-0", "to-72/1", "to-48/4", "at-480", "to-50/4", "at-960", "off-50/4"]
    again = EventTokenizer(None, CHOIR).piece(words, "")
    assert played(again) == {"Soprano": [[0, 960, 72]], "Bass": [[0, 480, 48], [480, 960, 50]]}


@pytest.mark.parametrize("messages", [[(0, 1, 60), (0, 0, 60)], [(240, 1, 60), (240, 0, 60)]])
def test_a_note_of_length_zero_is_dropped_from_a_part(messages):
    """It would sound on until the next one."""
    told = np.array([*messages, (480, 1, 62), (720, 0, 62)], np.int32)
    piece = Piece("", [told, track([(0, 4, 48)])], parts=(CHOIR[0].part, CHOIR[3].part))
    again = EventTokenizer(None, CHOIR)
    assert played(again.piece(again.words(piece), ""))["Soprano"] == [[480, 720, 62]]


def test_drums_are_neither_transposed_nor_moved_by_a_key():
    piece = Piece(
        "", [track([(n, 1, p) for n, p in enumerate((62, 66, 69, 62))]), track([(0, 1, 38)])],
        parts=(FLUTE.part, DRUMS.part), drums=(False, True), sharps=2,
    )  # fmt: skip
    tokenizer = EventTokenizer("A", [FLUTE, DRUMS])
    words = tokenizer.words(piece)
    assert words[:5] == ["key-2", "bar-1920", "at-0", "to-60/1", "to-38/2"]
    assert tokenizer.transpose("to-38/2", 1) == "to-38/2"
    assert tokenizer.transpose("to-60/1", 1) == "to-61/1"
    assert played(tokenizer.piece(words, "")) == played(piece)


@pytest.mark.parametrize(
    ("players", "expected"),
    [
        (CHOIR, [0, 1, 2, 3]),
        (CHOIR[::-1], [3, 2, 1, 0]),
        ((Player("Horn", 60), *CHOIR), [4, 0, 1, 2, 3]),  # what nobody else is
        ((Player("Oboe", 72),), [4]),  # as the flute: a pipe
        ((Player("", 52), Player("", 52)), [0, 1]),
        ((DRUMS, Player("Drums", 0)), [5, 0]),  # no drums but by name
    ],
)
def test_a_track_is_the_likest_part_that_is_free(players, expected):
    assert parts_of(players, [*CHOIR, FLUTE, DRUMS]) == expected


def test_where_more_play_than_there_are_parts_they_share():
    assert parts_of([CHOIR[0], CHOIR[0], CHOIR[1]], CHOIR[:2]) == [0, 0, 1]
    piece = Piece("", [track([(0, 1, 60)]), track([(0, 2, 60), (1, 1, 67)])])
    again = EventTokenizer(None, [FLUTE])
    assert played(again.piece(again.words(piece), "")) == {"Flute": [[0, 480, 60], [240, 480, 67]]}


def ensemble(*players):
    tracks = [track([(0, 1, 60)])] * len(players)
    parts = tuple(player.part for player in players)
    return Piece("", tracks, parts=parts, drums=tuple(player.drums for player in players))


def test_a_roster_has_the_commonest_parts_in_the_order_of_the_scores():
    pieces = [ensemble(*CHOIR)] * 3 + [ensemble(FLUTE, *CHOIR, DRUMS)] * 2
    assert roster_of(pieces) == (FLUTE, *CHOIR, DRUMS)
    assert roster_of([ensemble(FLUTE, FLUTE)]) == (FLUTE, FLUTE)


def test_rare_parts_are_one_together():
    many = [ensemble(*(Player(f"{n}", 40) for n in range(MOST_PARTS + 9)))]
    roster = roster_of([*many, *[ensemble(FLUTE, *CHOIR, DRUMS)] * 2])
    assert len(roster) == MOST_PARTS and {*CHOIR, FLUTE, DRUMS} < {*roster}
    assert roster[-1] == Player(OTHERS, 40)
    rare = [ensemble(FLUTE, *CHOIR, Player("Horn", 60)), *[ensemble(*CHOIR)] * 60]
    assert roster_of(rare) == (*CHOIR, Player(OTHERS, 73))
    assert roster_of(rare[:30]) == (FLUTE, *CHOIR, Player("Horn", 60))  # 1 of 30
    roster = (*CHOIR, Player(OTHERS, 60))
    assert parts_of([FLUTE, *CHOIR, Player("Horn", 60), DRUMS], roster) == [4, 0, 1, 2, 3, 4, 0]
    assert parts_of([FLUTE, FLUTE], roster) == [0, 1]  # nobody else sings


def test_drums_are_a_part_however_rare_and_whatever_their_names():
    """Or their hits would be notes of another part. The commonest name is theirs."""
    names = [Player(f"my kit {n // 2}", 5, True) for n in range(51)]
    pieces = [ensemble(FLUTE, kit) for kit in names[3:]]
    assert roster_of(pieces) == (FLUTE, names[4])
    assert parts_of(players_of(pieces[7]), roster_of(pieces)) == [0, 1]
    many = [ensemble(*(Player(f"{n}", 40) for n in range(MOST_PARTS)))] * 50
    roster = roster_of([*many, ensemble(FLUTE, names[0], names[1])])
    assert len(roster) == MOST_PARTS and names[0] in roster and roster[-1] == Player(OTHERS, 40)
    assert parts_of([DRUMS, DRUMS], roster) == [roster.index(names[0])] * 2  # they share it
    kits = [ensemble(*(Player(f"{n}", n) for n in range(MOST_PARTS - 1)), *names[:3])]
    assert roster_of(kits).count(names[0]) == 1 and len(roster_of(kits)) == MOST_PARTS


def test_music_of_one_track_has_no_parts():
    alone = ensemble(FLUTE)
    assert roster_of([alone, alone, ensemble(*CHOIR)]) == ()
    assert roster_of([]) == ()
    assert roster_of([alone, ensemble(*CHOIR), ensemble(*CHOIR)]) != ()


@pytest.mark.parametrize("name", ["classical-2000", "bach-417"])
def test_real_files_keep_who_plays_what_and_when(name, tmp_path):
    """Read, told, written and read: players, drums, notes, meter, of 20 files of an archive."""
    path = DATA / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set LSTM_MUSIC_DATA")
    kept = 0
    with zipfile.ZipFile(path) as archive:
        for member in sorted(n for n in archive.namelist() if n.endswith(".mid"))[::19]:
            try:
                piece = read_midi(archive.read(member), member, drums=True)
            except MidiError:
                continue
            if not 1 < len(piece.tracks) <= MOST_PARTS:
                continue
            tokenizer = EventTokenizer(None, roster_of([piece]))
            told = tokenizer.piece(tokenizer.words(piece), "")
            write_midi(told, tmp_path / "x.mid")
            again = read_midi(tmp_path / "x.mid", "", drums=True)
            assert sorted(everything(again)) == sorted(everything(piece)), member
            end = min(int(notes[:, 1].max()) for notes in map(notes_of, again.tracks))
            starts, lengths = bars_of(piece.meter, end)
            assert [a.tolist() for a in bars_of(again.meter, end)] == [
                starts.tolist(), lengths.tolist(),
            ], member  # fmt: skip
            kept += 1
            if kept == 20:
                break
    assert kept == 20


def everything(piece):
    """Who plays each track, whether on drums, and what."""
    drums = piece.drums or (False,) * len(piece.tracks)
    tracks = [notes_of(merge_tracks(Piece("", [track]))).tolist() for track in piece.tracks]
    return [
        (part.name, 0 if drum else part.program, drum, notes)
        for part, drum, notes in zip(piece.parts, drums, tracks, strict=True)
        if notes
    ]
