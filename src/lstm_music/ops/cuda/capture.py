"""Work of a GPU as a CUDA graph: recorded once, then launched as a whole."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from lstm_music.arrays import Array


class Recording(NamedTuple):
    """What ops read from the device in place of the host while a step is recorded.

    step (1,) uint32: dropout's step. where (V,) int32: `embedding_backward` returns slots, one for
    each id of the batch, of which those with row -1 are empty, and writes here the slot of each row
    that occurs. slots: where the slots' arrays are kept from one call to the next, empty at first.
    """

    step: Array
    where: Array
    slots: dict[str, Array]


def captured(xp: Any, stream: Any, work: Callable[[], object]) -> Any:
    """Return the graph of work in a stream; where the work fails the stream is free again."""
    stream.begin_capture(xp.cuda.runtime.streamCaptureModeRelaxed)
    try:
        work()
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            stream.end_capture()
        raise
    return stream.end_capture()
