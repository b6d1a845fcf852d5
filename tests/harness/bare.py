"""A machine without mido, sound and pictures whose GPU is the stand-in, for programs run there."""

import os
import subprocess

from documentation import ROOT
from host_cuda import AS_CUPY

# What the package asks for beside what computes; and PyTorch, a rival.
BLOCKED = ("mido", "pretty_midi", "midirenderer", "pyloudnorm", "matplotlib", "sklearn", "torch")
BLOCKING = f"""import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def bare_run(command, folder):
    """Run a program there; folder: for a file of ours. Return how it ended and what it wrote."""
    (folder / "sitecustomize.py").write_text(BLOCKING)
    path = [folder, ROOT / "src", ROOT / "tests" / "harness", AS_CUPY]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
