import csv
import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music import corpus as corpora
from lstm_music import message_corpus, prepared
from lstm_music.corpus import FORMAT, Reading, load_corpus
from lstm_music.errors import UserError
from lstm_music.midi import Piece, write_midi
from lstm_music.prepared import split_pieces
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, transpose_word
from small import flip, piece_of, track_of, write_music


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
        ("bahc", "unknown corpus 'bahc': use bach, muse, jsb, nottingham, piano-midi, or the path"),
        ("", "unknown corpus ''"),
        ("no/such", "no file or folder 'no/such': check the path"),
        ("x.mid", "no file or folder 'x.mid'"),
        ("empty", "no MIDI files (.mid, .midi, .kar) in 'empty'"),
        ("empty.zip", "no MIDI files"),
        ("text.txt", "'text.txt' is not a MIDI file, a folder or a zip"),
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
        "cut.mid": whole[: len(whole) // 2],
        "empty.mid": b"",
        "rubbish.mid": bytes(range(100)),
        "silent.mid": midi_bytes(Piece("", [])),
        "smpte.mid": smpte(),
    }
    for name, data in bad.items():
        (music / name).write_bytes(data)
    (music / "gone.mid").symlink_to("nowhere.mid")
    corpus = load_corpus(str(music))
    assert len(corpus.pieces) == 8
    assert [s.file for s in corpus.skipped] == sorted([*bad, "gone.mid"])
    assert all(s.reason and "\n" not in s.reason for s in corpus.skipped)


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


@given(st.lists(st.integers(0, 20), min_size=1), st.floats(0.01, 1))
@settings(deadline=None)
def test_the_share_below_is_the_least_that_holds_it(values, share):
    bound = message_corpus.share_below(Counter(values), share)
    assert bound in values
    assert sum(v <= bound for v in values) >= share * len(values) - 1e-9
    assert sum(v < bound for v in values) < share * len(values)


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
    first = load_corpus(str(music))
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
    assert [p.name for p in cache.iterdir()] == [f"{first.key}-{FORMAT}"]


@pytest.mark.parametrize("place", ["file", "unwritable"])
def test_a_cache_that_cant_be_written_does_no_harm(music, cache, monkeypatch, place):
    if place == "file":
        cache.write_text("in the way")
    else:

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", refuse)
    assert len(load_corpus(str(music)).pieces) == 8
    assert place == "file" or not list(cache.iterdir())


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LSTM_MUSIC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepared.cache_folder() == tmp_path / "lstm-music"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared.cache_folder() == tmp_path / ".cache" / "lstm-music"

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert prepared.cache_folder().name == "lstm-music"


# Counts -----------------------------------------------------------------------------------------


def test_the_summary_counts_what_is_not_special(music):
    (music / "bad.mid").write_bytes(b"rubbish")
    corpus = load_corpus(str(music))
    summary = corpus.summary()
    assert list(summary) == ["pieces", "tokens", "unique_tokens", "skipped", "splits"]
    words = [
        [w for w in corpus.tokenizer.words(piece_of(n)) if w not in SPECIALS] for n in range(8)
    ]
    for counts, pieces in [
        (summary, range(8)),
        *((summary["splits"][split], corpus.splits[split]) for split in prepared.SPLITS),
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


@pytest.mark.parametrize("option", ["grid", "max_polyphony", "common_key"])
def test_what_is_for_piano_rolls_is_refused_for_messages(option):
    value = "A" if option == "common_key" else 8
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} is for piano rolls"):
        Reading(**{option: value})
    Reading("chord", **{option: value})


def test_the_key_of_messages_is_that_of_the_first_version(tmp_path):
    # So that its runs can be resumed: its bytes were "2 message flatten 0.1", names and contents.
    folder = write_music(tmp_path / "one", pieces=1)
    digest = hashlib.sha256(b"2 message flatten 0.1")
    digest.update(hashlib.sha256(b"0.mid").digest())
    digest.update(hashlib.sha256((folder / "0.mid").read_bytes()).digest())
    assert load_corpus(str(folder)).key == digest.hexdigest()[:32]
