"""bin/harmonize: every option, every error line, and whatever a musician feeds to it."""

from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from small import SMALL, track_of

from lstm_music.cli import harmonize
from lstm_music.cli.common import run
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.rendering import score

NAMES = ["Soprano", "Alto", "Tenor", "Bass"]
QUICK = ("--particles", 2, "--threads", 1, "--backend", "numba")
needs_score = pytest.mark.skipif(
    not score.is_available(), reason="the extra 'score' (music21, verovio) is not installed"
)


@pytest.fixture
def harmonized(capsys):
    """Harmonise a file by the bundled model: the files written, and what was said."""

    def call(*words):
        capsys.readouterr()
        assert run(harmonize.main, [str(word) for word in (*words, *QUICK) if word != ""]) == 0
        out, err = capsys.readouterr()
        return [line.split("  (")[0] for line in out.splitlines()], err.splitlines()

    return call


@pytest.fixture
def refused(capsys):
    """Ask for what can't be done; return the one line that says so."""

    def call(*words):
        assert run(harmonize.main, [str(word) for word in (*words, *QUICK)]) == 2
        out, err = capsys.readouterr()
        *said, line = err.splitlines()
        assert not out and all(other.startswith("warning: ") for other in said)
        return line.removeprefix("error: ")

    return call


def line(*pitches, unit=480, at=0):
    """Notes of equal length, one after the other."""
    return [(at + unit * n, at + unit * (n + 1), pitch) for n, pitch in enumerate(pitches)]


TUNE = [*line(67, 69, 71, 72), *line(74, 72, 71, 69, at=1920), (3840, 5760, 67)]
BELOW = [[(start, end, pitch - low) for start, end, pitch in TUNE] for low in (5, 12, 24)]


def written(path, *tracks, names=(), **more):
    """Write a MIDI file of tracks of notes."""
    parts = tuple(map(Part, names))
    write_midi(Piece(Path(path).stem, [*map(track_of, tracks)], parts=parts, **more), Path(path))
    return path


def spans(path):
    """The notes of each part of a file, by its name."""
    piece = read_midi(Path(path), "x")
    names = [part.name for part in piece.parts] or range(len(piece.tracks))
    tracks = [[*map(tuple, notes_of(track).tolist())] for track in piece.tracks]
    return dict(zip(names, tracks, strict=True))


@pytest.fixture
def tune(folder):
    return written("tune.mid", TUNE)


@pytest.fixture
def four(folder):
    return written("four.mid", TUNE, *BELOW, names=NAMES)


# What comes out -----------------------------------------------------------------------------------


def test_three_voices_beneath_a_tune(tune, harmonized):
    paths, said = harmonized(tune)
    assert paths == ["samples/harmony-0001.mid"] and not said
    made = spans(paths[0])
    assert [*made] == NAMES and made["Soprano"] == TUNE
    assert all(made[name][-1][1] == 5760 for name in NAMES)
    assert harmonized(tune)[0] == ["samples/harmony-0002.mid"]
    assert spans("samples/harmony-0002.mid") == made  # the same seed


def test_lines_tell_what_was_made(tune, capsys):
    assert run(harmonize.main, [tune, *map(str, QUICK), "--out", "here/x.mid"]) == 0
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("here/x.mid  (9 notes given, ")
    assert " composed; Soprano, Alto, Tenor, Bass; 8 s; log-likelihood, less faults: -" in said
    assert said.endswith(" nats a given note)")
    one = written("one.mid", line(67))
    assert run(harmonize.main, [one, *map(str, QUICK), "--bars", "1"]) == 0
    assert "  (" in capsys.readouterr().out
    assert run(harmonize.main, [one, *map(str, QUICK)]) == 0
    assert "(1 note given, " in capsys.readouterr().out


def test_several_settings_are_numbered(tune, harmonized):
    paths, _ = harmonized(tune, "--num", 3, "--out", "x.mid", "--quiet")
    assert paths == ["x-1.mid", "x-2.mid", "x-3.mid"]
    made = [spans(path) for path in paths]
    assert made[0] != made[1] != made[2]
    alone, _ = harmonized(tune, "--seed", 1, "--out", "y.mid")
    assert spans(alone[0]) not in made


@pytest.mark.parametrize(
    "words",
    [
        ("--greedy",), ("--temperature", 0.3), ("--temperature", 5), ("--top-k", 2),
        ("--top-p", 0.1), ("--craft", 0), ("--craft", 50), ("--particles", 1), ("--particles", 7),
    ],
)  # fmt: skip
def test_however_it_is_drawn_the_tune_stays(words, tune, harmonized):
    made = spans(harmonized(tune, "--out", "x.mid", *words)[0][0])
    assert made["Soprano"] == TUNE


@pytest.mark.parametrize("part", NAMES)
def test_the_tune_may_be_any_voice(part, tune, harmonized):
    paths, said = harmonized(tune, "--part", part.lower(), "--out", "x.mid")
    octaves = {"Soprano": 0, "Alto": 0, "Tenor": 1, "Bass": 2}[part]
    assert spans(paths[0])[part] == [(s, e, p - 12 * octaves) for s, e, p in TUNE]
    down = f"octave{'s' * (octaves > 1)} down, to where {part} is at home"
    assert said == [f"warning: tune.mid: it is moved {octaves} {down}"] * (octaves > 0)


def test_tempo_and_instruments(tune, harmonized):
    paths, _ = harmonized(tune, "--tempo", 60, "--program", "Alto=48", "--out", "x.mid")
    file = mido.MidiFile(paths[0])
    assert file.length == pytest.approx(12, abs=0.01)
    programs = [m.program for track in file.tracks for m in track if m.type == "program_change"]
    assert programs.count(48) == 1
    own = written("slow.mid", TUNE, tempo=np.array([[0, 2_000_000], [1920, 500_000]], np.int32))
    assert mido.MidiFile(harmonized(own, "--out", "y.mid")[0][0]).length == pytest.approx(12)


def test_pictures_and_sound(tune, harmonized):
    paths, _ = harmonized(tune, "--wav", "--png", "--out", "x.mid")
    assert paths == ["x.mid", "x.wav", "x.png"]
    assert all(Path(path).stat().st_size > 1000 for path in paths[1:])


@needs_score
def test_scores_come_in_and_out(tune, harmonized):
    paths, _ = harmonized(tune, "--svg", "--musicxml", "--out", "x.mid")
    assert paths == ["x.mid", "x.svg", "x.musicxml"]
    # Its Soprano is the tune of the score, too.
    again, said = harmonized("x.musicxml", "--out", "y.mid")
    assert spans(again[0])["Soprano"] == TUNE and not said
    inner, _ = harmonized("x.musicxml", "--given", "soprano,bass", "--out", "z.mid")
    assert all(spans(inner[0])[part] == spans("x.mid")[part] for part in ("Soprano", "Bass"))


@needs_score
def test_fermatas_are_where_phrases_end(harmonized, monkeypatch):
    from music21 import expressions, key, note, stream

    part = stream.Part([key.Key("g")])
    for n, (start, end, pitch) in enumerate(TUNE):
        one = note.Note(pitch, quarterLength=(end - start) / 480)
        one.expressions += [expressions.Fermata()] * (n == 3)
        part.append(one)
    part.write("musicxml", "sung.musicxml")
    heard = []
    asked = harmonize.harmonise
    monkeypatch.setattr(
        harmonize, "harmonise", lambda *words: heard.append(words[1]) or asked(*words)
    )
    paths, _ = harmonized("sung.musicxml")
    assert spans(paths[0])["Soprano"] == TUNE
    assert heard[0].phrases.tolist() == [1920, 5760] and heard[0].sharps == -2
    assert read_midi(Path(paths[0]), "x").phrases.tolist() == [1920, 5760]


def test_progress_is_shown(tune, harmonized, monkeypatch):
    shown = []
    monkeypatch.setattr(harmonize.Bar, "show", lambda self, *done: shown.append(done))
    harmonized(tune)
    assert shown == sorted(shown) and shown[-1][0] > 90 and len({*shown}) > 5


# Which notes are the tune -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracks", "names", "said"),
    [
        ([[*TUNE, (0, 480, 60)]], (),
         "where several notes sound the highest is the tune: 1 are left out"),
        ([TUNE, *BELOW], (), "the highest notes of its 4 tracks are the tune"),
        ([TUNE, *BELOW], NAMES, None),
        ([*BELOW, TUNE], ("Flute", "Cello", "Piano", "soprano"), None),
        ([TUNE], ("Alto",), None),
        ([TUNE, BELOW[0]] * 8, (), "the highest notes of its 16 tracks are the tune"),
        ([[(s, e, p + 36) for s, e, p in TUNE]], (),
         "it is moved 3 octaves down, to where Soprano is at home"),
    ],
)  # fmt: skip
def test_what_was_made_of_a_file_is_said(tracks, names, said, folder, harmonized):
    path = written("x.mid", *tracks, names=names)
    paths, lines = harmonized(path)
    assert spans(paths[0])["Soprano"] == TUNE
    assert lines == [f"warning: x.mid: {said}"] * bool(said)


def test_leading_silence_is_left_out_and_said(folder, harmonized):
    paths, said = harmonized(written("x.mid", [(s + 3840, e + 3840, p) for s, e, p in TUNE]))
    assert said == ["warning: x.mid begins with silence, 2 bars: left out"]
    assert spans(paths[0])["Soprano"] == TUNE


def test_a_file_of_one_track_with_channels(folder, harmonized):
    file, track = mido.MidiFile(type=0), mido.MidiTrack()
    file.tracks.append(track)
    for _, _, pitch in TUNE:
        for kind, wait in (("note_on", 0), ("note_off", 480)):
            for channel, note in ((0, pitch), (1, pitch - 12), (9, 36)):
                track.append(mido.Message(kind, channel=channel, note=note, time=wait))
                wait = 0
    file.save("x.mid")
    paths, said = harmonized("x.mid")
    assert [p for _, _, p in spans(paths[0])["Soprano"]] == [pitch for *_, pitch in TUNE]
    assert said == ["warning: x.mid: the highest notes of its 2 tracks are the tune"]


@pytest.mark.parametrize(
    "notes",
    [
        line(67),
        [(0, 1, 67)],
        [(0, 20 * 1920, 67)],
        line(67, at=5),
        [*line(67, 69), *line(71, 72, at=960 + 5 * 1920)],  # five bars of silence
        [*line(67, 69), *line(71, at=960 + 1920 * 2 + 30)],  # its last note after a rest
        line(127, 125, 127), line(0, 2, 0), line(24, 100, 60),
        line(67, 69, 71, unit=160), line(67, 69, 71, 72, 74, unit=96), line(67, 69, unit=1),
    ],
)  # fmt: skip
def test_odd_tunes(notes, folder, harmonized):
    made = spans(harmonized(written("x.mid", notes))[0][0])
    moved = {new - old for (*_, new), (*_, old) in zip(made["Soprano"], notes, strict=True)}
    assert len(moved) == 1 and {*moved} <= {12 * n for n in range(-6, 7)}
    assert [row[:2] for row in made["Soprano"]] == [row[:2] for row in notes]
    assert max(row[1] for own in made.values() for row in own) == notes[-1][1]


@pytest.mark.parametrize(
    "meter",
    [
        [(0, 1440)], [(0, 2400)], [(0, 1680)], [(0, 120)], [(0, 480), (480, 1920)],
        [(0, 360), (360, 1200)], [(0, 1920), (1920, 2400), (4320, 1920)],
    ],
)  # fmt: skip
def test_odd_meters(meter, folder, harmonized):
    given = written("x.mid", TUNE, meter=np.array(meter, np.int32))
    paths, _ = harmonized(given)
    made = read_midi(Path(paths[0]), "x")
    assert spans(paths[0])["Soprano"] == TUNE
    assert made.meter.tolist() == read_midi(Path(given), "x").meter.tolist()


# Parts and bars -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [("Soprano", "Bass"), ("Bass",), ("Alto", "Tenor", "Soprano")])
@pytest.mark.parametrize("named", [True, False])
def test_given_parts_stay(given, named, four, harmonized):
    if not named:  # four of them are the voices
        written(four, TUNE, *BELOW)
    paths, said = harmonized(four, "--given", ",".join(given).lower())
    old, made = dict(zip(NAMES, [TUNE, *BELOW], strict=True)), spans(paths[0])
    assert [*made] == NAMES and not said
    assert all((made[part] == old[part]) == (part in given) for part in NAMES)


def test_some_bars_anew(four, harmonized):
    old = spans(four)
    made = spans(harmonized(four, "--bars", "2", "--seed", 4)[0][0])
    for part in NAMES:
        for rows in (lambda own: own[:4], lambda own: [row for row in own if row[0] >= 3840]):
            assert rows(made[part]) == rows(old[part])
    assert made != old
    made = spans(harmonized(four, "--bars", "2-3", "--given", "soprano, tenor")[0][0])
    assert [part for part in NAMES if made[part] == old[part]] == ["Soprano", "Tenor"]
    assert all(made[part][:4] == old[part][:4] for part in NAMES)


def test_an_upbeat_is_bar_0(folder, harmonized, refused):
    meter = np.array([[0, 480], [480, 1920]], np.int32)
    path = written("x.mid", TUNE, *BELOW, names=NAMES, meter=meter)
    made = spans(harmonized(path, "--bars", "0", "--given", "soprano")[0][0])
    later = [[row for row in made[part] if row[0] >= 480] for part in NAMES]
    assert later == [own[1:] for own in spans(path).values()]
    assert refused(path, "--bars", "3-4") == (
        "the piece has bars 0 to 3: give --bars some of these"
    )


def test_tracks_of_the_same_part_are_left_out_aloud(folder, harmonized):
    path = written("x.mid", *[TUNE, *BELOW] * 2, names=[*NAMES, *"abcd"])
    said = "of tracks of the same part the first is left, 2 are left out"
    assert harmonized(path, "--bars", 2)[1] == [f"warning: x.mid: {said}"]
    assert harmonized(path, "--given", "bass")[1] == []


# What can't be done -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part", "flute"], "no part 'flute': name one of Soprano, Alto, Tenor, Bass"),
        (["--given", "alto"], "there is no part 'alto': name one of Soprano"),
        (["--given", ","], "--given names no part: name those that stay, such as soprano,bass"),
        (["--given", "soprano", "--part", "alto"], "--part: not allowed with argument --given"),
        (["--bars", "4"], "the piece has bars 1 to 3: give --bars some of these"),
        (["--bars", "0"], "the piece has bars 1 to 3: give --bars some of these"),
        (["--bars", "2-9"], "the piece has bars 1 to 3: give --bars some of these"),
        (["--bars", "3-2"], "'3-2' are no bars such as 5-8 or 5"),
        (["--bars", "-1"], "'-1' are no bars such as 5-8 or 5"),
        (["--bars", "1", "--given", "soprano"], "--given names all parts, none is left to compose"),
        (["--num", "0"], "'0' is not a whole number from 1 to 1000"),
        (["--particles", "5000"], "'5000' is not a whole number from 1 to 4096"),
        (["--program", "Oboe=3"], "there is no such part: name one of 1 Soprano, 2 Alto"),
        (["--restrike"], "unrecognized arguments: --restrike"),
        (["nowhere"], "no run or checkpoint 'nowhere'"),
        (["jsb"], "'jsb' tells no parts: name a run of events that was trained with --parts"),
    ],
)
def test_errors_say_what_to_do(words, said, tune, refused):
    assert said in refused(tune, *words)


def test_the_page_harmonises_a_tune_or_what_is_entered(tune, harmonized):
    (path,), said = harmonized(tune, "--page", "--out", "there")
    page = Path(path).read_text("utf-8")
    assert path == str(Path("there") / "harmony.html") and not said
    assert '"tune": {"notes"' in page or '"tune":{"notes"' in page
    (path,), _ = harmonized("--page", "--out", "empty.html")
    assert path == "empty.html" and "Harmonise a tune" in Path(path).read_text("utf-8")


@pytest.mark.parametrize(
    "words", [("--given", "soprano"), ("--bars", "1"), ("--out", "x.mid")], ids=lambda w: w[0]
)
def test_the_page_is_for_a_tune_alone(words, tune, refused):
    line = refused(tune, "--page", *words)
    assert line.startswith("--page harmonises a tune, and writes a folder or FILE.html")
    assert not Path("x.mid").exists()


def test_bars_are_of_given_parts_not_of_a_tune(four, refused):
    assert refused(four, "--bars", "1", "--part", "alto").endswith("leave one of them out")


def test_without_a_tune_a_page_is_offered(refused):
    assert refused() == "there is no tune: give a MIDI file, or --page to enter one in a browser"


def test_all_parts_given_leave_nothing(four, refused):
    said = "--given names all parts, none is left to compose: leave one of them out"
    assert refused(four, "--given", "soprano,alto,tenor,bass") == said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.mid", None, "no file 'no.mid': give a MIDI file or MusicXML with a tune"),
        ("x.mid", b"", "'x.mid' is empty: give a file with a tune"),
        ("x.mid", b"MThd\0\0\0", "'x.mid' is cut off in its header: give a file with a tune"),
        ("x.txt", b"la la la", "'x.txt' is no MIDI file: it has no MThd header"),
    ],
)
def test_files_that_are_none(name, content, said, folder, refused):
    if content is not None:
        Path(name).write_bytes(content)
    assert refused(name).startswith(said)


def test_files_without_a_tune(folder, refused):
    mido.MidiFile().save("x.mid")
    assert refused("x.mid") == "'x.mid' has no tracks: give a file with a tune"
    written("x.mid", line(36, 36), drums=(True,))
    assert "'x.mid' has no notes (drum notes left out: 2" in refused("x.mid")


@needs_score
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "can't be read by music21 (no element found"),
        ("<score-partwise><part", "can't be read by music21 (unclosed token"),
        ("\x00\x01", "can't be read by music21 (not well-formed"),
        ("<score-partwise><part-list><score-part id='P'><part-name/></score-part></part-list>"
         "<part id='P'><measure number='1'/></part></score-partwise>", "has no notes"),
    ],
)  # fmt: skip
def test_scores_that_are_none(text, said, folder, refused):
    Path("x.musicxml").write_text(text)
    assert refused("x.musicxml").startswith(f"'x.musicxml' {said}")


def test_scores_need_music21(folder, refused, monkeypatch):
    import sys

    Path("x.musicxml").write_text("<score/>")
    monkeypatch.setitem(sys.modules, "music21", None)
    assert "music21" in refused("x.musicxml")


# Other models -------------------------------------------------------------------------------------


@pytest.fixture
def ensembles(folder):
    """Music of a flute, two parts without a name and drums."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tracks = [line(*rng.choice((60, 62, 64, 65, 67), 12)) for _ in range(4)]
        parts = (Part("Flute", 73), Part("", 40), Part("", 42), Part("Kit"))
        piece = Piece("x", [*map(track_of, tracks)], parts=parts, drums=(False,) * 3 + (True,))
        Path("ensembles").mkdir(exist_ok=True)
        write_midi(piece, Path("ensembles", f"{seed}.mid"))
    return "ensembles"


@pytest.mark.parametrize("more", [(), ("--no-copy", "--common-key", "none"), ("--common-key", "A")])
def test_a_roster_without_voices(more, ensembles, ok, harmonized, refused):
    how = ("--representation", "event", "--parts", "--drums", "--max-steps", 2, "--run", "r")
    ok("train", ensembles, *SMALL, *how, *more, "--quiet")
    tune = written("tune.mid", line(60, 62, 64, 60, 65, 67, 60))
    made = spans(harmonized(tune)[0][0])  # the newest run
    assert made["Flute"] == line(60, 62, 64, 60, 65, 67, 60) and "Kit" not in made
    played = [(s + 7, e - 5, p) for s, e, p in line(60, 62, 64, 60)]
    assert spans(harmonized(written("played.mid", played), "r")[0][0])["Flute"] == played
    assert "name one of Flute, part 2, part 3" in refused("tune.mid", "--part", "Oboe")
    two = written("two.mid", line(60, 62, 64, 60), line(60, 60, 60, 60))
    assert "2 tracks are the tune" in harmonized(two, "--part", "part 2")[1][0]
    paths, _ = harmonized("ensembles/0.mid", "--bars", 2)
    old, new = (read_midi(Path(path), "x").tracks for path in ("ensembles/0.mid", paths[0]))
    for before, after in zip(old, new, strict=True):
        rows = [[row for row in notes_of(t).tolist() if row[1] <= 1920] for t in (before, after)]
        assert rows[0] == rows[1]


def test_runs_that_tell_no_parts_are_refused(ok, tune, refused):
    for how in (("event", "--no-parts"), ("message",), ("chord",)):
        ok("train", "music", *SMALL, "--representation", *how, "--max-steps", 1, "--quiet")
        assert refused(tune).startswith("the newest run tells no parts: name a run of events")


# Long ones ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_notes(folder, harmonized):
    rng = np.random.default_rng(0)
    pitches = np.clip(70 + np.cumsum(rng.choice((-2, -1, 1, 2), 10_000)) % 12, 60, 81).tolist()
    made = spans(harmonized(written("x.mid", line(*pitches)), "--particles", 1)[0][0])
    assert made["Soprano"] == line(*pitches)
    for part in NAMES[1:]:
        assert len(made[part]) > 5000 and made[part][-1][1] == 4_800_000


def test_dynamics_are_kept(folder, harmonized):
    loud = (np.arange(40, 49, dtype=np.int32),)
    piece = Piece("x", [track_of(TUNE)], velocities=loud)
    write_midi(replace(piece), Path("x.mid"))
    made = read_midi(Path(harmonized("x.mid")[0][0]), "x")
    assert made.velocities[0].tolist() == [*range(40, 49)]
    assert {int(v) for own in made.velocities[1:] for v in own} == {44}
