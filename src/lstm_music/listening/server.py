"""The study on the web: a page, and what it asks for and sends, each bounded and checked."""

import hmac
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from string import Template
from typing import Any

from flask import Flask, Response, jsonify, request
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import MultiSocketServer, TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from werkzeug.exceptions import HTTPException

from lstm_music.errors import UserError
from lstm_music.listening import page_file
from lstm_music.listening.study import (
    HIGHEST,
    LOWEST,
    MOST_COMMENT,
    Refused,
    Study,
    printable,
    public,
)
from lstm_music.untrusted import dictionary, number, parse_json, whole_number

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_BODY = 16_384  # bytes
MOST_HEARD = 1e6  # seconds
THREADS, CONNECTIONS = 16, 1000
A_CONNECTION, RESERVE = 2, 64  # open files: its socket, what waits to be sent; and all the rest
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FILES = {
    "/": ("listen.html", "text/html; charset=utf-8"),
    "/listen.css": ("listen.css", "text/css; charset=utf-8"),
    "/listen.js": ("listen.js", "text/javascript; charset=utf-8"),
    "/server.js": ("server.js", "text/javascript; charset=utf-8"),
}


TOO_MANY = "too many requests: wait a moment"


class Limits:
    """How often each rater or address may ask: a bucket of tokens that fills at a rate.

    rate: tokens a second; most: tokens a full bucket holds; kept: buckets, the oldest go first.
    """

    def __init__(self, rate: float, most: float, kept: int = 10_000) -> None:
        self.rate, self.most, self.kept = rate, most, kept
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.lock = threading.Lock()

    def allow(self, who: str, now: float | None = None) -> bool:
        """Take a token of someone's bucket; return False where there is none."""
        now = time.monotonic() if now is None else now
        with self.lock:
            tokens, then = self.buckets.pop(who, (self.most, now))
            tokens = min(self.most, tokens + (now - then) * self.rate)
            self.buckets[who] = (max(tokens - 1, -1.0) if tokens >= 1 else tokens, now)
            while len(self.buckets) > self.kept:
                self.buckets.popitem(last=False)
            return tokens >= 1


class Door:
    """Who may ask, and how often: by the key of a rater, and by address.

    token: what a new rater must know, None where anyone who reaches the server may rate.
    """

    def __init__(self, study: Study, token: str | None) -> None:
        self.study, self.token = study, token
        self.by_rater, self.by_address = Limits(10, 30), Limits(200, 1000)
        self.strangers = Limits(2, 20)  # who say a wrong key or token
        self.beginners = Limits(2, 300)  # a hall full of raters may share an address

    def key(self) -> str:
        """Return the key of the rater who asks. Raises Refused where there is none."""
        key: str = request.headers.get("X-Rater", "")
        if not 16 <= len(key) <= 64 or not key.isascii():
            raise Refused(401, "this study doesn't know you: begin anew")
        if not self.by_rater.allow(key):
            raise Refused(429, TOO_MANY)
        return key

    def known(self) -> tuple[str, int, list[int]]:
        """Return the key, number and scores of the rater who asks."""
        key = self.key()
        try:
            rater, scores = self.study.rater(key)
        except Refused:
            self.stranger()
            raise
        return key, rater, scores

    def check(self, token: Any) -> None:
        """Raise Refused where what a new rater says isn't the token."""
        if self.token is None:
            return
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode(errors="replace"), self.token.encode()
        ):
            self.stranger()
            raise Refused(403, "this is not the code that the study asks for")

    def let_in(self) -> None:
        """Count a new rater; raises Refused where an address sends too many."""
        if not self.beginners.allow(request.remote_addr or ""):
            raise Refused(429, TOO_MANY)

    def stranger(self) -> None:
        """Count someone who is wrong; raises Refused where they guess."""
        if not self.strangers.allow(request.remote_addr or ""):
            raise Refused(429, TOO_MANY)


def make_app(
    study: Study,
    token: str | None = None,
    hosts: tuple[str, ...] = LOOPBACK,
    tell: Callable[[str], None] = lambda line: None,
) -> Flask:
    """Return the web application.

    token: as of Door; hosts: the names by which it may be called, empty for any, so that no
    foreign name that leads here (DNS rebinding) opens the study; tell: called, once while that
    lasts, with why nothing can be kept.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY
    door = Door(study, token)
    add_guards(app, door, hosts)
    add_failures(app, tell)
    for path, (name, kind) in FILES.items():
        app.add_url_rule(path, name, file_view(name, kind))
    add_api(app, study, door)
    return app


def add_guards(app: Flask, door: Door, hosts: tuple[str, ...]) -> None:
    """Add what stands before every request and after every answer."""

    @app.before_request
    def guard() -> Response | None:
        if not door.by_address.allow(request.remote_addr or ""):
            return refusal(429, TOO_MANY)
        if hosts and host_of(request.host) not in hosts:
            return refusal(421, "this server answers to another name")
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        if response.status_code in (429, 503):
            response.headers["Retry-After"] = "1"
        return response


def add_failures(app: Flask, tell: Callable[[str], None]) -> None:
    """Add what answers where something can't be done."""
    told: list[str] = []

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return refusal(error.status, str(error))

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> Response:
        return refusal(error.code or 500, error.name)

    @app.errorhandler(UserError)
    def not_kept(error: UserError) -> Response:
        if told != [str(error)]:
            told[:] = [str(error)]
            tell(str(error))
        return refusal(503, "can't write to the disk now")

    @app.after_request
    def kept(response: Response) -> Response:
        if request.method == "POST" and response.status_code == 200:
            told.clear()
        return response


def add_api(app: Flask, study: Study, door: Door) -> None:
    """Add what the page asks for and sends."""

    @app.get("/api/study")
    def about() -> Response:
        return jsonify(public(study) | {"token": door.token is not None})

    @app.post("/api/begin")
    def begin() -> Response:
        given = body()
        if given.get("consent") is not True:
            raise Refused(400, "say that you take part first")
        door.check(given.get("token"))
        door.let_in()
        return jsonify({"rater": study.begin(), "scores": []})

    @app.get("/api/session")
    def session() -> Response:
        return jsonify({"scores": door.known()[2]})

    @app.get("/api/clip/<int(max=999):place>")
    def clip(place: int) -> Response:
        _, rater, scores = door.known()
        if place != len(scores) or place >= study.places:
            raise Refused(409, "it is another clip's turn")
        sound = study.sound(study.order(rater)[place].id)
        return Response(sound, mimetype="audio/wav")

    @app.post("/api/rate")
    def rate() -> Response:
        (key, _, _), given = door.known(), body()
        try:
            place = whole_number(given.get("place"), "place", 0, study.places - 1)
            score = whole_number(given.get("score"), "score", LOWEST, HIGHEST)
            heard = number(given.get("heard"), "heard", 0, MOST_HEARD)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        return jsonify({"scores": study.rate(key, place, score, heard)})

    @app.post("/api/comment")
    def comment() -> Response:
        (key, _, _), given = door.known(), body()
        text = given.get("comment")
        if not isinstance(text, str) or len(text) > MOST_COMMENT:
            raise Refused(400, f"a comment is a text of at most {MOST_COMMENT} letters")
        study.comment(key, printable(text))
        return jsonify({"kept": True})


def file_view(name: str, kind: str) -> Callable[[], Response]:
    """Return what answers with a file of the page, read once."""
    content = served_page() if name == "listen.html" else page_file(name)
    return lambda: Response(content, content_type=kind)


def served_page() -> str:
    """Return the page as the server sends it, its style and scripts beside it."""
    return Template(page_file("listen.html")).substitute(
        policy="",
        style='<link rel="stylesheet" href="/listen.css">',
        scripts='<script src="/server.js"></script>\n<script src="/listen.js"></script>',
    )


def refusal(status: int, message: str) -> Response:
    """Return an answer that says why not."""
    response = jsonify({"error": message})
    response.status_code = status
    return response


def host_of(host: str) -> str:
    """Return a Host header without its port and brackets."""
    return host.rpartition(":")[0].strip("[]") if host.rpartition(":")[2].isdigit() else host


def body() -> dict[str, Any]:
    """Return the JSON object that was sent. Raises Refused for anything else."""
    try:  # only as application/json: no foreign form sends it
        return dictionary(parse_json(request.get_data() if request.is_json else b""), "it")
    except ValueError as error:
        raise Refused(400, "not a JSON object") from error


# Serving ----------------------------------------------------------------------------------------


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Waitress, which would let nobody in while it has all the connections that it may have."""

    most = CONNECTIONS

    def idle(self) -> list[Any]:
        """Return the connections that ask for nothing, the oldest first."""
        channels = [one for one in self._map.values() if isinstance(one, HTTPChannel)]
        return [one for one in channels if not (one.requests or one.will_close)]

    def readable(self) -> bool:
        """Return whether there is room for another, or can be made."""
        return bool(super().readable() and (len(self._map) < self.most or self.idle()))

    def handle_accept(self) -> None:
        """Let a connection in, where there are too many in place of the oldest that is idle."""
        if len(self._map) >= self.most:
            idle = self.idle()
            for oldest in ([one for one in idle if not one.total_outbufs_len] or idle)[:1]:
                oldest.will_close = True
        super().handle_accept()


def connections() -> int:
    """Return how many connections there may be; let this process open files for so many."""
    if sys.platform == "win32":
        return CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS * A_CONNECTION + RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems say more than they give
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(1, min(CONNECTIONS, (soft - RESERVE) // A_CONNECTION))


def listen(app: Flask, host: str, port: int) -> MultiSocketServer:
    """Return what serves on all addresses of a host. Raises OSError or ValueError."""
    settings = Adjustments(
        host=host, port=port, threads=THREADS, connection_limit=sys.maxsize, channel_timeout=60,
        max_request_body_size=MOST_BODY, max_request_header_size=MOST_BODY, ident=None,
        clear_untrusted_proxy_headers=True, asyncore_use_poll=True,
    )  # fmt: skip
    most = connections()
    work = ThreadedTaskDispatcher()
    work.set_thread_count(THREADS)
    sockets: dict[int, Any] = {}
    places = []
    for address in settings.listen:
        made = Listener(app, sockets, dispatcher=work, adj=settings, sockinfo=address)
        made.most = most
        places.append((made.effective_host, made.effective_port))
    return MultiSocketServer(sockets, settings, places, work)


def serve(app: Flask, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until interrupted; ready is told the address first.

    Raises UserError where the port can't be had.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        server = listen(app, host, port)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"can't serve on {host}, port {port} ({reason}): try another --port"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{server.effective_listen[0][1]}/")
    try:
        server.run()
    finally:
        server.close()
