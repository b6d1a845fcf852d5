"""The server: what it answers, what it refuses, and what it keeps when it is killed."""

import json
import signal
import time

import pytest

from listening import HOSTILE, small_study
from lstm_music.listening.study import MOST_COMMENT

pytest.importorskip("flask", reason="the extra 'listen' is not installed")
pytest.importorskip("waitress", reason="the extra 'listen' is not installed")

from crowd import Crowd, Server, check_kept
from lstm_music.listening.server import LOOPBACK, MOST_BODY, Limits, make_app


@pytest.fixture
def study(tmp_path):
    return small_study(tmp_path, seconds=1.0, title=HOSTILE)


@pytest.fixture
def client(study):
    return make_app(study).test_client()


def begin(client, **more):
    answer = client.post("/api/begin", json={"consent": True} | more)
    assert answer.status_code == 200
    return {"X-Rater": answer.json["rater"]}


def test_a_rater_from_beginning_to_end(client, study, monkeypatch):
    who = begin(client)
    sounds = set()
    now = time.time()
    for place in range(3):
        clip = client.get(f"/api/clip/{place}", headers=who)
        assert clip.mimetype == "audio/wav"
        sounds.add(clip.data)
        now += 2
        monkeypatch.setattr("lstm_music.listening.study.time.time", lambda now=now: now)
        sent = {"place": place, "score": place + 1, "heard": 1.0}
        assert client.post("/api/rate", json=sent, headers=who).json["scores"][-1] == place + 1
    assert len(sounds) == 3
    assert client.get("/api/session", headers=who).json == {"scores": [1, 2, 3]}
    assert client.post("/api/comment", json={"comment": HOSTILE}, headers=who).status_code == 200
    assert study.all_raters()[0][2] == HOSTILE
    assert client.get("/api/clip/3", headers=who).status_code == 409


def test_nothing_tells_what_a_clip_is(client, study):
    who = begin(client)
    answers = [client.get(p, headers=who) for p in ("/", "/listen.js", "/server.js", "/listen.css")]
    answers += [client.get("/api/study"), client.get("/api/clip/0", headers=who)]
    for answer in answers:
        assert answer.status_code == 200
        told = answer.data + str(answer.headers).encode()
        assert b"maker-" not in told and b"tone-0" not in told
        assert not any(clip.id.encode() in told for clip in study.clips)


def test_every_answer_is_protected(client):
    for path in ("/", "/api/study", "/api/session", "/nowhere"):
        headers = client.get(path).headers
        rules = headers["Content-Security-Policy"]
        assert "default-src 'none'" in rules and "unsafe" not in rules
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/../study.sqlite", "/%2e%2e/study.sqlite", "/api/clip/../../study.sqlite", "/api/clip/-1",
     "/api/clip/1e3", "/api/clip/99999999999999999999", "/static/x", "/api/clip/..%2f.."],
)  # fmt: skip
def test_no_path_reaches_a_file(client, path):
    assert client.get(path, headers=begin(client)).status_code in (404, 405, 308)


@pytest.mark.parametrize(
    "sent",
    [
        {"place": 0, "score": 0, "heard": 1}, {"place": 0, "score": 11, "heard": 1},
        {"place": 0, "score": 5.5, "heard": 1}, {"place": 0, "score": "5", "heard": 1},
        {"place": 0, "score": True, "heard": 1}, {"place": -1, "score": 5, "heard": 1},
        {"place": 9999, "score": 5, "heard": 1}, {"place": 0, "score": 5},
        {"place": 0, "score": 5, "heard": -1}, {"place": 0, "score": 5, "heard": "1; DROP TABLE"},
        {"place": None, "score": [], "heard": {}}, [], "5", None,
    ],
)  # fmt: skip
def test_input_out_of_bounds_is_refused(client, study, sent):
    answer = client.post("/api/rate", json=sent, headers=begin(client))
    assert answer.status_code == 400 and "error" in answer.json
    assert study.all_ratings() == []


def test_bodies_and_keys_out_of_bounds(client, study):
    who = begin(client)
    for data in (b"{", b"\xff\xfe", b'{"heard": NaN, "place": 0, "score": 5}', b"[" * 5000):
        sent = client.post("/api/rate", data=data, content_type="application/json", headers=who)
        assert sent.status_code == 400
    form = client.post("/api/rate", data={"place": 0, "score": 5, "heard": 1}, headers=who)
    assert form.status_code == 400  # what a form on a foreign page could send
    large = client.post("/api/comment", json={"comment": "x" * MOST_BODY}, headers=who)
    assert large.status_code == 413
    long = client.post("/api/comment", json={"comment": "x" * (MOST_COMMENT + 1)}, headers=who)
    assert long.status_code == 400
    for key in ("", "x", "x" * 32, "x" * 9999, "' OR 1=1 --aaaaaaaa"):
        assert client.get("/api/session", headers={"X-Rater": key}).status_code == 401
    assert client.post("/api/begin", json={}).status_code == 400
    assert client.post("/api/begin", json={"consent": "yes"}).status_code == 400
    early = client.post("/api/rate", json={"place": 0, "score": 5, "heard": 1}, headers=who)
    assert early.status_code == 425
    assert study.all_ratings() == []


def test_a_foreign_name_does_not_open_the_study(study):
    client = make_app(study).test_client()
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "[::2]:80"):
        assert client.get("/api/study", headers={"Host": host}).status_code == 421
    for host in LOOPBACK:
        name = f"[{host}]:8765" if ":" in host else f"{host}:8765"
        assert client.get("/api/study", headers={"Host": name}).status_code == 200
    assert make_app(study, "a-code-word", ()).test_client().get("/").status_code == 200


def test_a_token_is_asked_for_and_cannot_be_guessed(study):
    client = make_app(study, "a-code-word").test_client()
    assert client.get("/api/study").json["token"] is True
    begin(client, token="a-code-word")
    statuses = [
        client.post("/api/begin", json={"consent": True, "token": guess}).status_code
        for guess in [None, 5, "", "A-code-word", "ä\ud800", *map(str, range(40))]
    ]
    assert set(statuses) == {403, 429} and statuses[-1] == 429
    assert len(study.all_raters()) == 1


def test_who_asks_too_often_waits(client):
    who = begin(client)
    answers = [client.get("/api/session", headers=who) for _ in range(60)]
    assert answers[0].status_code == 200 and answers[-1].status_code == 429
    assert answers[-1].headers["Retry-After"] == "1"
    assert client.get("/api/session", headers=begin(client)).status_code == 200  # the others don't


def test_an_address_cannot_fill_the_study_with_raters(client, study):
    statuses = [client.post("/api/begin", json={"consent": True}).status_code for _ in range(310)]
    assert statuses[:300] == [200] * 300 and 429 in statuses[300:]


def test_limits_fill_again_and_forget():
    limits = Limits(rate=2, most=3, kept=5)
    assert [limits.allow("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limits.allow("a", 0.5) and not limits.allow("a", 0.6)
    for n in range(100):
        limits.allow(str(n), 1.0)
    assert len(limits.buckets) == 5


def test_ctrl_c_ends_it(study):
    with Server(study.path) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130


def test_killed_twice_it_keeps_every_rating_that_it_acknowledged(tmp_path):
    study = small_study(tmp_path, systems=3, seconds=0.3)
    with Server(study.path) as server:
        crowd = Crowd(server.port, study, raters=20)
        crowd.start()
        for enough in (10, 30):
            crowd.wait(enough)
            server.kill_and_restart()
        crowd.join()
    assert len(crowd.acknowledged) == 20 * 3
    assert check_kept(study, crowd) == {"acknowledged": 60, "lost": 0, "twice": 0, "raters": 20}
    assert json.dumps(crowd.failures) == "[]"
