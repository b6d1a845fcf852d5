"""Compose music with recurrent networks written by hand, from MIDI to gradient to sound."""

import os

__version__ = "0.1.0"

# The BLAS's threads and Numba's take turns within a training step. By default the BLAS's idle ones
# spin on the cores that Numba's need; told to sleep, a step takes half the time, and a tenth on a
# busy machine. OpenBLAS reads this when NumPy loads it, so it stands here.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
