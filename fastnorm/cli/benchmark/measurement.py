"""Cell by cell, in interleaved rounds over the libraries."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

import fastnorm
from fastnorm.cli.benchmark.arrays import expected
from fastnorm.cli.benchmark.grid import Cell
from fastnorm.cli.benchmark.libraries import FASTNORM, LIBRARIES, MEMORY, missing
from fastnorm.cli.benchmark.processes import Process
from fastnorm.cli.benchmark.results import CellResult, Results
from fastnorm.cli.benchmark.worker import Answer, Request
from fastnorm.cli.progress import Progress
from fastnorm.inspection import configuration
from fastnorm.lab.peers import versions


class Started(Protocol):
    """What a library's process can do."""

    def send(self, request: Request) -> None:
        """Ask."""

    def receive(self) -> Answer:
        """Return the answer."""

    def greeting(self) -> Answer:
        """Wait until it can be asked."""

    def close(self) -> None:
        """End it."""


class Effort(NamedTuple):
    """How long to measure.

    So many `rounds`, but only one a cell when `deadline` seconds have passed in all; a timing lasts `sample` seconds at
    least, and the machine rests for `rest` seconds before it.
    """

    rounds: int = 5
    sample: float = 0.02
    rest: float = 0.05
    deadline: float = math.inf


def measure(
    cells: Sequence[Cell],
    peers: Sequence[str],
    threads: int,
    effort: Effort,
    progress: Progress,
    start: Callable[[str, int], Started] = Process,
) -> Results:
    """Measure fastnorm, its peers and the memory.

    Parameters
    ----------
    cells : sequence of Cell
        What to measure.
    peers : sequence of str
        Of `PEERS`; those that are not installed are left out.
    threads : int
        How many each library may use.
    effort : Effort
        How long.
    progress : callable
        Told how many cells are done, of how many, and what comes.
    start : callable
        Makes a process of a library's name and the number of threads.

    Returns
    -------
    Results
    """
    left_out = {name: f"{' and '.join(gone)} not installed" for name in peers if (gone := missing(name))}
    names = [MEMORY, FASTNORM, *(name for name in peers if name not in left_out)]
    processes = {name: start(name, threads) for name in names}
    results: list[CellResult] = []
    end = time.monotonic() + effort.deadline
    try:
        progress(0, len(cells), "starting the libraries")
        for name in names:
            greeting = processes[name].greeting()
            if not greeting.ready:
                left_out[name] = greeting.error
                processes.pop(name).close()
        with tempfile.TemporaryDirectory(prefix="fastnorm-bench-") as folder:
            for number, cell in enumerate(cells):
                progress(number, len(cells), cell.name)
                results.append(_measure_cell(cell, processes, threads, effort, end, Path(folder) / "right.npz"))
    finally:
        for process in processes.values():
            process.close()
    progress(len(cells), len(cells), "")
    libraries = [name for name in processes if name != MEMORY]
    packages = [package for name in libraries for package in LIBRARIES[name].modules if package != "onnx"]
    found = versions(["fastnorm", "python", *packages])
    return Results(results, libraries, left_out, threads, effort.rounds, _machine(), found)


def _measure_cell(
    cell: Cell, processes: Mapping[str, Started], threads: int, effort: Effort, end: float, right: Path
) -> CellResult:
    np.savez(right, *expected(cell))
    samples, errors, rounds = time_cell(cell, processes, effort, end, str(right))
    shortest = {name: min(values) for name, values in samples.items()}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    # What memory allows is its best: what held it up would flatter the libraries.
    limit = shortest.pop(MEMORY, None)
    medians.pop(MEMORY, None)
    with fastnorm.config(num_threads=threads):
        choice = fastnorm.explain(cell.op, cell.shape, cell.dtype)
    return CellResult(cell, limit, medians, shortest, errors, choice.backend, choice.threads, rounds)


def time_cell(
    cell: Any, processes: Mapping[str, Started], effort: Effort, end: float = math.inf, right: str = ""
) -> tuple[dict[str, list[float]], dict[str, str], int]:
    """Time a cell in every process, in rounds whose order turns round.

    Parameters
    ----------
    cell : object
        What the processes know how to call.
    processes : mapping of str to Started
        By library.
    effort : Effort
        How long.
    end : float
        By `time.monotonic`; after it no round is begun but the first.
    right : str
        The file of the right result; without one nothing is checked.

    Returns
    -------
    samples : dict of str to list of float
        Seconds of each round, of the libraries that have the cell and in which nothing went wrong.
    errors : dict of str to str
        What went wrong in the others.
    rounds : int
        As many as there was time for.
    """
    errors: dict[str, str] = {}
    ready = []
    # One after another: two at once would disturb each other's calibration.
    for name, process in processes.items():
        process.send(Request(cell, "" if name == MEMORY else right, effort.sample))
        answer = process.receive()
        if answer.error:
            errors[name] = answer.error
        elif answer.ready:
            ready.append(name)
    samples: dict[str, list[float]] = {name: [] for name in ready}
    rounds = 0
    while rounds < effort.rounds and (rounds == 0 or time.monotonic() < end):
        for name in ready if rounds % 2 == 0 else reversed(ready):
            if name in errors:
                continue
            time.sleep(effort.rest)  # the threads of the library before it go on spinning for a while
            processes[name].send(Request())
            answer = processes[name].receive()
            if answer.error:
                errors[name] = answer.error
            else:
                samples[name].append(answer.seconds)
        rounds += 1
    for name in ready:
        if name not in errors:
            processes[name].send(Request(release=True))  # memory is for the next cell
            processes[name].receive()
    return {name: values for name, values in samples.items() if name not in errors}, errors, rounds


def _machine() -> dict[str, Any]:
    found = configuration()
    return {
        "processor": found["cpu"],
        "cpus": found["cpus"],
        "system": found["platform"],
        "variant": found["cython"].get("variant chosen", "none"),
    }
