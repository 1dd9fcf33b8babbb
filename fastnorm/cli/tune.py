"""``fastnorm tune``: measure the dispatcher's thresholds on this machine and keep them for the processes to come."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

import fastnorm
from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.cli.printing import fail, print_table, tell
from fastnorm.cli.progress import Progress, progress_bar
from fastnorm.lab.timing import interleaved
from fastnorm.memory import empty

# What one thread and two take, from 4,096 elements to 2**20, in rows of 256: `tuning.threads_for` begins with two.
SIZES = tuple(2**k for k in range(12, 21))
ROW = 256
# A second thread, or another backend, has to be so much faster to be worth it: less is noise.
MARGIN = 0.9
# Elements of the calls by which backends are compared, below the threshold and above it.
SMALL, LARGE = (2**10, 2**13, 2**15), (2**18, 2**20, 2**22)
# A fresh output is slow where writing it takes so many times as long as writing recycled memory.
SLOW = 1.25
BLOCKS = tuple(2**k for k in range(20, 28))
# Bytes of outputs that are stored as usual, or past the caches.
OUTPUTS = tuple(2**k for k in range(24, 29))
SECONDS = 0.4  # for one comparison
PROCESSES = 3


@dataclass(frozen=True)
class Measured:
    """What was found. Times are microseconds of a call; the keys of the dictionaries are elements, or bytes."""

    threads: int
    one_thread: dict[int, float]
    two_threads: dict[int, float]
    backends: dict[str, dict[int, float]]
    fresh: dict[int, float]
    recycled: dict[int, float]
    stored: dict[int, float]
    streamed: dict[int, float]
    first_calls: dict[str, list[float]]  # import, first call, second call, in a new process
    thresholds: tuning.Tuned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--reset", action="store_true", help="forget what was measured on this machine, measure nothing"
    )
    instead.add_argument("--dry-run", action="store_true", help="measure and print, keep nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


@contextlib.contextmanager
def _threshold(name: str, value: int) -> Iterator[None]:
    """Have a threshold in force for a while."""
    before = getattr(tuning, name)
    setattr(tuning, name, value)
    try:
        yield
    finally:
        setattr(tuning, name, before)


def _call(elements: int, backend: str, num_threads: int) -> Callable[[], object]:
    """Return a call of layer_norm in the general path, whose output exists already."""
    x = np.random.default_rng(0).standard_normal((elements // ROW, ROW), dtype=np.float32)
    y = empty(x.shape, x.dtype)  # as the library makes its outputs

    def call() -> None:
        with fastnorm.config(backend=backend, num_threads=num_threads):
            fastnorm.layer_norm(x, out=y)

    return call


def _microseconds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    return {name: seconds * 1e6 for name, seconds in interleaved(calls, budget=SECONDS).items()}


def _last_without_gain(before: dict[int, float], after: dict[int, float], gain: float) -> int:
    """Return the largest key at which `after` takes more than `gain` of `before`; 0 if there is none."""
    return max((key for key in before if after[key] > gain * before[key]), default=0)


def _blocks(size: int) -> dict[str, float]:
    """Return the microseconds of writing `size` bytes of fresh and of recycled memory."""
    kept = np.empty(size, np.uint8)
    fresh, recycled = [], []
    for _ in range(7):
        start = time.perf_counter()
        np.empty(size, np.uint8).fill(1)
        middle = time.perf_counter()
        kept.fill(1)
        fresh.append(middle - start)
        recycled.append(time.perf_counter() - middle)
    return {"fresh": statistics.median(fresh[1:]) * 1e6, "recycled": statistics.median(recycled[1:]) * 1e6}


def _streams(size: int, backend: str, num_threads: int) -> dict[str, float]:
    """Return the microseconds of a call whose output of `size` bytes is stored as usual, and past the caches."""
    call = _call(size // 4, backend, num_threads)

    def with_threshold(value: int) -> Callable[[], object]:
        def timed() -> None:
            with _threshold("STREAM_BYTES", value):
                call()

        return timed

    return _microseconds({"stored": with_threshold(2**62), "streamed": with_threshold(0)})


def _order(times: dict[str, dict[int, float]], sizes: tuple[int, ...]) -> tuple[str, ...]:
    """Return the backends as the library prefers them, but one ahead of another that it beats by the margin."""
    means = {name: statistics.geometric_mean(of[size] for size in sizes) for name, of in times.items()}
    order = [name for name in tuning.Tuned().small if name in means]
    for place in range(1, len(order)):
        while place and means[order[place]] < MARGIN * means[order[place - 1]]:
            order[place - 1 : place + 1] = reversed(order[place - 1 : place + 1])
            place -= 1
    # What cannot run here keeps its place behind the others: it may be installed later.
    return tuple(order + [name for name in tuning.Tuned().small if name not in means])


FIRST_CALL = """
import time
import numpy as np
x = np.ones((128, 768), np.float32)
start = time.perf_counter()
import fastnorm
imported = time.perf_counter()
with fastnorm.config(backend={name!r}):
    fastnorm.layer_norm(x)
    first = time.perf_counter()
    fastnorm.layer_norm(x)
print((imported - start) * 1e6, (first - imported) * 1e6, (time.perf_counter() - first) * 1e6)
"""


def _first_calls(name: str) -> list[float]:
    """Return microseconds of a new process: of the import, of its first call, and of its second, by a backend."""
    # Not from the current directory: there may lie a source tree without compiled modules.
    command = [sys.executable, "-P", "-c", FIRST_CALL.format(name=name)]
    samples = [
        [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
        for _ in range(PROCESSES)
    ]
    return [statistics.median(column) for column in zip(*samples, strict=True)]


def measure(progress: Progress) -> Measured:
    """Measure everything."""
    threads = fastnorm.get_num_threads()
    names = [name for name in tuning.Tuned().small if registry.why_not(name) is None]
    first = registry.load_first(tuning.Tuned().small).name
    total, done = len(SIZES) + len(SMALL + LARGE) + len(BLOCKS) + len(OUTPUTS) + len(names), 0
    one: dict[int, float] = {}
    two: dict[int, float] = {}
    backends: dict[str, dict[int, float]] = {name: {} for name in names}
    fresh: dict[int, float] = {}
    recycled: dict[int, float] = {}
    with _threshold("SERIAL_ELEMENTS", 0):
        for size in SIZES:
            progress(done, total, f"threads, {size:,} elements")
            found = _microseconds({"one": _call(size, first, 1), "two": _call(size, first, min(2, threads))})
            one[size], two[size] = found["one"], found["two"]
            done += 1
    for size in SMALL + LARGE:
        progress(done, total, f"backends, {size:,} elements")
        for name, taken in _microseconds({name: _call(size, name, threads) for name in names}).items():
            backends[name][size] = taken
        done += 1
    for size in BLOCKS:
        progress(done, total, f"memory, {size / 2**20:g} MiB")
        found = _blocks(size)
        fresh[size], recycled[size] = found["fresh"], found["recycled"]
        done += 1
    stored: dict[int, float] = {}
    streamed: dict[int, float] = {}
    for size in OUTPUTS:
        progress(done, total, f"stores, {size / 2**20:g} MiB")
        found = _streams(size, first, threads)
        stored[size], streamed[size] = found["stored"], found["streamed"]
        done += 1
    first_calls = {}
    for name in names:
        progress(done, total, f"first call, {name}")
        first_calls[name] = _first_calls(name)
        done += 1
    progress(total, total, "")
    serial = _last_without_gain(one, two, MARGIN) if threads > 1 else tuning.Tuned().serial_elements
    # Blocks of up to `quick` bytes come from the C library as fast as from the pool.
    quick = max((size for size in BLOCKS if fresh[size] <= SLOW * recycled[size]), default=BLOCKS[0] // 2)
    # Beyond all that was measured where this processor has no such stores, or none was faster.
    cached = _last_without_gain(stored, streamed, MARGIN)
    stream = 2 * cached if cached < max(OUTPUTS) else max(tuning.Tuned().stream_bytes, 2 * max(OUTPUTS))
    thresholds = tuning.Tuned(
        serial, _order(backends, SMALL), _order(backends, LARGE), 2 * quick, max(stream, min(OUTPUTS))
    )
    return Measured(threads, one, two, backends, fresh, recycled, stored, streamed, first_calls, thresholds)


def _print(found: Measured) -> None:
    print(f"{tuning.cpu_model()}; microseconds of a call, medians of interleaved rounds\n")
    cells = [
        [f"{size:,}", f"{one:.1f}", f"{found.two_threads[size]:.1f}", f"{one / found.two_threads[size]:.2f}"]
        for size, one in found.one_thread.items()
    ]
    print_table(["elements", "one thread", f"{min(2, found.threads)} threads", "gain"], cells, text_columns=())
    print()
    cells = [[f"{size:,}", *(f"{times[size]:.1f}" for times in found.backends.values())] for size in SMALL + LARGE]
    print_table(["elements", *found.backends], cells, text_columns=())
    print()
    cells = [
        [f"{size / 2**20:g}", f"{taken:.0f}", f"{found.recycled[size]:.0f}"] for size, taken in found.fresh.items()
    ]
    print_table(["MiB", "fresh memory", "recycled"], cells, text_columns=())
    print()
    cells = [
        [f"{size / 2**20:g}", f"{taken:.0f}", f"{found.streamed[size]:.0f}"] for size, taken in found.stored.items()
    ]
    print_table(["MiB of output", "stored", "past the caches"], cells, text_columns=())
    print()
    cells = [[name, *(f"{taken:,.0f}" for taken in times)] for name, times in found.first_calls.items()]
    print_table(["in a new process", "import", "first call", "second call"], cells, text_columns=(0,))
    print()
    defaults = tuning.Tuned()
    for name, value in found.thresholds._asdict().items():
        shown = ", ".join(value) if isinstance(value, tuple) else f"{value:,}"
        usual = getattr(defaults, name)
        unchanged = ", ".join(usual) if isinstance(usual, tuple) else f"{usual:,}"
        print(f"{name:22}{shown}" + ("" if value == usual else f"   (otherwise {unchanged})"))


def run(arguments: argparse.Namespace) -> int:
    """
    Measure, print, and keep the thresholds in the user's cache directory.

    Returns
    -------
    int
        The exit status: 2 where the cache directory cannot be written.
    """
    path = tuning.tuned_file()
    existed = False
    try:
        if arguments.reset:
            existed = path.exists()
            path.unlink(missing_ok=True)
        elif not arguments.dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return fail("tune", f"{path} cannot be {'removed' if arguments.reset else 'written'}: {error}", 2)
    if arguments.reset:
        if arguments.json:
            print(json.dumps({"file": str(path), "existed": existed}))
        else:
            print(f"{path} {'is gone' if existed else 'was not there'}: the library's own thresholds are in force")
        return 0
    started = time.perf_counter()
    with progress_bar() as progress:
        found = measure(progress)
    kept = {"processor": tuning.cpu_model(), "fastnorm": fastnorm.__version__, "thresholds": found.thresholds._asdict()}
    if arguments.json:
        print(json.dumps(asdict(found) | kept, indent=2))
    else:
        _print(found)
        print(f"\n{math.ceil(time.perf_counter() - started)} seconds", end="")
    if arguments.dry_run:
        print("" if arguments.json else "; nothing kept")
        return 0
    try:
        path.write_text(json.dumps(kept, indent=2), encoding="utf-8")
    except OSError as error:
        tell("")
        return fail("tune", f"{path} cannot be written: {error}", 2)
    if not arguments.json:
        print(f"; processes that start from now on read {path}")
    return 0
