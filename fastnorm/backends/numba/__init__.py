"""Numba kernels, the same operations as those of ``src_pyx``, and the backend that calls them."""
