import io
from dataclasses import replace

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import track_of
from test_messages import heard, pieces

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import LAST_TICK, NOTE_OFF, NOTE_ON, TICK, Piece
from lstm_music.midi.repair import merge_tracks
from lstm_music.midi.timing import bars_of
from lstm_music.tokenizers.events import AT, BAR_LINE, MOVE, EventTokenizer, parse, spell
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.nearest import NearestEvent

TOKENIZER = EventTokenizer()
few_pitches = st.sampled_from([0, 60, 61, 127])
times = st.one_of(st.sampled_from([0, 1, 480, 1920]), st.integers(0, 5000))
words = st.one_of(
    st.builds(spell, st.sampled_from([NOTE_OFF, NOTE_ON]), few_pitches),
    st.builds(spell, st.just(AT), st.one_of(times, st.just(LAST_TICK))),
    st.builds(spell, st.just(BAR_LINE), times),
)
any_words = st.lists(st.one_of(words, words, words, st.just(PIECE_END)), max_size=40)
meters = st.dictionaries(
    st.sampled_from([0, 1, 240, 480, 960, 1920, 5000]), st.sampled_from([60, 480, 1440, 1920])
)


def with_meter(piece, meter):
    return Piece(
        piece.name, piece.tracks, meter=np.array(sorted(meter.items()), np.int32).reshape(-1, 2)
    )


def bars(piece):
    last = max((int(track[-1, TICK]) for track in piece.tracks), default=0)
    return [part.tolist() for part in bars_of(piece.meter, last)]


@settings(deadline=None)
@given(pieces(), meters)
def test_words_decode_to_the_merged_notes_and_the_bars(piece, meter):
    merged = merge_tracks(piece)
    piece = with_meter(Piece("p", [merged] if len(merged) else []), meter)
    again = TOKENIZER.piece(TOKENIZER.words(piece), "again")
    assert again.name == "again"
    assert [track.tolist() for track in again.tracks] == [track.tolist() for track in piece.tracks]
    if again.tracks:
        assert bars(again) == bars(piece)


@settings(deadline=None)
@given(pieces())
def test_tracks_are_merged(piece):
    assert TOKENIZER.words(piece) == TOKENIZER.words(Piece("", [merge_tracks(piece)]))


@settings(deadline=None)
@given(pieces(), meters)
def test_words_stand_in_a_fixed_order(piece, meter):
    """Places ascend in bars as long as they say; offs come before ons, pitches ascending."""
    *events, end = map(parse, TOKENIZER.words(with_meter(piece, meter)))
    assert end is None
    begin = length = 0
    rank = (BAR_LINE, 0)
    place = -1
    for kind, number, _ in events:
        if kind == BAR_LINE:
            assert number != length and rank[0] != AT
            begin, length, place = begin + length, number or length, -1
            assert length > 0
        elif kind == AT:
            assert place < number < length and rank[0] != AT
            place = number
        else:
            assert rank[0] != BAR_LINE
            assert rank[0] == AT or rank < (kind, number)
        rank = (kind, number)


@settings(deadline=None)
@given(any_words)
def test_any_words_give_a_midi_file_with_every_note_closed(words):
    piece = TOKENIZER.piece(words, "")
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


@settings(deadline=None)
@given(st.lists(words.filter(lambda word: word != f"at-{LAST_TICK}"), max_size=40))
def test_encoding_what_was_decoded_settles_at_once(words):
    encoded = TOKENIZER.words(TOKENIZER.piece(words, ""))
    assert TOKENIZER.words(TOKENIZER.piece(encoded, "")) == encoded


def test_words_by_example():
    upbeat = track_of([(240, 480, 67), (480, 1920, 72)])
    bass = track_of([(480, 2880, 48), (960, 1920, 55)])
    piece = with_meter(Piece("", [upbeat, bass]), {0: 480, 480: 1440})
    assert TOKENIZER.words(piece) == [
        *("bar-480", "at-240", "on-67"),
        *("bar-1440", "at-0", "off-67", "on-48", "on-72", "at-480", "on-55"),
        *("bar", "at-0", "off-55", "off-72", "at-960", "off-48", PIECE_END),
    ]
    assert TOKENIZER.words(Piece("", [upbeat])) == [
        *("bar-1920", "at-240", "on-67", "at-480", "off-67", "on-72"),
        *("bar", "at-0", "off-72", PIECE_END),
    ]
    assert TOKENIZER.words(Piece("", [])) == [PIECE_END]
    again = TOKENIZER.piece(["bar", "bar", "at-60", "on-60"], "")
    assert again.tracks[0][0].tolist() == [1980, NOTE_ON, 60]
    assert again.meter.tolist() == [[0, 1920]]


def test_time_never_goes_backwards():
    def track(*words):
        return [track.tolist() for track in TOKENIZER.piece(words, "").tracks]

    assert track("at-960", "on-60", "at-480", "off-60", "on-61", "bar-480", "at-10", "off-61") == [
        [[960, 1, 60], [960, 0, 60], [960, 1, 61], [970, 0, 61]]
    ]
    assert track(PIECE_END, "bar-480", "on-60", PIECE_END, "on-61") == [[[0, 1, 60], [480, 0, 60]]]


@pytest.mark.parametrize(
    "word",
    [
        *("", "on", "on-128", "off-128", "on--1", "on-060", "bar-0", "bar-01", "at-1 ", "at-1\n"),
        *("to-60", "to-60/0", "on-60/0", "on-60/17", "at-1/1", "bar/1", "to-128/1", "on-60/"),
        *("note-on-60-1", "track-end", "On-60", "on-6٠", f"at-{LAST_TICK + 1}", "rest"),
    ],
)
def test_malformed_words_are_refused(word):
    with pytest.raises(ValueError, match="not an event"):
        parse(word)


def test_a_word_is_read_as_it_is_spelled():
    for event in (
        (NOTE_OFF, 0, 0),
        (NOTE_ON, 127, 0),
        (NOTE_ON, 127, 16),
        (MOVE, 60, 1),
        (AT, LAST_TICK, 0),
        (BAR_LINE, 1, 0),
        (BAR_LINE, 0, 0),
    ):
        assert parse(spell(*event)) == event
    assert parse(PIECE_END) is None


def test_pitches_alone_are_transposed():
    assert TOKENIZER.transpose("on-60", 5) == "on-65"
    assert TOKENIZER.transpose("off-60", -60) == "off-0"
    assert TOKENIZER.transpose("off-60", -61) is TOKENIZER.transpose("on-127", 1) is None
    for word in ("bar", "bar-1920", "at-60", PIECE_END):
        assert TOKENIZER.transpose(word, 60) == word


def test_the_nearest_event_has_the_nearest_time():
    nearest = NearestEvent([PIECE_END, "at-480", "at-0", "at-10", "bar-1920", "on-60", "off-60"])
    for word, found in (
        ("at-5", "at-0"), ("at-6", "at-10"), ("at-9999", "at-480"), ("bar-1", "bar-1920"),
        ("bar", None), ("on-60", "on-60"), ("on-61", None), (PIECE_END, PIECE_END),
    ):  # fmt: skip
        assert nearest(word) == found
    assert NearestEvent(["on-60"])("at-5") is None
    assert [NearestEvent(["bar"])(word) for word in ("bar", "bar-5")] == ["bar", None]


@settings(deadline=None)
@given(meters, st.integers(0, 7000))
def test_bars_reach_the_tick_and_change_where_the_meter_does(meter, tick):
    starts, lengths = bars_of(with_meter(Piece("", []), meter).meter, tick)
    assert starts[0] == 0 and starts[-1] <= tick < starts[-1] + lengths[-1]
    assert np.array_equal(starts[1:], (starts + lengths)[:-1])
    assert {change for change in meter if change <= tick} <= set(starts.tolist())
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        said = [meter[change] for change in sorted(meter) if change <= start]
        cut = [change - start for change in meter if change > start]
        assert length == min([said[-1] if said else 1920, *cut])


def test_the_meter_of_a_piece_is_written_and_read():
    for meter in ({}, {0: 1440}, {0: 480, 480: 1920, 4320: 720, 5040: 2880}, {960: 1440}):
        piece = with_meter(Piece("", [track_of([(0, 9600, 60)])]), meter)
        file = io.BytesIO()
        write_midi(piece, file)
        assert bars(read_midi(file.getvalue(), "")) == bars(piece)


# Phrases and keys -------------------------------------------------------------------------------


def phrased(phrases, sharps=None, shift=0):
    """Two bars of a chord each, the second held to its end."""
    notes = [(1920 * n, 1920 * n + 960, 60 + p + shift) for n in range(2) for p in (0, 4, 7)]
    return Piece("p", [track_of(notes)], phrases=np.array(phrases, np.int32), sharps=sharps)


def test_a_cadence_stands_at_the_last_place_of_a_phrase_before_its_notes():
    words = TOKENIZER.words(phrased([1920, 2880]))
    first = ["bar-1920", "at-0", "on-60", "on-64", "on-67", "at-960", "cadence"]
    offs = ["off-60", "off-64", "off-67"]
    assert words == [
        *(*first, *offs, "bar", "at-0", "cadence", "on-60", "on-64", "on-67", "at-960", *offs),
        PIECE_END,
    ]
    assert TOKENIZER.piece(words, "").phrases.tolist() == [1920, 2880]


@settings(deadline=None)
@given(pieces(), st.lists(times, max_size=5))
def test_phrases_come_back_from_words(piece, ends):
    told = TOKENIZER.piece(TOKENIZER.words(replace(piece, phrases=np.unique(ends))), "")
    again = TOKENIZER.piece(TOKENIZER.words(told), "")
    assert TOKENIZER.words(again) == TOKENIZER.words(told)
    assert again.phrases.tolist() == told.phrases.tolist()
    ticks = {int(tick) for track in told.tracks for tick in track[:, TICK]}
    assert ticks.issuperset(told.phrases.tolist())  # each ends where something happens


def test_a_common_key_is_told_and_written_in_c():
    """Of a piece in D, -10 semitones from C or +2: it sounds two above what is written."""
    common, piece = EventTokenizer("A"), phrased([], shift=2)
    words = common.words(piece)
    assert words[:4] == ["key-2", "bar-1920", "at-0", "on-60"]
    again = common.piece(words, "")
    assert (again.sharps, again.notes["pitch"].min()) == (2, 62)
    assert [word for word in words if "key" not in word] == TOKENIZER.words(phrased([]))


@pytest.mark.parametrize(("sharps", "key"), [(None, 0), (0, 0), (1, 7), (-1, 5), (2, 0), (-3, 0)])
def test_a_key_signature_counts_where_the_notes_do_not_contradict_it(sharps, key):
    assert EventTokenizer("A").words(phrased([], sharps))[0] == f"key-{key}"


@settings(deadline=None)
@given(pieces())
def test_a_common_key_changes_nothing_that_sounds(piece):
    common = EventTokenizer("A")
    words = common.words(piece)
    again = common.piece(words, "")
    assert TOKENIZER.words(again) == TOKENIZER.words(piece)
    assert common.words(again) == words
    assert all(word in (PIECE_END, *common.always) for word in words if parse(word) is None)


def test_pitches_that_a_key_would_move_beyond_any_are_written_as_they_sound():
    piece = Piece("p", [track_of([(0, 480, 0), (0, 960, 127), (480, 960, 6)])], sharps=None)
    words = EventTokenizer("A").words(piece)
    assert {"on-0", "on-127", "on-6"} < {*words}
    assert len(EventTokenizer("A").piece(["key-1", "bar-1920", "at-0", "on-127"], "").tracks) == 0


@pytest.mark.parametrize("word", ["cadence-1", "key", "key-12", "key--1", "cadences"])
def test_other_cadences_and_keys_are_no_words(word):
    with pytest.raises(ValueError, match="not an event"):
        parse(word)
