"""What a stranger may put beside a checkpoint, or call a corpus: pipes, devices, endless files."""

import json
import math
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from small import small_corpus, small_trainer, write_music

from lstm_music.cli import common, corpus, figures
from lstm_music.cli.common import put, run
from lstm_music.cli.printing import Bar, shown
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import MidiError
from lstm_music.report.gathering import losses_of
from lstm_music.reproduction.outcome import read_outcome
from lstm_music.runs import folder as run_folder
from lstm_music.runs.checkpoint import CHECKPOINTS, META_FILE, MODEL_FILE, read_checkpoint
from lstm_music.runs.folder import METRICS, cut_metrics, described_options, read_metrics
from lstm_music.runs.lock import RunLock
from lstm_music.runs.opened import reading_of, source_of
from lstm_music.runs.settings import Settings
from lstm_music.untrusted import TooLarge, number, of_fields, parse_json, read_bounded, read_json

ENDLESS = 6 << 30  # bytes of a file that takes none on the disk
KINDS = ("pipe", "device", "link to a pipe", "folder", "endless")
NAME = "\x1b[2J\x1b]0;title\x07\u202egnp.mid"


def turn_into(path, kind):
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name(f"{path.name}.pipe"))
        path.symlink_to(f"{path.name}.pipe")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, ENDLESS)


@pytest.fixture(autouse=True)
def little_memory(tmp_path, monkeypatch):
    """1 GB more than there is in use: none of these may be read whole."""
    import resource

    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    small_trainer(small_corpus(folder), folder / "run", epochs=2).train()
    return folder / "run"


@pytest.fixture
def stranger(trained, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


# One open ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_of_its_size_is_not_read(tmp_path, kind):
    path = tmp_path / "x"
    turn_into(path, kind)
    with pytest.raises(TooLarge if kind == "endless" else (ValueError, IsADirectoryError)):
        read_bounded(path, 1 << 26)
    with pytest.raises((ValueError, OSError)):
        read_json(path)


def test_files_of_the_right_size_are_read_whole_through_links(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    assert read_bounded(tmp_path / "b", 5) == b"12345"
    with pytest.raises(TooLarge, match="more than 4 bytes"):
        read_bounded(tmp_path / "b", 4)
    if Path("/proc/self/status").exists():  # it says that it has 0 bytes
        assert b"Name" in read_bounded(Path("/proc/self/status"), 1 << 16)


@pytest.mark.parametrize(
    "said",
    [b"NaN", b"[Infinity]", b"-Infinity", b"[" * 10**6, b"9" * 10**6, b"[1," + b"1," * 10**7],
)
def test_numbers_that_are_none_and_depth_are_no_json(said):
    with pytest.raises(ValueError, match=r".") as refused:
        parse_json(said)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), math.nan, math.inf, True, "1", None],
    ids=["huge", "below zero", "nan", "infinite", "true", "text", "none"],
)
def test_numbers_without_end_are_out_of_range(value):
    with pytest.raises(ValueError, match="no number from 0 to 10"):
        number(value, "x", 0, 10)
    with pytest.raises(ValueError, match=r"wrong type|is not from"):
        of_fields(Settings, {"lr": value}, "settings", {"lr": (0, 10)})


# Beside a checkpoint ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_that_are_none_leave_the_losses_out(stranger, capsys, kind):
    checkpoint = read_checkpoint((stranger / CHECKPOINTS / "latest").resolve())
    assert losses_of(stranger, common.warn) and figures.losses(checkpoint, stranger)
    assert len(read_outcome(stranger).curves["valid"]) == 2
    assert not capsys.readouterr().err
    turn_into(stranger / METRICS, kind)
    assert losses_of(stranger, common.warn) == [] and figures.losses(checkpoint, stranger) == []
    told = capsys.readouterr().err
    assert told.count("warning: can't read '") == 2 == told.count("\n")
    with pytest.raises(UserError, match=r"metrics.csv' .*: move it away"):
        read_outcome(stranger)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "endless"])
def test_a_run_that_goes_on_makes_metrics_of_its_own(stranger, kind):
    turn_into(stranger / METRICS, kind)
    assert cut_metrics(stranger / METRICS, 3) <= 3
    assert (stranger / METRICS).stat().st_size < 5000
    assert (stranger / METRICS).is_file() and not (stranger / METRICS).is_symlink()


def test_rows_that_are_rubbish_are_passed_over(stranger, monkeypatch):
    path = stranger / METRICS
    rows = read_metrics(path)
    assert [row["split"] for row in rows] == ["train", "valid"] * 2
    good = path.read_text()
    huge = f"{10**400},1,1,0,valid,1,1,,"
    for bad in ("1,1,1,0,valid,nan,1,,", huge, "1,1", "," * 10**6, "\0" * 9):
        path.write_text(good + bad + "\n")
        assert read_metrics(path) == rows
    monkeypatch.setattr(run_folder, "METRICS_ROWS", 3)
    with pytest.raises(UserError, match="more than 3 rows"):
        read_metrics(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_is_none_is_a_damaged_one(stranger, kind):
    checkpoint = read_checkpoint((stranger / CHECKPOINTS / "latest").resolve())
    turn_into(stranger / run_folder.CONFIG, kind)
    with pytest.raises(UserError, match="is damaged"):
        described_options(stranger)
    with pytest.raises(UserError, match="missing or damaged: say what to evaluate on"):
        source_of("run", checkpoint, stranger)
    assert reading_of(checkpoint, stranger).representation == "message"
    assert read_outcome(stranger) is None


@pytest.mark.parametrize("field", ["drums", "max_pieces", "min_count", "seed"])
@pytest.mark.parametrize("value", [[], {}, "x", 10**400])
def test_a_config_of_other_types_is_a_damaged_one(stranger, field, value):
    path = stranger / run_folder.CONFIG
    config = json.loads(path.read_text())
    config["training" if field == "seed" else "reading"][field] = value
    config["source"] |= {"data": value}
    path.write_text(json.dumps(config))
    checkpoint = read_checkpoint((stranger / CHECKPOINTS / "latest").resolve())
    with pytest.raises(UserError, match="missing or damaged"):
        source_of("run", checkpoint, stranger)
    assert reading_of(checkpoint, stranger).representation == "message"


@pytest.mark.parametrize("name", [META_FILE, MODEL_FILE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_something_else_is_a_damaged_one(stranger, name, kind):
    path = (stranger / CHECKPOINTS / "latest").resolve()
    turn_into(path / name, kind)
    with pytest.raises(UserError, match=f"{name}' is damaged"):
        read_checkpoint(path)


def test_a_lock_that_is_a_pipe_is_not_waited_for(stranger):
    turn_into(stranger / "lock", "pipe")
    with RunLock(stranger):
        pass


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_figure_is_not_written_into_what_has_its_name(tmp_path, kind):
    path, other = tmp_path / "loss.png", tmp_path / "precious"
    other.write_text("as it was")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    assert put(lambda to: to.write_bytes(b"figure"), path) == 6
    assert path.read_bytes() == b"figure" and not path.is_symlink()
    assert other.read_text() == "as it was"


# Corpora ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mat", ".pickle", ".pkl"])
def test_rolls_of_6_gb_are_refused_before_they_are_read(tmp_path, suffix):
    path = tmp_path / f"big{suffix}"
    turn_into(path, "endless")
    with pytest.raises(UserError, match=r"can't use '.*' \(it has more than 64 MB\)"):
        load_corpus(str(path), None, Reading("note"))


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_archives_that_are_no_files(tmp_path, name, kind):
    turn_into(tmp_path / name, kind)
    with pytest.raises(UserError, match="it is no plain file"):
        load_corpus(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_midi_that_is_none(tmp_path, kind):
    turn_into(tmp_path / "a.mid", kind)
    with pytest.raises(MidiError, match=r"no plain file|is larger than"):
        read_midi(tmp_path / "a.mid", "a.mid")


def test_a_sound_of_6_gb_is_not_read(tmp_path):
    from lstm_music.listening.making import sound_of_file

    turn_into(tmp_path / "a.wav", "endless")
    with pytest.raises(UserError, match="more than 200,000,000 bytes"):
        sound_of_file("a", tmp_path / "a.wav")


# Names ------------------------------------------------------------------------------------------


def test_no_control_character_reaches_a_terminal():
    text = "".join(map(chr, range(0x10FFF)))
    assert shown("\x1b[2J\x07\r\n\x9b\u202e") == r"\x1b[2J\x07\r\n\x9b\u202e"
    assert shown("naïve 音楽\u3000\u200d") == "naïve 音楽\u3000\u200d"
    left = {c for c in shown(text) if ord(c) < 32 or 127 <= ord(c) < 160}
    assert left == set()


def test_a_name_in_a_zip_is_written_out(tmp_path, capsys):
    music = write_music(tmp_path / "music", pieces=6)
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, b"no music")
        archive.writestr(f"{NAME[:-4]}/good.mid", (music / "0.mid").read_bytes())
        for file in music.iterdir():
            archive.write(file, file.name)
    assert run(corpus.main, [str(path)]) == 0
    only = tmp_path / "only.zip"
    with zipfile.ZipFile(only, "w") as archive:
        archive.writestr(NAME, b"no music")
    assert run(corpus.main, [str(only)]) == 2
    common.warn(f"skipped {NAME}")
    with Bar(True, "files") as bar:
        bar.print(NAME)
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & {*out, *err}
    assert r"skipped \x1b[2J\x1b]0;title\x07\u202egnp.mid: " in out
    assert out.endswith("\\x1b[2J\\x1b]0;title\\x07\\u202egnp.mid\n")
    assert r"for example \x1b[2J" in err
