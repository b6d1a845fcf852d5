"""The ops on an NVIDIA GPU: CuPy's arrays, cuBLAS's GEMMs, our own kernels for all else."""
