"""The kernels, compiled for avx512."""
include "kernels.pxi"
