"""A library in a process of its own, as the process that asks sees it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile

from fastnorm.cli.benchmark.worker import Answer, Request

# The modules are those that this process sees, wherever it found them.
START = "import json, sys; path, name, threads = json.loads(sys.argv[1]); sys.path[:] = path; "
SERVE = "from fastnorm.cli.benchmark.worker import main; main(name, threads)"


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    # JAX asks NPROC how many threads to start. ONNX Runtime would report its models.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
    private = {"ORT_DISABLE_TELEMETRY": "1", "JAX_PLATFORMS": "cpu", "FASTNORM_NUM_THREADS": count}
    return {**os.environ, **dict.fromkeys(names, count), **private}


class Process:
    """A library in a process of its own.

    Parameters
    ----------
    name : str
        What it is called.
    threads : int
        How many it may use.
    serve : str, optional
        The code that runs there, given `name` and `threads`. By default the library is one of `LIBRARIES`.
    """

    def __init__(self, name: str, threads: int, serve: str = SERVE) -> None:
        self._name, self._threads, self._code = name, threads, START + serve
        self._started = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this block: `close` closes it
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._code, json.dumps([sys.path, self._name, self._threads])],
            env=_environment(self._threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._started = False

    def send(self, request: Request) -> None:
        """Ask, without waiting for the answer; a process that has died is started anew."""
        if self._process.poll() is not None:
            self._close_process()
            self._start()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died, which the answer will say
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()

    def receive(self) -> Answer:
        """Return the answer."""
        if not self._started:
            greeting = self.greeting()
            if not greeting.ready:
                return greeting
        return self._read()

    def greeting(self) -> Answer:
        """Wait until the library is imported, and say whether it is."""
        self._started = True
        return self._read()

    def _read(self) -> Answer:
        assert self._process.stdout is not None
        try:
            answer: Answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            return Answer(error=f"its process died: {self._last_words()}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return words[-1][:300] if words else f"exit status {status}"

    def close(self) -> None:
        """End the process."""
        self._close_process()
        self._errors.close()

    def _close_process(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # it has died
            process.stdin.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
