"""The process of one library: it prepares a cell when asked, checks its result, and takes times."""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastnorm.cli.benchmark.arrays import error_of, inputs
from fastnorm.cli.benchmark.libraries import LIBRARIES
from fastnorm.lab.timing import seconds_per_call

# Takes a cell and returns its call, None if the library lacks it.
CallOf = Callable[[Any], Callable[[], Any] | None]


class Request(NamedTuple):
    """What a process is asked to do.

    `cell` prepares it; `right` is the file with its right result, as `numpy.savez` writes it, if that is to be checked;
    without a cell the one that is prepared is timed.
    """

    cell: Any = None
    right: str = ""
    sample: float = 0.0
    release: bool = False


class Answer(NamedTuple):
    """What comes back: nothing if the library lacks the cell, else that it is ready, a time, or what went wrong."""

    ready: bool = False
    seconds: float = math.nan
    error: str = ""


class Bench:
    """One library and the cell it is at."""

    def __init__(self, call_of: CallOf) -> None:
        self.call_of = call_of
        self.call: Callable[[], Any] | None = None
        self.repeats = 1

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        try:
            if request.release:
                self.call = None
                return Answer()
            if request.cell is not None:
                return self._start(request.cell, request.right, request.sample)
            return Answer(True, self._time())
        except Exception as error:
            self.call = None
            words = " ".join(str(error).split())
            return Answer(error=f"{type(error).__name__}: {words}"[:300])

    def _start(self, cell: Any, right: str, sample: float) -> Answer:
        self.call = None
        call = self.call_of(cell)
        if call is None:
            return Answer()
        result = call()
        if right:
            with np.load(right) as truth:
                wrong = error_of(cell, result, [truth[name] for name in truth.files])
            if wrong is not None:
                return Answer(error=wrong)
        del result
        quickest = min(seconds_per_call(call, 1) for _ in range(3 if sample else 1))
        self.repeats = max(1, math.ceil(sample / max(quickest, 1e-7)))
        self.call = call
        return Answer(True)

    def _time(self) -> float:
        if self.call is None:
            raise RuntimeError("no cell is prepared")
        self.call()  # untimed: caches are filled again, and another library's threads come to rest
        return seconds_per_call(self.call, self.repeats)


def main(name: str, threads: int) -> None:
    """Serve cells of the grid by a library, a key of `LIBRARIES`, with so many threads."""

    def load() -> CallOf:
        prepare = LIBRARIES[name].load()
        return lambda cell: prepare(cell, inputs(cell), threads)

    serve(load)


def serve(load: Callable[[], CallOf]) -> None:
    """Answer requests from standard input until it ends.

    Parameters
    ----------
    load : callable
        Imports the library and returns what makes a cell's call.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is told, and closes standard input
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    try:
        bench = Bench(load())
        greeting = Answer(ready=True)
    except Exception as error:
        greeting = Answer(error=f"{type(error).__name__}: {error}"[:300])
    pickle.dump(greeting, answers)
    answers.flush()
    if not greeting.ready:
        return
    gc.disable()
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if request.cell is not None or request.release:
            gc.collect()
        pickle.dump(bench.answer(request), answers)
        answers.flush()
