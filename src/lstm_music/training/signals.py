"""Ctrl-C, SIGTERM and a closed terminal: heeded between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

HANGUP = getattr(signal, "SIGHUP", None)


class Interrupted(Exception):
    """The signal of this number asked training to stop; the run is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopWish:
    """While entered, the first signal that stops a program is a wish; the second stops at once.

    A closed terminal is never the second one: the system, the shell and the session's manager may
    each say it. number: of the first signal, 0 while there was none. Only the main thread may
    handle signals: in another this does nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopWish":
        self.number = 0
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._ask) for n in self._heeded()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @staticmethod
    def _heeded() -> list[int]:
        """Return the signals to heed: nohup has a closed terminal ignored, and so it stays."""
        return [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number = number
        elif number != HANGUP:
            raise KeyboardInterrupt
