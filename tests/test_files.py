import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from lstm_music import files
from lstm_music.files import beside, free_number, move_in, move_new, write_new, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_takes_the_place_of_another_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_whole(b"one", path)
    write_whole(b"two", path)
    assert path.read_bytes() == b"two"
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_whole(b"three", path)
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.txt"]


def test_what_is_being_written_has_a_name_of_its_own(tmp_path, monkeypatch):
    """Also where another process has this one's number, as in another container."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    made = {beside(tmp_path / "a.txt") for _ in range(100)}
    assert len(made) == 100
    assert {path.parent for path in made} == {tmp_path}
    assert all(path.name.startswith(".a.txt.7-") for path in made)


def test_the_next_number_is_after_all_kinds_of_file(tmp_path):
    assert free_number(tmp_path, "sample") == 1
    for name in ("sample-0002.mid", "sample-0009.wav", "sample-x.mid", "other-0012.mid"):
        (tmp_path / name).touch()
    assert free_number(tmp_path, "sample") == 10


def test_a_name_that_is_taken_meanwhile_is_left_to_who_has_it(tmp_path):
    path = tmp_path / "sample-0001.mid"
    assert write_new(b"mine", path) == path
    assert write_new(b"theirs", path) == tmp_path / "sample-0002.mid"
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == [b"mine", b"theirs"]


def test_a_new_file_that_the_disk_refuses_leaves_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_new(b"x", tmp_path / "sample-0001.mid")
    assert names(tmp_path) == []


def test_what_has_a_name_keeps_it(tmp_path):
    made, path = tmp_path / "made", tmp_path / "path"
    made.write_bytes(b"new")
    path.symlink_to("nowhere")
    assert not move_in(made, path)
    assert made.read_bytes() == b"new" and path.is_symlink()


def write_many(folder, content):
    for _ in range(20):
        write_new(content, folder / f"sample-{free_number(folder, 'sample'):04d}.mid")


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    contents = [bytes([n]) * 100 for n in range(4)]
    processes = [context.Process(target=write_many, args=(tmp_path, c)) for c in contents]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [path.read_bytes() for path in tmp_path.iterdir()]
    assert sorted(found) == sorted(contents * 20)


def test_a_folder_gets_the_next_name_where_its_own_is_taken(tmp_path):
    def folder_of(name):
        made = tmp_path / f".{name}"
        made.mkdir()
        (made / name).touch()
        return made

    run = tmp_path / "run"
    assert move_new(folder_of("a"), run, again=True) == run
    assert move_new(folder_of("b"), run, again=True) == tmp_path / "run-2"
    assert move_new(folder_of("c"), run, again=True) == tmp_path / "run-3"
    with pytest.raises(FileExistsError):
        move_new(folder_of("d"), run, again=False)
    assert [names(tmp_path / f"run{n}") for n in ("", "-2", "-3")] == [["a"], ["b"], ["c"]]


def test_a_folder_that_is_made_between_the_look_and_the_move_is_kept(tmp_path, monkeypatch):
    made, run = tmp_path / ".made", tmp_path / "run"
    made.mkdir()
    run.mkdir()
    (run / "precious").touch()
    real, first = os.path.lexists, iter([False])
    monkeypatch.setattr(files.os.path, "lexists", lambda path: next(first, True) and real(path))
    assert move_new(made, run, again=True) == tmp_path / "run-2"
    assert names(run) == ["precious"]
