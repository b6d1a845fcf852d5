import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from small import piece_of, write_music

from lstm_music.corpus import archives
from lstm_music.corpus.archives import is_archive, members
from lstm_music.corpus.load import load_corpus
from lstm_music.corpus.sources import find_sources, is_midi
from lstm_music.errors import UserError
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import MOST_BYTES, MidiError

TARS = {"m.tar": "w", "m.tar.gz": "w:gz", "m.tgz": "w:gz", "m.tar.bz2": "w:bz2", "m.txz": "w:xz"}
CLIMBING = ["../a.mid", "/etc/a.mid", "x/../../a.mid", "..\\a.mid", "C:\\a.mid", "C:/a.mid"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))


def midi_bytes(seed):
    content = io.BytesIO()
    write_midi(piece_of(seed), content)
    return content.getvalue()


def tar_of(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", [*TARS, "m.zip", "M.ZIP"])
def test_an_archive_holds_what_its_folder_holds(tmp_path, name):
    folder = load_corpus(str(write_music(tmp_path / "music")))
    files = {f"{seed}.mid": midi_bytes(seed) for seed in reversed(range(8))}
    files["notes.txt"] = b"not music"
    make = tar_of if name in TARS else zip_of
    path = make(tmp_path / name, files, *([TARS[name]] if name in TARS else []))
    assert is_archive(name)
    archive = load_corpus(str(path))
    assert archive.pieces == folder.pieces
    np.testing.assert_array_equal(archive.ids, folder.ids)


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_that_climbs_out_is_refused(tmp_path, kind, name):
    files = {name: midi_bytes(0), "good.mid": midi_bytes(1)}
    make = zip_of if kind == "zip" else tar_of
    corpus = load_corpus(str(make(tmp_path / f"m.{kind}", files)))
    assert corpus.pieces == ["good.mid"]
    assert corpus.skipped[0].reason == "has a path that climbs out of its archive"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_in_a_tar_are_refused(tmp_path, kind):
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("link.mid")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    (member,) = members(path, is_midi)
    with pytest.raises(MidiError, match="only plain files"):
        member.read()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_without_being_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "LEAST_UNPACKED", 2**20)
    files = {"bomb.mid": bytes(2**26), "good.mid": midi_bytes(0)}
    make = (lambda *a: tar_of(*a, "w:gz")) if kind == "tar.gz" else zip_of
    path = make(tmp_path / f"m.{kind}", files)
    assert path.stat().st_size < 2**18
    tracemalloc.start()
    if kind == "zip":
        corpus = load_corpus(str(path))
        assert corpus.pieces == ["good.mid"]
        assert "larger" in corpus.skipped[0].reason
    else:
        with pytest.raises(UserError, match="100 times its size"):
            load_corpus(str(path))
    assert tracemalloc.get_traced_memory()[1] < 6 * MOST_BYTES
    tracemalloc.stop()


def test_a_member_that_lies_about_its_size_is_read_no_further(tmp_path):
    path = zip_of(tmp_path / "m.zip", {"a.mid": bytes(2**25)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    (member,) = members(path, is_midi)
    with suppress(OSError):  # its checksum is wrong
        assert len(member.read()) <= MOST_BYTES + 1


def entry(name, packed, size, crc, offset=None):
    """A file's header in a zip: before its bytes, or, with an offset, in the list at the end."""
    facts = struct.pack("<HHHHIIIHH", 0, 8, 0, 0x21, crc, len(packed), size, len(name), 0)
    if offset is None:
        return struct.pack("<IH", 0x04034B50, 20) + facts + name
    more = struct.pack("<HHHII", 0, 0, 0, 0, offset)
    return struct.pack("<IHH", 0x02014B50, 20, 20) + facts + more + name


def overlapping(many, size=2**22):
    """A zip whose files all are the same bytes of it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(size)) + packer.flush()
    facts = (b"a.mid", packed, size, zlib.crc32(bytes(size)))
    body = entry(*facts) + packed
    listed = entry(*facts, 0) * many
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, many, many, len(listed), len(body), 0)
    return body + listed + end


def test_files_of_a_zip_that_share_bytes_are_read_once(tmp_path, monkeypatch):
    path = tmp_path / "m.zip"
    path.write_bytes(overlapping(4000))
    assert path.stat().st_size < 300_000
    unpacked = []
    real = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a: unpacked.append(a) or real(*a))
    with pytest.raises(UserError, match="no usable MIDI file among 4000"):
        load_corpus(str(path))
    assert len(unpacked) <= 2
    found = members(path, is_midi)
    assert len(found[0].read()) == 2**22
    with pytest.raises(MidiError, match="shares its bytes with another file"):
        found[1].read()


def test_a_file_quoted_in_another_shares_its_bytes(tmp_path):
    """The bytes of one are a whole file themselves: David Fifield's "quoted overlap"."""
    inner = entry(b"b.mid", b"x", 1, zlib.crc32(b"x")) + b"x"
    path = zip_of(tmp_path / "m.zip", {"a.mid": inner, "c.mid": b"y"}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    listed = entry(b"b.mid", b"x", 1, zlib.crc32(b"x"), 30 + len("a.mid"))
    end = bytearray(data[-22:])
    end[8:12] = struct.pack("<HH", 3, 3)
    end[12:16] = struct.pack("<I", len(data) - 22 - at + len(listed))
    path.write_bytes(data[:-22] + listed + end)
    a, b, c = members(path, is_midi)
    assert (a.read(), c.read()) == (inner, b"y")
    with pytest.raises(MidiError, match="shares its bytes"):
        b.read()


def test_a_zip_unpacks_to_so_many_times_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LEAST_UNPACKED", 2**20)
    path = zip_of(tmp_path / "m.zip", {f"{n}.mid": bytes(2**18) for n in range(9)})
    sizes = []
    for member in members(path, is_midi):
        try:
            sizes.append(len(member.read()))
        except MidiError as error:
            assert "100 times its size" in str(error)
    assert sizes == [2**18] * 4


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_list_that_says_it_is_huge_is_not_read(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    with path.open("wb") as file:
        if kind == "tar":
            info = tarfile.TarInfo("x")
            info.type, info.size = tarfile.XHDTYPE, 3 << 30
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate((3 << 30) + 512)
        if kind == "zip":
            file.seek(0, 2)
            file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 9, 9, 3 << 30, 512, 0))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a part of it has 3,221,\d+,\d+ bytes"):
        members(path, is_midi)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path, method):
    (member,) = members(zip_of(tmp_path / "m.zip", {"a.mid": b"x"}, method), is_midi)
    with pytest.raises(MidiError, match="Deflate"):
        member.read()


@pytest.mark.parametrize("cut", [0, 10, 700, -2000])
def test_a_cut_tar_is_an_error_or_gives_what_is_whole(tmp_path, cut):
    path = tar_of(tmp_path / "m.tar", {f"{n}.mid": midi_bytes(n) for n in range(4)})
    path.write_bytes(path.read_bytes()[:cut])
    try:
        corpus = load_corpus(str(path))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert corpus.pieces


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz", "m.tar.xz"])
def test_rubbish_is_no_archive(tmp_path, name):
    path = tmp_path / name
    for rubbish in (b"", b"rubbish" * 100, b"\x1f\x8brubbish", b"\xfd7zXZ\x00" + bytes(99)):
        path.write_bytes(rubbish)
        with pytest.raises(UserError, match=r"is it a whole|no MIDI files"):
            find_sources(str(path))


# Folders ----------------------------------------------------------------------------------------


def test_links_are_followed_and_a_loop_is_named(tmp_path):
    music = write_music(tmp_path / "music", pieces=3)
    write_music(tmp_path / "elsewhere", pieces=1).rename(tmp_path / "more")
    (music / "linked").symlink_to(tmp_path / "more")
    (music / "linked" / "loop").symlink_to(music)
    corpus = load_corpus(str(music))
    assert corpus.pieces == ["0.mid", "1.mid", "2.mid", "linked/0.mid"]
    assert [s.file for s in corpus.skipped] == ["linked/loop"]
    assert "read already" in corpus.skipped[0].reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    music = write_music(tmp_path / "music", pieces=3)
    os.mkfifo(music / "pipe.mid")
    corpus = load_corpus(str(music))
    assert [tuple(s) for s in corpus.skipped] == [("pipe.mid", "is no plain file")]
    assert len(corpus.pieces) == 3
