"""Which variants of the kernels this processor can run."""

cdef extern from "cpu.h":
    bint cpu_has_avx2()
    bint cpu_has_avx512()


def runnable_variants():
    """Return the names of the variants that this processor can run, the best first."""
    names = ["base"]
    if cpu_has_avx2():
        names.insert(0, "avx2")
    if cpu_has_avx512():
        names.insert(0, "avx512")
    return tuple(names)
