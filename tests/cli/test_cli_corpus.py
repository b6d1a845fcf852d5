import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small import piece_of, track_of, write_music

from lstm_music.corpus.classical import build as classical
from lstm_music.corpus.classical.build import Built
from lstm_music.corpus.corpus import OUTSIDE
from lstm_music.corpus.load import Reading, key_of, load_corpus
from lstm_music.corpus.sources import Skipped, find_rolls
from lstm_music.listening.making import files_in
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.midi.roll import frames_of

COUNTS = ["pieces", "tokens", "unique_tokens"]


def counts_in(file):
    """What --json wrote, and each row of it as the table has it."""
    with open(file, encoding="utf-8") as opened:
        counts = json.load(opened)
    assert {*COUNTS, "skipped", "splits"} <= set(counts)
    assert list(counts["splits"]) == ["train", "valid", "test"]
    rows = {}
    for name, part in (counts["splits"] | {"all": counts}).items():
        shares = [f"{part['rare_share']:.1%}", f"{part['unseen_share']:.2%}"]
        rows[name] = [*(f"{part[key]:,}" for key in COUNTS), *shares]
    return counts, rows


def test_the_counts_as_a_table_and_as_json(ok, folder):
    (folder / "music" / "bad.mid").write_bytes(b"rubbish")
    lines = ok("corpus", "music", "--json", "counts.json")
    counts, rows = counts_in("counts.json")
    assert sum(part["tokens"] for part in counts["splits"].values()) == counts["tokens"] == 8 * 40
    (skipped,) = counts["skipped"]
    assert list(skipped) == ["file", "reason"]
    assert lines[0] == "music, flatten tracks"
    assert {line.split()[0]: line.split()[1:] for line in lines[2:6]} == rows
    assert lines[6].startswith("under 10: share of the unique tokens")
    assert lines[7:] == [
        "written: 160 of 160 onsets lie on a grid of 48 to a whole note",
        f"skipped bad.mid: {skipped['reason']}",
    ]
    assert counts["survey"]["notes"] == 160


def test_composers_that_names_tell_have_rows(ok, folder):
    for seed, name in enumerate(["bach-1", "bach-2", "Joseph Haydn - 3", "unknown"]):
        (folder / "music" / f"{seed}.mid").rename(folder / "music" / f"{name}.mid")
    rows = {line.split()[0]: line.split()[1] for line in ok("corpus", "music")}
    assert (rows["Bach"], rows["Haydn"]) == ("2", "1")


def test_what_was_done_to_the_files_is_said(ok, folder):
    music = folder / "music"
    data = (music / "0.mid").read_bytes()
    (music / "cut.mid").write_bytes(data[: len(data) // 2])
    for name in "abcdef":
        (music / f"{name}.mid").write_bytes(data)
    lines = ok("corpus", "music", "--min-count", 4)
    assert "mended: tracks cut off, 1 in 1 of the files" in lines
    assert any(line.startswith("copies: ") for line in lines)
    assert any(line.startswith("merged: ") and "rare words" in line for line in lines)


def test_the_screen_names_some_of_the_skipped_files_and_a_table_all(ok, folder):
    for n in range(12):
        (folder / "music" / f"bad{n}.mid").write_bytes(b"rubbish")
    shown = [line for line in ok("corpus", "music") if line.startswith("skipped ")]
    assert len(shown) == 11
    assert shown[-1] == "skipped 12 files in all: --skipped FILE.csv has them all"
    ok("corpus", "music", "--skipped", "skipped.csv")
    with open("skipped.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(f"bad{n}.mid" for n in range(12))
    assert all(row["reason"] for row in rows)


def test_a_part_of_the_pieces(ok):
    drawn = ok("corpus", "music", "--max-pieces", 5, "--seed", 1)
    assert drawn[5].split()[:2] == ["all", "5"]


@pytest.mark.parametrize("engine", ["threading", "multiprocessing"])
def test_the_engine_changes_nothing(ok, monkeypatch, tmp_path, engine):
    plain = ok("corpus", "music")
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "another"))
    assert ok("corpus", "music", "--engine", engine, "--jobs", 2) == plain


def test_the_layout_of_tracks(ok):
    flatten, merge = ok("corpus", "music"), ok("corpus", "music", "--tracks", "merge")
    assert merge[0] == "music, merge tracks"
    assert flatten[2:] != merge[2:]


@pytest.mark.parametrize("representation", ["chord", "note"])
def test_the_counts_of_frames(ok, folder, representation):
    how = ("--representation", representation, "--grid", 16, "--max-polyphony", 1)
    lines = ok("corpus", "music", *how, "--json", "counts.json")
    assert lines[0] == f"music, {representation}s as frames, at most 1 notes"
    counts, rows = counts_in("counts.json")
    assert counts["pieces"] == 8
    assert counts["tokens"] == sum(len(frames_of(piece_of(seed), 16)[0]) for seed in range(8))
    assert {line.split()[0]: line.split()[1:] for line in lines[2:6]} == rows


def test_a_corpus_in_a_common_key_or_on_another_grid(ok):
    plain = ok("corpus", "music", "--representation", "chord")
    assert plain[0] == "music, chords as frames"
    assert ok("corpus", "music", "--representation", "chord", "--grid", 16) != plain
    assert ok("corpus", "music", "--representation", "chord", "--common-key", "C") != plain


def test_the_seed_is_of_thinned_chords(ok):
    thinned = [
        ok("corpus", "music", "--representation", "chord", "--max-polyphony", 1, "--seed", seed)
        for seed in (0, 0, 1)
    ]
    assert thinned[0] == thinned[1] != thinned[2]


def test_a_named_corpus_from_a_file(ok, folder):
    write_music(folder / "three", pieces=3)
    assert ok("corpus", "bach", "--data", "three")[5].split()[:2] == ["all", "3"]


def test_the_corpus_of_many_composers(ok, fails, folder, monkeypatch):
    assert "bin/corpus classical --build" in fails("corpus", "classical")
    assert "--build makes the corpus 'classical' alone" in fails("corpus", "bach", "--build")

    def build(out, jobs, progress):
        with zipfile.ZipFile(out, "w") as archive:
            for file in (folder / "music").iterdir():
                archive.write(file, f"haydn/{file.name}")
        return Built({"Haydn": 8}, [Skipped("haydn/9", "is no music")])

    monkeypatch.setattr(classical, "build", build)
    (folder.parent / "cache").mkdir()
    lines = ok("corpus", "classical", "--build")
    assert "skipped haydn/9: is no music" in lines
    monkeypatch.setattr(classical, "build", None)
    assert ok("corpus", "classical", "--build") == ok("corpus", "classical")


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no SIGTERM on this system")
def test_sigterm_ends_it_with_its_own_status(folder):
    code = (
        "import os, signal, sys\n"
        "from lstm_music.cli.common import run\n"
        "sys.exit(run(lambda _: os.kill(os.getpid(), signal.SIGTERM), []))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (143, b"")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required: CORPUS (see bin/corpus --help)"),
        (["bahc"], "unknown corpus 'bahc'"),
        (["music", "--tracks", "sideways"], "invalid choice: 'sideways'"),
        (["music", "--data", "none"], "no file or folder 'none'"),
        (["muse"], "'muse' holds piano rolls"),
        (["muse", "--representation", "chord"], "with --data MuseData.mat"),
        (["music", "--representation", "note", "--grid", "7"], "the grid must divide 1920"),
        (["music", "--max-polyphony", "89"], "'89' is not a whole number from 0 to 88"),
    ],
)
def test_bad_input_is_one_line(fails, words, says):
    assert says in fails("corpus", *words)


def test_the_exit_status_reaches_the_shell(folder):
    for words, status in ((["music"], 0), (["bahc"], 2), (["--help"], 0)):
        command = [sys.executable, "-m", "lstm_music.cli.corpus", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == status
        assert len(done.stderr.splitlines()) == (status == 2)


def test_a_reader_that_is_gone_is_no_error(folder):
    """As in `bin/corpus … | true`: what is printed waits in a buffer until the end."""
    command = [sys.executable, "-m", "lstm_music.cli.corpus", "music"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, check=False, stdout=write_end, stderr=subprocess.PIPE, env=buffered
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


# What is no loss, and what is ---------------------------------------------------------------------

TWIN = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "  # AppleDouble, as macOS writes it


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_what_macos_puts_beside_music_is_ignored(folder, ok, place):
    top = folder / "mac"
    shutil.copytree(folder / "music", top)
    beside = top / "__MACOSX" if place == "zip" else top
    beside.mkdir(exist_ok=True)
    for path in sorted((folder / "music").iterdir()):
        (beside / f"._{path.name}").write_bytes(TWIN)
    (top / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (top / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (top / "really-broken.mid").write_bytes(b"rubbish")
    name = "mac" if place == "folder" else shutil.make_archive("mac", "zip", top)
    lines = ok("corpus", name, "--json", "x.json", "--skipped", "x.csv")
    said = [line for line in lines if line.startswith(("ignored", "skipped"))]
    assert said[0] == "ignored: 8 files that macOS put beside others (._*): no music"
    assert len(said) == 2 and said[1].startswith("skipped really-broken.mid: is no MIDI file")
    found = json.loads(Path("x.json").read_text())
    assert [row["file"] for row in found["skipped"]] == ["really-broken.mid"]
    assert (found["ignored"], found["pieces"]) == (8, 8)
    assert Path("x.csv").read_text().count("\n") == 2
    # Real music of such a name is music.
    shutil.copy(folder / "music" / "0.mid", folder / "music" / "._9.mid")
    ok("corpus", "music", "--json", "x.json")
    assert json.loads(Path("x.json").read_text())["pieces"] == 9


def test_a_folder_of_leftovers_alone_is_one_line(folder, fails):
    (folder / "left").mkdir()
    (folder / "left" / "._a.mid").write_bytes(TWIN)
    assert "no usable MIDI file among 1 in 'left', choose another" in fails("corpus", "left")


@pytest.mark.parametrize("kind", ["chord", "note"])
def test_notes_outside_the_piano_are_counted(folder, ok, kind):
    """Below A0 and above C8; and those that a common key moves out of it."""
    notes = [(0, 480, 20), (0, 480, 60), (480, 960, 109), (480, 960, 127), (480, 960, 64)]
    write_midi(Piece("", [track_of(notes)]), "music/3.mid")
    how = ("--representation", kind)
    lines = ok("corpus", "music", *how, "--json", "x.json")
    assert "mended: notes outside the piano, 3 in 1 of the files" in lines
    found = json.loads(Path("x.json").read_text())["mended"]
    assert found == [{"file": "3.mid", "repairs": {"notes outside the piano": 3}}]
    assert not any(line.startswith("mended") for line in ok("corpus", "music"))  # messages have all
    wide = [(480 * n, 480 * n + 480, p) for n, p in enumerate((21, 108, 61, 65, 68, 61))]
    write_midi(Piece("", [track_of(wide)]), "music/3.mid")  # in D flat major
    lines = ok("corpus", "music", *how, "--common-key", "C")
    assert "mended: notes outside the piano, 1 in 1 of the files" in lines


def test_counting_them_changes_no_corpus_of_an_older_version(folder):
    reading = Reading("note")
    before = load_corpus("music", reading=reading)
    assert key_of(before.key, {"mended": [], "copies": []}) == before.key
    counted = [{"file": "", "repairs": {OUTSIDE: 3}}]
    assert key_of(before.key, {"mended": counted, "copies": []}) == before.key
    other = [{"file": "", "repairs": {OUTSIDE: 3, "hanging notes": 1}}]
    alone = [{"file": "", "repairs": {"hanging notes": 1}}]
    keys = [key_of("k", {"mended": some, "copies": []}) for some in (other, alone)]
    assert keys[0] == keys[1] != "k"


def test_leftovers_are_no_piano_rolls_and_no_clips(folder):
    for name in ("._JSB_Chorales.mat", "JSB_Chorales.mat", "._a.wav", "a.wav", "._b.mid"):
        (folder / name).write_bytes(TWIN)
    assert find_rolls("jsb", folder) == folder / "JSB_Chorales.mat"
    assert files_in(folder) == [folder / "a.wav"]
