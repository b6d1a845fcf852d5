import json
from dataclasses import asdict, replace

import mido
import numpy as np
import pytest
import scipy.io
from small import melody, piece_of, track_of, write_music

from lstm_music.corpus import load as corpora
from lstm_music.corpus.left_out import KEEPS, how_played, keeps, left_out, memorised
from lstm_music.corpus.load import REPRESENTATIONS, Reading, load_corpus, suiting, survey_corpus
from lstm_music.corpus.survey import Survey, survey_of, total
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Piece


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(folder))
    return folder


@pytest.fixture
def band(tmp_path):
    """A folder with one piece in which there is something of everything."""
    folder = tmp_path / "band"
    folder.mkdir()
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    meta, message = mido.MetaMessage, mido.Message
    midi.tracks.append([
        meta("time_signature", numerator=3, denominator=4), meta("key_signature", key="G"),
        meta("set_tempo", tempo=400_000), meta("set_tempo", tempo=400_000, time=480),
        meta("set_tempo", tempo=300_000, time=480), meta("marker", text="phrase"),
    ])  # fmt: skip
    midi.tracks.append([
        meta("track_name", name="Flute"), message("program_change", program=73),
        message("control_change", control=64, value=127),
        message("control_change", control=7, value=90),
        *(m for pitch, velocity in ((60, 40), (62, 90), (109, 90)) for m in (
            message("note_on", note=pitch, velocity=velocity, time=0),
            message("note_off", note=pitch, time=120))),
        message("control_change", control=64, value=0),
    ])  # fmt: skip
    midi.tracks.append([
        message("program_change", channel=1, program=0),
        message("note_on", channel=1, note=60, velocity=90),
        message("note_off", channel=1, note=60, time=121),
        message("note_on", channel=1, note=48, velocity=90, time=2),
        message("note_off", channel=1, note=48, time=120),
    ])  # fmt: skip
    midi.tracks.append([
        message("note_on", channel=9, note=36, velocity=90),
        message("note_off", channel=9, note=36, time=120),
    ])  # fmt: skip
    midi.save(folder / "band.mid")
    return folder


def counted(folder, **how):
    return survey_corpus(str(folder), reading=Reading(**how))


# What is counted ----------------------------------------------------------------------------------


def test_a_piece_is_counted(band):
    assert asdict(counted(band)) == {
        "pieces": 1, "notes": 5, "outside": 1, "drums": 1, "tracks": 2, "joined": 2, "pedals": 2,
        "tempos": 1, "keys": 1, "phrases": 1, "onsets": {3: 1, 120: 1, 240: 1, 1920: 2},
        "velocities": [40, 90], "programs": [0, 73], "meters": [1440], "names": ["Flute"],
    }  # fmt: skip


def test_drums_that_are_read_are_notes_without_a_program(band):
    survey = counted(band, drums=True)
    assert (survey.notes, survey.drums, survey.tracks, survey.programs) == (6, 0, 3, [0, 73])


def test_every_grid_can_be_asked(band):
    survey = counted(band)
    on = {1920: 5, 640: 5, 480: 4, 48: 4, 16: 4, 24: 3, 8: 3, 4: 2, 1: 2}
    assert {grid: survey.on_grid(grid) for grid in on} == on
    assert survey.on_grid("16,24") == 4
    assert survey.on_grid("4,640") == 5
    with pytest.raises(ValueError, match="must divide 1920"):
        survey.on_grid(7)


@pytest.mark.parametrize("grid", [1, 5, 16, 24, 48, 96, 480])
def test_the_grid_counts_as_division_does(grid):
    rng = np.random.default_rng(grid)
    starts = np.unique(rng.integers(0, 9999, 200) // 5 * 5)
    piece = Piece("", [track_of([(t, t + 1, 60) for t in starts.tolist()])])
    assert survey_of(piece).on_grid(grid) == np.count_nonzero(starts % (1920 // grid) == 0)


def test_several_are_counted_together():
    surveys = [survey_of(piece_of(seed, tracks=1 + seed % 2)) for seed in range(4)]
    surveys[1] = replace(surveys[1], names=["b"], programs=[5], velocities=[1, 9])
    surveys[3] = replace(surveys[3], names=["a", "b"], programs=[0, 5], velocities=[4, 9])
    every = total(surveys)
    assert (every.pieces, every.tracks, every.joined) == (4, 6, 4)
    assert every.notes == sum(every.onsets.values()) == sum(survey.notes for survey in surveys)
    assert (every.names, every.programs) == (["a", "b"], [0, 5])
    assert every.velocities == [0, 1, 4, 9]
    assert Survey.from_json(json.loads(json.dumps(asdict(every)))) == every


def test_a_corpus_is_counted_once(tmp_path, cache, monkeypatch):
    music = write_music(tmp_path / "music")
    first = counted(music)
    assert first == total(survey_of(read_midi(path, path.name)) for path in sorted(music.iterdir()))
    kept = next((cache / "surveys").iterdir())
    kept.write_text("[]")  # damaged: counted anew, from what was parsed
    monkeypatch.setattr("lstm_music.corpus.piece_store.read_midi", None)
    assert counted(music) == first

    def not_again(*_):
        raise AssertionError("it was counted again")

    monkeypatch.setattr(corpora, "contents_of", not_again)
    assert counted(music) == first
    with pytest.raises(AssertionError, match="again"):
        counted(music, max_pieces=3)


def test_where_nothing_can_be_kept_it_is_counted_all_the_same(tmp_path, cache):
    cache.write_bytes(b"no folder")
    assert counted(write_music(tmp_path / "music")).pieces == 8


def test_some_pieces_alone_are_those_that_are_read(tmp_path):
    music = write_music(tmp_path / "music")
    how = {"max_pieces": 3, "seed": 4}
    names = load_corpus(str(music), reading=Reading(**how)).pieces
    assert counted(music, **how) == total(survey_of(read_midi(music / n, n)) for n in names)


def test_piano_rolls_have_no_survey(tmp_path):
    path = tmp_path / "rolls.mat"
    scipy.io.savemat(path, {})
    assert survey_corpus(str(path)) is None


# Played or written --------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "kind"), [(0, "event"), (5, "event"), (6, corpora.PLAYED)])
def test_fewer_than_half_of_the_onsets_on_the_grid_is_played(off, kind):
    notes = [(40 * n * 3 + (n < off), 40 * n * 3 + 41, 60 + n) for n in range(10)]
    survey = survey_of(Piece("", [track_of(notes)]))
    assert suiting(survey) == kind
    word = "written" if kind == "event" else "played"
    assert how_played(survey).startswith(f"{word}: {10 - off} of 10 onsets lie on a grid of 48")


def test_of_nothing_nothing_is_played():
    assert not total([]).played


# What is left out ---------------------------------------------------------------------------------

LOST = {
    ("message", "merge"): "5 velocities (2 different), 2 pedal changes, 1 program, 1 tempo change, "
    "1 meter, 1 key signature, 1 end of a phrase, 2 tracks (merged), 1 name of a part, 1 unison, "
    "1 drum hit",
    ("message", "flatten"): "5 velocities (2 different), 2 pedal changes, 1 program, "
    "1 tempo change, 1 meter, 1 key signature, 1 end of a phrase, 1 name of a part, 1 drum hit",
    ("event", "merge"): "5 velocities (2 different), 2 pedal changes, 1 program, 1 tempo change, "
    "1 key signature, 2 tracks (merged), 1 name of a part, 1 unison, 1 drum hit",
    ("chord", "merge"): "5 velocities (2 different), 2 pedal changes, 1 program, 1 tempo change, "
    "1 meter, 1 key signature, 1 end of a phrase, 2 tracks (merged), 1 name of a part, "
    "1 note outside the piano, 2 onsets off the grid, 2 notes joined or too short, 1 drum hit",
}  # fmt: skip


@pytest.mark.parametrize(("representation", "tracks"), LOST)
def test_what_a_representation_loses_is_said(band, representation, tracks):
    reading = Reading(representation, tracks=tracks)
    corpus = load_corpus(str(band), reading=reading)
    line = left_out(counted(band), reading, corpus)
    assert line == f"left out: {LOST[representation, tracks]}"


def test_what_options_keep_is_not_said(band):
    said = {}
    for name, how in {"plain": {}, "key": {"common_key": "A"}, "drums": {"drums": True}}.items():
        reading = Reading("event", **how)
        survey = counted(band, **({"drums": True} if name == "drums" else {}))
        said[name] = left_out(survey, reading, load_corpus(str(band), reading=reading))
    assert ["key signature" in line for line in said.values()] == [True, False, True]
    assert ["drum hit" in line for line in said.values()] == [True, True, False]


def test_where_nothing_is_lost_nothing_is_said(tmp_path):
    write_midi(piece_of(0, tracks=1), tmp_path / "a.mid")
    for representation in ("message", "event"):
        reading = Reading(representation)
        corpus = load_corpus(str(tmp_path / "a.mid"), reading=reading)
        assert left_out(counted(tmp_path / "a.mid"), reading, corpus) == ""


def test_the_table_has_every_representation():
    assert {*REPRESENTATIONS} <= {*KEEPS}
    for representation in REPRESENTATIONS:
        assert keeps(Reading(representation, drums=True)) >= {*KEEPS[representation], "drums"}


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        (1, "valid and test are the training piece: what they measure is memory"),
        (2, "valid and test are the training pieces: what they measure is memory"),
        (3, ""),
    ],
)
def test_of_one_or_two_files_it_is_said_that_nothing_is_held_out(tmp_path, pieces, line):
    music = tmp_path / "music"
    music.mkdir()
    for n in range(pieces):
        write_midi(Piece("", [melody(np.random.default_rng(n), 9)]), music / f"{n}.mid")
    for representation in ("message", "note"):
        assert memorised(load_corpus(str(music), reading=Reading(representation))) == line
