"""Libraries side by side: one process each, one awake at a time, rounds interleaved; medians and ratios.

A race is a module with `CELLS` (strings), `LIBRARIES` (ours first) and `build(library, cell)`, which returns a call
without arguments, or None where a library does not offer it; it ends with ``race.main(__file__)``. Processes and rounds
are those of `fastnorm bench`.
"""

import argparse
import importlib
import os
import statistics
import sys
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from fastnorm.cli.benchmark.measurement import Effort, time_cell
from fastnorm.cli.benchmark.processes import Process
from fastnorm.cli.benchmark.worker import serve


def threads() -> int:
    """Return how many threads this process may use, for libraries that do not look for themselves, as PyTorch does."""
    return int(os.environ["OMP_NUM_THREADS"])


def work(module: str, library: str) -> None:
    """Serve one library, in its process."""
    serve(lambda: partial(importlib.import_module(module).build, library))


def main(path: str) -> None:
    """Race: print a row for each cell, in microseconds, and how far ahead of the best peer ours is."""
    module = sys.modules["__main__"]
    parser = argparse.ArgumentParser(description=module.__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="for each library (default: 2)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells whose name matches, with wildcards")
    options = parser.parse_args()
    ours = module.LIBRARIES[0]
    code = f"import race; race.work({Path(path).stem!r}, name)"
    processes = {library: Process(library, options.threads, code) for library in module.LIBRARIES}
    ratios = []
    try:
        for cell in module.CELLS:
            if not fnmatchcase(cell, options.only):
                continue
            samples, errors, _ = time_cell(cell, processes, Effort(rounds=options.rounds))
            for name, error in errors.items():
                print(f"{name}, {cell}: {error}", file=sys.stderr)
            medians = {name: statistics.median(times) * 1e6 for name, times in samples.items()}
            peers = {name: value for name, value in medians.items() if name != ours}
            row = f"{cell:44s}" + "".join(f" {name} {value:,.1f}" for name, value in medians.items())
            if peers and ours in medians:
                best = min(peers, key=lambda name: peers[name])
                ratios.append(peers[best] / medians[ours])
                row += f"   {best} / {ours} {ratios[-1]:.2f}"
            print(row, flush=True)
    finally:
        for process in processes.values():
            process.close()
    if ratios:
        print(f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, cells {len(ratios)}")
