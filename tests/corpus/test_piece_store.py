import hashlib
import io
import os
import signal

import numpy as np
import pytest
from small import flip, piece_of

from lstm_music.corpus import piece_store
from lstm_music.corpus.piece_store import File, PieceStore, digests_in, packed, read_one, unpacked
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece


def file_of(seed):
    content = io.BytesIO()
    piece = piece_of(seed)
    meter = np.array([[480 * n, 960 + n] for n in range(seed)], np.int32).reshape(-1, 2)
    told = {"phrases": np.array([480, 960 + seed], np.int32), "sharps": seed % 7 - 3}
    told["tempo"] = np.array([[960 * n, 500_000 + n] for n in range(seed + 1)], np.int32)
    loud = tuple(np.arange(len(track) // 2) + seed + 1 for track in piece.tracks)
    parts = tuple(Part(f"part {n} of {seed}", seed) for n in range(len(piece.tracks)))
    told |= {"velocities": loud, "parts": parts}
    write_midi(Piece(piece.name, piece.tracks, meter=meter, **told), content)
    return File(hashlib.sha256(content.getvalue()).hexdigest(), content.getvalue())


def same(a, b):
    ours, theirs = a.piece, b.piece
    times = ("meter", "phrases", "tempo")
    arrays = [(getattr(ours, name), getattr(theirs, name)) for name in times]
    arrays += zip(ours.tracks, theirs.tracks, strict=True)
    arrays += zip(ours.velocities, theirs.velocities, strict=True)
    told = [
        (piece.repairs, piece.drums, piece.parts, piece.sharps, piece.pedals, piece.beats)
        for piece in (ours, theirs)
    ]
    others = a._replace(piece=None) == b._replace(piece=None) and told[0] == told[1]
    return others and all(np.array_equal(one, other) for one, other in arrays)


BAD = File("bad", b"rubbish")


def test_a_shard_holds_what_was_read(tmp_path):
    read = [read_one(file, False) for file in (file_of(0), BAD, file_of(1))]
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(read))
    assert digests_in(path) == [file.digest for file in read]
    assert all(map(same, unpacked(path), read))
    assert read[1].reason
    pieces = [r.piece for r in read]
    assert [len(p.tracks) for p in pieces] == [2, 0, 2]
    assert [len(p.meter) for p in pieces] == [1, 0, 1]
    assert [p.sharps for p in pieces] == [-3, None, -2]
    assert [p.phrases.tolist() for p in pieces] == [[480, 960], [], [480, 961]]
    changes = [[[0, 500_000]], [], [[0, 500_000], [960, 500_001]]]
    assert [p.tempo.tolist() for p in pieces] == changes
    assert [len(p.velocities) for p in pieces] == [2, 0, 2]
    assert pieces[2].velocities[1].tolist() == [*range(2, 12)]
    assert pieces[2].parts == (Part("part 0 of 1", 1), Part("part 1 of 1", 1))


@pytest.mark.parametrize(
    ("jobs", "engine"), [(1, None), (2, None), (2, "threading"), (2, "multiprocessing")]
)
def test_what_is_kept_is_found_again(tmp_path, monkeypatch, jobs, engine):
    monkeypatch.setattr(piece_store, "BATCH_FILES", 3)
    monkeypatch.setattr(piece_store, "ROUND", 2)
    files = [file_of(seed) for seed in range(8)] + [BAD]
    store = PieceStore(tmp_path, drums=False)
    assert sorted(store.fill(files, jobs, engine)) == sorted(file.digest for file in files)
    assert len(list(store.folder.iterdir())) == 3
    for again in (store, PieceStore(tmp_path, drums=False)):
        assert all(same(again.get(file.digest), read_one(file, False)) for file in files)
    assert file_of(0).digest not in PieceStore(tmp_path, drums=True)
    assert file_of(0).digest not in PieceStore(tmp_path, drums=False, played=True)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.95])
def test_a_damaged_shard_is_as_if_it_were_not_there(tmp_path, where):
    store = PieceStore(tmp_path, drums=False)
    file = file_of(0)
    list(store.fill([file], 1))
    (path,) = store.folder.iterdir()
    flip(path, where)
    store = PieceStore(tmp_path, drums=False)
    if file.digest in store:
        with pytest.raises(KeyError):
            store.get(file.digest)
    assert file.digest not in store
    list(store.fill([file], 1))
    assert same(store.get(file.digest), read_one(file, False))


def test_what_was_kept_before_an_end_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(piece_store, "BATCH_FILES", 1)

    def files():
        yield from map(file_of, range(3))
        raise KeyboardInterrupt

    store = PieceStore(tmp_path, drums=False)
    with pytest.raises(KeyboardInterrupt):
        list(store.fill(files(), 1))
    assert all(file_of(seed).digest in PieceStore(tmp_path, drums=False) for seed in range(2))


def killer(batch, drums, played):
    """A worker that dies of one of the files."""
    if any(file.data == b"deadly" for file in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return [read_one(file, drums) for file in batch]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_worker_that_dies_loses_its_own_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(piece_store, "BATCH_FILES", 2)
    monkeypatch.setattr(piece_store, "read_batch", killer)
    files = [file_of(seed) for seed in range(12)]
    files.insert(5, File("deadly", b"deadly"))
    store = PieceStore(tmp_path, drums=False)
    list(store.fill(files, 2))
    assert [file.digest for file in files if file.digest not in store] == ["deadly"]


def test_dask_reads_too(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, dashboard_address=None, n_workers=2):
        store = PieceStore(tmp_path, drums=False)
        files = [file_of(seed) for seed in range(4)]
        assert sorted(store.fill(files, -1, "dask")) == sorted(file.digest for file in files)
