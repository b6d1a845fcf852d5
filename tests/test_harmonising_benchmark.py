"""benchmarks/harmonising.py: its figures by hand, its baselines, and all of it on a tune."""

import json
import sys

import numpy as np
import pytest
from documentation import ROOT
from small import track_of

from lstm_music.midi.piece import Part, Piece, notes_of

sys.path.append(str(ROOT / "benchmarks"))

import harmonising
import harmonising_baselines as baselines
from harmonising import ends_on, errors_of, kept_of, tokens_of
from harmonising_baselines import CHOIR, Frequencies, NearestNeighbour

QUARTER = 480


def chorale(*voices, sharps=0):
    """A piece of voices, each of pitches and how many quarters they last; None rests."""
    tracks = []
    for voice in voices:
        ends = np.cumsum([length for _, length in voice]) * QUARTER
        rows = [(int(end - QUARTER * length), int(end), pitch)
                for (pitch, length), end in zip(voice, ends, strict=True)]  # fmt: skip
        notes = [row for row in rows if row[2] is not None]
        tracks.append(track_of(notes) if notes else np.zeros((0, 3), np.int32))
    return Piece("", tracks, parts=CHOIR[: len(voices)], sharps=sharps)


REAL = chorale([(72, 2)], [(67, 1), (65, 1)], [(64, 2)], [(48, 1), (None, 1)])


def spans(piece):
    return [notes_of(track).tolist() for track in piece.tracks]


def test_tokens_are_pitches_of_sixteenths_and_ties():
    pitches, tied = tokens_of(REAL, 10)
    assert pitches[:, 1].tolist() == [67] * 4 + [65] * 4 + [-1] * 2
    assert pitches[:, 3].tolist() == [48] * 4 + [-1] * 6
    assert tied[:, 1].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0, 0]
    late = Piece("", [track_of([(60, 300, 60)])], parts=CHOIR[:1])  # between sixteenths
    pitches, tied = tokens_of(late, 3)
    assert (pitches[:, 0].tolist(), tied[:, 0].tolist()) == ([-1, 60, 60], [0, 0, 1])


def test_errors_count_pitches_ties_and_frames_where_bach_has_a_note():
    own = errors_of(REAL, REAL)
    assert own.steps.tolist() == own.right.tolist() == [8, 8, 4]
    assert (own.tokens, own.frames) == (0, (8, 0))
    # The alto's second note is wrong; the tenor strikes again; the bass sounds in Bach's rest.
    other = chorale([(72, 2)], [(67, 1), (69, 1)], [(64, 1), (64, 1)], [(48, 2)])
    found = errors_of(REAL, other)
    assert found.right.tolist() == [4, 8, 4]
    assert found.tokens == 4 + 1 and found.frames == (8, 4)
    an_octave_lower = chorale([(72, 2)], [(67, 1), (65, 1)], [(52, 2)], [(48, 1), (None, 1)])
    assert errors_of(REAL, an_octave_lower).right.tolist() == [8, 0, 4]
    short = chorale([(72, 1)], [(67, 1)], [(64, 1)], [(48, 1)])
    assert errors_of(REAL, short).frames == (8, 4)


def test_shares_are_of_all_steps_and_kept_of_the_tune():
    other = chorale([(72, 1), (74, 1)], [(67, 2)], [(64, 2)], [(47, 1), (None, 1)])
    row = harmonising.row_of("x", [REAL], [other], harmonising.UNKNOWN, 1.5, 0)
    shares = {voice: found.value for voice, found in row.agreement.items()}
    assert shares == {"alto": 0.5, "tenor": 1, "bass": 0}
    assert row.token_error.value == (4 + 4) / 20 and row.frame_error.value == 1
    assert row.kept.value == 0 and row.craft.pieces == {"name": 1}
    assert kept_of(REAL, REAL) == 1
    two = chorale([(72, 1), (74, 1)], [(67, 2)])
    assert kept_of(two, chorale([(72, 1), (74, 2)], [(67, 2)])) == 0.5
    free = harmonising.row_of("x", [REAL], [other], harmonising.UNKNOWN, 1.5, 0, free=True)
    told = harmonising.row_json(free)
    assert told["kept"]["value"] is None and told["agreement"]["bass"]["low"] is None
    assert harmonising.cells_of(row)["alto"] == "50% (50%-50%)"
    assert harmonising.cells_of(free)["alto"] == "-"


@pytest.mark.parametrize(
    ("last", "tonic", "found"),
    [((72, 67, 64, 48), 0, 1), ((72, 67, 48, 64), 0, 1), ((72, 67, 60, 52), 0, 0), ((), 0, 0),
     ((74, 69, 66, 50), 2, 1)],
)  # fmt: skip
def test_a_piece_ends_on_the_tonic_in_the_lowest_voice(last, tonic, found):
    voices = [[(pitch, 1), (end, 1)] for pitch, end in zip((71, 67, 62, 55), last, strict=False)]
    assert ends_on(chorale(*voices or [[(None, 1)]] * 4), tonic) == found


def test_chords_are_drawn_as_often_as_they_were_in_the_key():
    # At last C is held while the bass moves on, which is no chord of its own.
    bass = [(48, 1), (48, 1), (52, 1), (50, 1)]
    c = chorale([(72, 1), (72, 1), (72, 2)], [(67, 1)] * 4, [(64, 1)] * 4, bass)
    g = chorale([(67, 1)], [(62, 1)], [(59, 1)], [(43, 1)], sharps=1)  # C in G: below 72, too
    known = Frequencies([c, g], 0).known
    assert known == {72: ([(67, 64, 48), (67, 64, 52)], [3, 1])}
    tune = chorale([(74, 1), (None, 1), (66, 2)], sharps=2)  # in C 72, and 64, which is near 72
    set_ = Frequencies([c, g], 0)(tune, 0)
    assert spans(set_)[0] == spans(tune)[0] and set_.parts == CHOIR
    for voice, pitches in zip(spans(set_)[1:], ({69}, {66}, {50, 54}), strict=True):
        assert [row[:2] for row in voice] == [[0, 480], [960, 1920]]
        assert {row[2] for row in voice} <= pitches
    many = [spans(Frequencies([c, g], 0)(tune, n))[3][0][2] for n in range(200)]
    assert 0.15 < np.mean(np.array(many) == 54) < 0.35
    assert many[:3] == [spans(Frequencies([c, g], 0)(tune, n))[3][0][2] for n in range(3)]


def test_the_nearest_neighbour_takes_the_longest_passage_and_of_those_the_nearest():
    one = chorale([(60, 1), (62, 1), (64, 2)], [(55, 4)], [(52, 1), (53, 3)], [(48, 2), (43, 2)])
    two = chorale([(72, 1), (74, 1), (71, 2)], [(67, 4)], [(64, 4)], [(60, 2), (55, 2)])
    find = NearestNeighbour([one, two])
    tune = chorale([(62, 1), (64, 1), (66, 2), (70, 1), (72, 1)])
    own = baselines.melody(notes_of(tune.tracks[0]))
    assert find.longest(own) == (0, 3) and find.longest(own[3:]) == (3, 2)
    high = chorale([(72, 1), (74, 1), (76, 2)])  # as two's notes, but for the last
    assert find.longest(baselines.melody(notes_of(high.tracks[0]))) == (0, 3)
    across = chorale([(64, 2), (72, 1)])  # where one ends and two begins
    assert find.longest(baselines.melody(notes_of(across.tracks[0]))) == (2, 1)
    set_ = spans(find(tune, 0))
    assert set_[0] == spans(tune)[0]
    assert set_[1] == [[0, 1920, 57], [1920, 2880, 65]]  # cut where the passage ends
    assert set_[2] == [[0, 480, 54], [480, 1920, 55], [1920, 2880, 62]]
    assert set_[3] == [[0, 960, 50], [960, 1920, 45], [1920, 2880, 58]]
    assert find.longest(np.array([[0, 77, 73]])) == (3, 1)  # no note is as long: the nearest


def test_what_a_network_sets_may_lack_a_voice():
    piece = Piece("", [track_of([(0, 480, 60)]), track_of([(0, 480, 72)])],
                  parts=(Part("Bass"), Part("Soprano")))  # fmt: skip
    made = harmonising.chorale_of(piece)
    assert [len(track) for track in made.tracks] == [2, 0, 0, 2]
    assert notes_of(made.tracks[0])[0, 2] == 72 and made.parts == CHOIR


def test_a_tune_all_the_way(tmp_path, capsys):
    words = ["--num", "1", "--particles", "1", "2", "--craft", "1", "--json", tmp_path / "x.json"]
    harmonising.main([*map(str, words)])
    told = json.loads((tmp_path / "x.json").read_text())
    names = [row["craft"]["name"] for row in told["rows"]]
    assert names == [
        "Bach", "harmonised, 1", "harmonised, 2", "harmonised, 1, craft 1",
        "harmonised, 2, craft 1", "chords by frequency", "nearest neighbour", "freely, 1",
        "freely, 1, craft 1", "freely, 2, craft 1",
    ]  # fmt: skip
    bach, *others = told["rows"]
    assert bach["token_error"]["value"] == 0 and bach["seconds"] is None
    for row in others[:6]:
        assert row["kept"]["value"] > 0.9 and 0.1 < row["token_error"]["value"] <= 1
        assert row["token_error"]["value"] <= row["frame_error"]["value"]
    assert all(row["kept"]["value"] is None for row in others[6:])
    out = capsys.readouterr().out
    assert all(name in out for name in [*names, "BachBot", "0.718"])
