"""Many callers at once, and processes forked from them: on every layer of Numba, and on the library's own pool."""

import os
import sys
from pathlib import Path

import pytest
from processes import output, python

from fastnorm.backends import registry

LAYERS = {"omp": "numba.np.ufunc.omppool", "tbb": "numba.np.ufunc.tbbpool", "workqueue": "numba.np.ufunc.workqueue"}
# The backend, and the layer under it.
POOLS = [("cython", "own"), *(("numba", layer) for layer in LAYERS)]

each_pool = pytest.mark.parametrize(("backend", "layer"), POOLS, ids=["-".join(pool) for pool in POOLS])

# Small and large calls of every primitive, and what they gave to one thread alone.
CALLS = """
import os, sys, threading, warnings
import numpy as np, fastnorm
from fastnorm import tuning
tuning.SERIAL_ELEMENTS = 4096
fastnorm.set_num_threads(4)
rng = np.random.default_rng(0)
rows = rng.standard_normal((32, 300)).astype(np.float32)
images = rng.standard_normal((4, 6, 20, 20)).astype(np.float32)
mean, var = np.arange(6.0), np.ones(6)
calls = [
    lambda: fastnorm.layer_norm(rows[:2]),
    lambda: fastnorm.layer_norm(rows, np.arange(300.0), np.ones(300)),
    lambda: fastnorm.layer_norm(rows, axis=0),
    lambda: fastnorm.rms_norm(rows),
    lambda: fastnorm.batch_norm(images, mean, var),
    lambda: fastnorm.batch_norm(images, training=True),
    lambda: fastnorm.group_norm(images, 3),
    lambda: fastnorm.instance_norm(images, channel_axis=-1),
    lambda: fastnorm.moments(images, axis=(0, 2, 3)).var,
    lambda: fastnorm.min_max_scale(rows),
]
with fastnorm.config(num_threads=1):
    expected = [call() for call in calls]
def check(number):
    k = number % len(calls)
    if not np.array_equal(calls[k](), expected[k]):
        raise SystemExit(f"call {k} gave other bits")
"""

THREADS = """
failures = []
def work(first):
    try:
        for number in range(first, first + 1000):
            check(number)
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(first,)) for first in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures or "same bits")
"""

FORKS = """
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while other threads run, which is the point
for number in range(100):
    check(number)
    child = os.fork()
    if not child:
        try:
            for k in range(len(calls)): check(k)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status: raise SystemExit(f"child {number} ended with {status}")
for number in range(100): check(number)
print("same bits")
"""

PROCESSORS = """
import pathlib, time
everywhere = os.sched_getaffinity(0)
check(1)
def workers():
    return {int(folder.name) for folder in pathlib.Path("/proc/self/task").iterdir()} - {os.getpid()}
def free():
    return all(os.sched_getaffinity(thread) == everywhere for thread in workers())
seen = 0
for number in range(200):  # the caller comes to where the workers are, which then move
    os.sched_setaffinity(0, {sorted(everywhere)[number // 3 % len(everywhere)]})
    check(number)
    seen += not free()
    time.sleep(0.002)
os.sched_setaffinity(0, everywhere)
if seen and os.environ["FASTNORM_MOVE_THREADS"] == "0": raise SystemExit("a thread was moved")
for number in range(1000):
    check(number)
    if len(workers()) > 2 and free(): break
    time.sleep(0.005)
else:
    raise SystemExit("a thread may not run where it might before")
print("same bits")
"""

POOL_OF_PROCESSES = """
import multiprocessing
warnings.simplefilter("ignore", DeprecationWarning)
for number in range(20): check(number)
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(check, range(40))
print("same bits")
"""

LOKY = """
import joblib
for number in range(20): check(number)
def norm(k):
    return fastnorm.layer_norm(np.full((200, 300), np.float32(k)) * np.arange(300, dtype=np.float32))
for k, y in enumerate(joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(norm)(k) for k in range(8))):
    assert np.array_equal(y, norm(k))
print("same bits")
"""


FORK_WHILE_IMPORTING = """
import os, signal, threading, warnings
import numpy as np
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while other threads run, which is the point
import fastnorm
x = np.ones((200, 300), np.float32)
threads = [threading.Thread(target=lambda: fastnorm.layer_norm(x)) for _ in range(3)]
for thread in threads: thread.start()
child = os.fork()
if not child:
    signal.alarm(60)  # ends a child that waits for an import
    fastnorm.rms_norm(fastnorm.layer_norm(x))
    os._exit(0)
for thread in threads: thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORK_BESIDE_NUMBA = """
import fastnorm, logging  # whose lock a fork holds, if it was imported later
import os, threading, time, warnings
import numpy as np
warnings.simplefilter("ignore", DeprecationWarning)
x = np.ones((200, 300), np.float32)
fastnorm.layer_norm(x)
thread = threading.Thread(target=lambda: fastnorm.layer_norm(x, backend="numba"), daemon=True)
thread.start()
time.sleep(0.05)
started = time.monotonic()
child = os.fork()
if not child:
    fastnorm.layer_norm(x)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - started < 20, flush=True)
os._exit(0)  # without waiting for a compiler
"""

CHANGING_LIST = """
import threading, numpy as np, fastnorm
small, large = np.ones(10, np.float32), np.ones(500_000, np.float32)
arrays = [np.ones(300_000, np.float32), small]
done = threading.Event()
def swap():
    while not done.is_set():
        arrays[1] = large
        arrays[1] = "no array"
        arrays[1] = small
swapping = threading.Thread(target=swap)
swapping.start()
sizes = set()
for _ in range(400):
    try:
        clipped, norm = fastnorm.clip_by_global_norm(arrays, 1.0)
    except TypeError:
        continue
    sizes.add((clipped[1].size, round(norm * norm)))
done.set()
swapping.join()
print(sizes <= {(10, 300_010), (500_000, 800_000)})
"""


def run(code: str, backend: str, layer: str) -> str:
    reason = registry.why_not(backend)
    if reason is not None:
        pytest.skip(reason)
    variables = {"FASTNORM_BACKEND": backend, "NUMBA_NUM_THREADS": "4"}
    if layer in LAYERS:
        # Where pip puts libtbb; the loader does not look there by itself.
        variables |= {"NUMBA_THREADING_LAYER": layer, "LD_LIBRARY_PATH": str(Path(sys.prefix) / "lib")}
        loaded = python(f"import {LAYERS[layer]}", **variables)
        if loaded.returncode:
            pytest.skip(f"Numba's threading layer {layer} cannot be loaded here: {loaded.stderr.splitlines()[-1]}")
    return output(CALLS + code, **variables)


@each_pool
def test_sixteen_threads_make_a_thousand_calls_each(backend: str, layer: str) -> None:
    assert run(THREADS, backend, layer) == "same bits"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
@each_pool
def test_a_hundred_forks_after_parallel_calls(backend: str, layer: str) -> None:
    assert run(FORKS, backend, layer) == "same bits"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
@each_pool
def test_a_pool_of_forked_processes(backend: str, layer: str) -> None:
    assert run(POOL_OF_PROCESSES, backend, layer) == "same bits"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
def test_a_fork_waits_for_imports_of_other_threads() -> None:
    for _ in range(3):
        assert output(FORK_WHILE_IMPORTING) == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this operating system has no fork")
def test_a_fork_does_not_wait_for_numba() -> None:
    for name in ("cython", "numba"):
        if (reason := registry.why_not(name)) is not None:
            pytest.skip(reason)
    assert output(FORK_BESIDE_NUMBA) == "0 True"


def test_more_threads_than_units() -> None:
    code = """
import numpy as np, fastnorm
from fastnorm import tuning
tuning.SERIAL_ELEMENTS = 0
fastnorm.set_num_threads(2**30)  # times 4, it is 0 as a C int
x = np.ones((300, 64), np.float32)
print(np.ptp(fastnorm.normalize(x, np.zeros(64), np.full(64, 4.0), eps=0.0, backend="cython")))
"""
    if (reason := registry.why_not("cython")) is not None:
        pytest.skip(reason)
    assert output(code) == "0.0"


def test_a_list_that_changes_while_its_arrays_are_clipped() -> None:
    assert output(CHANGING_LIST) == "True"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this operating system has no sched_setaffinity")
@pytest.mark.parametrize("moves", ["0", "1"])
def test_threads_are_moved_only_if_they_may_be_and_then_run_anywhere_again(
    moves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTNORM_MOVE_THREADS", moves)
    assert run(PROCESSORS, "cython", "own") == "same bits"


@each_pool
def test_processes_of_loky(backend: str, layer: str) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed")
    assert run(LOKY, backend, layer) == "same bits"
