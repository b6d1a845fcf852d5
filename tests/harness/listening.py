"""A small study and a rater who uses the real page, for the tests of the listening test."""

import io
import json
import threading
import time
import wave
from contextlib import contextmanager

import numpy as np
from browser import Browser

from lstm_music.listening.clips import CLIP_RATE
from lstm_music.listening.study import Study, create

HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&"""


def tone(seconds, pitch=440.0):
    """A WAV file of a sine."""
    t = np.arange(round(seconds * CLIP_RATE)) / CLIP_RATE
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(CLIP_RATE)
        file.writeframes((9000 * np.sin(2 * np.pi * pitch * t)).astype("<i2").tobytes())
    return content.getvalue()


def small_study(folder, systems=3, clips=1, seconds=1.0, repeats=0, control=False, title="Small"):
    """A study of tones; the last system is the control, if there is to be one."""
    rows = [
        (f"maker-{s}", f"tone-{c}", control and s == systems - 1, tone(seconds, 300 + 50 * s + c))
        for s in range(systems)
        for c in range(clips)
    ]
    return create(folder / "study.sqlite", title, rows, seconds, repeats)


class Clock:
    """A clock that a test sets: `Study.clock`."""

    def __init__(self, study):
        self.now, study.clock = 1e5, self

    def __call__(self):
        return self.now


def put_ratings(study, tables, begun=1000.0):
    """Add raters without a server: tables has a dict for each, of system (or clip id) -> score."""
    for n, scores in enumerate(tables):
        order = study.order(n)
        rows = [
            {"clip": clip.id, "score": score_for(scores, clip), "heard": study.seconds, "at": begun}
            for clip in order
        ]
        given = {"rater": f"rater{n:027d}", "begun": begun, "comment": "", "ratings": rows}
        assert study.add(given)


def score_for(scores, clip):
    """The score of a clip by its id, or by its system."""
    return scores[clip.id] if clip.id in scores else scores[clip.system]


@contextmanager
def served(study, token=None):
    """The study's server, in a thread; gives its address."""
    from lstm_music.listening.server import listen, make_app

    server = listen(make_app(study, token), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_listen[0][1]}/"
    finally:
        server.close()


class Rater(Browser):
    """A browser that takes the listening test."""

    def visit(self, address):
        """Load the page and wait for what it shows first."""
        self.page("Page.navigate", url=address)
        self.wait("location.protocol !== 'about:' && document.readyState === 'complete'")
        self.wait("[...document.querySelectorAll('main > section')].some((s) => !s.hidden)")

    def click(self, selector):
        """Press the mouse on an element, as a hand would."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.page("Input.dispatchMouseEvent", type=kind, **at)

    def key(self, key, code=None):
        """Press a key on whatever has the focus."""
        asked = {"key": key, "code": code or key, "windowsVirtualKeyCode": ord(key[0])}
        if key == "Enter":
            asked["windowsVirtualKeyCode"] = 13
        if key == "Tab":
            asked["windowsVirtualKeyCode"] = 9
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        kind = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.page("Input.dispatchKeyEvent", **kind, **asked)
        self.page("Input.dispatchKeyEvent", type="keyUp", **asked)

    def begin(self):
        """Agree, and begin."""
        self.click("#consent")
        self.click("#begin button")
        self.wait(SHOWN)

    def hear(self):
        """Play the clip to its end."""
        self.wait("!document.getElementById('play').disabled")
        self.key(" ", "Space")
        self.wait("!document.getElementById('scores').disabled")

    def rate(self, score):
        """Choose a score and save it, by keyboard; wait for what comes next."""
        before = self.run(PLACE)
        self.key(str(score % 10), f"Digit{score % 10}")
        self.key("Enter")
        self.wait(f"{PLACE} > {before}")


SHOWN = "!document.getElementById('clip').hidden"
PLACE = "document.getElementById('done').value"


def soon(true, seconds=20):
    """Wait until a function says so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def opened(folder):
    """The study in a folder, opened anew."""
    return Study(folder / "study.sqlite")
