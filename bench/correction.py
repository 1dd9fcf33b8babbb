"""What the accuracy of layer_norm costs: our kernels beside an uncorrected two-pass one over the same lanes.

The uncorrected kernel keeps the mean as one float32, corrects nothing, joins no blocks and has no way out for rows that
overflow: what a kernel without the accuracy contract would do. It is compiled for the same instruction set as ours, and
asks for memory as far ahead. All run on one thread, in the same process, in interleaved rounds; the figures are medians
of ratios of neighbours in time, and of processes.

    python bench/correction.py [--rounds 15] [--isa avx2] [--json]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np

import fastnorm
from fastnorm.backends import registry
from fastnorm.backends.cython import runnable_variants
from fastnorm.backends.numba.backend import is_short
from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    READ_AHEAD,
    WRITE_AHEAD,
    at,
    fused,
    lane_count,
    load,
    load_partial,
    pointer,
    prefetch,
    rounded,
    splat,
    store,
    store_partial,
    total,
)
from fastnorm.backends.numba.rows import normalize_rows
from fastnorm.backends.numba.short_rows import normalize_short_rows
from fastnorm.lab.timing import seconds_per_call
from fastnorm.recipe import Rule

# rows x length, and how much more than the uncorrected kernel ours may take.
CELLS = {
    (128, 768): 1.05,
    (1024, 768): 1.05,
    (4096, 1024): 1.05,
    (512, 4096): 1.05,
    (4096, 64): 1.15,
    (65536, 64): 1.15,
}
SECONDS_PER_SAMPLE = 0.005
PROCESSES = 5
# What to measure: each with kernels of the Cython variant, and of LLVM for a processor that has no more than it.
LLVM_NAMES = {"avx2": "haswell", "base": "x86-64"}
ISAS = runnable_variants() if registry.why_not("cython") is None else ("jit",)
# Where a fused multiplication and addition is a call of the C library, the contract costs far more than this.
WITHOUT_FMA = ("base",) if platform.machine() in ("x86_64", "AMD64") else ()


@helper
def uncorrected_line(x, y, n, weight, bias, eps):
    """Mean; squares of the deviations; y = (x - mean) * rstd * weight + bias: three passes over a line."""
    step = lane_count(x)
    whole = n - n % step
    sums, squares = splat(x, 0.0), splat(x, 0.0)
    for i in range(0, whole, step):
        prefetch(x, i + READ_AHEAD * step)
        sums = sums + load(x, i)
    if whole < n:
        sums = sums + load_partial(x, whole, n - whole, 0.0)
    mean = rounded(x, total(sums) / n)
    centre = splat(x, mean)
    for i in range(0, whole, step):
        d = load(x, i) - centre
        squares = fused(d, d, squares)
    if whole < n:
        d = load_partial(x, whole, n - whole, mean) - centre
        squares = fused(d, d, squares)
    rstd = splat(x, 1.0 / np.sqrt(total(squares) / n + eps))
    for i in range(0, whole, step):
        prefetch(y, i + WRITE_AHEAD * step)
        store(y, i, fused((load(x, i) - centre) * rstd, load(weight, i), load(bias, i)))
    if whole < n:
        left = n - whole
        d = (load_partial(x, whole, left, 0.0) - centre) * rstd
        store_partial(
            y, whole, left, fused(d, load_partial(weight, whole, left, 0.0), load_partial(bias, whole, left, 0.0))
        )


@kernel
def uncorrected(x, y, weight, bias, eps):
    """layer_norm of the lines of x, (lines, n, 1), without corrections."""
    n, stride = x.shape[1], x.strides[0] // x.itemsize
    source, target, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    for o in range(x.shape[0]):
        uncorrected_line(at(source, o * stride), at(target, o * stride), n, w, b, eps)


def seconds(function: Callable[[], object], calls: int) -> float:
    """Return the seconds of one call, over so many in a row after an untimed one."""
    function()
    return seconds_per_call(function, calls)


def measure(rows: int, length: int, rounds: int) -> dict[str, float]:
    """Return the median microseconds of the uncorrected kernel, and the median ratio of each of ours to it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, length, 1), dtype=np.float32)
    weight, bias = (rng.standard_normal(length, dtype=np.float32) for _ in range(2))
    y, rule = np.empty_like(x), Rule(eps=1e-5)
    functions: dict[str, Callable[[], object]] = {"uncorrected": lambda: uncorrected(x, y, weight, bias, 1e-5)}
    # The entry points themselves: the uncorrected kernel has no Python in front of it either.
    if registry.why_not("cython") is None:
        normalize = registry.load("cython")._kernels.normalize
        no_statistics, nothing_fused = (None,) * 2, (None,) * 5
        numbers = rule.measure, rule.divisor(length), rule.eps, rule.floor, *no_statistics, *nothing_fused, 1
        functions["cython"] = lambda: normalize(x, y, weight, bias, True, 1, *numbers)
    nothing = np.empty(0)
    numbers_numba = int(rule.measure), float(rule.divisor(length)), rule.eps, rule.floor, nothing, nothing, 0, rows
    if is_short(x):
        functions["numba"] = lambda: normalize_short_rows(x, y, weight, bias, True, *numbers_numba)
    else:
        functions["numba"] = lambda: normalize_rows(x, y, weight, bias, True, 1, *numbers_numba)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    calls = {name: max(1, round(SECONDS_PER_SAMPLE / seconds(function, 3))) for name, function in functions.items()}
    for number in range(rounds):
        for name in sorted(functions, reverse=number % 2 == 1):
            samples[name].append(seconds(functions[name], calls[name]))
    base = samples["uncorrected"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(taken, base, strict=True)) for name, taken in samples.items()
    }
    return {**ratios, "uncorrected": statistics.median(base) * 1e6}


def name(cell: tuple[int, int]) -> str:
    """Return a cell as people write it."""
    return "x".join(map(str, cell))


def ours_of(result: dict[str, float]) -> list[float]:
    """Return the ratios of our kernels."""
    return [result[backend] for backend in ("cython", "numba") if backend in result]


def measured(isa: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median over processes of what every cell took, all of whose kernels are for this instruction set.

    Where memory happens to lie, and in pages of which size, is the same for all rounds of a process.
    """
    environment = {**os.environ, "FASTNORM_ISA": isa}
    if isa in LLVM_NAMES:
        environment |= {"NUMBA_CPU_NAME": LLVM_NAMES[isa], "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, __file__, "--isa", isa, "--rounds", str(rounds), "--json"]
    answers = [
        json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)
        for _ in range(PROCESSES)
    ]
    return {
        cell: {kernel: statistics.median(answer[cell][kernel] for answer in answers) for kernel in kernels}
        for cell, kernels in answers[0].items()
    }


def main() -> int:
    """Measure every cell, print the table, and return 1 if a cell costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds a cell and process (default: 15)")
    parser.add_argument("--isa", choices=ISAS, help="only this instruction set (default: all that this processor has)")
    parser.add_argument("--json", action="store_true", help="print JSON; with --isa, what this very process measured")
    arguments = parser.parse_args()
    if arguments.isa and arguments.json:
        with fastnorm.config(num_threads=1):
            print(json.dumps({name(cell): measure(*cell, arguments.rounds) for cell in CELLS}))
        return 0
    results = {isa: measured(isa, arguments.rounds) for isa in ([arguments.isa] if arguments.isa else ISAS)}
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        print("layer_norm, float32, weights, one thread    uncorrected       cython / it        numba / it   allowed")
        for isa, cells in results.items():
            for cell, allowed in CELLS.items():
                result = cells[name(cell)]
                ours = "".join(f"{result.get(backend, float('nan')):18.3f}" for backend in ("cython", "numba"))
                print(f"{f'{isa:10} {name(cell)}':>40} {result['uncorrected']:11.1f} us{ours}{allowed:10.2f}")
    bounded = (cells for isa, cells in results.items() if isa not in WITHOUT_FMA)
    over = [cells for cells in bounded for cell in CELLS if max(ours_of(cells[name(cell)])) > CELLS[cell]]
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
