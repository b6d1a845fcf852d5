"""A headless Chromium that runs a page, spoken to over a pipe: DevTools protocol, no package."""

import json
import os
import select
import shutil
import signal
import tempfile
import time

NAMES = ("chromium", "chromium-browser") if os.name == "posix" else ()
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 120  # seconds for an answer, on a machine that is busy

MEASURED = []  # lines for the end of the tests' output


class Browser:
    """One page of a Chromium of its own; use it in a `with`.

    requests: the addresses that the page asked for; complaints: what its console and the browser
    said of errors, exceptions among them.
    """

    def __init__(self, width=1280, height=900, dark=False):
        self.size, self.dark = (width, height), dark
        self.requests, self.complaints = [], []
        self._read, self._left, self._number = None, b"", 0

    def __enter__(self):
        from fcntl import F_DUPFD, fcntl  # Windows has none

        self._profile = tempfile.mkdtemp(prefix="chromium-")
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        # Chromium reads commands from 3 and writes answers to 4; first out of the way of these.
        high = [fcntl(end, F_DUPFD, 10) for end in (there, back)]
        actions = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)]
        actions += [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = os.posix_spawn(CHROMIUM, words, os.environ, file_actions=actions)
        for end in (there, back, *high):
            os.close(end)
        pages = self.ask("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        asked = {"targetId": target, "flatten": True}
        self._session = self.ask("Target.attachToTarget", **asked)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.page(f"{domain}.enable")
        width, height = self.size
        mobile = width < 600
        self.page(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if mobile else 1, mobile=mobile,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
        self.page("Emulation.setEmulatedMedia", features=[scheme])
        return self

    def __exit__(self, *error):
        try:
            self.ask("Browser.close")
        except (OSError, RuntimeError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method, session=None, **parameters):
        """Send a command and return its result; note events on the way."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def page(self, method, **parameters):
        """Send a command to the page."""
        return self.ask(method, self._session, **parameters)

    def _next(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            if not select.select([self._read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium didn't answer for {PATIENCE} s")
            data = os.read(self._read, 1 << 16)
            if not data:
                raise RuntimeError("Chromium ended")
            self._left += data
        message, self._left = self._left.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event):
        said, method = event.get("params", {}), event.get("method")
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])

    def open(self, path):
        """Load a file and wait until the page has loaded."""
        self.page("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script):
        """Return what an expression, or its promise, gives."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        done = self.page("Runtime.evaluate", **asked)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def wait(self, condition):
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not: {condition}")
            time.sleep(0.05)

    def press(self, selector, key=" ", code="Space"):
        """Focus an element as Tab would, and press a key on it."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        asked = {"key": key, "code": code, "windowsVirtualKeyCode": ord(key)}
        self.page("Input.dispatchKeyEvent", type="keyDown", text=key, **asked)
        self.page("Input.dispatchKeyEvent", type="keyUp", **asked)

    def picture(self, whole=False):
        """Return a PNG of what is shown, or of the whole page, as base64."""
        return self.page("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
