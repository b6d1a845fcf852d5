"""A stand-in for an MPI communicator: its ranks are threads of this process."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lstm_music.training.ranks import Ranks

PATIENCE = 60  # seconds that a rank waits for the others before the test fails


class World:
    """What the ranks share: for each collective, in the order that they ask, what each gave."""

    def __init__(self, size):
        self.size, self.given, self.failed = size, {}, []
        self.changed = threading.Condition()

    def give(self, key, rank, what):
        with self.changed:
            self.given.setdefault(key, {})[rank] = what
            self.changed.notify_all()

    def there(self, key):
        return len(self.given.get(key, ())) == self.size

    def take(self, key):
        with self.changed:
            self.changed.wait_for(lambda: self.there(key) or self.failed, PATIENCE)
            assert self.there(key), f"{key}: one is missing"
            found = self.given[key]
            return [found[rank] for rank in range(self.size)]


class Request:
    def __init__(self, world, key, finish):
        self.world, self.key, self.finish = world, key, finish

    def Test(self):
        return self.world.there(self.key)

    def Wait(self):
        self.finish(self.world.take(self.key))


class Comm:
    """As much of mpi4py's communicator as lstm_music.training.ranks asks of it."""

    def __init__(self, world, rank):
        self.world, self.rank, self.size, self.asked = world, rank, world.size, 0

    def _give(self, kind, what):
        key = (self.asked, kind)  # ranks that ask for different things wait in vain
        self.asked += 1
        self.world.give(key, self.rank, what)
        return key

    def allgather(self, what):
        return self.world.take(self._give("allgather", what))

    def bcast(self, what):
        return self.world.take(self._give("bcast", what))[0]

    def Ibarrier(self):
        return Request(self.world, self._give("barrier", None), lambda given: None)

    def Iallreduce(self, in_place, a):
        assert in_place == "in place"
        key = self._give(("sum", a.shape, a.dtype.name), a.copy())
        a[...] = np.nan  # who reads it before the end reads rubbish

        def finish(given):
            a[...] = sum(given[1:], given[0])

        return Request(self.world, key, finish)

    def Allgatherv(self, sent, received):
        whole, counts = received
        parts = self.world.take(self._give("rows", sent.copy()))
        assert [part.size for part in parts] == list(counts)
        whole[...] = np.concatenate(parts)


def on_ranks(size, work, world=None):
    """What work(ranks) returns on each of so many ranks; raises what one raises."""
    world = world or World(size)

    def watched(rank):
        try:
            return work(Ranks(Comm(world, rank), "in place", size))
        except BaseException as error:
            with world.changed:  # the launcher ends the others
                world.failed.append(error)
                world.changed.notify_all()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(watched, rank) for rank in range(size)]
    if world.failed:
        raise world.failed[0]
    return [future.result() for future in futures]
