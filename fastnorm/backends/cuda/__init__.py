"""Kernels for arrays on a CUDA device: the same primitives as on the CPU, in ``numba.cuda``."""
