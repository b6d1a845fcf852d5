"""Tunes: a note at a time, moved by octaves, in bars, at places and in a key that a model knows."""

from dataclasses import replace

import numpy as np
import pytest
from small import track_of

from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.sampling.tunes import (
    as_played,
    at_known_places,
    in_known_bars,
    in_range,
    in_time_of,
    one_at_a_time,
    sharps_of,
    tune_of,
)

SIXTEENTHS = [*range(0, 1920, 120)]


def piece(*tracks, names=(), meter=(), loud=()):
    """A piece of tracks of notes (start, end, pitch)."""
    return Piece(
        "tune", [track_of(track) for track in tracks], parts=tuple(map(Part, names)),
        meter=np.array(meter, np.int32).reshape(-1, 2), velocities=tuple(map(np.array, loud)),
    )  # fmt: skip


def rows(made):
    """The notes of each track of a piece."""
    return [[tuple(row) for row in notes_of(track).tolist()] for track in made.tracks]


def tune(*pitches, unit=480, at=0):
    """Notes of equal length, one after the other."""
    return [(at + unit * n, at + unit * (n + 1), pitch) for n, pitch in enumerate(pitches)]


# One at a time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notes", "kept", "which"),
    [
        ([(0, 480, 60), (480, 960, 62)], [(0, 480, 60), (480, 960, 62)], [0, 1]),
        # Legato: the first ends where the next begins, whether it is the higher or not.
        ([(0, 500, 60), (480, 960, 62)], [(0, 480, 60), (480, 960, 62)], [0, 1]),
        ([(0, 500, 64), (480, 960, 62)], [(0, 480, 64), (480, 960, 62)], [0, 1]),
        # Half a note is none: under a held higher note nothing is the tune.
        ([(0, 960, 64), (480, 960, 62)], [(0, 960, 64)], [0]),
        ([(0, 960, 62), (480, 960, 64)], [(0, 480, 62), (480, 960, 64)], [0, 1]),
        # Chords: the highest.
        ([(0, 480, 60), (0, 480, 64), (0, 480, 67)], [(0, 480, 67)], [2]),
        ([(0, 480, 67), (0, 960, 60), (480, 960, 59)], [(0, 480, 67), (480, 960, 59)], [0, 2]),
        # Two voices that cross: the upper one of each moment.
        (
            [(0, 480, 60), (0, 480, 55), (480, 960, 62), (480, 960, 72), (960, 1440, 64)],
            [(0, 480, 60), (480, 960, 72), (960, 1440, 64)], [0, 3, 4],
        ),
        ([], [], []),
    ],
)  # fmt: skip
def test_the_highest_of_what_sounds_at_once(notes, kept, which):
    found, numbers = one_at_a_time(np.array(notes, np.int32).reshape(-1, 3))
    assert [tuple(row) for row in found.tolist()] == kept
    assert numbers == which


def test_no_two_notes_of_a_tune_sound_at_once():
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = rng.integers(0, 4000, 30)
        notes = np.stack([start, start + rng.integers(1, 900, 30), rng.integers(40, 90, 30)], 1)
        found, which = one_at_a_time(notes)
        assert (found[:, 0] < found[:, 1]).all() and (found[1:, 0] >= found[:-1, 1]).all()
        assert (found[:, [0, 2]] == notes[which][:, [0, 2]]).all()
        assert notes[:, 2].max() in found[:, 2]


# Which track --------------------------------------------------------------------------------------


def test_the_tune_is_the_track_of_its_name():
    given = piece(
        tune(80), tune(72, 74), names=("Flute", " soprano"), loud=([10], [20, 30]),
    )  # fmt: skip
    made, said = tune_of(given, "Soprano")
    assert rows(made) == [tune(72, 74)] and not said
    assert made.parts == (Part("Soprano"),) and made.velocities[0].tolist() == [20, 30]


def test_the_tune_is_the_only_track_whatever_its_name():
    made, said = tune_of(piece([*tune(60), (0, 480, 67)], names=("Alto",), loud=([9, 7],)), "Bass")
    assert rows(made) == [tune(67)]
    assert said == ["where several notes sound the highest is the tune: 1 are left out"]
    assert made.parts == (Part("Bass"),) and made.velocities[0].tolist() == [7]


@pytest.mark.parametrize("part", ["Soprano", ""])  # a part without a name is no track's
def test_else_the_highest_notes_of_all_tracks(part):
    made, said = tune_of(piece(tune(60, 72), tune(67, 55), names=("", "")), part)
    assert rows(made) == [tune(67, 72)] and made.velocities == ()
    assert said == ["the highest notes of its 2 tracks are the tune"]


# Octaves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pitches", "octaves"),
    [
        ((60, 81), 0),
        ((72, 76), 0),
        ((40, 45, 50), 2),  # in it by one octave and by two: nearer to its middle
        ((100, 103), -3),
        ((55, 72, 72), 0),  # moved up it would be no better
        ((59, 60, 62, 64), 1),
        ((0, 2), 6),
        ((127, 125), -5),
        ((24, 100), -2),  # wider than any voice: as much of it as may be
    ],
)
def test_a_tune_is_moved_by_octaves_where_it_is_out_of_range(pitches, octaves):
    given = piece(tune(*pitches))
    made, found = in_range(given, 60, 81)
    assert found == octaves
    assert rows(made) == [tune(*(pitch + 12 * octaves for pitch in pitches))]


# Keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "last", "sharps"),
    [
        (0, 72, 0),  # ends on C
        (7, 67, 1),
        (2, 74, 2),
        (5, 65, -1),
        (0, 69, 0),  # A minor
        (0, 67, 1),  # on G: rather G major, whose notes are the same but for one
        (0, 62, -1),  # on D: D minor
        (0, 61, 0),  # on none of theirs: as estimated
        (6, 66, 6),
        (11, 71, 5),
    ],
)
def test_signatures_by_where_tunes_end(key, last, sharps):
    assert sharps_of(piece(tune(60, last)), key) == sharps


# Bars ---------------------------------------------------------------------------------------------


def test_bars_of_known_length_stay():
    given = piece(tune(60, 62, 64), meter=[(0, 1440)])
    assert in_known_bars(given, [1920, 1440]) == (given, 0)
    assert in_known_bars(given, []) == (given, 0)


@pytest.mark.parametrize(
    ("meter", "pitches", "known", "expected", "later"),
    [
        ([(0, 2400)], 5, [1920, 1440], [(0, 1920)], 0),  # 5/4, as 4/4
        ([(0, 480), (480, 1920)], 9, [480, 1920], [(0, 480), (480, 1920)], 0),  # a known upbeat
        ([(0, 240), (240, 1920)], 9, [1920, 1440], [(0, 1920)], 1680),  # an eighth, unknown
        ([(0, 480), (480, 2400)], 11, [480, 1920], [(0, 480), (480, 1920)], 0),  # 5/4 after it
        ([(0, 480), (480, 2400)], 11, [1920], [(0, 1920)], 1440),
        ([(0, 1920), (1920, 2400), (4320, 1920)], 13, [1920], [(0, 1920)], 0),  # one bar of 5/4
        ([(0, 1200), (1200, 2400)], 9, [960], [(0, 960)], 720),  # longer than a known bar
    ],
)
def test_unknown_bars_become_known_ones(meter, pitches, known, expected, later):
    given = replace(
        piece(tune(*range(60, 60 + pitches)), meter=meter), phrases=np.array([480], np.int32)
    )
    made, moved = in_known_bars(given, known)
    assert [tuple(row) for row in made.meter.tolist()] == expected
    assert moved == later
    assert rows(made) == [[(s + later, e + later, p) for s, e, p in rows(given)[0]]]
    assert made.phrases.tolist() == [480 + later]


# Places -------------------------------------------------------------------------------------------


def test_a_tune_at_known_places_stays():
    given = piece(tune(60, 62, 64, unit=120), meter=[(0, 1920)])
    made, times = at_known_places(given, SIXTEENTHS)
    assert made is given and times.shape == (0, 2)
    assert as_played(given.tracks[0], times) is given.tracks[0]


def test_a_played_tune_is_heard_at_the_nearest_places():
    given = piece([(10, 475, 60), (490, 955, 62), (950, 1430, 64), (1445, 1925, 65)])
    made, times = at_known_places(given, SIXTEENTHS)
    assert rows(made) == [tune(60, 62, 64, 65)]
    assert times.tolist() == [[0, 10], [480, 490], [960, 950], [1440, 1445], [1920, 1925]]
    # What is composed is played in its time, and what lies between in proportion.
    below = track_of([(0, 480, 48), (480, 960, 50), (960, 1200, 52), (1200, 1920, 48)])
    played = notes_of(as_played(below, times)).tolist()
    assert played == [[10, 490, 48], [490, 950, 50], [950, 1198, 52], [1198, 1925, 48]]
    assert in_time_of(np.array([480, 1920]), times).tolist() == [490, 1925]


def test_a_note_is_not_shorter_than_to_the_next_place_and_graces_are_dropped():
    given = piece([(0, 470, 60), (470, 485, 71), (485, 960, 72), (960, 961, 74), (1070, 1440, 76)])
    made, _ = at_known_places(given, SIXTEENTHS)
    assert rows(made) == [[(0, 480, 60), (480, 960, 72), (960, 1080, 74), (1080, 1440, 76)]]
    chord = piece([(0, 470, 60), (5, 470, 64), (5, 470, 67)])  # the longest's own chord, if any
    assert rows(at_known_places(chord, SIXTEENTHS)[0]) == [[(0, 480, 60)]]
    chord = piece([(5, 470, 60), (5, 470, 64)])
    assert rows(at_known_places(chord, SIXTEENTHS)[0]) == [[(0, 480, 60), (0, 480, 64)]]


def test_places_are_of_bars():
    given = piece([(0, 700, 60), (730, 1430, 62)], meter=[(0, 720)])
    made, times = at_known_places(given, [0, 240, 480, 720])  # 720 is no place of such a bar
    assert rows(made) == [[(0, 720, 60), (720, 1440, 62)]]
    assert times.tolist() == [[0, 0], [720, 730], [1440, 1430]]
    late = replace(piece([(1435, 1436, 60)]), phrases=np.array([1436], np.int32))
    made, _ = at_known_places(late, [0, 480])  # the last place of all: the bar's end is the next
    assert rows(made) == [[(480, 1920, 60)]]
    assert made.phrases.tolist() == [1920]


def test_what_comes_before_a_late_tune_is_as_much_later():
    times = np.array([[960, 990], [1920, 1900]])
    track = track_of([(0, 480, 48), (480, 960, 50), (960, 1920, 52)])
    found = notes_of(as_played(track, times)).tolist()
    assert found == [[30, 510, 48], [510, 990, 50], [990, 1900, 52]]
    early = np.array([[960, 900], [1920, 1900]])  # not before the beginning
    assert notes_of(as_played(track, early)).tolist()[0] == [0, 420, 48]
