"""A backend for mido whose ports are queues in memory; a player and a clock that need no time.

`mido.set_backend("memory_midi")` takes it. What is sent to an output goes to `SENT` by the port's
name; a virtual port is there for others as long as it is open.
"""

from collections import defaultdict, deque

import mido
from mido.ports import BaseInput, BaseOutput

INPUTS, OUTPUTS = [], []  # names of instruments
VIRTUAL = []  # ports that are open to others
TO, FROM = defaultdict(deque), defaultdict(deque)  # what comes to us from a name, and goes from us
SENT = defaultdict(list)  # all that ever went to it


def get_devices(**_):
    """The instruments, and virtual ports from the other side, which hears what is sent there."""
    ins = [*INPUTS, *(port.name for port in VIRTUAL if port.is_output)]
    outs = [*OUTPUTS, *(port.name for port in VIRTUAL if port.is_input)]
    return [
        {"name": name, "is_input": name in ins, "is_output": name in outs}
        for name in dict.fromkeys([*ins, *outs])
    ]


def forget():
    """Have no instruments and no ports."""
    for kept in (INPUTS, OUTPUTS, VIRTUAL, TO, FROM, SENT):
        kept.clear()


class Common:
    def _open(self, virtual=False, **_):
        self.ours = virtual or self.name in (*INPUTS, *OUTPUTS)  # else it is the other side's
        if virtual:
            VIRTUAL.append(self)
        elif not any(d["name"] == self.name and d[self.side] for d in get_devices()):
            raise OSError(f"unknown port {self.name!r}")

    def _close(self):
        if self in VIRTUAL:
            VIRTUAL.remove(self)


class Input(Common, BaseInput):
    side = "is_input"

    def _receive(self, block=True):
        queue = (TO if self.ours else FROM)[self.name]
        return queue.popleft() if queue else None


class Output(Common, BaseOutput):
    side = "is_output"

    def _send(self, message):
        (FROM if self.ours else TO)[self.name].append(message)
        SENT[self.name].append(message)


class Time:
    """A clock that goes on as it is waited for; what is played comes when it is due.

    played: (seconds, message), to an input of a name. Once all came and some seconds more went by,
    the player presses Ctrl-C. sent: what came to an output, with its seconds.
    """

    def __init__(self, played, name="key", after=30.0):
        self.seconds, self.name = 100.0, name
        self.left = deque(sorted(((100.0 + at, m) for at, m in played), key=lambda event: event[0]))
        self.end = (self.left[-1][0] if self.left else self.seconds) + after
        self.sent, self.stops = [], KeyboardInterrupt
        SENT[name].clear()

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        for message in SENT[self.name][len(self.sent) :]:
            self.sent.append((self.seconds - 100.0, message))
        self.seconds += seconds
        while self.left and self.left[0][0] <= self.seconds:
            TO[self.name].append(self.left.popleft()[1])
        if self.seconds > self.end:
            raise self.stops


def notes(*rows, channel=0, velocity=64):
    """Events from (begin, end, pitch), in seconds."""
    made = []
    for begin, end, pitch in rows:
        told = {"note": pitch, "channel": channel}
        made.append((begin, mido.Message("note_on", velocity=velocity, **told)))
        made.append((end, mido.Message("note_off", **told)))
    return made
