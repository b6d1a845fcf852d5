"""Four-part writing: each fault and its near-misses, real chorales, and the same by plain loops."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from small import track_of

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.music.excerpts import pieces_of_split
from lstm_music.evaluation.music.voices import (
    FAULTS,
    RANGES,
    cadences,
    chorales,
    chords_of,
    craft_json,
    craft_of,
    faults_of,
    way_of,
)
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.roll import key_of

CHOIR = tuple(Part(name) for name in ("Soprano", "ALTO", " tenor", "Bass"))
C_MAJOR = (72, 67, 64, 48)


def choir(*chords, parts=CHOIR, phrases=(), sharps=None):
    """Chords of four quarter notes each, soprano first; None is a rest."""
    tracks = [
        track_of([(480 * n, 480 * n + 480, p) for n, p in enumerate(voice) if p is not None])
        for voice in zip(*chords, strict=True)
    ]
    return Piece("", tracks, parts=parts, phrases=np.array(phrases, np.int32), sharps=sharps)


def found(*chords, **how):
    """The faults that there are."""
    return {name: n for name, n in faults_of(chords_of(choir(*chords, **how))).items() if n}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # Fifths, of alto and bass, then a twelfth apart; the tenor between two voices.
        ((72, 67, 64, 60), (71, 69, 65, 62), {"fifths": 1}),
        ((72, 67, 64, 48), (71, 69, 65, 50), {"fifths": 1}),
        ((72, 67, 64, 60), (72, 67, 64, 60), {}),  # repeated
        ((72, 67, 64, 60), (72, 65, 64, 60), {}),  # one voice stays
        ((72, 67, 60, 48), (72, 69, 59, 47), {"octaves": 1}),  # tenor and bass
        ((72, 65, 60, 60), (71, 65, 62, 62), {"octaves": 1, "overlaps": 1}),  # a unison
        ((74, 67, 64, 55), (72, 64, 57, 57), {}),  # fifths by contrary motion, soprano and bass
        ((72, 66, 63, 60), (71, 69, 65, 62), {}),  # diminished, then perfect
        ((74, 66, 60, 60), (76, 69, 62, 55), {}),  # alto and tenor
        # Soprano and bass into an octave or fifth: by leap, by step, by contrary motion.
        ((69, 64, 60, 48), (72, 64, 60, 53), {"hidden": 1}),
        ((67, 64, 60, 48), (72, 64, 60, 53), {"fifths": 1}),  # parallel, so not hidden
        ((67, 64, 60, 48), (72, 67, 64, 60), {"hidden": 1}),
        ((71, 67, 62, 50), (72, 67, 64, 48), {}),
        ((70, 64, 61, 45), (72, 64, 61, 48), {}),  # the soprano by step
        ((72, 64, 60, 55), (67, 64, 60, 48), {"hidden": 1}),
        ((67, 64, 55, 48), (72, 64, 55, 36), {"range": 1}),  # contrary motion; C2
        (C_MAJOR, (72, 64, 67, 48), {"crossed": 1}),
        (C_MAJOR, (72, 67, 67, 48), {}),  # a unison is none
        ((72, 64, 60, 48), (72, 67, 65, 48), {"overlaps": 1}),  # the tenor, above where E was
        ((72, 64, 60, 48), (72, 67, 64, 48), {}),  # to where it was
        ((72, 67, 64, 48), (72, 62, 60, 48), {"overlaps": 1}),  # the alto, below where E was
        ((82, 74, 64, 48), (81, 74, 64, 48), {"range": 1}),
        (C_MAJOR, (72, 57, 57, 52), {"spacing": 1, "overlaps": 1}),
        (C_MAJOR, (79, 67, 55, 40), {}),  # octaves
        (C_MAJOR, (72, 67, 54, 40), {"spacing": 1}),
        (C_MAJOR, (72, 67, 64, 43), {}),  # tenor and bass may
        ((72, 67, 64, None), (71, 69, 65, 62), {}),
    ],
)
def test_faults_and_near_misses(before, after, expected):
    got = found(before, after)
    assert {k: got.get(k, 0) for k in FAULTS} == looped(choir(before, after))
    assert got == expected


def looped(piece):
    """The faults of a piece whose voices are its tracks, found the long way."""
    voices = [notes_of(track).tolist() for track in piece.tracks]
    counts = dict.fromkeys(FAULTS, 0)
    past = None
    for tick in sorted({start for voice in voices for start, *_ in voice}):
        now = [next((p for s, e, p in voice if s <= tick < e), None) for voice in voices]
        if None in now:
            past = None
            continue
        for k, voice in enumerate(voices):
            struck = any(s == tick for s, *_ in voice)
            counts["range"] += struck and not RANGES[k][0] <= now[k] <= RANGES[k][1]
        for k in range(3):
            counts["crossed"] += now[k] < now[k + 1]
            counts["spacing"] += k < 2 and now[k] - now[k + 1] > 12
            if past and now[k] >= now[k + 1] and past[k] >= past[k + 1]:
                counts["overlaps"] += now[k + 1] > past[k] or now[k] < past[k + 1]
        for a in range(4) if past else ():
            for b in range(a + 1, 4):
                if (now[a] - past[a]) * (now[b] - past[b]) > 0:
                    was, then = abs(past[a] - past[b]) % 12, abs(now[a] - now[b]) % 12
                    counts["fifths"] += was == then == 7
                    counts["octaves"] += was == then == 0
                    leap = (a, b) == (0, 3) and abs(now[0] - past[0]) > 2
                    counts["hidden"] += leap and then in (0, 7) and was != then
        past = now
    return counts | looped_leading(piece, voices) | {"unresolved": looped_unresolved(voices)}


def looped_leading(piece, voices):
    """Chords of V7's notes in which two voices have the leading note and one begins it."""
    tonic, count = key_of(piece).tonic, 0
    for tick in sorted({start for voice in voices for start, *_ in voice}):
        now = [
            next((note for note in voice if note[0] <= tick < note[1]), None) for voice in voices
        ]
        if None not in now and {(p - tonic) % 12 for _, _, p in now} <= {2, 5, 7, 11}:
            doubled = [start for start, _, p in now if (p - tonic) % 12 == 11]
            count += len(doubled) > 1 and tick in doubled
    return {"leading": count}


def looped_unresolved(voices):
    """Seconds and sevenths that begin while all voices sound, and no voice leaves by step."""
    ticks = sorted({start for voice in voices for start, *_ in voice})
    chords = [[next((p for s, e, p in v if s <= t < e), None) for v in voices] for t in ticks]

    def goes(voice, at):
        later = (chord[voice] for chord in chords[at:])
        return next((p for p in later if p != chords[at][voice]), None)

    count = 0
    for at, now in enumerate(chords):
        for a, b in combinations(range(4), 2):
            if None in now or abs(now[a] - now[b]) % 12 not in (1, 2, 10, 11):
                continue
            if (
                at
                and None not in chords[at - 1]
                and all(chords[at - 1][k] == now[k] for k in (a, b))
            ):
                continue
            by = [abs(goes(k, at) - now[k]) for k in (a, b) if goes(k, at) is not None]
            count += bool(by) and min(by) > 2
    return count


V7, DOUBLED = (71, 67, 65, 55), (71, 67, 59, 55)


@pytest.mark.parametrize(
    ("dominant", "count"),
    [
        (DOUBLED, 1),
        ((71, 65, 59, 50), 1),  # vii, first inversion
        ((71, 65, 59, 47), 1),  # three voices, one chord
        ((71, 62, 55, 55), 0),
        ((71, 64, 59, 52), 0),  # III
        ((71, 66, 59, 55), 0),  # V of no key
        ((67, 59, None, 47), 0),
    ],
)
def test_doubled_leading_notes(dominant, count):
    piece = choir(C_MAJOR, dominant, C_MAJOR, C_MAJOR)
    assert key_of(piece)[:2] == (0, "major")
    found = faults_of(chords_of(piece))["leading"]
    assert found == count == looped(piece)["leading"]


def test_the_leading_note_is_that_of_the_key_and_counts_anew():
    a_minor = ((69, 64, 60, 45), (68, 64, 56, 52), (69, 64, 60, 45))
    assert key_of(choir(*a_minor)) == (9, "minor", 0) and found(*a_minor)["leading"] == 1
    assert "leading" not in found(C_MAJOR, (68, 64, 56, 52), C_MAJOR, C_MAJOR, C_MAJOR)
    # G, as its signature says, of notes that alone would be in C.
    notes = (C_MAJOR, (66, 62, 54, 50), C_MAJOR, C_MAJOR)
    assert "leading" not in found(*notes) and found(*notes, sharps=1)["leading"] == 1
    # Far from its notes, a signature isn't believed.
    assert found(C_MAJOR, DOUBLED, C_MAJOR, C_MAJOR, sharps=6)["leading"] == 1
    held = choir(C_MAJOR, DOUBLED, (71, 65, 59, 55), C_MAJOR, C_MAJOR)
    assert faults_of(chords_of(held))["leading"] == 2  # each note is struck again
    tracks = [*held.tracks]
    for voice, pitch in ((0, 71), (2, 59)):  # both are held
        notes = [row for row in notes_of(tracks[voice]).tolist() if row[2] != pitch]
        tracks[voice] = track_of([*notes, (480, 1440, pitch)])
    assert faults_of(chords_of(replace(held, tracks=tracks)))["leading"] == 1


@pytest.mark.parametrize(
    ("chords", "count"),
    [
        ([C_MAJOR, V7, (72, 67, 64, 48)], 0),  # F goes to E
        ([C_MAJOR, V7, (72, 69, 60, 48)], 1),  # F leaps to C, one G to C; the other steps
        ([C_MAJOR, V7, (72, 67, 60, 48)], 2),  # that stays
        ([C_MAJOR, V7, (72, 67, 67, 48)], 0),  # F to G: a step as well
        ([V7, V7, (71, 67, 65, 59), (72, 67, 64, 60)], 0),  # the bass leaps, F goes to E later
        ([V7, V7, (71, 67, 65, 59), (72, 67, 60, 60)], 2),  # once, though V7 is struck twice
        ([V7, V7, V7], 0),  # never left, so not known
        ([V7, (None, 67, 65, 55)], 0),
        ([V7, (71, 67, None, 55), (71, 67, None, 55)], 0),  # F to a rest
        ([V7, (71, 67, None, 60), (71, 67, None, 60)], 1),  # that, and a G to C
        ([(71, 67, 62, 55), (71, 67, 65, None), (71, 67, 60, 55)], 0),  # a chord of three
        ([(None, 67, 65, 55), V7, (72, 67, 60, 48)], 2),  # the soprano enters above it
        ([(71, 67, 64, 48), (67, 67, 64, 53)], 1),  # a major seventh
        ([(72, 71, 67, 55), (76, 67, 67, 55)], 1),  # a minor second
        ([(62, 60, 55, 48), (67, 64, 60, 48)], 2),  # D by leap from C, twice
        ([(64, 62, 55, 55), (67, 58, 55, 55), (67, 59, 55, 55)], 1),  # E and D by leaps
    ],
)
def test_dissonances_left_by_no_step(chords, count):
    piece = choir(*chords)
    assert looped(piece)["unresolved"] == count
    assert faults_of(chords_of(piece))["unresolved"] == count


@pytest.fixture(scope="module")
def bach():
    return chorales(
        pieces_of_split(
            load_corpus("bach", None, Reading("event", parts=True, common_key="A")), "test"
        )
    )


def test_a_held_voice_parts_no_chords_and_a_rest_does():
    fifths = ((72, 67, 64, 60), (71, 69, 65, 62))
    between = choir(fifths[0], (None, 67, 64, 60), fifths[1])
    assert faults_of(chords_of(between))["fifths"] == 0  # the soprano rests
    held = track_of([(0, 960, 72), (960, 1440, 71)])
    moving = choir(fifths[0], fifths[0], fifths[1])
    moving = replace(moving, tracks=[held, *moving.tracks[1:]])
    assert chords_of(moving).pitches[:, 0].tolist() == [72, 72, 71]
    assert faults_of(chords_of(moving))["fifths"] == 1


def test_voices_are_told_by_name_then_by_track_then_by_pitch():
    wanted = [list(C_MAJOR)]
    named = choir(C_MAJOR)
    turned = replace(named, tracks=named.tracks[::-1], parts=CHOIR[::-1])
    lute = replace(turned, tracks=[*turned.tracks, track_of([(0, 480, 90)])],
                   parts=(*turned.parts, Part("Lute")))  # fmt: skip
    tracks = replace(named, parts=())
    for piece, way in ((named, "name"), (turned, "name"), (lute, "name"), (tracks, "track")):
        assert (way_of(piece), chords_of(piece).pitches.tolist()) == (way, wanted)
    merged = Piece("", [track_of([(0, 480, p) for p in C_MAJOR] + [(480, 960, 60)])])
    assert way_of(merged) == way_of(replace(lute, parts=())) == "pitch"
    assert chords_of(merged).pitches.tolist() == [*wanted, [-1] * 4]
    assert chorales([merged, named]) == [named] and chorales([merged]) == [merged]
    assert chords_of(choir((72, 64, 67, 48)), by_pitch=True).pitches.tolist() == wanted
    assert chords_of(choir((72, 67, 67, 48)), by_pitch=True).full.tolist() == [False]  # a unison
    assert not len(chords_of(Piece("", [])).ticks)


@pytest.mark.parametrize(
    ("last", "rooted"),
    [
        (C_MAJOR, True),
        ((72, 67, 63, 48), True),  # minor
        ((72, 64, 60, 48), True),  # no fifth
        ((72, 67, 60, 48), False),  # no third
        ((72, 67, 60, 52), False),  # first inversion
        ((70, 67, 64, 48), False),  # a seventh
        ((72, 66, 63, 48), False),  # diminished
        ((72, 68, 64, 48), False),  # augmented
    ],
)
def test_cadences(last, rooted):
    piece = choir((71, 67, 62, 55), last, (74, 65, 62, 50), phrases=(960,))
    assert cadences(chords_of(piece), piece.phrases).tolist() == [rooted]
    silent = choir((71, 67, 62, 55), (None, *last[1:]), phrases=(0, 960))
    assert not len(cadences(chords_of(silent), silent.phrases))


def test_real_chorales_are_as_loops_find_them_and_as_textbooks_ask(bach):
    four = [piece for piece in bach if len(piece.tracks) == 4]
    for piece in four[:12]:
        assert faults_of(chords_of(piece)) == looped(piece)
    own, told = craft_of("x", bach), craft_of("x", bach, by_pitch=True)
    assert own.pieces == {"name": 41} and told.pieces == {"pitch": 41}
    by_tracks, by_pitch = (one.faults["fifths"].value + one.faults["octaves"].value
                           for one in (own, told))  # fmt: skip
    assert by_tracks == pytest.approx(0.13, abs=0.02) and 0.3 < by_pitch < 0.8
    assert own.rooted.value > 0.95 and own.phrases > 250
    assert own.faults["leading"].value == pytest.approx(0.76, abs=0.01)
    assert own.faults["unresolved"].value == pytest.approx(0.50, abs=0.01)
    assert np.isnan(told.faults["crossed"].value)
    for interval in (*own.faults.values(), own.rooted):
        assert interval.low <= interval.value <= interval.high
    assert craft_json(told)["faults"]["crossed"]["value"] is None
    plain = sum(faults_of(chords_of(piece))["overlaps"] for piece in bach)
    assert own.faults["overlaps"].value == pytest.approx(100 * plain / own.chords)


def test_transposition_leaves_all_but_the_ranges(bach):
    for by_pitch in (False, True):
        for piece in bach[:6]:
            higher = replace(piece, tracks=[track + np.int32([0, 0, 2]) for track in piece.tracks],
                             sharps=None if piece.sharps is None else piece.sharps + 2)  # fmt: skip
            one, two = (chords_of(some, by_pitch) for some in (piece, higher))
            assert faults_of(one) | {"range": 0} == faults_of(two) | {"range": 0}
            ends = cadences(two, piece.phrases)
            np.testing.assert_array_equal(cadences(one, piece.phrases), ends)


def test_shaken_voices_are_worse(bach):
    rng = np.random.default_rng(0)
    shaken = [
        replace(p, tracks=[np.roll(t, 2 * int(rng.integers(9)), axis=0) * [0, 0, 1] +
                           t * [1, 1, 0] for t in p.tracks])
        for p in bach
    ]  # fmt: skip
    one, other = craft_of("x", bach).faults, craft_of("x", shaken).faults
    for fault in ("fifths", "unresolved"):
        assert other[fault].low > one[fault].high
