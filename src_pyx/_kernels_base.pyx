"""The kernels, compiled for base."""
include "kernels.pxi"
