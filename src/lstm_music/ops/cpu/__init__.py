"""The ops on a CPU, compiled by Numba: fused, vectorised, threaded.

Each module compiles one part of the network and has its ops, functions that take the ops first;
`numba_ops.py` makes one backend of them.
"""
