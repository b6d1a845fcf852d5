"""Files and names that may be anybody's: size, structure and types checked first."""

import errno
import json
import math
import os
import shlex
import stat
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

JSON_BYTES = 32 << 20  # the paper's vocabulary of 35,509 words takes 1 MB
LEAST_READ = 1 << 20  # bytes to ask for: some files of the system's say that they have none
JSON_VALUES = 2_000_000  # each costs up to some 70 bytes

Data = TypeVar("Data")
Range = tuple[float, float]


class TooLarge(ValueError):
    """A file has more bytes than what it should be ever needs."""


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read, without waiting for whoever would write into a pipe.

    Raises OSError, or ValueError for a pipe, a device or a socket, wherever a link leads to it.
    """
    if stat.S_ISDIR(mode := path.stat().st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):  # merely to open some devices does something
        raise ValueError("it is no plain file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it has become another since
        file.close()
        raise ValueError("it is no plain file")
    return file


def read_bounded(path: Path, most: int) -> bytes:
    """Return a file's content. Raises OSError, or ValueError for no plain file.

    Raises TooLarge for more than `most` bytes, of which then none are read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            data = file.read(min(most, max(size, LEAST_READ)) + 1)  # what is asked for is allocated
            if len(data) <= most:
                return data
    raise TooLarge(f"it has more than {most:,} bytes")


def parse_json(data: bytes) -> Any:
    """Return what JSON text says. Raises ValueError for anything else, and for very many values."""
    values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if values > JSON_VALUES:
        raise ValueError(f"it holds more than {JSON_VALUES:,} values")
    try:
        return json.loads(data, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def no_number(name: str) -> NoReturn:
    """Raise ValueError for NaN, Infinity or -Infinity, which Python takes for JSON."""
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """Return what a JSON file says. Raises OSError, or ValueError for anything else."""
    return parse_json(read_bounded(path, most))


def dictionary(value: Any, what: str) -> dict[str, Any]:
    """Return a dictionary. Raises ValueError for anything else; what: its name."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no table of names and values")
    return value


def whole_number(value: Any, what: str, low: int, high: int) -> int:
    """Return a whole number from low to high. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} is no whole number from {low} to {high}")
    return value


def number(value: Any, what: str, low: float, high: float) -> float:
    """Return a number from low to high, both finite. Raises ValueError for anything else."""
    if type(value) not in (int, float) or not low <= value <= high:  # NaN is neither
        raise ValueError(f"{what} is no number from {low:g} to {high:g}")
    return float(value)


def text(value: Any, what: str) -> str:
    """Return a string that has a UTF-8 encoding. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")
    value.encode()
    return value


def path_text(value: Any, what: str) -> str:
    """Return a string that a file may be named by. Raises ValueError for anything else."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{what} is no path")
    os.fsencode(value)
    return value


def of_fields(
    kind: type[Data], value: Any, what: str, ranges: Mapping[str, Range] | None = None
) -> Data:
    """Return a dataclass of a dictionary's values, their types and ranges checked.

    A field that is left out has its default. Raises ValueError for anything else.
    """
    given = dictionary(value, what)
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields(typing.cast(Any, kind))}
    if unknown := given.keys() - names:
        raise ValueError(f"{what} has an unknown field {min(unknown)[:40]!r}")
    for name, found in given.items():
        check_type(found, hints[name], f"{what}.{name}")
        low, high = (ranges or {}).get(name, (-math.inf, math.inf))
        if isinstance(found, int | float) and not low <= found <= high:
            raise ValueError(f"{what}.{name} is not from {low:g} to {high:g}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error


def check_type(value: Any, hint: Any, what: str) -> None:
    """Raise ValueError unless a value of JSON is of a field's type."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    allowed = typing.get_args(hint) if union else (hint,)
    if not any(is_of(value, one) for one in allowed):
        raise ValueError(f"{what} is of a wrong type")


def is_of(value: Any, kind: Any) -> bool:
    """Return whether a value of JSON is of a type; a float may be whole, and must be finite."""
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    if kind is types.NoneType:
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return kind in (int, str) and isinstance(value, kind)


def printable(name: str) -> str:
    """Return a name as UTF-8 can hold it: what is no text is shown as U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def typeable(name: str | os.PathLike[str]) -> str:
    """Return a name as a word for the shell, whatever bytes it consists of.

    Those that a terminal can't show become escapes, $'d\\xfcr', as bash, zsh and ksh know them.
    """
    text = os.fspath(name)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    return f"$'{''.join(escaped)}'"
