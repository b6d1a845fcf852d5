"""The study, its orders and sounds, and the page that needs no server."""

import io
import json
import sqlite3
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from listening import HOSTILE, opened, put_ratings, small_study, tone
from lstm_music.audio import RATE, loudness
from lstm_music.errors import UserError
from lstm_music.listening import clips
from lstm_music.listening.export import read_back, static_page
from lstm_music.listening.study import Refused, Study, create, order_of, williams
from lstm_music.midi import write_midi
from small import piece_of

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


def rate_at(monkeypatch, study, key, place, score, now, heard=1.0):
    monkeypatch.setattr("lstm_music.listening.study.time.time", lambda: now)
    return study.rate(key, place, score, heard)


def test_a_study_that_another_process_makes_meanwhile_is_kept(tmp_path, monkeypatch):
    kept = small_study(tmp_path, systems=2)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(UserError, match="holds a study already"):
        small_study(tmp_path, systems=3)
    assert len(Study(kept.path).clips) == 2
    assert not list(tmp_path.glob(".*"))


def test_ratings_are_kept_and_survive(tmp_path, monkeypatch):
    study = small_study(tmp_path, repeats=1)
    key = study.begin()
    now = study.rater(key)[1]
    for place, score in enumerate((3, 10, 1, 4)):
        now += 2
        scores = rate_at(monkeypatch, study, key, place, score, now)
    assert scores == [3, 10, 1, 4]
    again = opened(tmp_path)
    assert again.rater(key)[2] == scores and again.places == 4
    assert [r[2] for r in again.all_ratings()] == [c.id for c in again.order(0)]
    text = (tmp_path / "study.sqlite").read_bytes()
    assert key.encode() not in text
    with sqlite3.connect(study.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with study.connected() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_what_cannot_be_rated(tmp_path, monkeypatch):
    study = small_study(tmp_path)
    key = study.begin()
    now = study.rater(key)[1]
    for place, score, later, heard, status in (
        (0, 5, 0.5, 1.0, 425), (0, 5, 2, 0.5, 425), (1, 5, 2, 1.0, 409), (99, 5, 2, 1.0, 409),
    ):  # fmt: skip
        with pytest.raises(Refused) as error:
            rate_at(monkeypatch, study, key, place, score, now + later, heard)
        assert error.value.status == status
    assert rate_at(monkeypatch, study, key, 0, 5, now + 2) == [5]
    assert rate_at(monkeypatch, study, key, 0, 5, now + 2) == [5]  # sent again
    with pytest.raises(Refused, match="rated already"):
        rate_at(monkeypatch, study, key, 0, 6, now + 9)
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
        {"heard": 0.2}, {"heard": None}, {"at": 1e99}, {"clip": "x"},
    ):  # fmt: skip
        bad.append(good | {"ratings": [good["ratings"][0] | change]})
    texts = [json.dumps(x) for x in bad] + ["{", "NaN", "[" * 100_000]
    for text in texts:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match="can't be added"):
            read_back(study, tmp_path / "r.json")
    assert study.all_ratings() == [] and study.all_raters() == []


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
