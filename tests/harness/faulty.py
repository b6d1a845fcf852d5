"""A side of benchmarks/gpu_workers.py that fails in every way, for tests of its processes."""

import os
import subprocess
import sys
import time
from typing import NamedTuple


class Made(NamedTuple):
    """As gpu_workers.Made."""

    round: object
    known: dict


class Faulty:
    """The side."""

    def __init__(self):
        self.broken = False

    def check(self):
        if self.broken:
            raise RuntimeError("the device is gone")

    def clean(self):
        pass

    def add(self, a, b):
        return a + b

    def fails(self, lasting=False):
        self.broken = lasting
        raise ValueError("a line\nand another")

    def dies(self):
        os._exit(3)

    def sleeps(self):
        time.sleep(60)

    def begins(self):
        code = "import os, time; os.setpgrp(); print(os.getpid(), flush=True); time.sleep(60)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def number(self, x, fault=""):
        def round():
            return getattr(self, fault)() if fault else x

        return Made(round, {"pid": os.getpid()})


def start(**settings):
    return Faulty()
