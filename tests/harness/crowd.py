"""Many raters at once over HTTP, and a server that is killed under them."""

import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

from small import heed_signals

from lstm_music.listening.study import HEARD, digest

PATIENCE = 120  # seconds


class Server:
    """`bin/listen --db FILE` in a process of its own; use it in a `with`.

    files: how many the process may have open at most.
    """

    def __init__(self, path, port=None, files=None):
        self.path, self.port, self.files = path, port or free_port(), files

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def start(self):
        words = [sys.executable, "-m", "lstm_music.cli.listen", "--db", str(self.path), "--quiet"]
        self.process = subprocess.Popen(
            [*words, "--port", str(self.port)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            preexec_fn=self.prepare,  # noqa: PLW1509 — before any thread is begun
        )  # fmt: skip
        assert self.process.stdout.readline().startswith("http://127.0.0.1:")

    def prepare(self):
        heed_signals()
        if self.files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

    def kill_and_restart(self):
        """kill -9, and start again on the same file."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.start()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Crowd:
    """Raters who each begin, hear and rate everything, and ask again where there is no answer.

    acknowledged: (key, place) -> score; failures: refusals that should not have been.
    """

    def __init__(self, port, study, raters):
        self.port, self.study = port, study
        self.acknowledged, self.failures, self.asked_again = {}, [], Counter()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.rater, args=(n,)) for n in range(raters)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def wait(self, ratings):
        """Wait until so many ratings are acknowledged."""
        deadline = time.monotonic() + PATIENCE
        while len(self.acknowledged) < ratings:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def rater(self, number):
        draw = random.Random(number)
        line = Line(self, draw)
        key = line.ask("POST", "/api/begin", {"consent": True})["rater"]
        line.headers["X-Rater"] = key
        for place in range(self.study.places):
            line.ask("GET", f"/api/clip/{place}")
            time.sleep(self.study.seconds * (HEARD + 0.05 + 0.2 * draw.random()))
            score = draw.randint(1, 10)
            sent = {"place": place, "score": score, "heard": self.study.seconds}
            scores = line.ask("POST", "/api/rate", sent)["scores"]
            with self.lock:
                self.acknowledged[key, place] = score
                if scores[place] != score or len(scores) != place + 1:
                    self.failures.append((key, place, scores))


class Line:
    """A rater's connection."""

    def __init__(self, crowd, draw):
        self.crowd, self.draw, self.headers, self.connection = crowd, draw, {}, None

    def ask(self, method, path, body=None):
        """Return the answer, asking again until there is one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status, content = self.once(method, path, body)
            if status == 200:
                return content if path.startswith("/api/clip/") else json.loads(content)
            self.crowd.asked_again[status] += 1
            if status is not None and status != 429 and status < 500 and status != 425:
                self.crowd.failures.append((method, path, status, content.decode()))
                break
            time.sleep(0.05 + 0.2 * self.draw.random())
        raise AssertionError(f"no answer to {method} {path}")

    def once(self, method, path, body):
        """Return status and content, None where the connection broke."""
        headers = self.headers | ({"Content-Type": "application/json"} if body else {})
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.crowd.port, timeout=30
                )
            sent = json.dumps(body) if body else None
            self.connection.request(method, path, sent, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return None, b""


def check_kept(study, crowd):
    """Return what the file holds of what was acknowledged."""
    with study.connected() as db:
        rows = db.execute("SELECT key, place, clip, score FROM ratings JOIN raters USING (rater)")
        kept = rows.fetchall()
    scores = {(key, place): score for key, place, _, score in kept}
    lost = sum(scores.get((digest(k), p)) != s for (k, p), s in crowd.acknowledged.items())
    places = Counter((key, place) for key, place, _, _ in kept)
    clips = Counter((key, clip) for key, _, clip, _ in kept)
    return {
        "acknowledged": len(crowd.acknowledged),
        "lost": lost,
        "twice": sum(n > 1 for n in [*places.values(), *clips.values()]),
        "raters": len({key for key, _, _, _ in kept}),
    }
