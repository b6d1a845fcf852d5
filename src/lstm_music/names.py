"""Names of files, which are bytes and need not be text: how they are kept, shown and typed.

Python holds each byte that is no UTF-8 as a lone surrogate, and so a name is kept in JSON files,
in ASCII escapes: what reads them finds the very file again. What people see is `printable`, and
what they are to type is `typeable`.
"""

import os
import shlex


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
