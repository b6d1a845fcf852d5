"""Answers to what is played, without ports and without a clock."""

from types import SimpleNamespace

import mido
import numpy as np
import pytest
from memory_midi import notes
from small import track_of

from lstm_music.midi.piece import DRUMS, MidiError, Part, Piece, notes_of
from lstm_music.midi.timing import constant
from lstm_music.midi.writing import as_midi
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of
from lstm_music.sampling import answering
from lstm_music.sampling.answering import Conversation, Listener, answer, heard, sent, written
from lstm_music.sampling.composer import Opening, UnknownNotes
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options
from lstm_music.sampling.voicing import Voice, in_voices, singers_of

WRITES = SimpleNamespace(drums=None, played=False, primer_grid=None)
DRUMMER = SimpleNamespace(drums=[36], played=False, primer_grid=None)
PLAYS = SimpleNamespace(drums=None, played=True, primer_grid=None)
SATB = [Voice(Part(name), pitch) for name, pitch in zip("SATB", (70, 64, 59, 51), strict=True)]


def on(note, velocity=64, channel=0):
    return mido.Message("note_on", note=note, velocity=velocity, channel=channel)


def off(note, channel=0):
    return mido.Message("note_off", note=note, channel=channel)


def pedal(value, channel=0):
    return mido.Message("control_change", control=64, value=value, channel=channel)


@pytest.fixture(scope="module")
def bach():
    checkpoint = read_checkpoint(bundled_model())
    return composer_of(checkpoint, model_of(checkpoint, "numpy"))


# Listening --------------------------------------------------------------------------------------


def test_a_phrase_ends_once_all_keys_are_up_and_nothing_comes():
    listener = Listener(1.5)
    for at, message in ((0, on(60)), (1, on(64)), (1.2, off(60))):
        listener.hear(at, message)
    assert listener.phrase(9.0) == []  # a key is down
    listener.hear(9, off(64))
    assert listener.phrase(10.4) == []
    phrase = listener.phrase(10.6)
    assert [at for at, _ in phrase] == [0, 1, 1.2, 9]
    assert listener.phrase(20) == []  # it is forgotten
    listener.hear(21, on(60, velocity=0))  # ends of notes begin no phrase
    listener.hear(21, off(60))
    assert listener.phrase(30) == []


def test_what_is_neither_note_nor_pedal_prolongs_nothing():
    listener = Listener(1.0)
    listener.hear(0, on(60))
    listener.hear(0.5, on(60, velocity=0))
    for message in (
        mido.Message("clock"), mido.Message("active_sensing"), mido.Message("aftertouch"),
        mido.Message("control_change", control=1, value=9), mido.Message("sysex", data=[1]),
    ):  # fmt: skip
        listener.hear(1.4, message)
    assert len(listener.phrase(1.5)) == 2


def test_a_pedal_that_is_down_when_a_phrase_begins_belongs_to_it():
    listener = Listener(1.0)
    listener.hear(0, pedal(127))
    listener.hear(5, on(60))
    listener.hear(6, off(60))
    listener.hear(7, pedal(0))
    assert listener.phrase(7.9) == []  # a foot is heard too
    phrase = listener.phrase(8.1)
    assert [(at, m.type) for at, m in phrase] == [
        (5, "control_change"), (5, "note_on"), (6, "note_off"), (7, "control_change"),
    ]  # fmt: skip


# A conversation ---------------------------------------------------------------------------------


def replying(*events):
    """A conversation in which every phrase is answered by the same, and the phrases."""
    phrases = []
    return Conversation(1.0, lambda phrase: phrases.append(phrase) or events), phrases


def test_an_answer_is_sent_in_its_time():
    talk, phrases = replying((0.0, on(72)), (0.5, off(72)), (0.5, on(74)), (1.0, off(74)))
    assert talk.hear(0, on(60)) == talk.hear(1, off(60)) == []
    assert talk.due(1.9) == [] and not phrases
    assert talk.due(2.0) == [] and len(phrases) == 1  # composing takes until 5.0
    assert talk.due(5.0) == [on(72)]
    assert talk.due(5.4) == []
    assert talk.due(5.6) == [off(72), on(74)]
    assert talk.due(9.0) == [off(74)]
    assert talk.due(99.0) == [] == talk.silence(99.0) and len(phrases) == 1
    said = [(at, m.type, ours) for at, m, ours in talk.said]
    assert said == [
        (0, "note_on", False), (1, "note_off", False), (5.0, "note_on", True),
        (5.6, "note_off", True), (5.6, "note_on", True), (9.0, "note_off", True),
    ]  # fmt: skip


def test_a_note_that_comes_ends_the_answer_and_begins_a_phrase():
    talk, phrases = replying((0.0, on(72)), (0.0, on(76, channel=3)), (5.0, off(72)))
    talk.hear(0, on(60))
    talk.hear(1, off(60))
    talk.due(2.0)
    assert len(talk.due(2.1)) == 2
    assert talk.hear(2.2, pedal(127)) == []  # a foot alone interrupts nothing
    assert talk.hear(2.3, on(62)) == [off(72), off(76, channel=3)]
    assert talk.end(2.35)[-1] == mido.Message("control_change", channel=3, control=123)
    assert talk.hear(2.4, off(62)) == [] == talk.due(2.5)
    talk.due(3.5)
    assert [m.note for _, m in phrases[1] if m.type == "note_on"] == [62]


def test_what_came_while_it_was_composed_interrupts_too():
    talk, phrases = replying((0.0, on(72)), (5.0, off(72)))
    talk.hear(0, on(60))
    talk.hear(1, off(60))
    talk.due(2.0)
    assert talk.hear(2.5, on(64)) == [] == talk.due(2.6)  # nothing sounded yet
    assert talk.silence(2.7) == [] and len(phrases) == 1


def test_what_no_file_holds_is_no_part_of_the_session():
    talk, _ = replying()
    for message in (mido.Message("clock"), mido.Message("sysex", data=[1]), on(60), pedal(1)):
        talk.hear(0, message)
    assert [m.type for _, m, _ in talk.said] == ["note_on", "control_change"]


def test_an_answer_of_nothing_is_none():
    talk, phrases = replying()
    for at in (0.0, 5.0):
        talk.hear(at, on(60))
        talk.hear(at + 1, off(60))
        assert talk.due(at + 3) == []
    assert len(phrases) == 2


# From messages to music --------------------------------------------------------------------------


def test_what_is_heard_is_in_ticks_from_its_first_note_on():
    events = [(7.0, pedal(127)), *((8 + at, m) for at, m in notes((0, 0.5, 60), (0.6, 1.2, 64)))]
    piece = heard(events, "phrase", 100.0, WRITES)
    assert notes_of(piece.tracks[0]).tolist() == [[0, 400, 60], [480, 960, 64]]
    assert piece.velocities[0].tolist() == [64, 64] and piece.tempo.tolist() == [[0, 600_000]]
    piece = heard(events, "phrase", 125.0, PLAYS)  # the pedal is down to the end
    assert notes_of(piece.tracks[0]).tolist() == [[0, 1200, 60], [600, 1200, 64]]


def test_a_pedal_lengthens_what_is_played_and_not_what_is_written():
    events = sorted([*notes((0, 0.2, 60)), (0.1, pedal(127)), (0.9, pedal(0))], key=lambda e: e[0])
    ends = [notes_of(heard(events, "", 125.0, one).tracks[0])[0, 1] for one in (PLAYS, WRITES)]
    assert ends == [900, 200]


def test_a_note_however_short_is_heard():
    events = notes((0, 0.0001, 60), (0, 0.0001, 64), (1, 1, 67))
    piece = heard(events, "", 90.0, WRITES)
    assert [pitch for *_, pitch in notes_of(piece.tracks[0]).tolist()] == [60, 64, 67]
    assert (notes_of(piece.tracks[0])[:, 1] > notes_of(piece.tracks[0])[:, 0]).all()


def test_drums_are_heard_by_a_model_of_drums_alone():
    hits = notes((0, 0.1, 36), (0.5, 0.6, 38), channel=DRUMS)
    with pytest.raises(MidiError, match="drum notes left out: 2"):
        heard(hits, "", 90.0, WRITES)
    both = sorted(hits + notes((0, 1, 60)), key=lambda event: event[0])
    assert len(heard(both, "", 90.0, WRITES).notes) == 1
    piece = heard(both, "", 90.0, DRUMMER)
    assert piece.drums == (False, True) and len(piece.notes) == 3


def test_hands_are_put_on_the_grid():
    events = notes((0, 0.58, 60), (0.63, 1.17, 62), (1.21, 1.52, 64), (1.49, 2.36, 65))
    piece = written(heard(events, "", 100.0, WRITES), WRITES, None)
    assert notes_of(piece.tracks[0]).tolist() == [
        [0, 480, 60], [480, 960, 62], [960, 1200, 64], [1200, 1920, 65],
    ]  # fmt: skip
    eighths = SimpleNamespace(**{**vars(WRITES), "primer_grid": 8})
    events = notes((0, 0.3, 60), (0.42, 0.6, 62))
    piece = written(heard(events, "", 100.0, eighths), eighths, None)
    assert notes_of(piece.tracks[0])[:, 0].tolist() == [0, 240]


@pytest.mark.parametrize(("end", "found"), [(2.4, 1920), (2.75, 1920), (3.2, 2520), (4.8, 3840)])
def test_a_last_note_held_a_little_too_long_ends_with_its_bar(end, found):
    events = notes((0, 1.8, 60), (1.8, end, 62))
    piece = written(heard(events, "", 100.0, WRITES), WRITES, None)
    assert notes_of(piece.tracks[0])[-1].tolist() == [1440, found, 62]


def test_bars_are_those_that_are_asked_for():
    piece = written(heard(notes((0, 3, 60)), "", 100.0, WRITES), WRITES, 1440)
    assert piece.meter.tolist() == [[0, 1440]]
    assert answering.as_long(piece, Options(), False).bars == 2
    assert answering.as_long(piece, Options(bars=5), False).bars == 5
    assert answering.as_long(piece, Options(), True).limit == 2400


def test_an_answer_is_as_loud_as_the_phrase_in_the_mean():
    track = track_of([(480 * n, 480 * n + 480, 60 + n) for n in range(3)])
    plain = Piece("", [track], tempo=constant(60.0))
    assert [m.velocity for _, m in sent(plain, 33, None) if m.type == "note_on"] == [33] * 3
    played = Piece("", [track], tempo=constant(60.0), velocities=(np.array([20, 40, 120]),))
    assert [m.velocity for _, m in sent(played, 50, None) if m.type == "note_on"] == [10, 30, 110]


def test_an_answer_begins_at_once_and_tells_programs_where_there_are_parts():
    late = track_of([(960, 1440, 60), (1440, 1920, 62)])
    plain = Piece("", [late], tempo=constant(60.0))
    assert [(at, m.type) for at, m in sent(plain, 64, None)] == [
        (0, "note_on"), (1, "note_off"), (1, "note_on"), (2, "note_off"),
    ]  # fmt: skip
    assert [m.program for _, m in sent(plain, 64, [19]) if m.type == "program_change"] == [19]
    parts = (Part("Flute", 73), Part("Bass", 32))
    events = sent(Piece("", [late, late], tempo=constant(60.0), parts=parts), 64, None)
    assert [(at, m.channel, m.program) for at, m in events[:2]] == [(0, 0, 73), (0, 1, 32)]
    assert {m.channel for _, m in events[2:]} == {0, 1}


# What is composed -------------------------------------------------------------------------------

TUNE = ((0, 1, 69), (1, 1, 71), (2, 1, 72), (3, 1, 72), (4, 1, 72), (5, 1, 74), (6, 2, 76))


def tune(*pitched):
    """A phrase of (quarter, quarters, pitch) at 96 quarter notes a minute, as it is written."""
    rows = [(at * 0.625, (at + length) * 0.625 - 0.02, pitch) for at, length, pitch in pitched]
    events = sorted(notes(*rows), key=lambda event: event[0])
    return written(heard(events, "a phrase", 96.0, WRITES), WRITES, None)


def test_the_bundled_model_answers_a_tune_in_four_voices(bach):
    found = answer(bach, in_voices(tune(*TUNE), singers_of(bach)), Options(beyond=True), str)
    assert [part.name for part in found.alone.parts] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert 8 < len(found.alone.notes) < 80
    assert 1920 < found.alone.notes["end"].max() <= 2 * 1920  # as long as the phrase
    soprano = notes_of(found.whole.tracks[0]).tolist()
    assert [row[::2] for row in soprano[:7]] == [[480 * at, pitch] for at, _, pitch in TUNE]
    assert found.whole.sharps == found.alone.sharps == 0  # C major or A minor
    new = found.whole.notes[found.whole.notes["start"] >= 3840]
    assert new["pitch"].tolist() == found.alone.notes["pitch"].tolist()
    assert (new["start"] - 3840).tolist() == found.alone.notes["start"].tolist()


def test_notes_that_the_model_does_not_know_are_no_phrase(bach):
    with pytest.raises(UnknownNotes, match="none of the notes in 'a phrase'"):
        answer(bach, tune((0, 1, 3)), Options(), str)


def test_a_length_in_seconds_is_the_answers_own(bach):
    """It begins at the bar line after the phrase, here three quarters later."""
    found = answer(bach, tune((0, 1, 69)), Options(limit=1920, beyond=True, seed=1), str)
    assert 960 < found.alone.notes["end"].max() <= 1920


def test_another_piece_is_no_answer(monkeypatch, bach):
    """Of several tries that is taken which isn't over before its length."""
    start, tried = bach.rules.start, []

    def compose(composer, openings, ended, options, show):
        tried.append(options.first)
        return [[9, 9, *([start, 9] if len(tried) < 3 else [])]]

    monkeypatch.setattr(answering, "compose_after", compose)
    music = answering.unbroken(bach, Opening("", [9]), Options(first=2))
    assert music == [9, 9] and tried == [8, 9, 10]


def test_a_phrase_and_its_answer_are_one_piece_whatever_they_tell():
    phrase = tune((0, 1, 60))
    for told in ({}, {"parts": (Part("Flute", 73),)}, {"velocities": (np.array([9]),)}):
        alone = Piece("", [track_of([(0, 480, 72)])], **told)
        whole = answering.after(phrase, alone)
        assert [tuple(n)[:3] for n in whole.notes] == [(0, 480, 60), (1920, 2400, 72)]
        as_midi(whole, None, None, None)
    assert len(answering.after(phrase, Piece("", [])).notes) == 1


def test_a_session_has_what_was_played_and_what_was_answered():
    said = [(5.0, on(60), False), (5.5, off(60), False), (7.0, on(72), True), (8.0, off(72), True)]
    midi = answering.session(said, 60.0)
    assert [track.name for track in midi.tracks[1:]] == ["Played", "Answered"]
    times = [[m.time for m in track if not m.is_meta] for track in midi.tracks[1:]]
    assert times == [[0, 240], [960, 480]]


# Voices -----------------------------------------------------------------------------------------


def sung(*pitched):
    """Who sings what of a phrase: names, and for each start and pitch."""
    piece = in_voices(tune(*pitched), SATB)
    names = [part.name for part in piece.parts]
    return names, [[(n[0] / 480, n[2]) for n in notes_of(t).tolist()] for t in piece.tracks]


@pytest.mark.parametrize(
    ("pitch", "voice"), [(84, "S"), (72, "S"), (63, "S"), (62, "A"), (55, "T"), (40, "B")]
)
def test_a_line_is_sung_by_one_voice_in_its_register(pitch, voice):
    line = [(n, 1, pitch + step) for n, step in enumerate((-5, 5, -7, 7))]
    assert sung(*line) == ([voice], [[(n, p) for n, _, p in line]])


def test_chords_are_told_apart_from_the_top():
    rows = [[72, 67, 64, 48], [71, 67, 62, 55], [72, 64, 60, 48]]
    names, found = sung(*((n, 1, pitch) for n, row in enumerate(rows) for pitch in row))
    assert names == ["S", "A", "T", "B"]
    assert found == [[(n, row[k]) for n, row in enumerate(rows)] for k in range(4)]


def test_fewer_notes_stay_with_who_is_nearest_and_held_ones_with_who_sings_them():
    names, found = sung((0, 2, 72), (0, 4, 48), (2, 1, 71), (3, 1, 72), (4, 1, 50))
    assert names == ["S", "B"]
    assert found == [[(0, 72), (2, 71), (3, 72)], [(0, 48), (4, 50)]]
    near = ((0, 1, 76), (0, 1, 52), (1, 1, 74), (1, 1, 60), (2, 1, 64), (3, 1, 66))
    assert sung(*near)[1] == [[(0, 76), (1, 74)], [(0, 52), (1, 60), (2, 64), (3, 66)]]
    _, found = sung((0, 4, 72), (1, 1, 60), (2, 1, 71))  # who holds a note sings no other
    assert found == [[(0, 72)], [(1, 60), (2, 71)]]


def test_more_notes_than_voices_are_the_lowest_ones():
    names, found = sung(*((0, 1, pitch) for pitch in (76, 72, 67, 64, 60, 48)))
    assert names == ["S", "A", "T", "B"]
    assert found == [[(0, 76)], [(0, 72)], [(0, 67)], [(0, 48), (0, 60), (0, 64)]]


def test_the_bundled_model_writes_in_voices(bach):
    assert [voice.part.name for voice in singers_of(bach)] == ["Soprano", "Alto", "Tenor", "Bass"]
    pitches = [voice.pitch for voice in singers_of(bach)]
    assert pitches == sorted(pitches, reverse=True) and 66 < pitches[0] < 74


def test_who_writes_chords_in_a_part_writes_in_no_voices():
    def writes(*pieces):
        known = {f"{n}": piece for n, piece in enumerate(pieces)}
        return SimpleNamespace(
            openings=lambda: [Opening(name, name) for name in known],
            piece=lambda music, options, name: known[music],
        )

    line, chord = track_of([(0, 480, 72), (480, 960, 74)]), track_of([(0, 480, 60), (0, 480, 64)])
    two, duo = (Part("A"), Part("B")), Piece("", [line, line - [0, 0, 12]])
    assert singers_of(writes()) == []
    assert singers_of(writes(duo)) == []  # no parts
    duo = Piece("", duo.tracks, parts=two)
    assert singers_of(writes(duo)) == [Voice(two[0], 73.0), Voice(two[1], 61.0)]
    assert singers_of(writes(Piece("", [line, chord], parts=two))) == []
    assert singers_of(writes(Piece("", duo.tracks, parts=two, drums=(False, True)))) == []
    twins = Piece("", duo.tracks, parts=(Part("A"), Part("A")))
    assert singers_of(writes(twins)) == []
