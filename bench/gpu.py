"""The norms on a GPU beside a copy of the same bytes, PyTorch eager and torch.compile: checked first, then timed.

Times are those of device events around replays of a CUDA graph, in which the calls go over so many sets of inputs that
the L2 cache holds none when its turn comes. "share" is the bandwidth of the bytes that have to move (each input read
once, each output written once; training reads x twice) over that of the card's own copy, measured here.

    python bench/gpu.py [--check-only] [--no-compile] [--only 'layer_norm*'] [--seconds 270]
"""

import argparse
import fnmatch
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastnorm
from fastnorm.backends.cuda import compat

Call = Callable[..., Any]

ROWS = ((8192, 1024), (8192, 4096), (8192, 8192), (32768, 768), (4096, 32768))
IMAGES = ((32, 256, 56, 56), (128, 64, 112, 112))
DTYPES = ("float32", "bfloat16")
ROUNDS = 7
# Elements of the arrays that results are checked on; a thread of the simulator is one of Python's.
CHECKED_ROWS = 3 if compat.SIMULATED else 64


class Cell(NamedTuple):
    """One line of the table. `passes` is how often an array of x's size has to be read or written."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    passes: int

    @property
    def name(self) -> str:
        """What `--only` matches."""
        return f"{self.op} {'x'.join(map(str, self.shape))} {self.dtype}"


def cells() -> Iterator[Cell]:
    """Yield the table's lines."""
    for op, passes in (("layer_norm", 2), ("rms_norm", 2), ("layer_norm_backward", 3), ("rms_norm_backward", 3)):
        for shape in ROWS:
            for dtype in DTYPES:
                yield Cell(op, shape, dtype, passes)
    for op, passes in (("batch_norm inference", 2), ("batch_norm training", 3)):
        for shape in IMAGES:
            for dtype in DTYPES:
                yield Cell(op, shape, dtype, passes)


# What is called: (x, dy, weight, bias, mean, var), of which each takes what it needs.


def by_fastnorm(op: str) -> Call:
    """Return the library's call."""
    calls: dict[str, Call] = {
        "layer_norm": lambda x, dy, w, b, m, v: fastnorm.layer_norm(x, w, b),
        "rms_norm": lambda x, dy, w, b, m, v: fastnorm.rms_norm(x, w),
        "layer_norm_backward": lambda x, dy, w, b, m, v: fastnorm.layer_norm_backward(dy, x, w),
        "rms_norm_backward": lambda x, dy, w, b, m, v: fastnorm.rms_norm_backward(dy, x, w),
        "batch_norm inference": lambda x, dy, w, b, m, v: fastnorm.batch_norm(x, m, v, w, b),
        "batch_norm training": lambda x, dy, w, b, m, v: fastnorm.batch_norm(x, m, v, w, b, training=True),
    }
    return calls[op]


def by_torch(op: str) -> Call:
    """Return PyTorch's; its backward passes are given the statistics, which fastnorm's compute again."""
    import torch
    from torch.nn import functional

    def layer_backward(x: Any, dy: Any, w: Any, b: Any, m: Any, v: Any) -> Any:
        shape = x.shape[-1:]
        _, mean, rstd = torch.ops.aten.native_layer_norm(x, shape, w, b, 1e-5)
        return torch.ops.aten.native_layer_norm_backward(dy, x, shape, mean, rstd, w, b, [True, True, True])

    def rms_backward(x: Any, dy: Any, w: Any, b: Any, m: Any, v: Any) -> Any:
        rstd = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
        xhat, g = x * rstd, dy * w
        return rstd * (g - xhat * (g * xhat).mean(-1, keepdim=True)), (dy * xhat).sum(0)

    calls: dict[str, Call] = {
        "layer_norm": lambda x, dy, w, b, m, v: functional.layer_norm(x, x.shape[-1:], w, b),
        "rms_norm": lambda x, dy, w, b, m, v: functional.rms_norm(x, x.shape[-1:], w, 1e-6),
        "layer_norm_backward": layer_backward,
        "rms_norm_backward": rms_backward,
        "batch_norm inference": lambda x, dy, w, b, m, v: functional.batch_norm(x, m, v, w, b),
        "batch_norm training": lambda x, dy, w, b, m, v: functional.batch_norm(x, m, v, w, b, training=True),
    }
    return calls[op]


# Checks


def arguments_of(cell: Cell, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return arguments of NumPy's, in float32."""
    rng = np.random.default_rng(len(cell.name))
    channels = shape[-1] if len(shape) == 2 else shape[1]
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    weight, bias, mean, log_var = (rng.standard_normal(channels, dtype=np.float32) for _ in range(4))
    return [x, dy, weight, bias, mean, np.exp(log_var)]


def check(cell: Cell) -> float:
    """Return the largest error of the float32 results in units of 2^-24 max(1, |y|), on a few rows or pixels."""
    if len(cell.shape) == 2:
        shape: tuple[int, ...] = (CHECKED_ROWS, min(cell.shape[1], 160 if compat.SIMULATED else 10**9))
    else:
        shape = (2, 3, 5, 4) if compat.SIMULATED else (4, *cell.shape[1:])
    given = arguments_of(cell, shape)
    if compat.SIMULATED:
        from fastnorm.backends.cuda.simulated import DeviceArray

        moved = [DeviceArray(part) for part in given]
        found, host = by_fastnorm(cell.op)(*moved), [part.copy() for part in given]
    else:
        import torch

        found, host = by_fastnorm(cell.op)(*(torch.from_numpy(part).cuda() for part in given)), given
    expected = by_fastnorm(cell.op)(*(part.astype(np.float64) for part in host))
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    worst = 0.0
    for actual, wide in pairs:
        if wide is not None:
            result = actual.copy_to_host() if compat.SIMULATED else actual.cpu().numpy()
            worst = max(worst, float(np.max(np.abs(result - wide) / np.maximum(1, np.abs(wide)))))
    return worst * 2.0**24


# Times


def events_of(calls: list[Callable[[], object]]) -> float:
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
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / len(calls))
    del kept
    return statistics.median(times[1:])


def sets_of(cell: Cell) -> list[tuple[Any, ...]]:
    """Return so many sets of inputs on the device that together they are several times the L2 cache."""
    import torch

    dtype = getattr(torch, cell.dtype)
    size = int(np.prod(cell.shape)) * dtype.itemsize
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    channels = cell.shape[-1] if len(cell.shape) == 2 else cell.shape[1]

    def one() -> tuple[Any, ...]:
        x, dy = (torch.randn(cell.shape, device="cuda").to(dtype) for _ in range(2))
        weight, bias = (torch.randn(channels, device="cuda").to(dtype) for _ in range(2))
        mean, var = torch.randn(channels, device="cuda"), torch.rand(channels, device="cuda") + 0.5
        return x, dy, weight, bias, mean, var

    return [one() for _ in range(max(2, -(-4 * l2 // size)))]


def milliseconds(call: Call, sets: list[tuple[Any, ...]]) -> float:
    """Return the time of a call over all sets."""
    return events_of([lambda inputs=inputs: call(*inputs) for inputs in sets])


def copy_bandwidth() -> float:
    """Return bytes read and written a second by the card's own copy of a gibibyte."""
    import torch

    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    targets = [torch.empty_like(source) for _ in range(2)]
    return 2 * 2**30 / (events_of([lambda target=target: target.copy_(source) for target in targets]) * 1e-3)


def table(chosen: list[Cell], compile_too: bool, deadline: float) -> None:
    """Print the card, and a line for each cell."""
    import torch

    copy = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; fastnorm {fastnorm.__version__}")
    print(f"copy: {copy / 1e12:.2f} TB/s, read and written\n")
    print(f"{'':42}{'us':>9}{'share':>8}{'eager us':>10}{'compile us':>12}{'error, ulp':>12}")
    for cell in chosen:
        error = check(cell)
        sets = sets_of(cell)
        moved = cell.passes * int(np.prod(cell.shape)) * getattr(torch, cell.dtype).itemsize
        own = milliseconds(by_fastnorm(cell.op), sets)
        eager = milliseconds(by_torch(cell.op), sets)
        compiled = "-"
        if compile_too and time.monotonic() < deadline:
            call = torch.compile(by_torch(cell.op), dynamic=False)
            compiled = f"{milliseconds(call, sets) * 1e3:.1f}"
        share = moved / (own * 1e-3) / copy
        print(f"{cell.name:42}{own * 1e3:9.1f}{share:8.2f}{eager * 1e3:10.1f}{compiled:>12}{error:12.2f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Check, then time what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-only", action="store_true", help="check the results and time nothing")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--only", default="*", help="a pattern of lines, such as 'layer_norm 8192*'")
    parser.add_argument("--seconds", type=float, default=270, help="after so long torch.compile is left out")
    options = parser.parse_args(arguments)
    chosen = [cell for cell in cells() if fnmatch.fnmatch(cell.name, options.only)]
    if options.check_only:
        for cell in {cell.op: cell for cell in chosen}.values() if compat.SIMULATED else chosen:
            print(f"{cell.name:42}{check(cell):8.2f} units of 2^-24 max(1, |y|)")
        return
    reason = compat.why_not() if not compat.SIMULATED else "the simulator's times mean nothing: --check-only"
    if reason is not None:
        raise SystemExit(f"gpu.py: {reason}")
    import torch

    with torch.no_grad():
        table(chosen, not options.no_compile, time.monotonic() + options.seconds)


if __name__ == "__main__":
    main()
