"""The compiled extensions; everything else is in pyproject.toml."""

import os
import platform
import sys
from glob import glob

from Cython.Build import cythonize
from numpy import get_include
from setuptools import Extension, setup

REQUIRED = os.environ.get("FASTNORM_REQUIRE_EXT", "0") not in ("", "0")

# At once, since each takes a minute or more. Elsewhere processes begin by running this file anew.
PROCESSES = (os.cpu_count() or 1) if sys.platform == "linux" else 0

# Instruction sets above the ABI's floor, one variant of the same source each; elsewhere the base alone.
X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
VARIANTS = {"base": []}
if X86 and os.name == "posix":
    VARIANTS["avx2"] = AVX2
    VARIANTS["avx512"] = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# No contraction to FMA: with it the variants would differ in the last bit. Never -ffast-math: it deletes NaN handling
# and, at link time, switches off subnormals for the whole process.
FLAGS = ["-O3", "-std=gnu11", "-pthread", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# No vectorisation of straight-line code: in it GCC 12 drops roundings, (double)(float)x, with 512-bit vectors.
FLAGS += ["-fno-tree-slp-vectorize"]
# Inline functions are forced to be: GCC otherwise calls the steps of a short row, which then takes half as long again.
# Without debugging information the modules weigh a fifth.
FLAGS += ["-DCYTHON_INLINE=inline __attribute__((always_inline))", "-g0"]
if os.name != "posix":
    FLAGS = []

HEADERS = sorted(glob("src_pyx/**/*.h", recursive=True))

extensions = [
    Extension(f"fastnorm.backends.{name}", [f"src_pyx/{name}.pyx"], depends=HEADERS, extra_compile_args=FLAGS)
    for name in ("_cpu", "_fast_call")
]
extensions += [
    Extension(
        f"fastnorm.backends._kernels_{name}",
        [f"src_pyx/_kernels_{name}.pyx"],
        depends=HEADERS,
        include_dirs=[get_include(), "src_pyx"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=FLAGS + flags,
    )
    for name, flags in VARIANTS.items()
]
extensions = cythonize(
    extensions,
    build_dir="build",
    include_path=["src_pyx"],
    nthreads=PROCESSES,
    compiler_directives={
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
        "embedsignature": True,
    },
)
for extension in extensions:  # cythonize() drops `optional`
    extension.optional = not REQUIRED

setup(ext_modules=extensions, options={"build_ext": {"parallel": PROCESSES or None}})
