"""The kernels, compiled for avx2."""
include "kernels.pxi"
