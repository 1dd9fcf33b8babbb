"""Compile for hardware, without any, the kernels that calls would launch, and print what the assembler says, as JSON.

The calls are the library's own, on arrays of the sizes that a card sees, whose memory is imagined: whatever path a call
takes, what is compiled is what it would launch. Exit status 77: there is no compiler; the reason is on stderr.

    python tests/cuda/compile_kernels.py [--capability 9.0] [--only 'rms_norm*float16*']
"""

import argparse
import fnmatch
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

import fastnorm
from fastnorm.backends import registry
from fastnorm.backends.cuda import compat
from fastnorm.backends.cuda.compat import Kernel, cuda

Call = Callable[[], object]

# Each step of the ladder of rows, an odd length, and what no step holds.
LENGTHS = (64, 768, 1023, 4096, 8192, 32768, 262144)
FEWER = (768, 8192, 32768)
DTYPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "float32": (np.float32, LENGTHS),
    "bfloat16": (ml_dtypes.bfloat16, FEWER),
    "float16": (np.float16, FEWER),
    "float64": (np.float64, FEWER),
}
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
ROWS, ITEMS, GROUPS = 4096, 32, 4
PAGE = 256  # bytes: where allocators of cards begin an array


class Imagined:
    """An array on a card that is not there, with CuPy's protocols."""

    device = nullcontext()
    _next = itertools.count(2**40, 2**36)  # addresses far from one another

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.address = shape, np.dtype(dtype), next(self._next)
        assert self.address % PAGE == 0

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        # No code of the interface is bfloat16's.
        typestr = "<V2" if self.dtype.name == "bfloat16" else self.dtype.str
        return {"shape": self.shape, "typestr": typestr, "data": (self.address, False), "version": 3}

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(empty=Imagined)

    def reshape(self, *shape: Any) -> "Imagined":
        return Imagined(shape[0] if len(shape) == 1 else shape, self.dtype)


def calls() -> Iterator[tuple[str, Call]]:
    """Yield calls by name that take every path."""
    for name, (dtype, lengths) in DTYPES.items():
        for length in lengths:
            for op, call in calls_of_rows(dtype, length):
                yield f"{op} {length} {name}", call
        for op, call in itertools.chain(calls_of_channels(dtype), calls_of_columns(dtype)):
            yield f"{op} {name}", call


def calls_of_rows(dtype: Any, length: int) -> Iterator[tuple[str, Call]]:
    """Yield what is made of rows, with the statistics of the forward pass and without."""
    x, dy = (Imagined((ROWS, length), dtype) for _ in range(2))
    w, b = (Imagined((length,), dtype) for _ in range(2))
    mean, rstd = (Imagined((ROWS, 1), np.float64) for _ in range(2))
    yield "layer_norm", lambda: fastnorm.layer_norm(x, w, b)
    yield "rms_norm", lambda: fastnorm.rms_norm(x, w)
    yield "l2_normalize", lambda: fastnorm.l2_normalize(x)
    yield "layer_norm_backward", lambda: fastnorm.layer_norm_backward(dy, x, w)
    yield "layer_norm_backward, given", lambda: fastnorm.layer_norm_backward(dy, x, w, mean=mean, rstd=rstd)
    yield "rms_norm_backward, given", lambda: fastnorm.rms_norm_backward(dy, x, w, rstd=rstd)
    yield "l2_normalize_backward", lambda: fastnorm.l2_normalize_backward(dy, x)
    if length != 4096:
        return
    for activation in ACTIVATIONS:
        yield (
            f"layer_norm {activation} of a sum",
            lambda activation=activation: fastnorm.layer_norm(
                x, w, b, residual=dy, activation=activation, return_residual=True, return_stats=True
            ),
        )


def calls_of_channels(dtype: Any) -> Iterator[tuple[str, Call]]:
    """Yield what is made of images, channels second and last."""
    for where, shape, axis in (
        ("of 56x56", (ITEMS, 64, 56, 56), 1), ("last", (ITEMS, 56, 56, 64), -1), ("of 14x14", (ITEMS, 64, 14, 14), 1)
    ):  # fmt: skip
        for op, call in calls_of_images(shape, axis, dtype):
            yield f"{op}, channels {where}", call


def calls_of_images(shape: tuple[int, ...], channel_axis: int, dtype: Any) -> Iterator[tuple[str, Call]]:
    """Yield what is made of images of one layout."""
    x, dy = (Imagined(shape, dtype) for _ in range(2))
    w, b = (Imagined((64,), dtype) for _ in range(2))
    mean, var = (Imagined((64,), np.float32) for _ in range(2))
    axis: dict[str, Any] = {"channel_axis": channel_axis}
    yield "batch_norm", lambda: fastnorm.batch_norm(x, mean, var, w, b, **axis)
    yield "batch_norm, training", lambda: fastnorm.batch_norm(x, mean, var, w, b, training=True, **axis)
    yield "batch_norm_backward", lambda: fastnorm.batch_norm_backward(dy, x, w, training=True, **axis)
    yield "group_norm", lambda: fastnorm.group_norm(x, GROUPS, w, b, **axis)
    yield "group_norm_backward", lambda: fastnorm.group_norm_backward(dy, x, GROUPS, w, **axis)
    yield "instance_norm", lambda: fastnorm.instance_norm(x, w, b, **axis)
    yield "instance_norm_backward", lambda: fastnorm.instance_norm_backward(dy, x, w, **axis)
    yield "pixel_norm", lambda: fastnorm.pixel_norm(x, **axis)
    yield "pixel_norm_backward", lambda: fastnorm.pixel_norm_backward(dy, x, **axis)


def calls_of_columns(dtype: Any) -> Iterator[tuple[str, Call]]:
    """Yield what is made of columns, and of all elements."""
    x, dy = (Imagined((65536, 256), dtype) for _ in range(2))
    for axis in (0, None):
        yield f"moments over {axis}", lambda axis=axis: fastnorm.moments(x, axis=axis)
        yield f"extrema over {axis}", lambda axis=axis: fastnorm.extrema(x, axis=axis)
    yield "layer_norm over 0", lambda: fastnorm.layer_norm(x, axis=0)
    yield "layer_norm_backward over 0", lambda: fastnorm.layer_norm_backward(dy, x, axis=0)


def kernels(only: str) -> dict[Kernel, str]:
    """Return the kernels that the calls of a pattern launch, each with the name of the first that does."""
    found: dict[Kernel, str] = {}
    name = ""

    def configured(kernel: Kernel, *_: object) -> Callable[..., None]:
        found.setdefault(kernel, name)
        return lambda *arguments: None

    registry.why_no_cuda = lambda: None
    compat._context = lambda device: nullcontext()
    compat._configured = configured
    for name, call in calls():
        if fnmatch.fnmatch(name, only):
            call()
    return found


def assembler() -> str | None:
    """Return the path of ptxas: that of NVIDIA's wheels, or the system's."""
    import nvidia

    for folder in nvidia.__path__:
        for found in Path(folder).rglob("ptxas"):
            return str(found)
    return shutil.which("ptxas")


def report(kernel: Kernel, capability: tuple[int, int], tool: str | None, folder: str) -> dict[str, Any]:
    """Return what a compiled kernel needs."""
    threads = kernel.block[0] * kernel.block[1]
    ptx, _ = cuda.compile_ptx(kernel.function, kernel.signature, cc=capability, launch_bounds=threads)
    said = ""
    if tool is not None:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        target = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [tool, "-v", target, str(source), "-o", str(source.with_suffix(".cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr

    def number(pattern: str, otherwise: int | None = None) -> int | None:
        found = re.search(pattern, said)
        return otherwise if found is None else int(found[1])

    return {
        "kernel": kernel.function.__qualname__.partition(".")[0],
        "threads side by side": kernel.block[0],
        "wide loads": len(re.findall(r"ld\.global\S*\.v[24]", ptx)),
        "barriers": len(re.findall(r"\bbar(rier)?\.", ptx)),
        "registers": number(r"Used (\d+) registers"),
        "stack": number(r"(\d+) bytes stack frame"),
        "spills": number(r"(\d+) bytes spill stores"),
        "shared": number(r"(\d+) bytes smem", 0),
    }


def main() -> None:
    """Compile what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", default="9.0", help="the compute capability of a card")
    parser.add_argument("--only", default="*", help="a pattern of calls")
    options = parser.parse_args()
    major, minor = map(int, options.capability.split("."))
    import numba.cuda.dispatcher as dispatcher

    # Parts of kernels are compiled for the current device; this stands for one.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(major, minor))
    tool = assembler()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            {"call": name} | report(kernel, (major, minor), tool, folder)
            for kernel, name in kernels(options.only).items()
        ]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    try:
        from numba.cuda.cudadrv import nvvm

        nvvm.NVVM()
    except Exception as error:  # whatever the search for libnvvm raises
        print(f"numba-cuda finds no compiler: {error}", file=sys.stderr)
        sys.exit(77)
    main()
