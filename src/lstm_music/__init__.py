"""Compose music with recurrent networks written by hand, from MIDI to gradient to sound."""

import os

__version__ = "0.1.0"

# Threads that wait for each other spin by default, OpenMP's for milliseconds, the BLAS's idle ones
# longer: on a busy machine a thread then spins on the core that the awaited one needs, and a step
# takes twenty times as long. Told to sleep soon they are as fast on an idle one. Libraries read
# this when they are loaded, so it stands here: OpenBLAS's, GNU's and LLVM's OpenMP.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("KMP_BLOCKTIME", "0")
