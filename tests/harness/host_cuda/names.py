"""What the stand-in offers, and whether CuPy has it, with those arguments.

`PYTHONPATH=src:tests python -m host_cuda.names` writes names.json, where CuPy is installed: 14.2 is
what the stand-in follows. No GPU is needed.
"""

import inspect
import json
import re
from pathlib import Path

from .host_array import HostArray
from .host_cupy import Event, Graph, HostCupy, HostRuntime, Kernel, Module, Pool, Stream

FILE = Path(__file__).with_name("names.json")
CLASSES = {
    "ndarray": HostArray,
    "RawModule": Module,
    "RawKernel": Kernel,
    "cuda.Stream": Stream,
    "cuda.Event": Event,
    "cuda.Graph": Graph,
    "cuda.MemoryPool": Pool,
}
# Of the stand-in alone.
OURS = {"cublas_library", "launches", "mutate", "orders", "shared_bytes"}
OURS |= {"cuda.runtime.marks", "cuda.runtime.properties"}
INSIDE = {"plain", "memory", "module", "kernel", "cupy", "steps", "nodes", "limit", "total", "at"}


def parameters(function):
    """The names of a function's arguments, as far as Python or its documentation tells them."""
    if not callable(function):
        return []
    try:
        found = list(inspect.signature(function).parameters.values())
        names = [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    except (TypeError, ValueError):
        names = []
    first = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
    told = re.search(r"\((.*)\)", first)
    pieces = told[1].replace("\\", "").split(",") if told else []
    names += [piece.partition("=")[0].split()[-1] for piece in pieces if piece.strip(" */")]
    return sorted(set(names) - {"self"})


def offered():
    """What the stand-in has: names with dots, and the arguments of each."""
    found = dict(of_part(HostCupy(), ""))
    for name, kind in CLASSES.items():
        made = {} if name == "ndarray" else {name: parameters(kind.__init__)}
        of_kind = {
            f"{name}.{n}": parameters(getattr(kind, n))
            for n in vars(kind)
            if not n.startswith("_") and n not in INSIDE
        }
        found |= made | of_kind
    for name in ("RawModule", "RawKernel", "cuda.Graph"):  # ours are made otherwise
        found.pop(name)
    return found


def of_part(part, before):
    """What a module of the stand-in has."""
    for name in dir(part):
        path = f"{before}{name}"
        if name.startswith("_") or path in OURS:
            continue
        value = getattr(part, name)
        if type(value).__name__ == "SimpleNamespace" or isinstance(value, HostRuntime):
            yield from of_part(value, f"{path}.")
        elif not isinstance(value, type):
            yield path, parameters(value)


def main():
    """Write what CuPy has of it."""
    import cupy

    known = {}
    for name in offered():
        found = cupy
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            known[name] = parameters(found)
    FILE.write_text(json.dumps({"cupy": cupy.__version__, **known}, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main()
