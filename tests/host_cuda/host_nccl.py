"""A stand-in for cupy.cuda.nccl: ranks are threads, and arrays lie in the host's memory."""

import ctypes

import numpy as np

NCCL_INT32, NCCL_INT64, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 2, 4, 7, 8, 0
TYPES = {NCCL_INT32: np.int32, NCCL_INT64: np.int64, NCCL_FLOAT32: np.float32, NCCL_FLOAT64: float}


def array_at(address, count, kind):
    size = count * np.dtype(TYPES[kind]).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), TYPES[kind])


class HostNccl:
    """The module, for the ranks of a world of fake_mpi. calls: what each rank asked for."""

    NCCL_INT32, NCCL_INT64, NCCL_SUM = NCCL_INT32, NCCL_INT64, NCCL_SUM
    NCCL_FLOAT32, NCCL_FLOAT64 = NCCL_FLOAT32, NCCL_FLOAT64

    def __init__(self, world):
        self.world, self.calls, self.grouped = world, [], False

    def get_unique_id(self):
        return ("id", 7)

    def groupStart(self):
        self.grouped = True

    def groupEnd(self):
        self.grouped = False

    def NcclCommunicator(self, size, known, rank):
        assert (size, known) == (self.world.size, ("id", 7))
        return Communicator(self, rank)


class Communicator:
    def __init__(self, nccl, rank):
        self.nccl, self.rank = nccl, rank

    def _everyones(self, name, sent):
        key = ("nccl", name, len(self.nccl.calls))
        self.nccl.calls.append(name)
        self.nccl.world.give(key, self.rank, sent.copy())
        return self.nccl.world.take(key)

    def allReduce(self, sent, received, count, kind, op, stream):
        assert (op, stream) == (NCCL_SUM, 77)
        given = self._everyones("allReduce", array_at(sent, count, kind))
        array_at(received, count, kind)[...] = sum(given[1:], given[0])

    def allGather(self, sent, received, count, kind, stream):
        assert stream == 77
        given = self._everyones("allGather", array_at(sent, count, kind))
        array_at(received, count * len(given), kind)[...] = np.concatenate(given)
