import io

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import LAST_TICK, MOST_TRACKS, Piece, notes_of
from lstm_music.midi.repair import merge_tracks, repair_track
from lstm_music.tokenizers.messages import (
    PIECE_END,
    SPECIALS,
    TRACK_END,
    MessageTokenizer,
    parse,
    spell,
    transpose_word,
    word_parts,
)
from lstm_music.tokenizers.nearest import NearestWord, nearest_word
from lstm_music.tokenizers.vocabulary import Vocabulary

kinds = st.integers(0, 1)
few_pitches = st.sampled_from([0, 60, 61, 127])
deltas = st.one_of(
    st.sampled_from([0, 1, 480]), st.integers(0, 5000), st.integers(0, 4 * LAST_TICK)
)
words = st.builds(spell, kinds, few_pitches, deltas)
any_words = st.lists(st.one_of(words, words, st.sampled_from(SPECIALS)), max_size=40)
layouts = pytest.mark.parametrize("layout", ["flatten", "merge"])


@st.composite
def pieces(draw):
    """Pieces of repaired tracks, made without the tokenizer."""
    rows = st.tuples(st.sampled_from([0, 0, 1, 120, 481]), kinds, few_pitches)
    tracks = []
    for track in draw(st.lists(st.lists(rows, min_size=1, max_size=20), max_size=4)):
        messages = np.array(track, dtype=np.int32)
        messages[:, 0] = np.cumsum(messages[:, 0])
        tracks.append(repair_track(messages))
    return Piece("p", [track for track in tracks if len(track)])


def as_lists(piece):
    return [track.tolist() for track in piece.tracks]


@settings(deadline=None)
@given(pieces())
def test_flattened_words_decode_to_the_same_tracks(piece):
    tokenizer = MessageTokenizer("flatten")
    again = tokenizer.piece(tokenizer.words(piece), "again")
    assert again.name == "again"
    assert as_lists(again) == as_lists(piece)


@settings(deadline=None)
@given(pieces())
def test_merged_words_decode_to_the_merged_notes(piece):
    tokenizer = MessageTokenizer("merge")
    again = tokenizer.piece(tokenizer.words(piece), "again")
    merged = merge_tracks(piece)
    assert as_lists(again) == ([merged.tolist()] if len(merged) else [])
    if len(merged):
        assert notes_of(again.tracks[0]).tolist() == notes_of(merged).tolist()


@layouts
@settings(deadline=None)
@given(words=any_words)
def test_encoding_what_was_decoded_settles_at_once(layout, words):
    tokenizer = MessageTokenizer(layout)
    encoded = tokenizer.words(tokenizer.piece(words, ""))
    assert tokenizer.words(tokenizer.piece(encoded, "")) == encoded


@layouts
@settings(deadline=None)
@given(data=st.data())
def test_any_ids_of_any_vocabulary_give_a_midi_file_with_every_note_closed(layout, data):
    some = st.lists(st.one_of(words, st.sampled_from(SPECIALS)), min_size=1, unique=True)
    vocabulary = Vocabulary(data.draw(some))
    ids = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=40))
    piece = MessageTokenizer(layout).piece([vocabulary.word(id) for id in ids], "")
    file = io.BytesIO()
    write_midi(piece, file)
    file.seek(0)
    for track in mido.MidiFile(file=file).tracks:
        struck = set()
        for message in track:
            if message.type == "note_on":
                assert message.note not in struck
                struck.add(message.note)
            elif message.type == "note_off":
                struck.remove(message.note)
        assert not struck
    if heard(piece):
        assert heard(read_midi(file.getvalue(), "")) == heard(piece)


def heard(piece):
    """The notes of each track but those of length zero, which are not heard; no empty track."""
    tracks = ([note for note in notes_of(t).tolist() if note[0] < note[1]] for t in piece.tracks)
    return [track for track in tracks if track]


def test_words_by_example():
    soprano = np.array([[0, 1, 72], [480, 0, 72]], dtype=np.int32)
    bass = np.array([[240, 1, 48], [480, 0, 48]], dtype=np.int32)
    piece = Piece("", [soprano, bass])
    assert MessageTokenizer("flatten").words(piece) == [
        *("note-on-72-0", "note-off-72-480", TRACK_END),
        *("note-on-48-240", "note-off-48-240", TRACK_END),
        PIECE_END,
    ]
    assert MessageTokenizer("merge").words(piece) == [
        *("note-on-72-0", "note-on-48-240", "note-off-48-240", "note-off-72-0"),
        PIECE_END,
    ]


def test_specials_start_and_end_what_they_say():
    note = ["note-on-60-5", "note-off-60-5"]
    other = ["note-on-61-0", "note-off-61-9"]

    def tracks(*words):
        return as_lists(MessageTokenizer("flatten").piece(words, ""))

    alone = [[5, 1, 60], [10, 0, 60]]
    assert tracks(PIECE_END, *note, PIECE_END, *other) == [alone]
    assert tracks(*note, TRACK_END, *note) == [alone, alone]
    assert tracks(TRACK_END, TRACK_END, *note, TRACK_END) == [alone]
    assert tracks(PIECE_END, PIECE_END, *note) == tracks() == tracks(PIECE_END) == []
    assert tracks(note[0], TRACK_END, note[1]) == [[[5, 1, 60], [485, 0, 60]]]
    assert tracks(*other, note[0], *other) == [
        [[0, 1, 61], [9, 0, 61], [14, 1, 60], [14, 1, 61], [23, 0, 61], [23, 0, 60]]
    ]


def test_a_piece_fits_a_midi_file_however_long_or_wide():
    tokenizer = MessageTokenizer("flatten")
    (track,) = tokenizer.piece(["note-on-60-9", f"note-off-60-{10**30}"] * 3, "").tracks
    assert track[-1, 0] == LAST_TICK
    wide = tokenizer.piece(["note-on-60-0", "note-off-60-1", TRACK_END] * (MOST_TRACKS + 1), "")
    assert len(wide.tracks) == MOST_TRACKS


@settings(deadline=None)
@given(kinds, st.integers(0, 127), st.integers(0, 10**12))
def test_a_word_is_read_as_it_is_spelled(kind, pitch, delta):
    assert parse(spell(kind, pitch, delta)) == (kind, pitch, delta)


def test_specials_are_no_messages():
    assert [parse(word) for word in SPECIALS] == [None, None]


@pytest.mark.parametrize(
    "word",
    [
        *("", "note-on-60", "note-on-128-0", "note-on-60--1", "note-on-060-1", "note-on-60-01"),
        *("note-up-60-1", "note-on-60-1 ", "note-on-60-1\n", "Note-on-60-1", "note-on-6٠-1"),
    ],
)
def test_malformed_words_are_refused(word):
    with pytest.raises(ValueError, match="not a message"):
        parse(word)


@settings(deadline=None)
@given(st.lists(st.one_of(words, st.sampled_from(SPECIALS)), unique=True), words)
def test_the_nearest_word_is_the_nearest(known, word):
    kind, pitch, delta = parse(word)
    same = [parse(other) for other in known if parse(other) and parse(other)[:2] == (kind, pitch)]
    best = min(same, key=lambda row: (abs(row[2] - delta), row[2]), default=None)
    assert NearestWord(Vocabulary(known))(word) == (best and spell(*best))
    assert nearest_word(word, Vocabulary(known)) == (best and spell(*best))


def test_of_two_equally_near_words_the_shorter_is_taken():
    nearest = NearestWord(Vocabulary([spell(1, 60, delta) for delta in (40, 10, 20)]))
    found = [parse(nearest(spell(1, 60, delta)))[2] for delta in (0, 14, 15, 16, 30, 31, 99)]
    assert found == [10, 10, 10, 20, 20, 40, 40]
    assert nearest(spell(0, 60, 10)) is nearest(spell(1, 61, 10)) is None


def test_a_special_is_nearest_only_to_itself():
    nearest = NearestWord(Vocabulary([PIECE_END, "note-on-60-1"]))
    assert (nearest(PIECE_END), nearest(TRACK_END)) == (PIECE_END, None)
    with pytest.raises(ValueError):
        nearest("rest")


@given(kinds, st.integers(0, 127), deltas, st.integers(-130, 130))
def test_a_transposed_word_is_the_same_message_at_another_pitch(kind, pitch, delta, semitones):
    moved = transpose_word(spell(kind, pitch, delta), semitones)
    if 0 <= pitch + semitones <= 127:
        assert parse(moved) == (kind, pitch + semitones, delta)
    else:
        assert moved is None


@pytest.mark.parametrize("word", SPECIALS)
def test_a_special_has_no_pitch_to_transpose(word):
    assert transpose_word(word, 5) == word


def test_the_parts_of_words_are_numbered_without_gaps_and_specials_have_no_delta():
    words = [PIECE_END, "note-on-60-480", "note-off-60-0", "note-on-60-0", TRACK_END,
             "note-on-59-7", "note-off-61-480"]  # fmt: skip
    classes, deltas = word_parts(Vocabulary(words))
    assert classes.tolist() == [4, 3, 0, 3, 5, 2, 1]
    assert deltas.tolist() == [-1, 2, 0, 0, -1, 1, 2]
