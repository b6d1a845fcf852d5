"""The ops on an NVIDIA GPU: CuPy's arrays, cuBLAS's GEMMs, our own kernels for all else.

`launch.py` knows the device; each other module launches the kernels of one part of the network, its
functions taking the `Launcher` first; `cupy_ops.py` makes one backend of them.
"""
