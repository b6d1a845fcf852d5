"""The study, its orders and sounds, and the page that needs no server."""

import io
import json
import os
import shutil
import sqlite3
import wave
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from small import piece_of

from listening import HOSTILE, Clock, opened, put_ratings, small_study, tone
from lstm_music.errors import UserError
from lstm_music.listening import clips
from lstm_music.listening.export import read_back, static_page
from lstm_music.listening.study import Refused, Study, create, order_of, williams
from lstm_music.midi.files import write_midi
from lstm_music.rendering.audio import RATE, loudness

# Orders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 16))
def test_williams_squares_are_balanced(n):
    rows = williams(n)
    times = len(rows) // n
    assert len(rows) == (n if n % 2 == 0 else 2 * n)
    for row in rows:
        assert sorted(row) == list(range(n))
    for column in zip(*rows, strict=True):  # each clip equally often in each place
        assert sorted(column) == sorted(list(range(n)) * times)
    follows = [pair for row in rows for pair in pairwise(row)]  # and after each other one
    counts = {pair: follows.count(pair) for pair in follows}
    assert len(counts) == n * (n - 1) and set(counts.values()) == {times}


def test_repeats_come_at_the_end_and_differ_from_rater_to_rater():
    orders = [order_of(rater, 6, 2) for rater in range(6)]
    for order in orders:
        assert order[6:] == order[:2] and len(order) == 8
    assert {order[6] for order in orders} == set(range(6))


# The file ---------------------------------------------------------------------------------------


def rate_at(study, key, place, score, now, heard=1.0):
    study.clock.now = now
    return study.rate(key, place, score, heard)


def rated(path):
    """The scores in a file."""
    with closing(sqlite3.connect(path)) as db:
        return [score for (score,) in db.execute("SELECT score FROM ratings ORDER BY place")]


def test_a_study_that_another_process_makes_meanwhile_is_kept(tmp_path, monkeypatch):
    kept = small_study(tmp_path, systems=2)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(UserError, match="holds a study already"):
        small_study(tmp_path, systems=3)
    assert len(Study(kept.path).clips) == 2
    assert not list(tmp_path.glob(".*"))


def test_ratings_are_kept_and_survive(tmp_path):
    study = small_study(tmp_path, repeats=1)
    now = Clock(study).now
    key = study.begin()
    for place, score in enumerate((3, 10, 1, 4)):
        now += 2
        scores = rate_at(study, key, place, score, now)
    assert scores == [3, 10, 1, 4]
    again = opened(tmp_path)
    assert again.rater(key) == (0, scores) and again.places == 4
    assert [r[2] for r in again.all_ratings()] == [c.id for c in again.order(0)]
    text = (tmp_path / "study.sqlite").read_bytes()
    assert key.encode() not in text
    with study.connected() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


def test_each_rating_is_in_the_file_alone(tmp_path):
    study = small_study(tmp_path)
    now = Clock(study).now
    key = study.begin()
    scores = []
    for place, score in enumerate((3, 10, 1)):
        scores.append(score)
        assert rate_at(study, key, place, score, now + 2 * (place + 1)) == scores
        alone = tmp_path / "elsewhere" / f"{place}.sqlite"
        alone.parent.mkdir(exist_ok=True)
        shutil.copy(study.path, alone)  # while the study is open
        assert rated(alone) == scores
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "study.sqlite"]


def test_a_study_of_before_is_in_its_file_once_it_is_opened(tmp_path):
    path = small_study(tmp_path).path
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    db.execute("INSERT INTO raters VALUES (0, 'k', 1.0, '')")
    clip = db.execute("SELECT id FROM clips").fetchone()
    db.execute("INSERT INTO ratings VALUES (0, 0, ?, 7, 1.0, 1.0)", clip)
    db.commit()
    beside = path.with_name(f"{path.name}-wal")
    assert beside.stat().st_size
    kept = path.read_bytes(), beside.read_bytes()
    db.close()
    path.write_bytes(kept[0])
    beside.write_bytes(kept[1])  # as after kill -9
    assert [r[3] for r in opened(tmp_path).all_ratings()] == [7]
    assert rated(shutil.copy(path, tmp_path / "alone")) == [7]
    assert not beside.exists()


@pytest.mark.parametrize("what", ["moved", "deleted", "replaced", "moved meanwhile"])
def test_nothing_is_acknowledged_that_is_not_in_the_file_of_that_name(tmp_path, what):
    study = small_study(tmp_path)
    now = Clock(study).now
    key = study.begin()
    rate_at(study, key, 0, 3, now + 2)
    aside = tmp_path / "aside"
    shutil.copy(study.path, aside)

    def change(sql="COMMIT"):
        if sql == "COMMIT":
            os.replace(*((aside, study.path) if what == "replaced" else (study.path, aside)))

    if what == "moved meanwhile":
        study.db.set_trace_callback(change)
    elif what == "deleted":
        study.path.unlink()
    else:
        change()
    for _ in range(2):
        with pytest.raises(UserError, match="was moved, replaced or deleted: put it back"):
            rate_at(study, key, 1, 9, now + 4)
    study.db.set_trace_callback(None)
    if what.startswith("moved"):
        os.replace(aside, study.path)
        assert rate_at(study, key, 1, 9, now + 4) == [3, 9]
        assert rated(study.path) == [3, 9]
    elif what == "replaced":
        assert rated(study.path) == [3]
        assert Study(study.path).rater(key) == (0, [3])
    assert not list(tmp_path.glob("*-journal"))


def test_a_clock_that_is_set_back_or_forward_keeps_nobody_waiting(tmp_path, monkeypatch):
    study = small_study(tmp_path)
    now = Clock(study).now
    wall = [1.7e9]
    monkeypatch.setattr("lstm_music.listening.study.time.time", lambda: wall[0])
    key = study.begin()
    for place, hour in enumerate((-1, 2, -24)):
        wall[0] += hour * 3600
        with pytest.raises(Refused, match="listen to the whole clip"):
            rate_at(study, key, place, 5, now + 0.5)
        now += 2
        assert rate_at(study, key, place, 5, now) == [5] * (place + 1)
    wall[0] -= 3600
    other = opened(tmp_path)
    Clock(other).now = 0.0  # of a computer that was started anew
    key = other.begin()
    again = opened(tmp_path)
    Clock(again).now = -1e6
    assert rate_at(again, key, 0, 5, -1e6) == [5]


def test_what_cannot_be_rated(tmp_path):
    study = small_study(tmp_path)
    now = Clock(study).now
    key = study.begin()
    for place, score, later, heard, status in (
        (0, 5, 0.5, 1.0, 425), (0, 5, 2, 0.5, 425), (1, 5, 2, 1.0, 409), (99, 5, 2, 1.0, 409),
    ):  # fmt: skip
        with pytest.raises(Refused) as error:
            rate_at(study, key, place, score, now + later, heard)
        assert error.value.status == status
    assert rate_at(study, key, 0, 5, now + 2) == [5]
    assert rate_at(study, key, 0, 5, now + 2) == [5]  # sent again
    with pytest.raises(Refused, match="rated already"):
        rate_at(study, key, 0, 6, now + 9)
    with pytest.raises(Refused) as error:
        study.rate("x" * 32, 0, 5, 1.0)
    assert error.value.status == 401
    assert len(study.all_ratings()) == 1


def test_studies_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="2 to 60"):
        create(tmp_path / "a", "", [("s", "c", False, tone(1))], 1.0, 0)
    small_study(tmp_path)
    with pytest.raises(UserError, match="already"):
        small_study(tmp_path)
    with pytest.raises(UserError, match="no study"):
        Study(tmp_path / "none")
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 100)
    with pytest.raises(UserError, match="can be read"):
        Study(tmp_path / "rubbish")


FORGED = {
    "infinite": "UPDATE study SET value = 'Infinity' WHERE key = 'repeats'",
    "infinite seconds": "UPDATE study SET value = 'Infinity' WHERE key = 'seconds'",
    "huge seconds": f"UPDATE study SET value = '1{'0' * 400}' WHERE key = 'seconds'",
    "large seconds": "UPDATE study SET value = '1e300' WHERE key = 'seconds'",
    "no seconds": "UPDATE study SET value = '0' WHERE key = 'seconds'",
    "deep": f"UPDATE study SET value = '{'[' * 100_000}' WHERE key = 'title'",
    "no text": "UPDATE study SET value = '[]' WHERE key = 'title'",
    "no id": "DELETE FROM study WHERE key = 'id'",
    "newer": "UPDATE study SET value = '2' WHERE key = 'format'",
    "more repeats than clips": "UPDATE study SET value = '4' WHERE key = 'repeats'",
    "one clip": "DELETE FROM clips WHERE number > 0",
    "a clip of 40 MB": "UPDATE clips SET sound = zeroblob(40000000)",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON raters BEGIN DELETE FROM raters; END",
    "a view": "DROP TABLE clips; CREATE VIEW clips AS WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL "
    "SELECT id + 1 FROM c) SELECT id, id AS number, id AS system, id AS name, 0 AS control, "
    "id AS sound FROM c",
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_study_of_a_stranger_is_refused_in_a_line(tmp_path, what):
    path = small_study(tmp_path).path
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORGED[what])
    with pytest.raises(UserError, match="holds no study that can be read") as refused:
        Study(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_was_copied_in_the_middle_of_a_write_says_so(tmp_path):
    path = small_study(tmp_path).path
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)  # a table's own page
    path.write_bytes(data)
    with pytest.raises(UserError, match="holds no study that can be read"):
        Study(path)


# Sounds -----------------------------------------------------------------------------------------


def noise(seconds, level, rate=RATE, lead=0.0):
    rng = np.random.default_rng(0)
    quiet = np.zeros(round(lead * rate))
    return np.concatenate([quiet, level * rng.uniform(-1, 1, round(seconds * rate))])[:, None]


def read(wav):
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getframerate() == clips.CLIP_RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def test_clips_have_one_length_and_one_loudness():
    content = io.BytesIO()
    write_midi(piece_of(1, notes=40), content)
    sounds = [
        clips.Sound("a", "quiet", noise(3, 0.02).astype(np.float32)),
        clips.Sound("b", "late", noise(4, 0.5, lead=1.5).astype(np.float32)),
        clips.from_midi("c", "piece", content.getvalue()),
        clips.from_wav("d", "tone", tone(5)),
    ]
    files, seconds, level = clips.alike(sounds, 10)
    assert seconds == pytest.approx(3, abs=0.05)
    heard = [read(wav) for wav in files]
    assert len({len(samples) for samples in heard}) == 1
    for samples in heard:
        up = np.repeat(samples, RATE // clips.CLIP_RATE)[:, None].astype(np.float32)
        assert loudness(up) == pytest.approx(level, abs=1.0)
        assert np.abs(samples).max() < 0.999 and np.abs(samples[[0, -1]]).max() < 1e-3
        assert np.abs(samples[: clips.CLIP_RATE // 10]).max() > 0.001  # no silence first
    measured = [loudness(np.repeat(x, 2)[:, None].astype(np.float32)) for x in heard[2:]]
    assert abs(measured[0] - measured[1]) < 0.3
    assert clips.alike(sounds, 2)[1] == 2


def test_sounds_that_cannot_be_used():
    for content, words in ((b"RIFF", "WAV"), (b"", "WAV")):
        with pytest.raises(UserError, match=words):
            clips.from_wav("a", "x.wav", content)
    silent = clips.Sound("a", "silent", np.zeros((RATE * 2, 1), np.float32))
    with pytest.raises(UserError, match="less than a second"):
        clips.alike([silent], 5)


# Without a server -------------------------------------------------------------------------------


def file_of(study, row=0, scores=(5, 6, 7), **changes):
    order = williams(len(study.clips))[row]
    order = order + order[: study.repeats]
    ratings = [
        {"clip": study.clips[n].id, "score": s, "heard": 1.0, "at": 5.0}
        for n, s in zip(order, scores, strict=True)
    ]
    return {
        "format": 1, "study": study.id, "rater": "ab" * 16, "row": row, "begun": 1.0,
        "ratings": ratings, "comment": HOSTILE,
    } | changes  # fmt: skip


def test_ratings_of_the_static_page_are_added_once(tmp_path):
    study = small_study(tmp_path)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(file_of(study, 2)))
    assert read_back(study, path) is True
    assert read_back(study, path) is False
    assert [r[3] for r in study.all_ratings()] == [5, 6, 7]
    assert study.all_raters()[0][2] == HOSTILE
    path.write_text(json.dumps(file_of(study, 2, (5, 6, 8))))
    with pytest.raises(UserError, match="added before"):
        read_back(study, path)


def test_files_that_are_not_what_the_page_saves(tmp_path):
    study = small_study(tmp_path)
    good = file_of(study)
    swapped = good | {"ratings": good["ratings"][::-1]}
    bad = [
        [], 5, {}, good | {"study": "other"}, good | {"rater": "../../etc"}, good | {"row": 99},
        good | {"row": True}, swapped, good | {"comment": "x" * 5000}, good | {"begun": -1},
        good | {"ratings": good["ratings"] * 40}, good | {"ratings": [None]}, good | {"format": 2},
    ]  # fmt: skip
    for change in (
        {"score": 11}, {"score": 0}, {"score": 5.5}, {"score": "5"}, {"score": True},
        {"heard": 0.2}, {"heard": None}, {"at": 1e99}, {"clip": "x"}, {"heard": 10**400},
        {"at": 10**400}, {"at": float("inf")}, {"heard": float("nan")},
    ):  # fmt: skip
        bad.append(good | {"ratings": [good["ratings"][0] | change]})
    texts = [json.dumps(x) for x in bad] + ["{", "NaN", "[" * 100_000, "9" * 10**6, " " * 10**7]
    for text in texts:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match="can't be added"):
            read_back(study, tmp_path / "r.json")
    assert study.all_ratings() == [] and study.all_raters() == []


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "none"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    study, path = small_study(tmp_path), tmp_path / "r.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match="can't be added"):
        read_back(study, path)


def test_the_static_page_tells_nothing_of_the_clips(tmp_path):
    study = small_study(tmp_path, title=HOSTILE)
    content = static_page(study)
    assert "maker-" not in content and "tone-0" not in content
    assert "<script>alert" not in content and "http-equiv" in content
    assert all(clip.id in content for clip in study.clips)


def test_put_ratings_is_what_raters_give(tmp_path):
    study = small_study(tmp_path)
    put_ratings(study, [{"maker-0": 3, "maker-1": 4, "maker-2": 5}])
    assert sorted(r[3] for r in study.all_ratings()) == [3, 4, 5]
