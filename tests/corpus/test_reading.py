import hashlib
import os

import pytest
from small import write_music

from lstm_music.corpus import parsing as reading
from lstm_music.corpus import piece_store
from lstm_music.corpus.parsing import Workers, digests_of, pieces_of, read_memo
from lstm_music.corpus.piece_store import PieceStore
from lstm_music.corpus.sources import Skipped, Source, find_sources
from lstm_music.midi.piece import Piece


@pytest.fixture
def music(tmp_path):
    return write_music(tmp_path / "music")


@pytest.fixture
def memo(tmp_path):
    return tmp_path / "digests" / "m"


def unreadable():
    raise AssertionError("read again")


# Hashes -----------------------------------------------------------------------------------------


def test_a_file_that_is_as_it_was_is_not_read_again(music, memo):
    sources = find_sources(str(music))
    first = digests_of(sources, memo)
    assert first == [hashlib.sha256(s.read()).hexdigest() for s in sources]
    assert digests_of([s._replace(read=unreadable) for s in sources], memo) == first


def test_a_file_that_changed_is_read_again(music, memo):
    first = digests_of(find_sources(str(music)), memo)
    path = music / "3.mid"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as old and as large as before
    second = digests_of(find_sources(str(music)), memo)
    assert [a == b for a, b in zip(first, second, strict=True)] == [n != 3 for n in range(8)]


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_memo_is_not_believed(music, memo, damage):
    first = digests_of(find_sources(str(music)), memo)
    data = bytearray(memo.read_bytes())
    data[20] ^= 1
    memo.write_bytes(data if damage is None else damage)
    assert read_memo(memo) == {}
    assert digests_of(find_sources(str(music)), memo) == first


def test_what_cant_be_read_is_named_each_time(music, memo):
    (music / "gone.mid").symlink_to("nowhere.mid")
    for _ in range(2):
        digests = digests_of(find_sources(str(music)), memo)
        assert [d.file for d in digests if isinstance(d, Skipped)] == ["gone.mid"]


# Pieces -----------------------------------------------------------------------------------------


def read_all(music, store, **settings):
    sources = find_sources(str(music))
    found = pieces_of(sources, digests_of(sources), store, Workers(1), False, **settings)
    return list(found)


@pytest.fixture
def parsed(monkeypatch):
    """How many files were parsed."""
    count = []

    def counting(file, *how):
        count.append(file.digest)
        return read_one(file, *how)

    read_one = piece_store.read_one
    monkeypatch.setattr(piece_store, "read_one", counting)
    return count


def test_files_that_are_added_are_parsed_alone(music, tmp_path, parsed):
    read_all(music, PieceStore(tmp_path, False))
    assert len(parsed) == 8
    for seed in range(8, 11):
        (music / f"{seed}.mid").write_bytes(
            (write_music(tmp_path / "more", pieces=11) / f"{seed}.mid").read_bytes()
        )
    (music / "copy.mid").write_bytes((music / "1.mid").read_bytes())
    assert len(read_all(music, PieceStore(tmp_path, False))) == 12
    assert len(parsed) == 8 + 3


def test_the_order_is_that_of_the_files_however_they_were_parsed(music, tmp_path, monkeypatch):
    monkeypatch.setattr(piece_store, "BATCH_FILES", 1)
    monkeypatch.setattr(reading, "BATCH_FILES", 1)
    (music / "4a.mid").write_bytes(b"rubbish")
    sources = find_sources(str(music))
    store = PieceStore(tmp_path, False)
    found = list(pieces_of(sources, digests_of(sources), store, Workers(2), False))
    names = [f.name if isinstance(f, Piece) else f.file for f in found]
    assert names == ["0.mid", "1.mid", "2.mid", "3.mid", "4.mid", "4a.mid", *
                     (f"{n}.mid" for n in (5, 6, 7))]  # fmt: skip
    assert isinstance(found[5], Skipped)


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    contents = iter([b"one", b"two", b"three"])
    source = Source("a.mid", lambda: next(contents))
    (found,) = pieces_of(
        [source], digests_of([source]), PieceStore(tmp_path, False), Workers(1), False
    )
    assert isinstance(found, Skipped)
    assert "changed" in found.reason


def test_a_damaged_shard_is_read_anew_in_the_middle_of_it(music, tmp_path, parsed):
    store = PieceStore(tmp_path, False)
    first = read_all(music, store)
    (shard,) = store.folder.iterdir()
    data = bytearray(shard.read_bytes())
    data[-30] ^= 1
    shard.write_bytes(data)
    again = read_all(music, PieceStore(tmp_path, False))
    assert [p.name for p in again] == [p.name for p in first]
    assert all(isinstance(p, Piece) for p in again)
    assert len(parsed) == 16


# A part of them ---------------------------------------------------------------------------------


def test_so_many_pieces_are_drawn_by_seed(music, tmp_path, parsed):
    store = PieceStore(tmp_path, False)
    for n in range(4):
        (music / f"bad{n}.mid").write_bytes(b"rubbish %d" % n)
    drawn = {}
    for seed in range(6):
        found = read_all(music, store, most=3, seed=seed)
        names = [p.name for p in found if isinstance(p, Piece)]
        assert len(names) == 3
        assert names == sorted(names)
        drawn[seed] = names
    assert len(set(map(tuple, drawn.values()))) > 1
    assert [p.name for p in read_all(music, store, most=3, seed=2) if isinstance(p, Piece)] == (
        drawn[2]
    )
    assert len([p for p in read_all(music, store, most=99) if isinstance(p, Piece)]) == 8


def test_a_drawn_corpus_parses_no_more_than_it_takes(music, tmp_path, parsed):
    read_all(music, PieceStore(tmp_path, False), most=3)
    assert len(parsed) == 3


def test_workers_for_few_files_are_few():
    assert Workers(8).for_files(1) == 1
    assert Workers(8).for_files(33) == 2
    assert Workers(2).for_files(10_000) == 2
    assert Workers(None, "dask").for_files(1) == -1
