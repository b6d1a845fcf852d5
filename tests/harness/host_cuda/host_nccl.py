"""A stand-in for cupy.cuda.nccl: ranks are threads, and arrays lie in the host's memory."""

import ctypes

import numpy as np

NCCL_INT32, NCCL_INT64, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 2, 4, 7, 8, 0
UNIQUE_ID = bytes(range(128))
TYPES = {NCCL_INT32: np.int32, NCCL_INT64: np.int64, NCCL_FLOAT32: np.float32, NCCL_FLOAT64: float}


def array_at(address, count, kind):
    size = count * np.dtype(TYPES[kind]).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), TYPES[kind])


class HostNccl:
    """The module, for the ranks of a world of fake_mpi. made: their communicators."""

    available = True
    NCCL_INT32, NCCL_INT64, NCCL_SUM = NCCL_INT32, NCCL_INT64, NCCL_SUM
    NCCL_FLOAT32, NCCL_FLOAT64 = NCCL_FLOAT32, NCCL_FLOAT64

    def __init__(self, world):
        self.world, self.made = world, []

    def get_unique_id(self):
        return UNIQUE_ID

    def groupStart(self):
        pass

    def groupEnd(self):
        pass

    def NcclCommunicator(self, ndev, commId, rank):
        assert (ndev, commId) == (self.world.size, UNIQUE_ID)
        self.made.append(Communicator(self.world, rank))
        return self.made[-1]


class Communicator:
    """A rank's. calls: what it asked for."""

    def __init__(self, world, rank):
        self.world, self.rank, self.calls = world, rank, []

    def _everyones(self, name, sent, stream):
        assert stream, "the default stream would wait for all others"
        key = ("nccl", name, len(self.calls))
        self.calls.append(name)
        self.world.give(key, self.rank, sent.copy())
        return self.world.take(key)

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        assert op == NCCL_SUM
        given = self._everyones("allReduce", array_at(sendbuf, count, datatype), stream)
        array_at(recvbuf, count, datatype)[...] = sum(given[1:], given[0])

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):
        given = self._everyones("allGather", array_at(sendbuf, count, datatype), stream)
        array_at(recvbuf, count * len(given), datatype)[...] = np.concatenate(given)
