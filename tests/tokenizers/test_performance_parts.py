"""Performances that tell parts: who plays what, how loudly, and what each plays, comes back."""

import io
import os
import zipfile
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from played import PEDAL, played_file
from small import track_of
from test_parts import CHOIR, DRUMS, FLUTE, ensembles

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import DRUMS as CHANNEL_10
from lstm_music.midi.piece import MidiError, Part, Piece, notes_of
from lstm_music.midi.playing import played_tempo
from lstm_music.tokenizers.messages import PIECE_END, PITCHES
from lstm_music.tokenizers.nearest import NearestPerformance
from lstm_music.tokenizers.parts import MOST_PARTS, Player, of_one_piano, players_of, roster_of
from lstm_music.tokenizers.performance import (
    BIN,
    PART,
    SHIFT,
    STEP,
    USUAL,
    VELOCITY,
    PerformanceTokenizer,
    performed,
    spell,
)

REPO = Path(__file__).parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
ROSTER = (*CHOIR, DRUMS)
TOKENIZER = PerformanceTokenizer(ROSTER)
drums = st.sampled_from([0, 0, 5, 6])
words = st.one_of(
    st.builds(spell, st.sampled_from([0, 1]), st.sampled_from([0, 60, 61]), drums),
    st.builds(spell, st.just(SHIFT), st.integers(1, 100)),
    st.builds(spell, st.just(VELOCITY), st.integers(0, 31), drums),
    st.builds(spell, st.just(PART), st.integers(1, 6)),
)
any_words = st.lists(st.one_of(words, words, words, st.just(PIECE_END)), max_size=40)


def played(players, *tracks, loud=()):
    """A piece of tracks of (start, end, pitch), in milliseconds."""
    drums = tuple(player.drums for player in players)
    return Piece(
        "x", [track_of(notes) for notes in tracks], parts=tuple(one.part for one in players),
        velocities=tuple(np.array(own, np.int32) for own in loud), tempo=played_tempo(),
        drums=drums if any(drums) else (),
    )  # fmt: skip


def by_player(piece):
    """Who plays each track, and its notes with their velocities to the bin."""
    return {
        player: [
            [*note, int(velocity) // BIN]
            for note, velocity in zip(notes_of(track).tolist(), own, strict=True)
        ]
        for player, track, own in zip(
            players_of(piece), piece.tracks, piece.velocities, strict=True
        )
    }


def test_the_words_of_a_piece():
    """Ends before beginnings, each by part; who plays and how loudly is told where that changes."""
    piece = played(
        (CHOIR[3], CHOIR[0], DRUMS), [(0, 500, 48), (500, 900, 50)],
        [(0, 500, 72), (0, 900, 76), (500, 900, 74)], [(0, 100, 38), (500, 600, 38)],
        loud=([80, 83], [40, 42, 80], [120, 120]),
    )  # fmt: skip
    assert TOKENIZER.words(piece) == [
        *("part-1", "velocity-10", "on-72", "on-76", "part-4", "velocity-20", "on-48"),
        *("velocity-30/5", "on-38/5", "shift-10", "off-38/5", "shift-40"),
        *("part-1", "off-72", "part-4", "off-48", "part-1", "velocity-20", "on-74"),
        *("part-4", "on-50", "on-38/5", "shift-10", "off-38/5", "shift-30"),
        *("part-1", "off-74", "off-76", "part-4", "off-50", PIECE_END),
    ]
    assert by_player(TOKENIZER.piece(TOKENIZER.words(piece), "x")) == by_player(piece)


def test_a_piece_says_first_who_plays_if_only_drums():
    piece = played((DRUMS, CHOIR[3]), [(0, 10, 38)], [(10, 20, 40)], loud=([80], [80]))
    assert TOKENIZER.words(piece) == [
        *("part-5", "velocity-20/5", "on-38/5", "shift-1", "off-38/5"),
        *("part-4", "velocity-20", "on-40", "shift-1", "off-40", PIECE_END),
    ]


@settings(deadline=None)
@given(ensembles(), st.integers(0, 2**31))
def test_each_part_comes_back(piece, seed):
    """Its notes, to the step, and its velocities, to the bin, whatever the order of the tracks."""
    rng = np.random.default_rng(seed)
    loud = tuple(rng.integers(1, 128, len(track) // 2) for track in piece.tracks)
    piece = Piece(
        "", piece.tracks, parts=piece.parts, drums=piece.drums, velocities=loud,
        tempo=played_tempo(),
    )  # fmt: skip
    told = TOKENIZER.words(piece)
    again = TOKENIZER.piece(told, "")
    first = int(piece.notes["start"].min())
    assert by_player(again) == {
        player: [[start - first, end - first, *rest] for start, end, *rest in notes]
        for player, notes in by_player(piece).items()
    }
    assert TOKENIZER.words(again) == told
    (track, loud), (as_told, as_loud) = (performed(p, ROSTER) for p in (piece, again))
    assert track.tolist() == as_told.tolist()
    assert (loud // BIN).tolist() == (as_loud // BIN).tolist()


@settings(deadline=None)
@given(any_words)
def test_any_words_make_a_piece_that_can_be_written(some):
    for silent in (False, True):
        piece = TOKENIZER.piece(some, "any", silent)
        assert len(piece.parts) == len(piece.velocities) == len(piece.tracks)
        assert all(
            len(v) == len(t) // 2 for t, v in zip(piece.tracks, piece.velocities, strict=True)
        )
        assert not silent or [*piece.parts] == [player.part for player in ROSTER]
    write_midi(TOKENIZER.piece(some, "any"), io.BytesIO())


def test_a_unison_of_two_parts_stays_two_notes():
    piece = played((CHOIR[0], CHOIR[1]), [(0, 900, 60)], [(0, 400, 60)], loud=([20], [90]))
    told = TOKENIZER.words(piece)
    assert told[:6] == ["part-1", "velocity-5", "on-60", "part-2", "velocity-22", "on-60"]
    assert by_player(TOKENIZER.piece(told, "x")) == by_player(piece)
    (track,) = TOKENIZER.tracks(piece)  # of which a corpus takes its habits
    assert notes_of(track).tolist() == [[0, 900, PITCHES + 60], [0, 400, 2 * PITCHES + 60]]


def test_a_note_without_an_end_sounds_on_while_another_part_plays():
    told = ["velocity-9", "on-72", "part-4", "on-48", "shift-50", "off-48"]
    again = TOKENIZER.piece(told, "")
    assert by_player(again) == {CHOIR[0]: [[0, 500, 72, 9]], CHOIR[3]: [[0, 500, 48, 9]]}


def test_who_is_not_told_how_loudly_to_play_plays_as_the_last_that_was():
    told = ["part-2", "on-60", "velocity-9", "part-1", "on-72", "part-2", "velocity-4", "on-64"]
    told += ["part-1", "velocity-7", "shift-10", "part-4", "on-40", "part-2", "on-67", "shift-10"]
    loud = {
        player.name: [bin for *_, bin in notes]
        for player, notes in by_player(TOKENIZER.piece(told, "")).items()
    }
    assert loud == {"Alto": [USUAL // BIN, 4, 4], "Soprano": [9], "Bass": [7]}


def test_drums_are_not_transposed():
    assert TOKENIZER.transpose("on-38/5", 2) == "on-38/5"
    assert TOKENIZER.transpose("off-127", 1) is None
    assert TOKENIZER.transpose("on-60", 2) == "on-62"
    for word in ("velocity-3", "velocity-3/5", "part-2", "shift-9", PIECE_END):
        assert TOKENIZER.transpose(word, 5) == word


def test_the_nearest_velocity_is_of_the_same_part():
    nearest = NearestPerformance(["velocity-3", "velocity-9/2", "on-60/2", "part-1"])
    assert nearest("velocity-8") == "velocity-3"
    assert nearest("velocity-8/2") == "velocity-9/2"
    assert nearest("velocity-8/3") is nearest("on-60") is nearest("part-2") is None


# What of a file comes out again -------------------------------------------------------------------


BAND = (("Flute", 73, 0), ("Bass", 32, 2), ("Kit", 0, CHANNEL_10))


def there_and_back(content, roster=None):
    """A file, and what is written of its words, both read as they are heard; and the words."""
    piece = read_midi(content, "x", drums=True, played=True)
    tokenizer = PerformanceTokenizer(roster_of([piece]) if roster is None else roster)
    told, file = tokenizer.words(piece), io.BytesIO()
    write_midi(tokenizer.piece(told, "x"), file)
    again = read_midi(file.getvalue(), "x", drums=True, played=True)
    assert tokenizer.words(again) == told
    return piece, again


def check_players(piece, again):
    """Each track has its player, and its notes: onsets to 5 ms, lengths to 10, velocities to 4."""
    assert players_of(again) == players_of(piece)
    first = int(piece.notes["start"].min())
    for was, now in zip(*(by_player(p).values() for p in (piece, again)), strict=True):
        assert len(now) <= len(was)  # fewer where one is struck twice within a step
        found = {(start // STEP, pitch, bin) for start, _, pitch, bin in now}
        kept = [
            (round((start - first) / STEP + 1e-9), pitch, bin) in found
            for start, _, pitch, bin in was
        ]
        assert sum(kept) >= len(was) - 2 * (len(was) - len(now)) - 0.02 * len(was)


@pytest.mark.parametrize("pedal", [True, False])
def test_a_recording_of_an_ensemble_comes_out_as_it_went_in(pedal):
    """Players, programs, the drums' channel, dynamics, and the pedal in the lengths of notes."""
    for seed in range(3):
        content, *_ = played_file(seed, 80, pedal=pedal, players=BAND)
        piece, again = there_and_back(content)
        assert [*map(tuple, piece.parts)] == [("Flute", 73), ("Bass", 32), ("Kit", 0)]
        check_players(piece, again)
        lengths = [p.notes["end"] - p.notes["start"] for p in (piece, again)]
        if len(lengths[0]) == len(lengths[1]):
            assert np.abs(np.sort(lengths[0]) - np.sort(lengths[1])).max() <= STEP
        ours = Piece("", again.tracks, parts=again.parts, drums=again.drums)
        file = io.BytesIO()
        write_midi(ours, file)
        channels = {
            track.name: {m.channel for m in track if not m.is_meta}
            for track in mido.MidiFile(file=io.BytesIO(file.getvalue())).tracks[1:]
        }
        assert channels["Kit"] == {CHANNEL_10} and CHANNEL_10 not in channels["Flute"]


def test_a_pedal_holds_the_notes_of_its_own_player():
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    for name, channel in (("Piano", 0), ("Flute", 1)):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        track.append(mido.Message("program_change", program=73 * channel, channel=channel))
        if channel == 0:
            track.append(mido.Message("control_change", control=PEDAL, value=127, channel=0))
        track.append(mido.Message("note_on", note=60, velocity=50, channel=channel))
        track.append(mido.Message("note_off", note=60, time=480, channel=channel))
        track.append(mido.Message("control_change", control=PEDAL, time=480, channel=channel))
        midi.tracks.append(track)
    file = io.BytesIO()
    midi.save(file=file)
    piece, again = there_and_back(file.getvalue())
    assert [notes_of(track).tolist() for track in again.tracks] == [[[0, 1000, 60]], [[0, 500, 60]]]
    check_players(piece, again)


def test_drum_hits_of_length_zero_are_kept():
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    for name, channel, length in (("Kit", CHANNEL_10, 0), ("Horn", 0, 300)):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        if channel == 0:
            track.append(mido.Message("program_change", program=60, channel=channel))
        for _ in range(8):
            track.append(mido.Message("note_on", note=38, time=480 - length, channel=channel))
            track.append(mido.Message("note_off", note=38, time=length, channel=channel))
        midi.tracks.append(track)
    file = io.BytesIO()
    midi.save(file=file)
    piece, again = there_and_back(file.getvalue())
    assert again.drums == (True, False)
    assert [len(track) // 2 for track in again.tracks] == [8, 8]
    check_players(piece, again)


@pytest.mark.parametrize(
    ("roster", "expected"),
    [
        ((Player("Right", 0), Player("Left", 0)), True),
        ((Player("Piano", 0), Player("Harpsichord", 6)), True),
        ((), True),
        ((Player("Piano", 0), FLUTE), False),
        (CHOIR, False),
        ((Player("Piano", 0), DRUMS), False),
    ],
)
def test_the_hands_of_a_pianist_are_no_parts(roster, expected):
    assert of_one_piano(roster) is expected


def corpus_of(folder, **reading):
    return load_corpus(str(folder), reading=Reading("performance", **reading))


@pytest.fixture
def music(tmp_path, monkeypatch):
    """A folder, for files to be a corpus."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "music").mkdir()
    return tmp_path / "music"


def test_a_corpus_of_pianos_is_the_same_word_for_word(music):
    for seed in range(6):
        (music / f"{seed}.mid").write_bytes(played_file(seed, 40)[0])
    told, merged = corpus_of(music, parts=True, drums=True), corpus_of(music)
    assert told.vocabulary.words == merged.vocabulary.words
    assert told.ids.tolist() == merged.ids.tolist() and told.habits() == merged.habits()
    assert told.tokenizer_json() == merged.tokenizer_json()


def test_a_corpus_of_ensembles_tells_who_plays(music):
    """Its habits are those of each part's notes: in unison none cuts another's short."""
    for seed in range(6):
        (music / f"{seed}.mid").write_bytes(played_file(seed, 40, players=BAND)[0])
    corpus = corpus_of(music, parts=True, drums=True, transpose_augment=3)
    assert corpus.tokenizer_json()["parts"] == [
        ["Flute", 73, False], ["Bass", 32, False], ["Kit", 0, True],
    ]  # fmt: skip
    pieces = [read_midi(path, "", drums=True, played=True) for path in sorted(music.iterdir())]
    for number, piece in enumerate(pieces):
        check_players(piece, corpus.decoded(number))
    merged = corpus_of(music, drums=True)
    assert corpus.longest_pause == merged.longest_pause
    assert corpus.longest_note >= merged.longest_note
    hits = {word for word in corpus.vocabulary.words if word.endswith("/3") and word[0] == "o"}
    told = {
        f"{kind}-{pitch}/3"
        for piece in pieces for pitch in piece.tracks[2][:, 2] for kind in ("off", "on")
    }  # fmt: skip
    assert hits == told  # none is transposed
    assert {"part-1", "part-2"} < {*corpus.vocabulary.words}


def test_real_ensembles_keep_who_plays_what_when_and_how_loudly():
    """Read, told, written and read: players, drums, notes, velocities of 20 files."""
    path = DATA / "classical-2000.zip"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set LSTM_MUSIC_DATA")
    kept = 0
    with zipfile.ZipFile(path) as archive:
        for member in sorted(n for n in archive.namelist() if n.endswith(".mid"))[::19]:
            try:
                piece = read_midi(archive.read(member), member, drums=True, played=True)
            except MidiError:
                continue
            if not 1 < len(piece.tracks) <= MOST_PARTS or of_one_piano(players_of(piece)):
                continue
            was, again = there_and_back(archive.read(member), players_of(piece))
            check_players(was, again)
            kept += 1
            if kept == 20:
                break
    assert kept == 20


def test_who_shares_a_part_is_as_loud_as_the_loudest():
    piece = played((FLUTE, FLUTE), [(0, 500, 60)], [(0, 900, 60), (500, 700, 64)],
                   loud=([40], [90, 8]))  # fmt: skip
    again = PerformanceTokenizer([FLUTE])
    assert by_player(again.piece(again.words(piece), "")) == {
        FLUTE: [[0, 900, 60, 22], [500, 700, 64, 2]]
    }
    assert again.piece(again.words(piece), "").parts == (Part("Flute", 73),)
