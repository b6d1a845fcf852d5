import io
import os
import signal
import sys
import time
import zipfile
from collections import Counter
from importlib.util import find_spec

import mido
import pytest
from documentation import ROOT, tool

from lstm_music.corpus.classical import build as classical
from lstm_music.corpus.classical import notation
from lstm_music.corpus.sources import Skipped
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import notes_of

needs_music21 = pytest.mark.skipif(
    find_spec("music21") is None, reason="music21 is not installed (extra 'classical')"
)
TUNE = "X:1\nT:{title}\nM:4/4\nL:1/4\nK:C\n{notes}\n"


def write_scores(folder, **composers):
    """Write tunes in ABC: composer -> name -> notes."""
    for composer, tunes in composers.items():
        for name, notes in tunes.items():
            path = folder / composer / f"{name}.abc"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TUNE.format(title=name, notes=notes))
    return folder


def part_of(*measures, instrument=None):
    """A part of measures in 4/4, each of notes as (pitch, quarters), None for a rest."""
    from music21 import meter, note, stream

    part = stream.Part()
    if instrument is not None:
        part.insert(0, instrument)
    for number, notes in enumerate(measures, 1):
        measure = stream.Measure(number=number)
        if number == 1:
            measure.timeSignature = meter.TimeSignature("4/4")
        for pitch, quarters in notes:
            kind = note.Rest() if pitch is None else note.Note(pitch)
            kind.quarterLength = quarters
            measure.append(kind)
        part.append(measure)
    return part


def score_of(*parts):
    from music21 import stream

    score = stream.Score()
    for part in parts:
        score.insert(0, part)
    return score


def parsed(score, monkeypatch):
    """The notes of each track of the MIDI file that a score becomes, and its first track."""
    from music21 import converter

    monkeypatch.setattr(converter, "parse", lambda path, forceSource: score)
    data = notation.midi_of("a score")
    tracks = read_midi(data, "a score").tracks
    return [notes_of(track).tolist() for track in tracks], mido.MidiFile(file=io.BytesIO(data))


# Scores -> MIDI.


@pytest.mark.slow(keep=2)
@needs_music21
@pytest.mark.parametrize(
    ("file", "parts", "quarters"),
    [
        ("bach/bwv269.mxl", 4, 84),
        ("palestrina/Agnus_I_48.krn", 5, 352),
        ("josquin/milleRegrets.abc", 4, 312),
        ("schoenberg/opus19/movement2.mxl", 2, None),
    ],
)
def test_a_score_of_music21_has_its_parts_and_notes(file, parts, quarters):
    from music21 import converter

    path = classical.corpus_folder() / file
    data = notation.midi_of(path)
    midi = mido.MidiFile(file=io.BytesIO(data))
    assert midi.ticks_per_beat == 480
    assert len(midi.tracks) == 1 + parts
    tracks = [notes_of(track) for track in read_midi(data, file).tracks]
    assert len(tracks) == parts
    if quarters:
        assert [track[:, 1].max() for track in tracks] == [quarters * 480] * parts
    assert all((track[:, 0] < track[:, 1]).all() for track in tracks)
    # Counted another way: the notes of the score that no tie joins to one before.
    score = converter.parse(path)
    score = score.mergeScores() if "Opus" in score.classes else score
    score = score.expandRepeats()
    for part, track in zip(score.parts, tracks, strict=True):
        struck = {
            (round(float(element.offset) * 480), single.pitch.midi)
            for element in part.flatten().getElementsByClass(["Note", "Chord"])
            if not element.duration.isGrace and "Harmony" not in element.classes
            for single in (element.notes if element.isChord else [element])
            if single.tie is None or single.tie.type == "start"
        }
        assert struck == {(start, pitch) for start, _, pitch in track.tolist()}
    assert notation.midi_of(path) == data


@needs_music21
def test_repeats_are_played_out(monkeypatch):
    from music21 import bar

    part = part_of([("C4", 4)], [("D4", 4)])
    part.getElementsByClass("Measure")[0].rightBarline = bar.Repeat(direction="end")
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 60], [1920, 3840, 60], [3840, 5760, 62]]


@needs_music21
def test_badly_formed_repeats_are_played_as_written(monkeypatch):
    from music21 import repeat

    part = part_of([("C4", 4)], [("D4", 4)])
    part.getElementsByClass("Measure")[0].insert(0, repeat.DalSegno())
    with pytest.raises(repeat.ExpanderException):
        score_of(part).expandRepeats()
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 60], [1920, 3840, 62]]


@needs_music21
def test_ties_are_joined_between_voices_and_within_chords(monkeypatch):
    from music21 import chord, note, stream, tie

    first, second = stream.Voice(), stream.Voice()
    held = chord.Chord(["C4", "E4"], quarterLength=4)
    held.notes[0].tie = tie.Tie("start")  # the C alone
    first.append(held)
    second.append(note.Note("G3", quarterLength=4))
    part = part_of([], [("C4", 2), ("E4", 2)])
    part.getElementsByClass("Measure")[0].insert(0, first)
    part.getElementsByClass("Measure")[0].insert(0, second)
    last = part.getElementsByClass("Measure")[1]
    last.notes[0].tie = tie.Tie("stop")
    part.setElementOffset(last, 4)
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 55], [0, 2880, 60], [0, 1920, 64], [2880, 3840, 64]]


@needs_music21
def test_a_unison_of_two_voices_lasts_as_long_as_the_longer(monkeypatch):
    from music21 import note, stream

    part = part_of([])
    for quarters in (1, 4):
        voice = stream.Voice()
        voice.append(note.Note("C4", quarterLength=quarters))
        part.getElementsByClass("Measure")[0].insert(0, voice)
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 60]]


@needs_music21
def test_grace_notes_and_chord_symbols_are_not_played(monkeypatch):
    from music21 import harmony

    part = part_of([("C4", 4)])
    measure = part.getElementsByClass("Measure")[0]
    symbol = harmony.ChordSymbol("Am")
    symbol.quarterLength = 4
    measure.insert(0, symbol)
    grace = part_of([("B4", 1)]).flatten().notes[0].getGrace()
    measure.insert(0, grace)
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 60]]


@needs_music21
def test_a_clarinet_sounds_a_tone_lower_than_written(monkeypatch):
    from music21 import instrument

    written = part_of([("C4", 4)], instrument=instrument.Clarinet())
    written.atSoundingPitch = False
    (clarinet, piano), midi = parsed(score_of(written, part_of([("C4", 4)])), monkeypatch)
    assert [clarinet, piano] == [[[0, 1920, 58]], [[0, 1920, 60]]]
    programs = [track[0].program for track in midi.tracks[1:]]
    assert programs == [71, 0]
    assert [track[0].channel for track in midi.tracks[1:]] == [0, 1]


@needs_music21
def test_a_tenor_in_a_treble_clef_sounds_as_it_is(monkeypatch):
    from music21 import instrument, interval

    tenor = instrument.Tenor()
    tenor.transposition = interval.Interval("P-8")
    part = part_of([("C4", 4)], instrument=tenor)
    part.atSoundingPitch = False
    (notes,), _ = parsed(score_of(part), monkeypatch)
    assert notes == [[0, 1920, 60]]


@needs_music21
@pytest.mark.parametrize(
    ("second", "start"),
    [
        ([(None, 4), (None, 4)], 1920),  # a rest too many
        ([("E4", 3)], 1920),  # a beat too few
    ],
)
def test_parts_stay_in_step(monkeypatch, second, start):
    parts = [part_of(bar, [("C4", 4)]) for bar in ([("E4", 4)], [("G4", 4)], second)]
    tracks, _ = parsed(score_of(*parts), monkeypatch)
    assert [notes[-1] for notes in tracks] == [[start, start + 1920, 60]] * 3


@needs_music21
def test_of_two_lengths_of_a_measure_the_meters_counts(monkeypatch):
    parts = part_of([("E4", 3)], [("C4", 4)]), part_of([("G4", 4)], [("C4", 4)])
    tracks, _ = parsed(score_of(*parts), monkeypatch)
    assert [notes[-1] for notes in tracks] == [[1920, 3840, 60]] * 2


@needs_music21
def test_rests_make_no_pickup_longer(monkeypatch):
    """As in BWV 171.6, where the parts that wait fill the bar."""
    pickup, rests = part_of([("E4", 1)], [("C4", 4)]), part_of([(None, 4)], [("G4", 4)])
    (first, second), _ = parsed(score_of(pickup, rests), monkeypatch)
    assert first == [[0, 480, 64], [480, 2400, 60]]
    assert second == [[480, 2400, 67]]


@needs_music21
@pytest.mark.parametrize(("quarters", "start"), [((5, 5, 6), 1920), ((5, 5, 5), 2400)])
def test_a_measure_longer_than_its_meter_is_so_in_all_parts(monkeypatch, quarters, start):
    parts = [part_of([("E4", long)], [("C4", 4)]) for long in quarters]
    tracks, _ = parsed(score_of(*parts), monkeypatch)
    assert [notes[-1] for notes in tracks] == [[start, start + 1920, 60]] * 3


@needs_music21
def test_a_pickup_and_a_tempo_stand_in_the_first_track(monkeypatch):
    from music21 import tempo

    part = part_of([("G4", 1)], [("C5", 4)], [("C5", 4)])
    part.getElementsByClass("Measure")[1].insert(0, tempo.MetronomeMark(number=60))
    _, midi = parsed(score_of(part), monkeypatch)
    kinds = [(message.type, message.time) for message in midi.tracks[0][:3]]
    assert kinds == [("time_signature", 0), ("time_signature", 480), ("set_tempo", 0)]
    meters = [(message.numerator, message.denominator) for message in midi.tracks[0][:2]]
    assert meters == [(1, 4), (4, 4)]
    assert midi.tracks[0][2].tempo == 1_000_000


def test_a_bar_that_no_meter_writes_keeps_its_meter():
    from fractions import Fraction

    bar = notation.Measure(Fraction(0), Fraction(5, 3), (4, 4))
    assert notation.bar_meter(bar) == (4, 4)
    assert notation.bar_meter(bar._replace(length=Fraction(7, 2))) == (7, 8)


@needs_music21
def test_a_score_without_notes_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="no notes"):
        parsed(score_of(part_of([(None, 4)])), monkeypatch)


# Which scores.


def test_of_a_score_in_several_formats_one_is_taken(tmp_path):
    for file in (
        "beethoven/opus18no1/movement1.krn",
        "beethoven/opus18no1/movement1.mxl",
        "beethoven/opus18no1/notes.txt",
        "monteverdi/madrigal.3.1.mxl",
        "monteverdi/madrigal.3.1.rntxt",
        "monteverdi/madrigal.3.1_old.mxl",
        "trecento/PMFC_12_2-Gloria (Gubbio).xml",
        "schumann_robert/opus41no1/movement1.mxl",
        "essenFolksong/boehme10.abc",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    scores, skipped = classical.find_scores(tmp_path)
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in scores.items()} == {
        "beethoven/opus18no1-movement1": "beethoven/opus18no1/movement1.mxl",
        "monteverdi/madrigal.3.1": "monteverdi/madrigal.3.1.mxl",
        "trecento/PMFC_12_2-Gloria_(Gubbio)": "trecento/PMFC_12_2-Gloria (Gubbio).xml",
    }
    assert sorted(skipped) == [
        Skipped(
            "beethoven/opus18no1/movement1.krn",
            "the same score as beethoven/opus18no1/movement1.mxl",
        ),
        Skipped("monteverdi/madrigal.3.1_old.mxl", "an old version of another score"),
        Skipped("schumann_robert/opus41no1/movement1.mxl", "its viola is encoded off the beat"),
    ]


@needs_music21
def test_the_corpus_of_music21_is_found():
    scores, skipped = classical.find_scores(classical.corpus_folder())
    folders = [name.split("/")[0] for name in scores]
    assert folders.count("palestrina") == 1318
    assert folders.count("bach") == 410
    assert set(folders) == set(classical.FOLDERS.split())
    flawed = [skip for skip in skipped if skip.reason in classical.FLAWED.values()]
    assert len(flawed) == len(classical.FLAWED)


# The build.


@pytest.fixture
def folder(tmp_path):
    scores = write_scores(
        tmp_path / "scores",
        josquin={"one": "CDEF|G4|", "two": "cdef|g4|", "twin": "Q:1/4=200\nCDEF|G4|"},
        trecento={"kyrie": "A4|A4|"},
    )
    (scores / "josquin" / "broken.mxl").write_bytes(b"no zip at all")
    return scores


@needs_music21
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_build_packs_what_can_be_read(tmp_path, folder, jobs):
    out = tmp_path / "classical.zip"
    built = classical.build(out, jobs, progress=False, folder=folder)
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["josquin/one.mid", "josquin/two.mid", "trecento/kyrie.mid"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        (track,) = read_midi(archive.read("josquin/two.mid"), "two").tracks
        ticks = [0, 480, 960, 1440, 1920]
        assert notes_of(track)[:, [0, 2]].tolist() == [
            [tick, pitch] for tick, pitch in zip(ticks, [72, 74, 76, 77, 79], strict=True)
        ]
    assert built.pieces == {"": 1, "Josquin": 2}
    (broken, twin) = built.skipped
    assert broken.file == "josquin/broken"
    assert broken.reason.startswith("can't be read: ")
    assert "\n" not in broken.reason
    assert twin == Skipped("josquin/twin", "has the same notes as josquin/one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classical.zip", "scores"]
    again = tmp_path / "again.zip"
    classical.build(again, 1, progress=False, folder=folder)
    assert again.read_bytes() == out.read_bytes()


def test_a_build_without_scores_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scores"):
        classical.build(tmp_path / "out.zip", 1, progress=False, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, folder, monkeypatch):
    out = tmp_path / "classical.zip"
    read = []

    def interrupted(path):
        if path.stem == "twin":
            raise KeyboardInterrupt
        return whole(path)

    def whole(path):
        read.append(path.stem)
        return path.stem.encode()

    monkeypatch.setattr(classical, "midi_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classical.build(out, 1, progress=False, folder=folder)
    assert read == ["broken", "one"]
    assert not out.exists()
    monkeypatch.setattr(classical, "midi_of", whole)
    classical.build(out, 1, progress=False, folder=folder)
    assert read == ["broken", "one", "twin", "two", "kyrie"]
    with zipfile.ZipFile(out) as archive:
        assert archive.read("josquin/one.mid") == b"one"
        assert len(archive.namelist()) == 5


def deadly(path):
    """Reads scores, but for one, which kills its process, and another that was beside it."""
    if path.stem == "two":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stem.encode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_score_that_kills_its_process_costs_only_itself(tmp_path, folder):
    scores, _ = classical.find_scores(folder)
    kept = tmp_path / "kept"
    done = classical.convert_all(scores, kept, 2, deadly)
    assert sorted(done) == sorted(scores)
    files, skipped = classical.gather(scores, kept)
    assert skipped == [Skipped("josquin/two", "the process that reads it is killed")]
    assert len(files) == 4
    assert not list(kept.rglob("*.begun"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_killed_a_build_of_one_job_is_left_out_of_the_next(tmp_path, folder):
    scores, _ = classical.find_scores(folder)
    kept = tmp_path / "kept"
    (kept / "josquin").mkdir(parents=True)
    for name in ("one", "two"):
        (kept / "josquin" / f"{name}.begun").touch()
    assert sorted(classical.convert_all(scores, kept, 1, deadly)) == sorted(scores)
    files, skipped = classical.gather(scores, kept)
    assert [skip.file for skip in skipped] == ["josquin/two"]
    assert len(files) == 4


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="needs alarms")
def test_a_score_that_takes_too_long_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(classical, "TIME_LIMIT", 0.05)

    def slow(path):
        while True:
            try:
                time.process_time()
            except Exception:  # as a library that catches everything
                return b""

    before = signal.getsignal(signal.SIGVTALRM)
    assert classical.convert("bach/long", tmp_path / "long.mxl", tmp_path, slow) == "bach/long"
    assert (tmp_path / "bach/long.reason").read_text() == "takes more than 0.05 s of computing"
    assert sorted(path.name for path in (tmp_path / "bach").iterdir()) == ["long.reason"]
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


def test_music21_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"-m pip install {classical.REQUIREMENT}"):
        classical.build(tmp_path / "classical.zip", 1, False)


# The bundled corpus, of the same code.

BUNDLED = ROOT / "src" / "lstm_music" / "data" / "bach.zip"


@needs_music21
@pytest.mark.parametrize("name", ["bwv248.23-2", "bwv846", "bwv227.1", "bwv315", "bwv171.6"])
def test_the_bundled_corpus_can_be_built_again(name):
    """What is unusual in it: notes cut short, two staves, a tempo, grace notes, parts in step."""
    build_bach = tool("build_bach")
    (path,) = (path for path in build_bach.find_scores() if path.stem == name)
    with zipfile.ZipFile(BUNDLED) as archive:
        assert build_bach.midi_of(path, build_bach.find_titles()) == archive.read(f"{name}.mid")


def test_the_note_beside_the_bundled_corpus_counts_it():
    words, parts = Counter(), Counter()
    with zipfile.ZipFile(BUNDLED) as archive:
        for name in archive.namelist():
            tracks = mido.MidiFile(file=io.BytesIO(archive.read(name))).tracks[1:]
            parts[len(tracks)] += 1
            notes = [message for track in tracks for message in track if not message.is_meta]
            words.update((message.type, message.note, message.time) for message in notes)
    note = BUNDLED.with_suffix(".md").read_text("utf-8")
    counted = {"pieces": sum(parts.values()), "message tokens": words.total()}
    counted["notes"] = sum(n for (kind, *_), n in words.items() if kind == "note_on")
    counted["unique message tokens"] = len(words)
    for what, n in counted.items():
        assert f"| {what} | {n:,} |" in note
    assert ", ".join(f"{k} parts in {n}" for k, n in sorted(parts.items())) in note
    assert all(time % 60 == 0 for _, _, time in words)  # no triplets, as it says
