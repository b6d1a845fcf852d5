"""The server: what it answers, what it refuses, and what it keeps when it is killed."""

import http.client
import json
import os
import resource
import signal
import socket
from contextlib import closing
from types import SimpleNamespace

import pytest

from listening import HOSTILE, Clock, served, small_study
from lstm_music.listening.study import MOST_COMMENT

pytest.importorskip("flask", reason="the extra 'listen' is not installed")
pytest.importorskip("waitress", reason="the extra 'listen' is not installed")

from crowd import Crowd, Server, check_kept

from lstm_music.listening import server as server_module
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


def test_a_rater_from_beginning_to_end(client, study):
    clock = Clock(study)
    who = begin(client)
    sounds = set()
    for place in range(3):
        clip = client.get(f"/api/clip/{place}", headers=who)
        assert clip.mimetype == "audio/wav"
        sounds.add(clip.data)
        clock.now += 2
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
     "/api/clip/1e3", "/api/clip/99999999999999999999", "/static/x", "/api/clip/..%2f..",
     "/api/clip/" + "9" * 5000],
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
        {"place": 0, "score": 5, "heard": 10**400}, {"place": 10**400, "score": 5, "heard": 1},
    ],
)  # fmt: skip
def test_input_out_of_bounds_is_refused(client, study, sent):
    answer = client.post("/api/rate", json=sent, headers=begin(client))
    assert answer.status_code == 400 and "error" in answer.json
    assert study.all_ratings() == []


def test_bodies_and_keys_out_of_bounds(client, study):
    who = begin(client)
    rubbish = (b"{", b"\xff\xfe", b'{"heard": NaN, "place": 0, "score": 5}', b"[" * 5000,
               b"9" * 9999, b'{"heard": 1e999, "place": 0, "score": 5}')  # fmt: skip
    for data in rubbish:
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


def test_an_address_cannot_fill_the_study_with_raters(client, monkeypatch):
    monkeypatch.setattr(server_module, "time", SimpleNamespace(monotonic=lambda: 1.0))
    statuses = [client.post("/api/begin", json={"consent": True}).status_code for _ in range(310)]
    assert statuses == [200] * 300 + [429] * 10


def test_limits_fill_again_and_forget():
    limits = Limits(rate=2, most=3, kept=5)
    assert [limits.allow("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limits.allow("a", 0.5) and not limits.allow("a", 0.6)
    for n in range(100):
        limits.allow(str(n), 1.0)
    assert len(limits.buckets) == 5


def test_a_study_that_was_moved_makes_raters_wait_and_is_told_once(study):
    lines = []
    client, clock = make_app(study, tell=lines.append).test_client(), Clock(study)
    who, sent = begin(client), {"place": 0, "score": 5, "heard": 1.0}
    clock.now += 2
    aside = study.path.rename(study.path.with_name("aside"))
    for _ in range(3):
        answer = client.post("/api/rate", json=sent, headers=who)
        assert answer.status_code == 503 and "study.sqlite" not in answer.text
    assert client.get("/api/session", headers=who).status_code == 503
    (line,) = lines
    assert "study.sqlite' was moved, replaced or deleted: put it back" in line
    aside.rename(study.path)
    assert client.post("/api/rate", json=sent, headers=who).json == {"scores": [5]}
    study.path.rename(aside)
    assert client.post("/api/rate", json=sent, headers=who).status_code == 503
    assert lines == [line, line]


# Connections ------------------------------------------------------------------------------------


def half_open(port, many):
    """So many connections that each begin to ask for something and never end."""
    made = []
    for _ in range(many):
        made.append(socket.create_connection(("127.0.0.1", port), 30))
        made[-1].sendall(b"GET / HTTP/1.1\r\n")
    return made


def status_of(port):
    """What a connection of its own is answered."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as asked:
        asked.request("GET", "/api/study")
        return asked.getresponse().status


def test_half_open_connections_keep_nobody_out(study):
    """More of them than the server may have files."""
    with Server(study.path, files=200) as server:
        patient = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        held = half_open(server.port, 300)
        assert status_of(server.port) == 200
        held += half_open(server.port, 300)
        assert [status_of(server.port) for _ in range(3)] == [200] * 3
        assert server.process.poll() is None
        for one in held:
            one.close()
        patient.request("GET", "/api/study")
        assert patient.getresponse().status == 200
        patient.close()


def test_a_thousand_open_files_are_no_limit(study):
    """select() knows none above 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1400:
        pytest.skip("this system lets no process have so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    others = [open(os.devnull) for _ in range(1100)]  # noqa: SIM115
    try:
        with served(study) as address:
            assert status_of(int(address.rsplit(":", 1)[1].strip("/"))) == 200
    finally:
        for file in others:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "most"),
    [
        (1024, 2**19, 2064, 1000), (256, -1, 2064, 1000), (1024, 1024, 1024, 480),
        (4096, 4096, None, 1000), (-1, -1, None, 1000), (50, 50, 50, 1),
    ],
)  # fmt: skip
def test_there_are_as_many_connections_as_files_can_be_open(monkeypatch, soft, hard, raised, most):
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, value: limits.append(value))
    assert server_module.connections() == most
    assert limits[1:] == ([(raised, hard)] if raised else [])


def test_ctrl_c_ends_it(study):
    with Server(study.path) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130


@pytest.mark.slow
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
