"""Each side of a comparison in a process of its own, and rounds of all sides in turn.

A side that crashes, hangs or breaks its device is a row with the reason: its process is ended, a
new one makes its other rounds again, and the run goes on. Every wait has a limit.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing as mp
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from gpu_tools import END, end_session

# How long our threads wait awake; a rival's do as its users have it. Read as libraries are loaded.
OURS = ("OPENBLAS_THREAD_TIMEOUT", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LIMIT = 60.0  # seconds, of a request
NOT_RUN = "not run: no time was left"

Round: TypeAlias = Callable[[], float]
"""Takes a measurement: seconds."""


class Failed(Exception):
    """A request that a side couldn't answer; its text is one line."""


class Made(NamedTuple):
    """A round, warmed up, and what else is known of it."""

    round: Round
    known: dict[str, Any]


def first_line(error: BaseException) -> str:
    """Return an exception's name and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# In the side's process --------------------------------------------------------------------------


class Server:
    """Answers requests with the methods of a side, whose rounds it keeps.

    settings: what the side's module starts it with.
    """

    def __init__(self, module: str, settings: dict[str, Any] | None = None) -> None:
        self.module, self.settings, self.side = module, settings or {}, None
        self.rounds: dict[str, Round] = {}

    def answer(self, kind: str, key: str, given: dict[str, Any]) -> tuple[str, Any]:
        """Return "ok" and a result, "error" and its text, or "broken": the device is unusable."""
        try:
            return "ok", self.result(kind, key, given)
        except Exception as error:
            found = first_line(error)
        gc.collect()  # what the failed call held
        try:
            if self.side is not None:
                self.side.check()
        except Exception:
            return "broken", found
        return "error", found

    def result(self, kind: str, key: str, given: dict[str, Any]) -> Any:
        """Do what is asked for."""
        if self.side is None:
            if self.module == "gpu_rivals":
                for name in OURS:
                    os.environ.pop(name, None)
            self.side = importlib.import_module(self.module).start(**self.settings)
        side: Any = self.side
        if kind == "call":
            return getattr(side, key)(**given)
        if kind == "make":
            made: Made = getattr(side, given.pop("method"))(**given)
            self.rounds[key] = made.round
            return made.known
        if kind == "round":
            return self.rounds[key]()
        self.rounds.clear()
        gc.collect()
        return side.clean()


def serve(pipe: Any, module: str, log: Path | None, settings: dict[str, Any]) -> None:
    """Answer requests until the other end closes; log: where what is printed goes."""
    os.setsid()  # so that it can be ended with all that it starts
    if log is not None:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    server = Server(module, settings)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(server.answer(*request))


# In the command's -------------------------------------------------------------------------------


class Side(Protocol):
    """What `interleaved` asks of a side."""

    def make(self, key: str, limit: float, **given: Any) -> dict[str, Any]:
        """Make a round by a method of the side's."""

    def round(self, key: str, limit: float) -> float:
        """Take a round."""

    def drop(self) -> None:
        """Forget all rounds."""


class Worker:
    """A side in a process of its own, started at the first request.

    module: has a function `start` that returns the side, given settings. left: the seconds that
    there are. log: the file that gets what the process prints, None for where this one prints.
    """

    def __init__(
        self, module: str, left: Callable[[], float], log: Path | None = None, **settings: Any
    ) -> None:
        self.module, self.left, self.log, self.settings = module, left, log, settings
        self.process: Any = None
        self.pipe: Any = None
        self.made: dict[str, tuple[float, dict[str, Any]]] = {}

    def call(self, method: str, limit: float = LIMIT, **given: Any) -> Any:
        """Return what a method of the side's returns."""
        return self._ask("call", method, given, limit)

    def make(self, key: str, limit: float = LIMIT, **given: Any) -> dict[str, Any]:
        """Make a round by a method of the side's; return what else is known of it."""
        known: dict[str, Any] = self._ask("make", key, given, limit)
        self.made[key] = limit, given
        return known

    def round(self, key: str, limit: float = LIMIT) -> float:
        """Take a round: seconds."""
        if key not in self.made:
            raise Failed("lost with its process, which another round ended")
        try:
            return float(self._ask("round", key, {}, limit, but=key))
        except Failed:
            self.made.pop(key, None)
            raise

    def drop(self) -> None:
        """Forget all rounds."""
        self.made.clear()
        if self.process is not None:
            with contextlib.suppress(Failed):
                self._ask("drop", "", {}, LIMIT)

    def close(self) -> None:
        """End the process and all it started; one that hangs in the driver stays behind."""
        if self.process is not None:
            self.process.kill()
            end_session(self.process.pid)
            self.process.join(END)
            self.pipe.close()
        self.process = self.pipe = None

    def _ask(
        self, kind: str, key: str, given: dict[str, Any], limit: float, but: str | None = None
    ) -> Any:
        """Send a request and wait; where it ends the process, make all rounds again but one."""
        limit = min(limit, self.left())
        if limit <= 0:
            raise Failed(NOT_RUN)
        if self.process is None:
            self._start()
        try:
            self.pipe.send((kind, key, given))
            if not self.pipe.poll(limit):
                reason = f"not finished in {limit:.0f} s"
            else:
                state, found = self.pipe.recv()
                if state == "ok":
                    return found
                if state == "error":
                    raise Failed(found)
                reason = found
        except (EOFError, OSError):
            self.process.join(END)
            reason = f"the process died with status {self.process.exitcode}"
        self.close()
        self._restore(but)
        raise Failed(reason)

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(
            target=serve, args=(end, self.module, self.log, self.settings)
        )
        self.process.start()
        end.close()

    def _restore(self, but: str | None) -> None:
        """Make the rounds of the process before again, each once, while there is time."""
        lost, self.made = self.made, {}
        for key, (limit, given) in lost.items():
            if key != but and self.left() > 0:
                with contextlib.suppress(Failed):
                    self.make(key, limit, **given)


class Entry(NamedTuple):
    """One of several to compare: what names it in its row, its side, and how a round is made."""

    row: dict[str, Any]
    side: Side
    given: dict[str, Any]
    limit: float = LIMIT


def interleaved(
    entries: list[Entry],
    left: Callable[[], float],
    rounds: int,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Return a row for each: the median seconds of rounds taken in turn, or the error.

    left: seconds. keep is called with the rows as they stand, after each round.
    """
    rows = [dict(entry.row) for entry in entries]
    times: dict[int, list[float]] = {}
    for k, entry in enumerate(entries):
        try:
            rows[k] |= entry.side.make(str(k), min(entry.limit, left()), **entry.given)
            times[k] = []
        except Failed as error:
            rows[k]["error"] = str(error)
    for _ in range(rounds):
        for k in list(times):
            if left() <= 0:
                break
            try:
                times[k].append(entries[k].side.round(str(k), min(LIMIT, left())))
            except Failed as error:
                rows[k]["error"] = str(error)
                del times[k]
        keep([row | summary(times[k]) if k in times else row for k, row in enumerate(rows)])
    for side in {id(entry.side): entry.side for entry in entries}.values():
        side.drop()
    return [row | summary(times[k]) if k in times else row for k, row in enumerate(rows)]


def summary(seconds: list[float]) -> dict[str, Any]:
    """Return the median of rounds and how far they lie apart, as a share of it."""
    if not seconds:
        return {"error": NOT_RUN}
    median = statistics.median(seconds)
    return {"seconds": median, "spread": (max(seconds) - min(seconds)) / median}
