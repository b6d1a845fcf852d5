"""Standard output and error that never end a command: what can't be printed is left out.

A log's disk may be full, a terminal closed, a reader gone, and a name on a disk need not be text.
None of that is a reason to lose what is being computed.
"""

import codecs
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
NAMES = "names"  # the error handler of this name


class Output:
    """A text stream that refuses nothing.

    error: why something couldn't be written, None where all was. What is refused for want of
    space is left out; where there is space again, what is printed then is there. A line goes out
    whole: `print` writes its text and its end apart, and other ranks print into the same pipe.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None
        self.partial = ""  # a line whose end is not there yet
        with suppress(AttributeError, OSError, ValueError):
            # A program that reads the names can use the bytes; a terminal can't show them.
            stream.reconfigure(errors="backslashreplace" if stream.isatty() else NAMES)

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        lines, end, rest = text.rpartition("\n")
        if end:
            self._send(self.partial + lines + end)
            self.partial = rest
        else:
            self.partial += rest
        return len(text)

    def _send(self, text: str) -> None:
        try:
            self.stream.write(text)
        except OSError as error:
            self.error = self.error or error

    def flush(self) -> None:
        """Have what was written leave this process, as far as it can."""
        if self.partial:
            self._send(self.partial)
            self.partial = ""
        try:
            self.stream.flush()
        except OSError as error:
            self.error = self.error or error

    def close_lost(self) -> None:
        """Flush a last time; what can't be written then goes nowhere, as Python would complain."""
        self.flush()
        if self.error is not None:
            with suppress(AttributeError, OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def unfailing() -> Iterator[Output]:
    """Have all printing go through an `Output`, and yield that of standard output.

    A stream that was closed before this process began prints nothing, and no file that is opened
    gets its number: what others print there would be written into it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = (Output(nowhere if stream is None else stream) for stream in before)
        sys.stdout, sys.stderr = out, err
        try:
            yield out
        finally:
            for stream in (out, err):
                stream.close_lost()
            sys.stdout, sys.stderr = before


def as_names(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode what the encoding has no bytes for: of a file's name that is no text, its own bytes.

    An error handler of `codecs`; anything else becomes an escape such as \\u266d.
    """
    assert isinstance(error, UnicodeEncodeError)
    character, end = error.object[error.start], error.start + 1
    with suppress(UnicodeEncodeError):
        return character.encode("ascii", "surrogateescape"), end
    return character.encode("ascii", "backslashreplace").decode(), end


codecs.register_error(NAMES, as_names)


def shown(text: object) -> str:
    """Return a text as a terminal may have it: control characters are written out, as \\x1b.

    Names in archives and files of others could otherwise move its cursor, hide what stands there
    or reverse the order of letters.
    """
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(text))


class Bar:
    """A progress bar that appears after two seconds, on a terminal."""

    def __init__(self, quiet: bool, units: str) -> None:
        from tqdm import tqdm

        hide = quiet or not sys.stderr.isatty()
        self.bar: Any = tqdm(unit=f" {units}", delay=2, leave=False, disable=hide)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, done: int, most: int) -> None:
        """Show how many units are done, of how many at most."""
        self.bar.total = most
        self.bar.update(done - self.bar.n)

    def print(self, line: object) -> None:
        """Print a line on standard output without breaking the bar."""
        self.bar.write(shown(line))
