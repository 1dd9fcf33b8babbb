"""Libraries side by side: one process each, one awake at a time, rounds interleaved; medians and ratios.

A race is a module with `CELLS` (strings), `LIBRARIES` (ours first) and `build(library, cell)`, which returns a call
without arguments, or None where a library does not offer it; it ends with ``race.main(__file__)``.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

SECONDS_PER_SAMPLE = 0.02
# Between two samples: other libraries' threads go on spinning on a processor, ONNX Runtime's for 45 milliseconds.
REST_SECONDS = 0.05


def _module(path: str) -> ModuleType:
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _work(path: str, library: str) -> None:
    """Serve one library: a cell's name builds its call, an empty line times it."""
    module = _module(path)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints
    call: Callable[[], object] | None = None
    count = 1

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    for line in sys.stdin:
        if cell := line.strip():
            try:
                call = module.build(library, cell)
            except (ImportError, NotImplementedError) as error:
                print(f"{library}, {cell}: {error}", file=sys.stderr)
                call = None
            if call is not None:
                call()
                started = time.perf_counter()
                call()
                count = max(1, int(SECONDS_PER_SAMPLE / (time.perf_counter() - started)))
            answer(call is not None)
        elif call is not None:
            call()  # what another process has put into the caches leaves them
            started = time.perf_counter()
            for _ in range(count):
                call()
            answer((time.perf_counter() - started) / count)


def _start(path: str, library: str, threads: int) -> "subprocess.Popen[str]":
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "FASTNORM_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, count)
    folder = os.path.dirname(os.path.abspath(__file__))
    code = f"import sys; sys.path.insert(0, {folder!r}); import race; race._work({path!r}, {library!r})"
    # -P: the library that is installed, not the sources that may lie in this folder, which have no compiled kernels.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(process: "subprocess.Popen[str]", line: str) -> float | bool:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer: float | bool = json.loads(process.stdout.readline())
    return answer


def main(path: str) -> None:
    """Race: print a row for each cell, in microseconds, and how far ahead of the best peer ours is."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="for each library (default: 2)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells whose name matches, with wildcards")
    options = parser.parse_args()
    path = os.path.abspath(path)
    module = _module(path)
    ours = module.LIBRARIES[0]
    racers = {library: _start(path, library, options.threads) for library in module.LIBRARIES}
    ratios = []
    for cell in module.CELLS:
        if not fnmatchcase(cell, options.only):
            continue
        samples: dict[str, list[float]] = {name: [] for name, racer in racers.items() if _ask(racer, cell)}
        for _ in range(options.rounds):
            for name, times in samples.items():
                time.sleep(REST_SECONDS)
                times.append(float(_ask(racers[name], "")) * 1e6)
        medians = {name: statistics.median(times) for name, times in samples.items()}
        peers = {name: value for name, value in medians.items() if name != ours}
        row = f"{cell:44s}" + "".join(f" {name} {value:,.1f}" for name, value in medians.items())
        if peers and ours in medians:
            best = min(peers, key=lambda name: peers[name])
            ratios.append(peers[best] / medians[ours])
            row += f"   {best} / {ours} {ratios[-1]:.2f}"
        print(row, flush=True)
    for racer in racers.values():
        racer.communicate()
    if ratios:
        print(f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, cells {len(ratios)}")
