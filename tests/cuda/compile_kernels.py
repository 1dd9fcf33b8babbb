"""Compile every kind of kernel for hardware, without any, and print what the assembler says, as JSON.

Exit status 77: there is no compiler; the reason is on stderr. Arguments: compute capabilities such as 9.0.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnorm.backends.cuda import column_gradients, columns, elementwise, extrema, merging, row_gradients, rows, shapes
from fastnorm.backends.cuda.compat import Kernel, cuda
from fastnorm.backends.cuda.forms import Form, GradientForm
from fastnorm.backends.cuda.row_gradients import normalize_grad_rows


def kernels() -> Iterator[tuple[str, Kernel]]:
    """Yield each kind of kernel by a name: "vectors" for those that are to read 16 bytes at once."""
    for storage in ("float32", "bfloat16", "float16", "float64"):
        real = np.float64 if storage == "float64" else np.float32
        wide, vector = real is np.float64, shapes.ACCESS // shapes.SIZES[storage]
        both: dict[str, Any] = {"parameters": storage, "weight": "position", "bias": "position"}
        for length in (64, 768, 1024, 4096, 8192, 16384, 32768):
            shape = shapes.row_shape(length, vector, wide)
            if shape is not None and not (wide and shape.width == 1024):  # 64 registers a thread are too few for those
                barrier = ", no shared memory" if shape.width <= 32 else ""
                name = f"normalize_rows {length} {storage}, vectors{barrier}"
                yield name, rows.normalize_rows(shape, Form(storage, storage, real, **both))
                for whole in (False, True) if length in (768, 8192, 32768) else ():
                    grouped = Form(
                        storage, storage, real, parameters=storage, weight="run", bias="run", segmented=True,
                        whole_runs=whole,
                    )  # fmt: skip
                    name = f"normalize_rows of runs {'whole' if whole else 'ragged'} {length} {storage}, vectors"
                    yield name, rows.normalize_rows(shape, grouped)
            yield from backward_kernels(length, storage)
        for name in (None, "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"):
            shape = shapes.row_shape(4096, vector, wide, halved=name == "gelu")
            assert shape is not None
            form = Form(
                storage, storage, real, residual=True, keep_total=True, activation=name, want_stats=True, **both
            )
            yield f"normalize_rows {name} of a sum {storage}, vectors", rows.normalize_rows(shape, form)
        chunk = shapes.chunk_shape(32768, vector, wide)
        tile, half = shapes.column_shape(256, vector, wide), shapes.column_shape(256, vector, wide, halved=True)
        running = {"statistics": "float32", "rooted": False}
        back = GradientForm(storage, storage, real, upstream=storage, paired=wide)
        yield f"moments_rows {storage}, vectors", rows.moments_rows(chunk, storage, real, True)
        yield (
            f"affine_rows {storage}, vectors",
            rows.affine_rows(chunk, Form(storage, storage, real, weight="run", bias="run", **running)),
        )
        yield f"moments_columns {storage}, vectors", columns.moments_columns(tile, storage, real, True)
        yield (
            f"affine_columns {storage}, vectors",
            columns.affine_columns(tile, Form(storage, storage, real, weight="column", bias="column", **running)),
        )
        yield f"dots_rows {storage}, vectors", row_gradients.dots_rows(chunk, back)
        yield f"affine_grad_rows {storage}, vectors", row_gradients.affine_grad_rows(chunk, back)
        summed = replace(back, parameters=storage, weight="position", sums="position")
        yield f"affine_grad_rows, sums {storage}, vectors", row_gradients.affine_grad_rows(chunk, summed)
        yield f"dots_columns {storage}, vectors", column_gradients.dots_columns(half, back)
        yield f"affine_grad_columns {storage}, vectors", column_gradients.affine_grad_columns(half, back)
        yield f"add {storage}, vectors", elementwise.add(chunk._replace(rows=1), storage, storage, real, True)
        yield f"extrema_rows {storage}, vectors", extrema.extrema_rows(chunk, storage, real)
        yield f"extrema_columns {storage}, vectors", extrema.extrema_columns(tile, storage, real)
    odd = shapes.row_shape(1023, 1, False)
    assert odd is not None
    yield "normalize_rows 1023", rows.normalize_rows(odd, Form("float32", "float32", np.float32))
    for parts in (10, 10**5):
        step = shapes.width_for_sums(parts)
        yield f"merge_moments {parts}", merging.merge_moments(step, True, True, False, "float32")
        yield f"merge_moments {parts} to m2", merging.merge_moments(step, True, True, False, None, rooted=False)
        yield f"merge_extrema {parts}", extrema.merge_extrema(step, "float32", "bfloat16", np.float32)
        yield f"merge_sums {parts}", merging.merge_sums(step, "float16", "float32")
    yield "merge_columns", merging.merge_columns(shapes.merging_shape(), "float32", "bfloat16")
    yield "rooted", elementwise.rooted("float16")
    yield "spread", elementwise.spread()


def backward_kernels(length: int, storage: str) -> Iterator[tuple[str, Kernel]]:
    """Yield the kernels of backward passes over rows of a length that registers hold, with or without dy."""
    real = np.float64 if storage == "float64" else np.float32
    wide, vector = real is np.float64, shapes.ACCESS // shapes.SIZES[storage]
    form = GradientForm(storage, storage, real, parameters=storage, weight="position", upstream=storage)
    runs = replace(form, weight="run")
    shape = shapes.row_shape(length, vector, wide, halved=True)
    name = f"{length} {storage}, vectors"
    if shape is not None and shape.width == 1024:
        yield f"normalize_grad_rows, dx of all {name}", normalize_grad_rows(shape, form)
    if shape is None or shape.width == 1024:
        shape = shapes.row_shape(length, vector, wide)
        if shape is None:
            return
        for terms in (False, True):
            again = replace(form, held=False, terms=terms)
            yield f"normalize_grad_rows, {'terms' if terms else 'dx'} {name}", normalize_grad_rows(shape, again)
        runs = replace(runs, held=False)
    else:
        yield f"normalize_grad_rows {name}", normalize_grad_rows(shape, replace(form, sums="position"))
    if shapes.sums_fit(shape, wide):
        yield (
            f"normalize_grad_rows of runs {name}",
            normalize_grad_rows(shape, replace(runs, segmented=True, sums="run")),
        )
    yield f"normalize_grad_rows that are runs {name}", normalize_grad_rows(shape, replace(runs, sums="row"))


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

    def number(pattern: str) -> int | None:
        found = re.search(pattern, said)
        return None if found is None else int(found[1])

    return {
        "wide loads": len(re.findall(r"ld\.global\S*\.v[24]", ptx)),
        "barriers": len(re.findall(r"\bbar(rier)?\.", ptx)),
        "registers": number(r"Used (\d+) registers"),
        "stack": number(r"(\d+) bytes stack frame"),
        "spills": number(r"(\d+) bytes spill stores"),
    }


def main(capabilities: list[tuple[int, int]]) -> None:
    """Compile everything for each compute capability."""
    import numba.cuda.dispatcher as dispatcher

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        tool = assembler()
        for capability in capabilities:
            # Parts of kernels are compiled for the current device; this stands for one.
            device = SimpleNamespace(compute_capability=capability)
            dispatcher.get_current_device = lambda device=device: device
            for function in (
                rows.normalize_rows, rows.moments_rows, rows.affine_rows, columns.moments_columns,
                columns.affine_columns, normalize_grad_rows, row_gradients.dots_rows, row_gradients.affine_grad_rows,
                column_gradients.dots_columns, column_gradients.affine_grad_columns, merging.merge_moments,
                merging.merge_sums, merging.merge_columns, elementwise.add, elementwise.rooted,
                elementwise.spread, extrema.extrema_rows, extrema.extrema_columns, extrema.merge_extrema,
            ):  # fmt: skip
                function.cache_clear()
            for name, kernel in kernels():
                label = f"{name}, {capability[0]}.{capability[1]}"
                results[label] = report(kernel, capability, tool, folder)
    print(json.dumps(results))


if __name__ == "__main__":
    try:
        from numba.cuda.cudadrv import nvvm

        nvvm.NVVM()
    except Exception as error:  # whatever the search for libnvvm raises
        print(f"numba-cuda finds no compiler: {error}", file=sys.stderr)
        sys.exit(77)
    pairs = (text.split(".") for text in sys.argv[1:] or ["9.0"])
    main([(int(major), int(minor)) for major, minor in pairs])
