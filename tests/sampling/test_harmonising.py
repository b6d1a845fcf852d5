"""Harmonising: what is given of a piece, what stays of it, and tunes that aren't chorales."""

from dataclasses import replace

import numpy as np
import pytest
from small import track_of

from lstm_music.errors import UserError
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.timing import end_of
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of
from lstm_music.sampling.craft import VOICES, voices_of
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.harmonising import (
    Asked,
    around,
    given_of,
    harmonise,
    sounds_at,
    with_given,
    with_rest,
)
from lstm_music.sampling.word_rules import event_rules
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.parts import Player
from lstm_music.tokenizers.vocabulary import Vocabulary

NAMES = ("Soprano", "Alto", "Tenor", "Bass")
ROSTER = tuple(map(Player, NAMES))
BAR = 960
WORDS = Vocabulary(
    ["piece-end", "bar-960", "bar", "cadence", "at-0", "at-240", "at-480", "at-720"]
    + [f"{kind}-{pitch}/{part}" for kind in ("to", "off") for pitch in (60, 62, 64, 67)
       for part in (1, 2)]
)  # fmt: skip
RULES = event_rules(WORDS, 4 * BAR)


def piece(*tracks, names=NAMES, meter=((0, BAR),), phrases=(), **more):
    """A piece of tracks of notes (start, end, pitch)."""
    return Piece(
        "piece", [*map(track_of, tracks)], parts=tuple(map(Part, names[: len(tracks)])),
        meter=np.array(meter, np.int32).reshape(-1, 2), phrases=np.array(phrases, np.int32), **more,
    )  # fmt: skip


def given(music, asked):
    """What is given of a piece: (tick, word or, where a part falls silent, its name), the rest."""
    ids = [WORDS.id(word) for word in EventTokenizer(None, ROSTER).words(music)[:-1]]
    found = given_of(ids, RULES, asked, len(music.phrases) > 0, end_of(music))
    words = [WORDS.word(id) if id >= 0 else NAMES[-1 - id] for id in found.words.tolist()]
    return [*zip(found.ticks.tolist(), words, strict=True)], found


TUNE = [(0, 480, 60), (480, 960, 62), (960, 1920, 64)]
LOWER = [(0, 720, 60), (720, 1440, 62), (1440, 1920, 60)]


# What is given ------------------------------------------------------------------------------------


def test_of_a_tune_all_is_given_and_the_others_are_silent_at_its_end():
    """But for the tenor, of which the model knows no note."""
    words, found = given(piece(TUNE), Asked((1, 2)))
    assert words == [
        (0, "to-60/1"), (480, "to-62/1"), (960, "to-64/1"),
        (1920, "Soprano"), (1920, "off-64/1"), (1920, "Alto"),
    ]  # fmt: skip
    assert (found.start, found.stop, found.end) == (0, 1920, 1920)
    assert found.free.tolist() == [0, 1]
    assert [WORDS.word(id) for id in found.bar_words] == ["bar-960", "bar", "bar"]
    assert found.bars.tolist() == [0, 960, 1920]
    assert found.closes.tolist() == [[960, 1920]]  # its last note closes


def test_rests_are_given():
    words, _ = given(piece([(0, 240, 60), (720, 960, 62)]), Asked((1,)))
    assert words[:4] == [(0, "to-60/1"), (240, "off-60/1"), (720, "to-62/1"), (960, "Soprano")]


def test_phrases_close_at_their_last_place():
    _, found = given(piece(TUNE, phrases=(960, 1920)), Asked((1,)))
    assert found.closes.tolist() == [[480, 960], [960, 1920]]
    assert found.closing == found.stop == 1920  # and nowhere else


def test_a_tune_that_ends_without_a_word_ends_there_all_the_same():
    ids = [WORDS.id(word) for word in ("bar-960", "at-0", "to-60/1")]
    found = given_of(ids, RULES, Asked((1,)), False, 480)
    assert (found.end, found.stop) == (480, 480)
    assert found.ticks.tolist() == [0, 480, 480]


# Some bars ----------------------------------------------------------------------------------------


def test_bars_are_free_and_what_is_held_over_their_edges_may_change():
    """The lower part's second note is held over the bar line at 960, where the free bar begins."""
    words, found = given(piece(TUNE, LOWER), Asked((1,), BAR, 2 * BAR))
    own = [(tick, word) for tick, word in words if word.endswith("/2")]
    assert own == [(0, "to-60/2"), (720, "to-62/2"), (1920, "off-60/2")]
    assert (found.start, found.stop) == (960, 1920)
    assert [tick for tick, word in words if word == "Alto"] == [1920]


def test_what_is_held_over_the_end_of_the_bars_isnt_given():
    """Its beginning is composed anew; where the next note begins, what was composed ends."""
    words, _ = given(piece(TUNE, LOWER), Asked((1,), 0, BAR))
    alto = [(tick, word) for tick, word in words if word.endswith("/2") or word == "Alto"]
    assert alto == [(1440, "to-60/2"), (1920, "Alto"), (1920, "off-60/2")]


def test_a_part_that_is_silent_after_the_bars_falls_silent_there():
    lower = [(0, 960, 60), (1440, 1920, 62)]
    words, _ = given(piece(TUNE, lower), Asked((1,), 0, BAR))
    alto = [(tick, word) for tick, word in words if word.endswith("/2") or word == "Alto"]
    assert alto == [
        (960, "off-60/2"), (960, "Alto"), (1440, "to-62/2"), (1920, "Alto"), (1920, "off-62/2"),
    ]  # fmt: skip
    words, _ = given(piece(TUNE, [(0, 960, 60)]), Asked((1,), 0, BAR))
    assert [(tick, word) for tick, word in words if word == "Alto"] == [
        (960, "Alto"),
        (1920, "Alto"),
    ]


def test_a_part_ends_in_later_bars_where_it_did():
    """It sounds over the end of the bars, and its own end comes before another note."""
    lower = [(0, 1200, 60), (1440, 1920, 62)]
    words, _ = given(piece(TUNE, lower), Asked((1,), 0, BAR))
    alto = [(tick, word) for tick, word in words if word.endswith("/2") or word == "Alto"]
    assert alto[:3] == [(1200, "off-60/2"), (1200, "Alto"), (1440, "to-62/2")]


def test_a_phrase_that_closes_before_the_bars_is_no_end_of_them():
    """It was: all that was composed stood before its end, which was the piece's."""
    _, found = given(piece(TUNE, LOWER, phrases=(960, 1920)), Asked((0, 1), BAR, 2 * BAR))
    assert found.closes.tolist() == [[720, 960]]
    _, found = given(piece(TUNE, LOWER), Asked((0, 1), BAR, 2 * BAR))
    assert found.closes.tolist() == [[960, 1920]]


def test_what_sounds_at_a_tick():
    words = [(0, "to-60/1"), (240, "to-62/1"), (480, "off-62/1")]
    ids = [(tick, WORDS.id(word)) for tick, word in words]
    assert [sounds_at(ids, RULES, tick) for tick in (0, 1, 480, 481)] == [False, True, True, False]


# What stays ---------------------------------------------------------------------------------------


def spans(track):
    return [tuple(row) for row in notes_of(track).tolist()]


def test_kept_tracks_are_as_they_were_and_the_others_as_loud():
    own = piece([(5, 470, 60)], [(0, 480, 40)], names=("Soprano", "Bass"),
                velocities=(np.array([90]), np.array([50])))  # fmt: skip
    made = piece([(0, 480, 60)], [(0, 240, 55), (240, 480, 57)], [(0, 480, 48)])
    found = with_given(made, own, [0, 1], ROSTER)
    assert [part.name for part in found.parts] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert [spans(track) for track in found.tracks] == [
        [(5, 470, 60)], [(0, 240, 55), (240, 480, 57)], [(0, 480, 48)], [(0, 480, 40)],
    ]  # fmt: skip
    assert [values.tolist() for values in found.velocities] == [[90], [70, 70], [70], [50]]


def test_around_some_bars_all_is_as_it_was():
    own = np.array([(0, 950, 61), (900, 1300, 62), (970, 1400, 64), (1930, 2400, 65)])
    made = np.array([(0, 960, 61), (900, 1200, 62), (1200, 1920, 67), (1920, 2400, 65)])
    kept, which = around(own, made, Asked((1,), 960, 1920))
    assert kept.tolist() == [[0, 950, 61], [900, 1200, 62], [1930, 2400, 65]]
    assert which.tolist() == [0, 1, 3]
    kept, _ = around(own[:2], made[:1], Asked((1,), 960))  # nothing of it was held on
    assert kept.tolist() == [[0, 950, 61], [900, 960, 62]]


def test_the_rest_keeps_its_dynamics():
    own = piece(TUNE, LOWER, velocities=(np.array([10, 20, 30]), np.array([70, 80, 90])))
    made = piece(TUNE, [(0, 720, 60), (720, 960, 62), (960, 1440, 67), (1440, 1920, 60)])
    found = with_rest(made, own, Asked((0, 1), BAR, 2 * BAR), ROSTER)
    assert [spans(track) for track in found.tracks] == [spans(track) for track in made.tracks]
    assert [v.tolist() for v in found.velocities] == [[10, 20, 50], [70, 80, 50, 50]]
    assert (
        with_rest(made, replace(own, velocities=()), Asked((1,), 0, BAR), ROSTER).velocities == ()
    )


# With the bundled model ---------------------------------------------------------------------------


def bundled(backend="numba"):
    checkpoint = read_checkpoint(bundled_model())
    return composer_of(checkpoint, model_of(checkpoint, backend))


@pytest.fixture(scope="module")
def bach():
    return bundled()


def asked_of(composer, part="Soprano"):
    """The four voices but one, and the number of that."""
    voices = voices_of(composer.roster)
    own = voices.index(VOICES.index(part.lower()))
    return Asked(tuple(n for n, voice in enumerate(voices) if voice >= 0 and n != own))


def sung(notes, bar=1920, upbeat=0, **more):
    """A soprano of pitches and quarters, None rests."""
    ends = np.rint(np.cumsum([length for _, length in notes]) * 480).astype(int).tolist()
    starts = [0, *ends[:-1]]
    rows = [(s, e, p) for s, e, (p, _) in zip(starts, ends, notes, strict=True) if p is not None]
    return piece(rows, meter=[(0, upbeat), (upbeat, bar)] if upbeat else [(0, bar)], **more)


def each(length, *pitches):
    return [(pitch, length) for pitch in pitches]


MAJOR, MINOR = {0, 2, 4, 5, 7, 9, 11}, {0, 2, 3, 5, 7, 8, 9, 10, 11}
FOLK = {  # notes, tonic, scale, bar, upbeat
    "Ah! vous dirai-je": (
        [*each(1, 72, 72, 79, 79, 81, 81), (79, 2), *each(1, 77, 77, 76, 76, 74, 74), (72, 2)],
        0, MAJOR, 1920, 0,
    ),
    "Frère Jacques": (
        [*each(1, 65, 67, 69, 65, 65, 67, 69, 65, 69, 70), (72, 2), *each(1, 69, 70), (72, 2),
         *each(0.5, 72, 74, 72, 70), *each(1, 69, 65, 65, 60), (65, 2)],
        5, MAJOR, 1920, 0,
    ),
    "Au clair de la lune": (
        [*each(1, 67, 67, 67, 69), *each(2, 71, 69), *each(1, 67, 71, 69, 69), (67, 4)],
        7, MAJOR, 1920, 0,
    ),
    "Auld Lang Syne": (
        [(60, 1), (65, 1.5), (65, 0.5), *each(1, 65, 69), (67, 1.5), (65, 0.5), *each(1, 67, 69),
         (65, 1.5), (65, 0.5), *each(1, 69, 72), (74, 3), (74, 1), (72, 1.5), (69, 0.5),
         *each(1, 69, 65), (67, 1.5), (65, 0.5), *each(1, 67, 69), (65, 1.5), (62, 0.5),
         *each(1, 62, 60), (65, 3)],
        5, MAJOR, 1920, 480,
    ),
    "Amazing Grace": (
        [(62, 1), (67, 2), *each(0.5, 71, 67), (71, 2), (69, 1), (67, 2), (64, 1), (62, 2),
         (62, 1), (67, 2), *each(0.5, 71, 67), (71, 2), (69, 1), (67, 5)],
        7, MAJOR, 1440, 480,
    ),
    "God rest ye merry": (
        [*each(1, 64, 64, 71, 71, 69, 67, 66, 64, 62, 64, 66, 67, 69), (71, 3), (64, 1),
         *each(1, 64, 71, 71, 69, 67, 66, 64, 62, 64, 66, 67, 66), (64, 3)],
        4, MINOR, 1920, 480,
    ),
    "Greensleeves": (
        [(69, 0.5), (72, 1), (74, 0.5), (76, 0.75), (77, 0.25), (76, 0.5), (74, 1), (71, 0.5),
         (67, 0.75), (69, 0.25), (71, 0.5), (72, 1), (69, 0.5), (69, 0.75), (68, 0.25), (69, 0.5),
         (71, 1), (68, 0.5), (64, 1), (69, 0.5), (72, 1), (74, 0.5), (76, 0.75), (77, 0.25),
         (76, 0.5), (74, 1), (71, 0.5), (67, 0.75), (69, 0.25), (71, 0.5), (72, 0.75), (71, 0.25),
         (69, 0.5), (68, 0.75), (66, 0.25), (68, 0.5), (69, 3)],
        9, MINOR, 1440, 240,
    ),
    "Korobeiniki": (
        [(76, 1), *each(0.5, 71, 72), (74, 1), *each(0.5, 72, 71), (69, 1), *each(0.5, 69, 72),
         (76, 1), *each(0.5, 74, 72), (71, 1.5), (72, 0.5), *each(1, 74, 76, 72, 69), (69, 2)],
        9, MINOR, 960, 0,
    ),
    "The Irish Washerwoman": (
        [*each(0.5, 71, 67, 67, 62, 67, 67, 71, 67, 71, 74, 72, 71, 72, 69, 69, 64, 69, 69, 72, 69,
               72, 76, 74, 72, 71, 67, 67, 62, 67, 67, 71, 67, 71, 74, 72, 71, 72, 71, 72, 69, 74,
               72, 71, 67, 67), (67, 1.5)],
        7, MAJOR, 1440, 0,
    ),
    "in five quarters": (
        [*each(1, 65, 65, 67, 69), (65, 1), *each(1, 72, 70, 69, 67), (65, 1),
         *each(1, 69, 69, 70), (72, 2), *each(1, 70, 69, 67), (65, 2)],
        5, MAJOR, 2400, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLK)
def test_folk_tunes(bach, name):
    notes, tonic, scale, bar, upbeat = FOLK[name]
    tune = sung(notes, bar, upbeat)
    (setting,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=4, seed=1))
    made = setting.piece
    assert [part.name for part in made.parts] == list(NAMES)
    assert spans(made.tracks[0]) == spans(tune.tracks[0])
    assert made.meter.tolist() == tune.meter.tolist()
    assert -25 < setting.nats / len(notes) < 0
    inside = total = 0
    for track in made.tracks[1:]:
        rows = notes_of(track)
        assert rows[0, 0] >= 0 and int(rows[:, 1].max()) <= end_of(tune)
        assert len(rows) >= len(notes) / 4
        pitches = (rows[:, 2] - tonic) % 12
        inside += sum(pitch in scale for pitch in pitches.tolist())
        total += len(pitches)
    assert inside / total > 0.8
    assert max(int(track[-1, 0]) for track in made.tracks[1:]) == end_of(tune)


def test_several_settings_are_of_several_kinds_and_the_same_again(bach):
    tune = sung(FOLK["Au clair de la lune"][0])
    how = bach.options(particles=2, seed=3)
    three = harmonise(bach, tune, asked_of(bach), how, 3)
    again = harmonise(bach, tune, asked_of(bach), how, 3)
    music = [[spans(track) for track in one.piece.tracks] for one in three]
    assert music == [[spans(track) for track in one.piece.tracks] for one in again]
    assert music[0] != music[1] != music[2]


def test_both_backends_set_a_tune_the_same(bach):
    tune, how = sung(FOLK["Au clair de la lune"][0][:6]), bach.options(particles=2)
    (compiled,) = harmonise(bach, tune, asked_of(bach), how)
    (plain,) = harmonise(bundled("numpy"), tune, asked_of(bach), how)
    assert [spans(t) for t in plain.piece.tracks] == [spans(t) for t in compiled.piece.tracks]
    assert plain.nats == pytest.approx(compiled.nats, abs=1e-2)


def test_what_is_composed_begins_with_the_tune(bach):
    """It was as early as the bar: where an upbeat's length is unknown, before the piece."""
    tune = sung([(None, 2.5), *each(0.5, 67, 69, 71), *each(1, 72, 71, 69, 71), (67, 2)])
    (late,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=1))
    assert min(int(track[0, 0]) for track in late.piece.tracks) == 1200
    upbeat = sung([(67, 0.75), *each(1, 72, 71, 69, 71), (67, 2)], 1200, 360)
    (made,) = harmonise(bach, upbeat, asked_of(bach), bach.options(particles=1))
    assert min(int(track[0, 0]) for track in made.piece.tracks) == 0
    assert spans(made.piece.tracks[0]) == spans(upbeat.tracks[0])


def test_a_played_tune_is_answered_in_its_own_time(bach):
    rng = np.random.default_rng(2)
    straight = sung([*each(1, 67, 69, 71, 72, 71, 69), (67, 2)])
    rows = notes_of(straight.tracks[0]).tolist()
    rows = [(s + int(rng.integers(5, 25)), e - int(rng.integers(0, 20)), p) for s, e, p in rows]
    said = []
    (one,) = harmonise(bach, piece(rows, meter=[(0, 1920)]), asked_of(bach),
                       bach.options(particles=2), warn=said.append)  # fmt: skip
    assert said == ["piece is off the places that the model knows: it hears the nearest ones"]
    assert spans(one.piece.tracks[0]) == rows
    struck = {start for start, _, _ in rows}
    for track in one.piece.tracks[1:]:
        first = notes_of(track)[0, 0]
        assert first in struck and int(track[-1, 0]) <= rows[-1][1]
    assert max(int(track[-1, 0]) for track in one.piece.tracks[1:]) == rows[-1][1]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_of_other_bars_nothing_changes(bach, first):
    tune = sung([*each(1, 67, 69, 71, 72, 74, 72, 71, 69), (67, 4)])
    (whole,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=2))
    old = whole.piece
    begin, stop = 1920 * (first - 1), 1920 * first
    parts = [n for n, voice in enumerate(voices_of(bach.roster)) if voice >= 0]
    how = bach.options(particles=2, seed=9, craft=0)
    (anew,) = harmonise(bach, old, Asked(tuple(parts), begin, stop), how)
    changed = 0
    for before, after in zip(old.tracks, anew.piece.tracks, strict=True):
        rest = [
            [row for row in spans(track) if not begin <= row[0] < stop] for track in (before, after)
        ]
        ends = [[row if row[0] >= stop else row[::2] for row in rows] for rows in rest]
        assert ends[0] == ends[1]
        assert all(row in rest[1] for row in rest[0] if row[1] <= begin)
        changed += spans(before) != spans(after)
    assert changed and end_of(anew.piece) == end_of(old)  # it did end with the second bar


def test_bars_that_are_played_off_the_places_stay_so(bach):
    tune = sung([*each(1, 67, 69, 71, 72, 74, 72, 71, 69), (67, 4)])
    (whole,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=2))
    rng = np.random.default_rng(0)
    tracks = [
        track_of([(s + int(rng.integers(0, 15)), e - int(rng.integers(1, 15)), p)
                  for s, e, p in spans(track)]) for track in whole.piece.tracks
    ]  # fmt: skip
    old = replace(whole.piece, tracks=tracks)
    parts = tuple(n for n, voice in enumerate(voices_of(bach.roster)) if voice >= 0)
    how = bach.options(particles=2, seed=9)
    (anew,) = harmonise(bach, old, Asked(parts, 1920, 3840), how)
    for before, after in zip(tracks, anew.piece.tracks, strict=True):
        kept = [row for row in spans(before) if row[1] <= 1890 or row[0] >= 3840]
        assert [row for row in kept if row not in spans(after)] == []


def test_longer_than_any_piece_of_the_sampler(bach):
    """After so many words it ended, and the tune went on alone."""
    tune = sung(each(1, *([67, 69, 71, 72] * 150)))
    (one,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=1))
    for track in one.piece.tracks[1:]:
        assert int(track[-1, 0]) > end_of(tune) - 1920


def test_cold_temperatures_are_as_greedy(bach):
    """Shares too small for their exponentials: weights were no numbers."""
    tune = sung([*each(1, 67, 69, 71, 72), (67, 4)])
    found = [
        harmonise(bach, tune, asked_of(bach), bach.options(particles=2, temperature=t, craft=0))[0]
        for t in (1e-300, 1e-4)
    ]
    assert [spans(t) for t in found[0].piece.tracks] == [spans(t) for t in found[1].piece.tracks]
    assert all(-1e12 < one.nats < 0 for one in found)


def test_notes_that_the_model_doesnt_know_are_kept_and_said(bach):
    tune = sung([*each(1, 67, 69, 71, 127), (67, 4)])
    said = []
    (one,) = harmonise(bach, tune, asked_of(bach), bach.options(particles=1), warn=said.append)
    assert spans(one.piece.tracks[0]) == spans(tune.tracks[0])
    assert len(said) == 1 and "tokens of piece are new to the model" in said[0]
    with pytest.raises(UserError, match="knows none of the notes in 'piece': choose another tune"):
        harmonise(bach, sung(each(1, 127, 126)), asked_of(bach), bach.options(particles=1))
