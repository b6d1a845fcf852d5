import csv
import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import flip, piece_of, track_of, write_music

from lstm_music.corpus import disk
from lstm_music.corpus import load as corpora
from lstm_music.corpus import splits as corpus_splits
from lstm_music.corpus.load import FORMAT, Reading, load_corpus
from lstm_music.corpus.piece_store import FORMAT as STORE_FORMAT
from lstm_music.corpus.splits import split_pieces
from lstm_music.errors import UserError
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, parse, transpose_word


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(folder))
    return folder


@pytest.fixture
def music(tmp_path):
    return write_music(tmp_path / "music")


def midi_bytes(piece):
    content = io.BytesIO()
    write_midi(piece, content)
    return content.getvalue()


def zip_of(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def same(a, b):
    """Whether two corpora are equal but for their names and where their arrays lie."""
    fields = ("key", "pieces", "splits", "skipped", "longest_note", "most_notes", "max_tracks")
    return (
        all(getattr(a, field) == getattr(b, field) for field in fields)
        and a.vocabulary.words == b.vocabulary.words
        and np.array_equal(a.ids, b.ids)
        and np.array_equal(a.offsets, b.offsets)
        and np.array_equal(a.shifts, b.shifts)
    )


def in_memory(corpus):
    """The corpus with arrays of its own: a mapped file changes when it is damaged on purpose."""
    arrays = {name: np.array(getattr(corpus, name)) for name in ("ids", "offsets", "shifts")}
    return replace(corpus, **arrays)


# What is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flatten", "merge"])
def test_ids_are_the_words_of_every_piece(music, layout):
    corpus = load_corpus(str(music), reading=Reading(tracks=layout))
    assert corpus.pieces == [f"{seed}.mid" for seed in range(8)]
    for seed in range(8):
        words = [corpus.vocabulary.word(id) for id in corpus.piece_ids(seed)]
        assert words == corpus.tokenizer.words(piece_of(seed))
    assert corpus.ids.dtype == np.int32
    assert corpus.max_tracks == 2
    assert corpus.longest_note == 480


def test_the_vocabulary_is_by_falling_count(music):
    corpus = load_corpus(str(music))
    assert corpus.vocabulary.words[: len(SPECIALS)] == SPECIALS
    assert corpus.vocabulary.id(PIECE_END) == 0
    counts = np.bincount(corpus.ids)[len(SPECIALS) :]
    assert counts.min() > 0
    assert (np.diff(counts) <= 0).all()


def test_a_folder_a_zip_and_a_file(music, tmp_path):
    folder = load_corpus(str(music))
    archive = zip_of(tmp_path / "m.ZIP", {p.name: p.read_bytes() for p in music.iterdir()})
    zipped = load_corpus(str(archive))
    assert same(folder, zipped)  # the same files under the same names, so the same corpus
    one = load_corpus(str(music / "3.mid"))
    assert one.pieces == ["3.mid"]
    assert one.splits == {"train": [0], "valid": [0], "test": [0]}


def test_data_stands_in_for_a_named_corpus(music):
    corpus = load_corpus("bach", music)
    assert corpus.name == "bach"
    assert len(corpus.pieces) == 8


def test_folders_are_read_to_the_bottom(music):
    (music / "a" / "b.mid").mkdir(parents=True)  # a folder, whatever its name says
    (music / "0.mid").rename(music / "a" / "b.mid" / "x.MIDI")
    (music / "1.mid").rename(music / "a" / "y.kar")
    (music / "notes.txt").write_text("not music")
    corpus = load_corpus(str(music))
    assert corpus.pieces == [*(f"{n}.mid" for n in range(2, 8)), "a/b.mid/x.MIDI", "a/y.kar"]
    assert corpus.skipped == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "bahc",
            "unknown corpus 'bahc': use bach, classical, muse, jsb, nottingham, piano-midi, or the",
        ),
        ("", "unknown corpus ''"),
        ("no/such", "no file or folder 'no/such': check the path"),
        ("x.mid", "no file or folder 'x.mid'"),
        ("empty", "no MIDI files (.mid, .midi, .kar, .rmi) in 'empty'"),
        ("empty.zip", "no MIDI files"),
        ("text.txt", "'text.txt' is not a MIDI file, a folder, a zip or a tar"),
        ("rubbish.zip", "can't read the archive 'rubbish.zip' (File is not a zip file)"),
        ("rubbish", "no usable MIDI file among 2 in 'rubbish', choose another, for example a.mid"),
        ("rubbish/a.mid", "no usable MIDI file among 1 in"),
    ],
)
def test_what_is_no_corpus(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    zip_of(tmp_path / "empty.zip", {"readme.txt": b"nothing"})
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "rubbish.zip").write_bytes(b"PK rubbish")
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "a.mid").write_bytes(b"rubbish")
    (tmp_path / "rubbish" / "b.mid").write_bytes(midi_bytes(Piece("", [])))
    with pytest.raises(UserError) as error:
        load_corpus(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_data_is_an_error_for_a_named_corpus(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        load_corpus("bach", tmp_path / "none")


# What can't be used -----------------------------------------------------------------------------


def smpte():
    data = bytearray(midi_bytes(piece_of(0)))
    data[12:14] = b"\xe7\x28"
    return bytes(data)


def test_bad_files_are_skipped_and_named(music):
    whole = midi_bytes(piece_of(0))
    bad = {
        "cut.mid": whole[:10],
        "empty.mid": b"",
        "rubbish.mid": bytes(range(100)),
        "silent.mid": midi_bytes(Piece("", [])),
    }
    for name, data in bad.items():
        (music / name).write_bytes(data)
    (music / "gone.mid").symlink_to("nowhere.mid")
    corpus = load_corpus(str(music))
    assert len(corpus.pieces) == 8
    assert [s.file for s in corpus.skipped] == sorted([*bad, "gone.mid"])
    assert all(s.reason and "\n" not in s.reason for s in corpus.skipped)


def test_what_can_be_read_of_a_file_is_used_and_what_was_mended_is_told(music):
    whole = midi_bytes(piece_of(0))
    (music / "cut.mid").write_bytes(whole[: len(whole) // 2])
    (music / "smpte.mid").write_bytes(smpte())
    corpus = load_corpus(str(music))
    assert not corpus.skipped
    assert {m.file: "tracks cut off" in m.repairs for m in corpus.mended} == {
        "cut.mid": True,
        "smpte.mid": False,
    }
    pieces = {name: corpus.lengths[p] for p, name in enumerate(corpus.pieces)}
    assert 0 < pieces["cut.mid"] < pieces["0.mid"]
    again = load_corpus(str(music))
    assert again.mended == corpus.mended


def test_bad_members_of_a_zip_are_skipped(tmp_path):
    path = zip_of(tmp_path / "m.zip", {f"{n}.mid": midi_bytes(piece_of(n)) for n in range(3)})
    data = bytearray(path.read_bytes())
    at = data.index(b"MThd")  # within the first member, stored as it is: its checksum fails
    data[at + 20] ^= 1
    path.write_bytes(data)
    corpus = load_corpus(str(path))
    assert corpus.pieces == ["1.mid", "2.mid"]
    assert "CRC" in corpus.skipped[0].reason


def test_encrypted_members_are_skipped(tmp_path):
    path = zip_of(tmp_path / "m.zip", {f"{n}.mid": midi_bytes(piece_of(n)) for n in range(3)})
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + flags] |= 1
    path.write_bytes(data)
    corpus = load_corpus(str(path))
    assert corpus.pieces == ["1.mid", "2.mid"]
    assert "encrypted" in corpus.skipped[0].reason


def test_a_piece_without_a_note_of_any_length_is_skipped_when_merged(music):
    track = np.array([(240, 1, 60), (240, 0, 60)], np.int32)
    write_midi(Piece("", [track]), music / "point.mid")
    corpus = load_corpus(str(music), reading=Reading(tracks="merge"))
    assert [s.file for s in corpus.skipped] == ["point.mid"]
    assert min(corpus.lengths) > 1


def test_a_file_name_that_is_no_text(tmp_path):
    folder = write_music(tmp_path / "music", pieces=3)
    try:
        os.rename(folder / "0.mid", os.fsencode(folder) + b"/caf\xe9.mid")
    except OSError:
        pytest.skip("this file system takes only text for names")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mid"))).write_bytes(b"rubbish")
    corpus = load_corpus(str(folder))
    for name in [*corpus.pieces, *(s.file for s in corpus.skipped)]:
        name.encode()
    assert len(corpus.pieces) == 3


# Habits -----------------------------------------------------------------------------------------


def test_the_habits_of_a_corpus_leave_out_rare_slips(tmp_path):
    """Nearly all chords have three notes; in one of the files, one note is endless."""
    chords = [(480 * n, 480 * n + 240, 60 + k) for n in range(700) for k in range(3)]
    chords += [(480 * n, 480 * n + 240, 70) for n in range(5)]
    (tmp_path / "m").mkdir()
    for name, extra in (("a", []), ("b", [(0, 99_999, 40)])):
        write_midi(Piece("", [track_of(chords + extra)]), tmp_path / "m" / f"{name}.mid")
    corpus = load_corpus(str(tmp_path / "m"))
    assert corpus.longest_note == 240
    # The endless note is a fourth voice under three in ten of its piece's chords.
    assert corpus.most_notes == 4
    assert load_corpus(str(tmp_path / "m" / "a.mid")).most_notes == 3


@pytest.mark.parametrize("how", ["message", "event", "chord", "note"])
def test_the_tempo_of_a_corpus_is_the_median_of_its_training_pieces(tmp_path, how):
    """Of each the mean; those of the other splits tell the sampler nothing."""
    folder, rows = tmp_path / "m", [(480 * n, 480 * n + 480, 60 + n) for n in range(8)]
    folder.mkdir()
    names = [f"{n}.mid" for n in range(10)]
    train = split_pieces(names)["train"]
    for n, name in enumerate(names):
        tempo = 200 if n not in train else 97 if train.index(n) < 5 else 60
        halves = [[0, round(60e6 / tempo)], [480 * 4, round(60e6 / tempo)]]
        if tempo == 60:  # half of the notes are slower, half of them faster
            halves = [[0, 1_500_000], [480 * 4, 500_000]]
        piece = Piece("", [track_of([(a, b, p + n) for a, b, p in rows])])
        write_midi(replace(piece, tempo=np.array(halves, np.int32)), folder / name)
    assert load_corpus(str(folder), reading=Reading(how)).tempo == 97
    assert load_corpus(str(folder), reading=Reading(how)).tempo == 97  # as it was kept
    one = load_corpus(str(folder / names[train[-1]]), reading=Reading(how))
    assert one.tempo == 60
    for n in train[:4]:  # of the rest most have a mean of 60
        midi = mido.MidiFile(folder / names[n])
        midi.tracks[0] = mido.MidiTrack(m for m in midi.tracks[0] if m.type != "set_tempo")
        midi.save(folder / names[n])
    assert load_corpus(str(folder), reading=Reading(how)).tempo == 60
    assert load_corpus(str(folder / names[train[0]]), reading=Reading(how)).tempo is None


# Splits -----------------------------------------------------------------------------------------


@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1), max_size=50))
@settings(deadline=None)
def test_splits_share_out_the_pieces(names):
    names = sorted(names)
    splits = split_pieces(names)
    if len(names) < 3:
        assert all(split == list(range(len(names))) for split in splits.values())
        return
    assert sorted(p for split in splits.values() for p in split) == list(range(len(names)))
    assert len(splits["valid"]) == len(splits["test"]) == max(1, round(len(names) / 10))
    assert splits["train"]


def test_splits_depend_on_names_alone():
    names = [f"{n}.mid" for n in range(40)]
    splits = split_pieces(names)
    backwards = split_pieces(names[::-1])
    for split, pieces in splits.items():
        assert {names[p] for p in pieces} == {names[::-1][p] for p in backwards[split]}


# Transposition ----------------------------------------------------------------------------------


def test_a_piece_may_be_transposed_as_far_as_its_notes_go(music):
    write_midi(Piece("", [track_of([(0, 240, 3), (240, 480, 120)])]), music / "wide.mid")
    corpus = load_corpus(str(music))
    for piece, (low, high) in enumerate(corpus.shifts[:8].tolist()):
        pitches = [message[2] for track in piece_of(piece).tracks for message in track.tolist()]
        assert (min(pitches) + low, max(pitches) + high) == (0, 127)
    assert corpus.shifts[8].tolist() == [-3, 7]


def test_the_vocabulary_has_what_training_words_become_when_transposed(music):
    plain = load_corpus(str(music))
    corpus = load_corpus(str(music), reading=Reading(transpose_augment=2))
    train = {plain.vocabulary.word(id) for p in plain.splits["train"] for id in plain.piece_ids(p)}
    moved = {transpose_word(word, shift) for word in train for shift in range(-2, 3)}
    assert set(corpus.vocabulary.words) == moved | set(plain.vocabulary.words)
    assert len(corpus.vocabulary) > len(plain.vocabulary)
    for piece in range(8):  # the music is what it was
        words = [corpus.vocabulary.word(id) for id in corpus.piece_ids(piece)]
        assert words == corpus.tokenizer.words(piece_of(piece))


# Rare words -------------------------------------------------------------------------------------


def test_rare_words_become_the_nearest_in_time(music):
    plain = load_corpus(str(music))
    corpus = load_corpus(str(music), reading=Reading(min_count=4))
    before = [plain.vocabulary.word(id) for id in plain.ids]
    after = [corpus.vocabulary.word(id) for id in corpus.ids]
    trained = Counter(
        plain.vocabulary.word(id) for p in plain.splits["train"] for id in plain.piece_ids(p)
    )
    kept = {}
    for word in set(corpus.vocabulary.words) - set(SPECIALS):
        kind, pitch, delta = parse(word)
        kept.setdefault((kind, pitch), []).append(delta)
    moved = 0
    for old, new in zip(before, after, strict=True):
        if old in SPECIALS:
            assert new == old
            continue
        kind, pitch, delta = parse(old)
        nearest = min(kept[kind, pitch], key=lambda known: (abs(known - delta), known))
        assert parse(new) == (kind, pitch, nearest)
        moved += old != new
        if trained[old] >= 4:
            assert new == old
    assert 0 < moved == corpus.merged_tokens
    assert corpus.merged_words == len(plain.vocabulary) - len(corpus.vocabulary)
    for word in set(after) - set(SPECIALS):  # rare itself only where its pitch has no other
        kind, pitch, _ = parse(word)
        assert trained[word] >= 4 or len(kept[kind, pitch]) == 1


def test_rare_words_are_merged_before_they_are_transposed(music):
    merged = load_corpus(str(music), reading=Reading(min_count=4))
    corpus = load_corpus(str(music), reading=Reading(min_count=4, transpose_augment=1))
    train = {merged.vocabulary.word(id) for p in merged.splits["train"]
             for id in merged.piece_ids(p)}  # fmt: skip
    moved = {transpose_word(word, shift) for word in train for shift in (-1, 0, 1)}
    assert set(corpus.vocabulary.words) == moved | set(merged.vocabulary.words)


def test_rare_words_are_of_messages_alone():
    with pytest.raises(UserError, match="--min-count is for messages"):
        Reading("chord", min_count=2)


# Copies -----------------------------------------------------------------------------------------


def test_a_copy_is_in_no_other_split(music):
    splits = load_corpus(str(music)).splits
    held = splits["test"][0]
    for name in ("copy-1.mid", "copy-2.mid", "copy-3.mid", "copy-4.mid"):
        (music / name).write_bytes((music / f"{held}.mid").read_bytes())
    corpus = load_corpus(str(music))
    where = {p: split for split, pieces in corpus.splits.items() for p in pieces}
    for (a, split), (b, other) in product(where.items(), repeat=2):
        assert split == other or not np.array_equal(corpus.piece_ids(a), corpus.piece_ids(b))
    assert corpus.copies
    assert set(where) | set(corpus.copies) == set(range(12))
    assert not set(where) & set(corpus.copies)
    assert corpus.summary()["copies"] == [corpus.pieces[p] for p in corpus.copies]


@pytest.mark.parametrize(
    ("splits", "contents", "kept", "copies"),
    [
        (([0, 1, 2], [3], [4]), "abcde", ([0, 1, 2], [3], [4]), []),
        (([0, 1, 2], [3], [4]), "abcbd", ([0, 2], [3], [4]), [1]),
        (([0, 1, 2], [3, 4], [5]), "abcdaa", ([1, 2], [3], [5]), [0, 4]),
        (([0, 1, 2], [3], [4]), "aabcd", ([0, 1, 2], [3], [4]), []),  # within a split
        (([0], [1], [2]), "aaa", ([0], [1], [2]), []),  # else nothing would be left
        (([0, 1], [0, 1], [0, 1]), "ab", ([0, 1], [0, 1], [0, 1]), []),
    ],
)
def test_what_is_left_out_as_a_copy(splits, contents, kept, copies):
    named = dict(zip(corpus_splits.SPLITS, splits, strict=True))
    found, left = corpus_splits.without_copies(named, [c.encode() for c in contents])
    assert (tuple(found.values()), left) == (kept, copies)


# Parts of a corpus, and its table ---------------------------------------------------------------


def test_so_many_pieces_alone(music):
    keys, drawn = set(), set()
    for seed in range(4):
        corpus = load_corpus(str(music), reading=Reading(max_pieces=5, seed=seed))
        assert len(corpus.pieces) == 5
        keys.add(corpus.key)
        drawn.add(tuple(corpus.pieces))
    assert len(keys) == 4
    assert len(drawn) > 1
    assert not load_corpus(str(music), reading=Reading(max_pieces=99)).skipped


def test_the_table_tells_rare_and_unseen_tokens_and_composers(tmp_path):
    folder = write_music(tmp_path / "music")
    for n, composer in enumerate(["bach", "Bach", "haydn"]):
        (folder / f"{n}.mid").rename(folder / f"{composer}-{n}.mid")
    corpus = load_corpus(str(folder))
    (held,) = corpus.splits["valid"]
    write_midi(Piece("", [track_of([(0, 9, 1), (9, 20, 1)])]), folder / corpus.pieces[held])
    corpus = load_corpus(str(folder))
    summary = corpus.summary()
    assert list(summary["composers"]) == ["Bach", "Haydn"]
    assert summary["composers"]["Bach"]["pieces"] == 2
    trained = Counter(w for p in corpus.splits["train"] for w in words_of(corpus, p))
    for split in corpus_splits.SPLITS:
        used = Counter(w for p in corpus.splits[split] for w in words_of(corpus, p))
        counts = summary["splits"][split]
        assert counts["rare_share"] == sum(n < 10 for n in used.values()) / len(used)
        unseen = sum(n for w, n in used.items() if w not in trained)
        assert counts["unseen_share"] == unseen / used.total()
    assert summary["splits"]["valid"]["unseen_share"] == 1
    assert summary["splits"]["train"]["unseen_share"] == 0 < summary["unseen_share"]


def words_of(corpus, piece):
    """The words of a piece that are messages."""
    words = (corpus.vocabulary.word(id) for id in corpus.piece_ids(piece))
    return [word for word in words if word not in SPECIALS]


def test_drums_are_left_out_unless_they_are_kept(tmp_path):
    folder = write_music(tmp_path / "music", pieces=3)
    midi = mido.MidiFile(folder / "0.mid")
    track = mido.MidiTrack()
    for kind in ("note_on", "note_off"):
        track.append(mido.Message(kind, channel=9, note=35, time=120))
    midi.tracks.append(track)
    midi.save(folder / "0.mid")
    plain, drums = (load_corpus(str(folder), reading=Reading(drums=d)) for d in (False, True))
    assert drums.lengths[0] == plain.lengths[0] + 3
    assert [m.file for m in plain.mended] == ["0.mid"]
    assert not drums.mended
    assert plain.summary()["mended"] == [m._asdict() for m in plain.mended]


# The cache --------------------------------------------------------------------------------------


@pytest.fixture
def unprepared(monkeypatch):
    """Make preparing a corpus an error, so that only the cache is left."""

    def no_prepare(*_):
        raise AssertionError("prepared again")

    return lambda: monkeypatch.setattr(corpora, "prepare_messages", no_prepare)


def test_the_second_load_is_from_the_cache(music, unprepared):
    (music / "bad.mid").write_bytes(b"rubbish")
    first = load_corpus(str(music))
    unprepared()
    second = load_corpus(str(music))
    assert same(first, second)
    assert isinstance(second.ids, np.memmap)
    assert isinstance(second.offsets, np.memmap)
    assert second.skipped
    assert first.summary() == second.summary()


def test_another_name_or_place_of_the_same_content_is_the_same_corpus(music, unprepared):
    first = load_corpus(str(music))
    unprepared()
    moved = music.rename(music.with_name("moved"))
    assert same(first, load_corpus(str(moved)))


def test_other_content_or_settings_is_another_corpus(music):
    readings = (Reading(), Reading(tracks="merge"), Reading(transpose_augment=2))
    keys = {load_corpus(str(music), reading=reading).key for reading in readings}
    (music / "7.mid").rename(music / "8.mid")
    keys.add(load_corpus(str(music)).key)
    flip(music / "1.mid", 0.9)
    keys.add(load_corpus(str(music)).key)
    (music / "2.mid").unlink()
    keys.add(load_corpus(str(music)).key)
    assert len(keys) == 6


@pytest.mark.parametrize("file", ["ids.npy", "offsets.npy", "shifts.npy", "corpus.json", "sha256"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_cache_is_made_anew(music, cache, monkeypatch, file, damage):
    first = in_memory(load_corpus(str(music)))
    path = cache / f"{first.key}-{FORMAT}" / file
    if damage == "flip":
        flip(path, 0.95)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    assert same(first, load_corpus(str(music)))
    monkeypatch.setattr(corpora, "prepare_messages", None)
    assert same(first, load_corpus(str(music)))  # and is whole again
    kept = {p.name for p in cache.iterdir()}
    assert kept == {f"{first.key}-{FORMAT}", "digests", f"pieces-{STORE_FORMAT}"}


@pytest.mark.parametrize("place", ["file", "full"])
def test_a_cache_that_cant_be_written_does_no_harm(music, cache, monkeypatch, place):
    if place == "file":
        cache.write_text("in the way")
    else:
        write = Path.write_bytes

        def refuse(path, data):
            if cache in path.parents:
                raise OSError(28, "No space left on device")
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", refuse)
    assert len(load_corpus(str(music)).pieces) == 8
    assert place == "file" or not list(cache.glob("[0-9a-f]*-*"))


def test_a_disk_without_any_room_is_an_error_of_the_disk(music, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space"):
        load_corpus(str(music))


def test_what_a_killed_preparation_left_is_removed_in_time(music, cache):
    for name in ("new", "old"):
        (cache / f"{disk.MAKING}{name}" / "new").mkdir(parents=True)
    os.utime(cache / f"{disk.MAKING}old", (0, 0))
    load_corpus(str(music))
    assert [p.name for p in cache.glob(".*")] == [f"{disk.MAKING}new"]


# Counts -----------------------------------------------------------------------------------------


def test_the_summary_counts_what_is_not_special(music):
    (music / "bad.mid").write_bytes(b"rubbish")
    corpus = load_corpus(str(music))
    summary = corpus.summary()
    assert {"pieces", "tokens", "unique_tokens", "skipped", "splits"} <= set(summary)
    words = [
        [w for w in corpus.tokenizer.words(piece_of(n)) if w not in SPECIALS] for n in range(8)
    ]
    for counts, pieces in [
        (summary, range(8)),
        *((summary["splits"][split], corpus.splits[split]) for split in corpus_splits.SPLITS),
    ]:
        used = [w for p in pieces for w in words[p]]
        assert counts["pieces"] == len(pieces)
        assert counts["tokens"] == len(used) == 40 * len(pieces)
        assert counts["unique_tokens"] == len(set(used))
    assert summary["skipped"] == [{"file": "bad.mid", "reason": corpus.skipped[0].reason}]
    json.dumps(summary)
    csv.writer(io.StringIO()).writerows(corpus.skipped)


def test_bach_is_bundled():
    summary = load_corpus("bach").summary()
    assert summary["pieces"] > 300
    assert summary["skipped"] == []
    assert summary["splits"]["train"]["pieces"] > summary["splits"]["test"]["pieces"] > 20


def test_what_is_for_piano_rolls_is_refused_for_messages():
    with pytest.raises(UserError, match="--max-polyphony is for piano rolls"):
        Reading(max_polyphony=8)
    Reading("chord", max_polyphony=8)
    with pytest.raises(UserError, match="--grid 16,24 is for messages and events"):
        Reading("note", grid="16,24")
    Reading("event", grid="16,24")


@pytest.mark.parametrize(
    ("reading", "error"),
    [
        ({}, "isn't for messages: add --representation event"),
        ({"representation": "event", "common_key": "C"}, "is for piano rolls: say A for events"),
        ({"representation": "event", "drums": True}, "drums have no key: add --common-key none"),
    ],
)
def test_a_common_key_that_makes_no_sense_is_refused(reading, error):
    with pytest.raises(UserError, match=error):
        Reading(**{"common_key": "A"} | reading)
    assert Reading(**reading | {"common_key": "none"}).key is None


@pytest.mark.parametrize(
    ("layout", "ids"), [("flatten", "d3be7a5a35ca6413"), ("merge", "067ec3be2c2a729f")]
)
def test_the_bundled_messages_are_those_of_the_first_version(layout, ids):
    """The markers of phrases, which came later, are no messages."""
    corpus = load_corpus("bach", reading=Reading(tracks=layout))
    assert hashlib.sha256(corpus.ids.tobytes()).hexdigest().startswith(ids)


def key_by_hand(folder, how):
    digest = hashlib.sha256(how)
    digest.update(hashlib.sha256(b"0.mid").digest())
    digest.update(hashlib.sha256((folder / "0.mid").read_bytes()).digest())
    return digest.hexdigest()[:32]


def test_the_key_of_whole_files_is_that_of_the_first_version(tmp_path):
    """So that its runs can be resumed; where a file is mended, they can't."""
    folder = write_music(tmp_path / "one", pieces=1)
    assert load_corpus(str(folder)).key == key_by_hand(folder, b"2 message flatten 0.1")
    drums = load_corpus(str(folder), reading=Reading(drums=True)).key
    assert drums == key_by_hand(folder, b"2 message flatten 0.1 drums")
    data = (folder / "0.mid").read_bytes()
    (folder / "0.mid").write_bytes(data[:-7])
    mended = load_corpus(str(folder))
    assert mended.mended
    assert mended.key != key_by_hand(folder, b"2 message flatten 0.1")
    assert load_corpus(str(folder)).key == mended.key
