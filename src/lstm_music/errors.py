"""The one exception that a command turns into a line `error: …`; who tells it."""

import os
import shlex
import sys
from collections.abc import Callable

Warn = Callable[[str], None]
# What Open MPI's launcher, MPICH's and Intel's, and srun tell a process: how many there are, which
# it is. Slurm's names that a job outside srun has too say nothing.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


class UserError(Exception):
    """Something the user can put right.

    The message says in one line what is wrong and what to do next; commands print it after
    `error: ` and exit with status 2.
    """


def pip_install(*packages: str) -> str:
    """Return the command that installs packages for the Python that runs this."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])


def mpi_size_and_rank() -> tuple[int, int] | None:
    """Return the number of processes that an MPI launcher started and which this is, or None."""
    for size, rank in LAUNCHERS:
        found = os.environ.get(size, ""), os.environ.get(rank, "")
        if all(text.isdecimal() for text in found):
            processes, this = map(int, found)
            if processes > 1 or not size.startswith("SLURM"):  # srun begins single ones too
                return processes, this
    return None
