"""How `fastnorm bench` measures: in processes of their own, in turns; nothing here depends on how long it takes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bench_cases import LAYER, MOMENTS, TINY

from fastnorm.cli.benchmark import arrays, libraries, measurement, report, with_memory
from fastnorm.cli.benchmark.measurement import Effort
from fastnorm.cli.benchmark.processes import Process
from fastnorm.cli.benchmark.results import Results
from fastnorm.cli.benchmark.worker import Answer, Bench, Request

AT_ONCE = Effort(rounds=2, sample=0, rest=0)


# The processes


@pytest.mark.parametrize("name", [name for name in libraries.LIBRARIES if name != libraries.MEMORY])
def test_every_library_computes_every_cell_right_or_lacks_it(name: str, tmp_path: pathlib.Path) -> None:
    if gone := libraries.missing(name):
        pytest.skip(f"{' and '.join(gone)}, which this compares with, is not installed")
    right = tmp_path / "right.npz"
    process = Process(name, 1)
    lacking = []
    try:
        for cell in TINY:
            np.savez(right, *arrays.expected(cell))
            process.send(Request(cell, str(right)))
            answer = process.receive()
            assert not answer.error, f"{cell.name}: {answer.error}"
            if not answer.ready:
                lacking.append(cell.op)
                continue
            process.send(Request())
            assert process.receive().seconds > 0, cell.name
    finally:
        process.close()
    if name in ("fastnorm", "numpy", "torch", "jax"):
        assert not lacking
    else:
        assert "moments" in lacking
        assert "rms_norm" not in lacking


def test_a_process_that_died_says_so_and_is_started_anew(tmp_path: pathlib.Path) -> None:
    right = tmp_path / "right.npz"
    np.savez(right, *arrays.expected(LAYER))
    process = Process("numpy", 1)
    try:
        assert process.greeting().ready
        process._process.kill()
        process._process.wait()
        assert process.receive().error.startswith("its process died")
        process.send(Request(LAYER, str(right)))
        assert process.receive().ready
    finally:
        process.close()


def test_memory_is_copied_or_read_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(101, dtype=np.uint64)
    targets = []
    monkeypatch.setattr(np, "zeros_like", lambda array: targets.append(np.full_like(array, 7)) or targets[0])
    ways = with_memory._copies(x, 2)
    assert len(ways) == 3
    for way in ways:
        targets[0][:] = 7
        way()
        np.testing.assert_array_equal(targets[0], x)
    monkeypatch.undo()
    assert [np.bitwise_or.reduce(way()) for way in with_memory._reads(x, 2)] == [127, 127]


@pytest.fixture
def right(tmp_path: pathlib.Path) -> str:
    """Write the right result of LAYER."""
    path = tmp_path / "right.npz"
    np.savez(path, *arrays.expected(LAYER))
    return str(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda given: lambda: np.zeros_like(given.x), "wrong result"),
        (lambda given: lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_gets_no_time(call: Callable[..., Any], words: str, right: str) -> None:
    one = Bench(lambda cell: call(arrays.inputs(cell)))
    assert words in one.answer(Request(LAYER, right)).error
    assert "no cell is prepared" in one.answer(Request()).error


def test_a_cell_that_a_library_lacks_is_no_error(right: str) -> None:
    one = Bench(lambda cell: None)
    assert one.answer(Request(LAYER, right))[::2] == (False, "")


def test_a_released_cell_is_timed_no_more(right: str) -> None:
    one = Bench(lambda cell: libraries.prepare_numpy(cell, arrays.inputs(cell), 1))
    assert one.answer(Request(LAYER, right)).ready
    assert one.answer(Request()).ready
    one.answer(Request(release=True))
    assert one.answer(Request()).error


# The measurement, of processes that only say that they are


class Pretended:
    """Answers with the times it was given; the asked are written down."""

    asked: list[tuple[str, str]]
    times: dict[str, Any]

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.left, self.reply = name, iter(()), Answer()
        self.closed = False
        started.append(self)

    def greeting(self) -> Answer:
        return Answer(error="ImportError: broken") if self.times.get(self.name) == "broken" else Answer(ready=True)

    def send(self, request: Request) -> None:
        if request.release:
            return
        self.asked.append((self.name, "time" if request.cell is None else request.cell.name))
        if request.cell is None:
            self.reply = next(self.left)
            return
        if self.name == libraries.MEMORY:
            assert not request.right
        else:
            assert np.load(request.right)["arr_0"].dtype == np.float64
        given = self.times.get(self.name, [1.0] * 9)
        if given is None or isinstance(given, str):
            self.reply = Answer(error=given or "")
        else:
            self.left = iter(Answer(True, one) if isinstance(one, float) else Answer(error=one) for one in given)
            self.reply = Answer(ready=True)

    def receive(self) -> Answer:
        return self.reply

    def close(self) -> None:
        self.closed = True


started: list[Pretended] = []


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Results]]:
    """Measure with these times: a list for each round, None for what lacks the cell, a text for an error."""
    monkeypatch.setattr(measurement, "missing", lambda name: ["jax"] if name == "jax" else [])
    started.clear()

    def run(times: dict[str, Any], effort: Effort = AT_ONCE, cells: Any = (LAYER,)) -> Results:
        monkeypatch.setattr(Pretended, "times", times, raising=False)
        monkeypatch.setattr(Pretended, "asked", [], raising=False)
        return measurement.measure(cells, ["numpy", "torch", "jax"], 2, effort, lambda *_: None, Pretended)

    yield run
    assert all(one.closed for one in started)


def test_medians_of_libraries_and_the_least_of_memory(pretend: Callable[..., Results]) -> None:
    times = {"memory": [3.0, 1.0, 2.0], "fastnorm": [5.0, 4.0, 9.0], "numpy": [8.0, 6.0, 7.0], "torch": None}
    results = pretend(times, AT_ONCE._replace(rounds=3))
    one = results.cells[0]
    assert one.limit == 1.0
    assert one.seconds == {"fastnorm": 5.0, "numpy": 7.0}
    assert one.shortest == {"fastnorm": 4.0, "numpy": 6.0}
    assert (one.best_peer, one.ratio, one.shortest_ratio, one.share) == ("numpy", 1.4, 1.5, 0.2)
    assert results.left_out == {"jax": "jax not installed"}
    assert not one.errors


def test_rounds_are_interleaved_and_turn_round(pretend: Callable[..., Results]) -> None:
    pretend({})
    order = ["memory", "fastnorm", "numpy", "torch"]
    assert [name for name, what in Pretended.asked if what == "time"] == order + order[::-1]


def test_errors_leave_no_time(pretend: Callable[..., Results]) -> None:
    one = pretend({"numpy": "wrong result: off by 1", "torch": [1.0, "its process died"], "memory": ["lost"]}).cells[0]
    assert one.seconds == {"fastnorm": 1.0}
    assert one.limit is None
    assert one.errors == {"numpy": "wrong result: off by 1", "torch": "its process died", "memory": "lost"}


def test_a_library_that_cannot_be_imported_is_left_out(pretend: Callable[..., Results]) -> None:
    results = pretend({"torch": "broken"})
    assert results.libraries == ["fastnorm", "numpy"]
    assert results.left_out["torch"] == "ImportError: broken"


def test_when_time_runs_out_there_is_one_round(pretend: Callable[..., Results]) -> None:
    results = pretend({}, AT_ONCE._replace(deadline=0), (LAYER, MOMENTS))
    assert [one.rounds for one in results.cells] == [1, 1]
    assert "Time ran out: 2 cells had fewer than 2 rounds." in report.sentences(results)
