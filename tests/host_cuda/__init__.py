"""Kernels run on the CPU: the .cu sources compiled as C++ with host_cuda.h in front."""
