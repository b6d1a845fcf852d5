import re
from xml.etree import ElementTree

import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.errors import UserError
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.rendering import musicxml, notation, score

pytestmark = pytest.mark.skipif(
    not score.is_available(), reason="the extra 'score' (music21, verovio) is not installed"
)
STEP = 40  # ticks: sixteenths and triplets are whole multiples


def crowd(seed, notes=60, low=36, high=84):
    """A track of notes that overlap in all ways, on sixteenths, no pitch struck while it sounds."""
    rng = np.random.default_rng(seed)
    free, made = {}, []
    for start in np.sort(rng.integers(0, 64, notes)) * 120:
        pitch = int(rng.integers(low, high))
        if free.get(pitch, 0) <= start:
            end = int(start) + 120 * int(rng.integers(1, 20))
            made.append((int(start), end, pitch))
            free[pitch] = end
    return track_of(made)


def triplets():
    beats = [(0, 160), (160, 320), (320, 480), (480, 800), (800, 1440), (1440, 1560), (1560, 2560)]
    return track_of([(start, end, 60 + n) for n, (start, end) in enumerate(beats)])


def sounding(tracks):
    """Which (step, pitch) sound, of notes."""
    notes = np.concatenate([notes_of(track) for track in tracks]).tolist()
    return {(t, pitch) for start, end, pitch in notes for t in range(start // STEP, end // STEP)}


def struck(tracks):
    """Where notes begin: (step, pitch)."""
    notes = np.concatenate([notes_of(track) for track in tracks]).tolist()
    return {(start // STEP, pitch) for start, _, pitch in notes}


def read_back(xml):
    """What a MusicXML score has sounding and struck, as music21 reads it."""
    from music21 import converter

    sounds, strikes = set(), set()
    for element in converter.parse(xml, format="musicxml").flatten().notes:
        start, length = (int(x * 480 / STEP) for x in (element.offset, element.quarterLength))
        for one in getattr(element, "notes", [element]):
            sounds.update((t, one.pitch.midi) for t in range(start, start + length))
            if one.tie is None or one.tie.type == "start":
                strikes.add((start, one.pitch.midi))
    return sounds, strikes


@pytest.mark.parametrize(
    "tracks",
    [
        [crowd(1)],
        [crowd(2, notes=12)],
        [crowd(3, low=60, high=64), crowd(4, low=30, high=40)],
        [crowd(5, low=96, high=127), crowd(6, low=1, high=20)],
        [triplets()],
        piece_of(7).tracks,
    ],
)
def test_the_score_says_what_the_piece_plays(tracks):
    """Through bars, voices, slices and ties."""
    sounds, strikes = read_back(musicxml.musicxml(Piece("x", tracks), 99))
    assert sounds == sounding(tracks)
    assert strikes == struck(tracks)


METERS = {
    "a pickup": ([(0, 480), (480, 1920)], [480, 1920, 1920, 1920], ["4/4", "", "", ""], 0),
    "a phrase repeated": (
        [(0, 480), (480, 1920), (2400, 1440), (3840, 480), (4320, 1920)],
        [480, 1920, 1440, 480, 1920, 1920], ["4/4", "", "", "", "", ""], 0,
    ),
    "a change": ([(0, 1440), (2880, 1680)], [1440, 1440, 1680, 1680], ["3/4", "", "7/8", ""], 1),
    "a longer bar": ([(0, 1440), (2880, 1920), (4800, 1440)], [1440, 1440, 1920, 1440],
                     ["3/4", "", "4/4", ""], 1),
    "a longer first bar": ([(0, 1920), (1920, 1440)], [1920, 1440, 1440], ["4/4", "3/4", ""], 1),
    "a sixteenth": ([(0, 840)], [840] * 8, ["7/16"] + [""] * 7, 1),
    "none": ([], [1920] * 4, ["4/4", "", "", ""], 1),
    "one that can't be written": ([(0, 700)], [1920] * 4, ["4/4", "", "", ""], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", METERS)
def test_bars_are_those_of_the_meter(name):
    meter, lengths, signatures, number = METERS[name]
    end = min(sum(lengths), 6720)
    tracks = [track_of([(t, min(t + 240, end), 60 + t % 7) for t in range(0, end, 240)])]
    piece = Piece(name, tracks, meter=np.array(meter, np.int32).reshape(-1, 2))
    bars = notation.bars_of_piece(piece, end)
    assert [bar.ticks for bar in bars] == lengths
    assert [bar.first for bar in bars] == [sum(lengths[:n]) for n in range(len(bars))]
    assert [bar.signature for bar in bars] == signatures
    assert [bar.number for bar in bars] == [*range(number, number + len(bars))]
    sounds, strikes = read_back(musicxml.musicxml(piece, 99))
    assert sounds == sounding(tracks) and strikes == struck(tracks)


def test_a_signature_has_the_beats_of_the_piece():
    """3/4 and 6/8 are as long."""
    meter = np.array([(0, 1440), (2880, 1920)], np.int32)
    piece = Piece("x", [track_of([(0, 6720, 60)])], meter=meter, beats={1440: 8, 1920: 2})
    bars = notation.bars_of_piece(piece, 6720)
    assert [bar.signature for bar in bars] == ["6/8", "", "2/2", ""]


def quantised(track):
    notes = notes_of(track)
    return notation.quantised(notes, notation.steps_of([notes]))


def test_notes_near_the_grid_are_written_on_it():
    near = track_of([(3, 115, 60), (121, 239, 62), (484, 630, 64), (641, 799, 65), (803, 955, 67)])
    on_grid = quantised(near).tolist()
    assert on_grid == [
        [0, 120, 60], [120, 240, 62], [480, 640, 64], [640, 800, 65], [800, 960, 67]
    ]  # fmt: skip


def test_no_note_is_too_short_to_be_written():
    notes = quantised(track_of([(0, 1, 60), (480, 481, 60)]))
    assert (notes[:, 1] - notes[:, 0]).tolist() == [120, 120]


@pytest.mark.parametrize(
    ("pitches", "clefs"),
    [
        ((72, 79), ["TrebleClef"]),
        ((40, 45), ["BassClef"]),
        ((40, 79), ["TrebleClef", "BassClef"]),
        ((52, 62), ["Treble8vbClef"]),
        ((100, 103), ["Treble8vaClef"]),
        ((24, 30), ["Bass8vbClef"]),
    ],
)
def test_clefs_follow_the_range(pitches, clefs):
    notes = notes_of(track_of([(480 * n, 480 * n + 480, p) for n, p in enumerate(pitches * 4)]))
    assert [staff.clef for staff in notation.staves_of(notes)] == clefs


def test_two_voices_where_two_move_and_slices_where_three_do():
    held, moving = (0, 960, 72), [(0, 480, 60), (480, 960, 62)]
    two = notation.voices_of(notation.sounds_in(notes_of(track_of([held, *moving])), 0, 1920))
    assert [[s.tones[0].pitch for s in voice] for voice in two] == [[72], [60, 62]]
    three = notation.voices_of(
        notation.sounds_in(notes_of(track_of([held, *moving, (240, 960, 65)])), 0, 1920)
    )
    assert [len(voice) for voice in three] == [3]


@pytest.mark.parametrize(
    ("pitch", "fifths", "name"),
    [
        (60, 0, "C 4"), (61, 0, "C# 4"), (70, 0, "B- 4"), (63, 4, "D# 4"), (63, -3, "E- 4"),
        (71, -6, "C- 5"), (60, 7, "B# 3"), (1, 0, "C# -1"),
    ],
)  # fmt: skip
def test_pitches_are_spelled_by_the_key(pitch, fifths, name):
    assert "{} {}".format(*notation.spelled(pitch, fifths)) == name


@pytest.mark.parametrize(
    ("tonic", "third", "fifths"),
    [(60, 4, 0), (67, 4, 1), (65, 4, -1), (69, 3, 0), (64, 3, 1), (66, 4, 6)],
)
def test_key_signatures(tonic, third, fifths):
    scale = (0, 2, third, 5, 7, 8 if third == 3 else 9, 11, 0, third, 7)
    notes = [(480 * n, 480 * n + 480, tonic + step) for n, step in enumerate(scale)]
    assert notation.fifths_of(Piece("scale", [track_of(notes)])) == fifths


def test_a_long_piece_fills_two_pages_and_no_more():
    notes = [(240 * n, 240 * n + 240, 60 + n % 12) for n in range(8 * 200)]
    piece = Piece("long", [track_of(notes)])
    assert len(score.engrave(piece)) == 2
    assert len(score.engrave(piece, pages=3)) == 3
    assert 'class="barLine"' in score.engrave(piece)[0]


def test_a_file_holds_its_pages_one_below_the_other(tmp_path):
    piece = Piece("two", [crowd(8, notes=500)])
    path = tmp_path / "two.svg"
    score.draw_score(piece, path)
    root = ElementTree.parse(path).getroot()
    pages = root.findall("{http://www.w3.org/2000/svg}svg")
    tall = [float(page.get("height")) for page in pages]
    assert [float(page.get("y")) for page in pages] == [0, tall[0]][: len(pages)]
    assert root.get("viewBox").split()[3] == f"{sum(tall):g}"
    assert 'xlink:href="#' in path.read_text("utf-8")
    assert not re.search(r'href="(?!#)', path.read_text("utf-8"))  # nothing from outside
    first = path.read_bytes()
    score.draw_score(piece, path)
    assert path.read_bytes() == first


def test_a_piece_of_no_notes_is_refused():
    with pytest.raises(UserError, match="no notes"):
        score.engrave(Piece("rest", []))


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(score, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="-m pip install music21 verovio"):
        score.engrave(piece_of(1))
