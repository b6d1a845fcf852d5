"""Whether the system's own MIDI ports can be tested here; mido isn't needed to know."""

import sys
from importlib.util import find_spec
from pathlib import Path


def why_not_real():
    """Why the system's own virtual ports can't be tested here, None where they can."""
    if find_spec("rtmidi") is None:
        return "python-rtmidi is not installed"
    if sys.platform == "linux" and not Path("/dev/snd/seq").exists():
        return "there is no /dev/snd/seq"
    return "Windows has no virtual ports" if sys.platform == "win32" else None
