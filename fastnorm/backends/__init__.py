"""The backends: the same primitives, by NumPy, by Cython and by Numba."""
