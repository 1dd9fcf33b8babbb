"""The norms on a GPU beside a copy of the same bytes, PyTorch eager and torch.compile: checked first, then timed.

Times are those of device events around replays of a CUDA graph, in which the calls go over so many sets of inputs that
the L2 cache holds none when its turn comes. "share" is the bandwidth of the bytes that have to move (each input read
once, each output written once; training reads x twice) over that of the card's own copy, measured here; an
exclamation mark is behind a share below its aim and an error beyond its bound. Backward passes are given the forward
pass's statistics, ours and PyTorch's.

    python bench/gpu.py [--only 'layer_norm*'] [--no-compile] [--seconds 280]    one table
    python bench/gpu.py --check-only      the checks of the table, and nothing timed
    python bench/gpu.py --small           every path once, on small arrays: checks alone
    python bench/gpu.py --sanitize        the same under compute-sanitizer, by memcheck and by racecheck

It needs a CUDA device, PyTorch and numba-cuda; the library is taken from where it is installed, or else from this
checkout. Without a device, ``NUMBA_ENABLE_CUDASIM=1`` has it check (not time) in Numba's simulator.
"""

import argparse
import fnmatch
import importlib.util
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

if importlib.util.find_spec("fastnorm") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_calls import BOUND, FASTNORM, ROUNDOFF, Call, Cell, Inputs, by_torch, cells, small_cells

import fastnorm
from fastnorm.backends.cuda import compat

ROUNDS = 7
LONG_ENOUGH = 4.0  # milliseconds between two events: a replay begins a few microseconds late
CHECKED_ROWS = 3 if compat.SIMULATED else 64  # a thread of the simulator is one of Python's
SANITIZERS = ("memcheck", "racecheck")


# Checks


def checked_shape(cell: Cell) -> tuple[int, ...]:
    """Return the shape of a cell with fewer rows or items; in the simulator small ones, which take every path."""
    if len(cell.shape) == 2:
        return min(CHECKED_ROWS, cell.shape[0]), min(cell.shape[1], 160 if compat.SIMULATED else 10**9)
    return (2, 3, 5, 4) if compat.SIMULATED else (min(4, cell.shape[0]), *cell.shape[1:])


def host_inputs(cell: Cell, shape: tuple[int, ...]) -> Inputs:
    """Return NumPy's arrays in float32."""
    rng = np.random.default_rng(len(cell.name))
    channels = shape[-1] if len(shape) == 2 else shape[1]
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    mean, log_var = (rng.standard_normal(channels, dtype=np.float32) for _ in range(2))
    # No more than the 1 that errors are compared with: a bias may cancel what has errors in proportion.
    weight, bias = (rng.uniform(-1, 1, channels).astype(np.float32) for _ in range(2))
    rows = x.astype(np.float64).reshape(-1, shape[-1])
    centre, var, square = (
        part.mean(1, keepdims=True) for part in (rows, (rows - rows.mean(1, keepdims=True)) ** 2, rows**2)
    )
    of_rows = (part.astype(np.float32) for part in (centre, (var + 1e-5) ** -0.5, (square + 1e-6) ** -0.5))
    return Inputs(x, dy, weight, bias, mean, np.exp(log_var), *of_rows)


def moved(given: Inputs, dtype: str) -> tuple[Inputs, Inputs]:
    """Return the inputs on the device, with what is in `dtype` rounded to it, and what they are in float64."""
    if compat.SIMULATED:
        from fastnorm.backends.cuda.simulated import DeviceArray

        return Inputs(*map(DeviceArray, given)), Inputs(*(part.astype(np.float64) for part in given))
    import torch

    parts = [torch.from_numpy(part).cuda() for part in given]
    on_device = Inputs(*(part.to(getattr(torch, dtype)) for part in parts[:4]), *parts[4:])
    return on_device, Inputs(*(part.double().cpu().numpy() for part in on_device))


def check(cell: Cell, shape: tuple[int, ...]) -> float:
    """Return the largest error of the results against float64's on the host, in units of their dtype's roundoff.

    Of y relative to max(1, |y|); of dx, in which terms cancel, to the largest; of sums to what they are sums of, about
    the sum of |dy|, or to themselves.
    """
    on_device, wide = moved(host_inputs(cell, shape), cell.dtype)
    found = FASTNORM[cell.op](on_device)
    with fastnorm.config(backend="reference"):
        expected = FASTNORM[cell.op](wide)
    pairs = list(zip(found, expected, strict=True)) if isinstance(found, tuple) else [(found, expected)]
    if cell.op == "batch_norm training":  # which moves them
        pairs += [(on_device.running_mean, wide.running_mean), (on_device.running_var, wide.running_var)]
    worst = 0.0
    for actual, exact in pairs:
        if exact is None:
            continue
        result = actual.copy_to_host() if compat.SIMULATED else actual.double().cpu().numpy()
        size = np.abs(exact)
        if exact.shape != wide.x.shape:
            size = np.maximum(size, np.sum(np.abs(wide.dy)) / exact.size)
        elif "backward" in cell.op:
            size = np.max(size)
        worst = max(worst, float(np.max(np.abs(result - exact) / np.maximum(1, size))))
    return worst / ROUNDOFF[cell.dtype] if math.isfinite(worst) else math.inf


def check_all(chosen: list[Cell], whole: bool) -> None:
    """Print the error of each cell, on all of its shape or on a few rows; exit with 1 if one is beyond its bound."""
    failed = 0
    for cell in chosen:
        error = check(cell, cell.shape if whole else checked_shape(cell))
        wrong = error > BOUND[cell.dtype]
        failed += wrong
        print(f"{cell.name:48}{error:8.2f} units{' !' if wrong else ''}", flush=True)
    if failed:
        raise SystemExit(f"gpu.py: {failed} of {len(chosen)} beyond their bound")


def sanitize(only: str) -> None:
    """Run small cells under compute-sanitizer; its exit status says whether it has found something."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        raise SystemExit("gpu.py: compute-sanitizer is not on the PATH: it comes with the CUDA toolkit")
    # A caching allocator would hide what is read or written beyond an array.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for name in SANITIZERS:
        print(f"compute-sanitizer --tool {name}", flush=True)
        command = [tool, "--tool", name, "--error-exitcode", "99", sys.executable, __file__, "--small", "--only", only]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status:
            raise SystemExit(f"gpu.py: {name} ended with exit status {status}")


# Times


def milliseconds(calls: list[Callable[[], object]]) -> float:
    """Return the median milliseconds of one call, from replays of a graph of all of them."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]

    def replayed(times: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / times / len(calls)

    replayed(1)
    times = max(1, math.ceil(LONG_ENOUGH / len(calls) / max(replayed(1), 1e-6)))
    found = statistics.median(replayed(times) for _ in range(ROUNDS))
    del kept  # what the graph writes to, until here
    return found


def timed(call: Call, sets: list[Inputs]) -> float:
    """Return the median milliseconds of a call over sets of inputs, and give the memory of its graph back."""
    import torch

    found = milliseconds([lambda inputs=inputs: call(inputs) for inputs in sets])
    torch.cuda.empty_cache()
    return found


def device_inputs(cell: Cell) -> list[Inputs]:
    """Return so many sets of inputs on the device that together they are several times the L2 cache."""
    import torch

    dtype = getattr(torch, cell.dtype)
    l2 = torch.cuda.get_device_properties(0).L2_cache_size

    def one() -> Inputs:
        x, dy = (torch.randn(cell.shape, device="cuda").to(dtype) for _ in range(2))
        # PyTorch's batch norm has parameters and running statistics of one dtype.
        kept = dtype if len(cell.shape) == 2 else torch.float32
        weight, bias = (torch.randn(cell.channels, device="cuda").to(kept) for _ in range(2))
        mean, var = torch.randn(cell.channels, device="cuda"), torch.rand(cell.channels, device="cuda") + 0.5
        _, mean_of_rows, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, 1e-5)
        rms_rstd = (x.float().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return Inputs(x, dy, weight, bias, mean, var, mean_of_rows, rstd, rms_rstd)

    return [one() for _ in range(max(2, -(-4 * l2 // cell.bytes)))]


def timed_of_peer(call: Call, sets: list[Inputs]) -> float | None:
    """Return that of a call of PyTorch's; None if it fails, which is no reason to go without the rest of the table."""
    try:
        return timed(call, sets)
    except Exception as error:  # whatever PyTorch or its compiler raises
        print(f"PyTorch: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None


def copy_bandwidth() -> float:
    """Return bytes read and written a second by the card's own copy of a gibibyte."""
    import torch

    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    targets = [torch.empty_like(source) for _ in range(2)]
    return 2 * 2**30 / (milliseconds([lambda target=target: target.copy_(source) for target in targets]) * 1e-3)


class Row(NamedTuple):
    """What is known of a cell; times are in milliseconds."""

    cell: Cell
    error: float
    own: float
    eager: float | None
    compiled: float | None = None

    def line(self, copy: float) -> str:
        """Return the table's line, given the bandwidth of a copy."""
        share = self.cell.passes * self.cell.bytes / (self.own * 1e-3) / copy
        below, wrong = ("!" if bad else " " for bad in (share < self.cell.aim, self.error > BOUND[self.cell.dtype]))
        eager, compiled = ("-" if part is None else f"{part * 1e3:.1f}" for part in (self.eager, self.compiled))
        return (
            f"{self.cell.name:44}{self.own * 1e3:9.1f}{share:7.2f}{below}{self.cell.aim:6.2f}{eager:>10}"
            f"{compiled:>12}{self.error:8.2f}{wrong}"
        )


def measure(chosen: list[Cell], compile_too: bool, deadline: float) -> Iterator[Row]:
    """Yield a row for each cell, then those again for which there was time to compile PyTorch's call."""
    import torch

    found = []
    for cell in chosen:
        if time.monotonic() > deadline:
            return
        error, sets = check(cell, checked_shape(cell)), device_inputs(cell)
        found.append(Row(cell, error, timed(FASTNORM[cell.op], sets), timed_of_peer(by_torch(cell.op), sets)))
        print(cell.name, file=sys.stderr, flush=True)
        yield found[-1]
    for row in found:
        if not compile_too or time.monotonic() > deadline:
            return
        torch.compiler.reset()  # it gives up on a function that was compiled for eight shapes
        call = torch.compile(by_torch(row.cell.op), dynamic=False)
        yield row._replace(compiled=timed_of_peer(call, device_inputs(row.cell)))


def table(chosen: list[Cell], compile_too: bool, deadline: float) -> None:
    """Print the card and the table, of what was measured until it was interrupted, too."""
    import torch

    copy = copy_bandwidth()
    rows: dict[Cell, Row] = {}
    try:
        for row in measure(chosen, compile_too, deadline):
            rows[row.cell] = row
    finally:
        print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; fastnorm {fastnorm.__version__}")
        print(f"copy: {copy / 1e12:.2f} TB/s, read and written; error in units of the dtype's roundoff\n")
        print(f"{'':44}{'us':>9}{'share':>7}{'aim':>7}{'eager us':>10}{'compile us':>12}{'error':>8}")
        for cell in chosen:
            print(rows[cell].line(copy) if cell in rows else f"{cell.name:44}{'not reached':>16}")


def main(arguments: list[str] | None = None) -> None:
    """Check, then time what is asked for."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-only", action="store_true", help="check the results and time nothing")
    parser.add_argument("--small", action="store_true", help="check every path on small arrays and time nothing")
    parser.add_argument("--sanitize", action="store_true", help="do that under compute-sanitizer")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--only", default="*", help="a pattern of lines, such as 'layer_norm 8192*'")
    parser.add_argument("--seconds", type=float, default=280, help="after so long nothing more is begun")
    options = parser.parse_args(arguments)
    if options.sanitize:
        sanitize(options.only)
        return
    chosen = [cell for cell in (small_cells if options.small else cells)() if fnmatch.fnmatch(cell.name, options.only)]
    checks = options.small or options.check_only
    reason = compat.why_not()
    if compat.SIMULATED:
        reason = None if checks else "the simulator's times mean nothing: --check-only or --small"
        chosen = [cell for cell in chosen if cell.dtype == "float32"]  # Numba's arrays, which it has, know no bfloat16
        if not options.small:
            chosen = list({cell.op: cell for cell in chosen}.values())
    if reason is not None:
        raise SystemExit(f"gpu.py: {reason}")
    if checks:
        check_all(chosen, options.small)
        return
    import torch

    with torch.no_grad():
        table(chosen, not options.no_compile, began + options.seconds)


if __name__ == "__main__":
    main()
