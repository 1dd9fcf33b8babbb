"""What `fastnorm bench` measures, prints and draws; nothing here depends on how long it takes."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnorm
from fastnorm.cli import bench
from fastnorm.cli.benchmark import arrays, choices, libraries, measurement, report, with_memory
from fastnorm.cli.benchmark.grid import GRID, KINDS, OPS, QUICK_GRID, Cell, chosen
from fastnorm.cli.benchmark.measurement import Effort
from fastnorm.cli.benchmark.processes import Process
from fastnorm.cli.benchmark.results import CellResult, Results
from fastnorm.cli.benchmark.worker import Answer, Bench, Request
from fastnorm.cli.main import main

TINY = (
    Cell("layer_norm", (3, 8)),
    Cell("layer_norm", (3, 8), "float64"),
    Cell("layer_norm", (3, 8), "float16"),
    Cell("rms_norm", (3, 8)),
    Cell("batch_norm", (3, 4)),
    Cell("batch_norm", (3, 4, 2, 5)),
    Cell("batch_norm", (3, 4, 2, 5), training=True),
    Cell("group_norm", (3, 4, 2, 5), groups=2),
    Cell("instance_norm", (3, 4, 2, 5)),
    Cell("l2_normalize", (3, 8)),
    Cell("moments", (3, 8), along="last"),
    Cell("moments", (30, 8), along="first"),
    Cell("moments", (3, 8), "float64", along="first"),
    Cell("moments", (24,), along="all"),
)
LAYER, BATCH, MOMENTS = TINY[0], TINY[6], TINY[10]
AT_ONCE = Effort(rounds=2, sample=0, rest=0)

RESULTS = Results(
    [
        CellResult(
            LAYER, 1e-6, {"fastnorm": 2e-6, "numpy": 9e-6, "torch": 4e-6}, {"fastnorm": 2e-6, "torch": 2e-6}, {},
            "cython", 1, 2,
        ),
        CellResult(
            BATCH, 2e-3, {"fastnorm": 4e-3, "numpy": 3.99e-3}, {"fastnorm": 4e-3, "numpy": 3e-3},
            {"torch": "wrong result: off by 1.0e+00"}, "cython", 2, 2,
        ),
        CellResult(MOMENTS, None, {"fastnorm": 1e-6, "torch": 0.5e-6}, {}, {}, "cython", 1, 1),
    ],
    ["fastnorm", "numpy", "torch"],
    {"jax": "jax not installed"},
    2,
    2,
    {"processor": "a processor", "cpus": 2},
    {"fastnorm": "0", "numpy": "2"},
)  # fmt: skip
ALONE = dataclasses.replace(
    RESULTS,
    libraries=["fastnorm"],
    cells=[dataclasses.replace(one, seconds={"fastnorm": 2e-6}, shortest={}, errors={}) for one in RESULTS.cells],
)


# The grid and its numbers


def test_the_quick_grid_has_every_kind_and_is_a_part_of_the_grid() -> None:
    assert len({cell.name for cell in GRID}) == len(GRID) == 43
    assert set(QUICK_GRID) < set(GRID)
    assert {cell.kind for cell in QUICK_GRID} == set(KINDS)
    assert max(cell.bytes for cell in QUICK_GRID) < 2**27


def test_cells_are_chosen_by_function() -> None:
    assert chosen() == list(GRID)
    assert {cell.kind for cell in chosen(ops=["batch_norm"])} == {"batch_norm inference", "batch_norm training"}
    assert [cell.name for cell in chosen(quick=True, ops=["rms_norm"])] == ["rms_norm 1x4096", "rms_norm 128x4096"]


@pytest.mark.parametrize(("cell", "count"), [(LAYER, 3 * 8 * 4 * 2), (TINY[2], 3 * 8 * 2 * 2), (TINY[12], 3 * 8 * 8)])
def test_bytes_are_those_of_x_and_y_and_for_moments_of_x(cell: Cell, count: int) -> None:
    assert cell.bytes == count


def test_of_a_large_result_elements_from_all_columns_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHECKED", 1000)
    part = arrays._spread(np.tile(np.arange(64), (256, 1)))
    assert 500 < part.size <= 1000
    assert set(part) == set(range(64))


def test_wrong_results_are_told_from_right_ones() -> None:
    right = arrays.expected(LAYER)
    y = right[0].reshape(LAYER.shape).astype(np.float32)
    assert arrays.error_of(LAYER, y, right) is None
    assert arrays.error_of(LAYER, [y, "more"], right) is None
    for wrong, words in (
        (y + np.float32(0.01), "off by 1.0e-02"),
        (np.where(y == y.max(), np.float32(np.nan), y), "off by nan"),
        (y.astype(np.float64), "the dtype is float64"),
        (y.reshape(-1), "the shape is"),
        ([], "0 arrays instead of 1"),
    ):
        found = arrays.error_of(LAYER, wrong, right)
        assert found is not None
        assert words in found
    moments = arrays.expected(MOMENTS)
    assert arrays.error_of(MOMENTS, moments, moments) is None
    assert "1 elements instead of 3" in str(arrays.error_of(MOMENTS, [np.zeros(1), np.zeros(1)], moments))


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
    monkeypatch.setattr(with_memory, "_kernels", lambda: None)
    monkeypatch.setattr(with_memory, "THREADED_BYTES", 0)
    x = np.arange(101, dtype=np.uint64)
    targets = []
    monkeypatch.setattr(np, "zeros_like", lambda array: targets.append(np.full_like(array, 7)) or targets[0])
    ways = with_memory._copies(x, 3)
    assert len(ways) == 2
    for way in ways:
        targets[0][:] = 7
        way()
        np.testing.assert_array_equal(targets[0], x)
    assert [np.bitwise_or.reduce(way()) for way in with_memory._reads(x, 3)] == [127, 127]


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
    one = Bench("numpy", 1, lambda cell, given, threads: call(given))
    assert words in one.answer(Request(LAYER, right)).error
    assert "no cell is prepared" in one.answer(Request()).error


def test_a_cell_that_a_library_lacks_is_no_error(right: str) -> None:
    one = Bench("numpy", 1, lambda cell, given, threads: None)
    assert one.answer(Request(LAYER, right))[::2] == (False, "")


def test_a_released_cell_is_timed_no_more(right: str) -> None:
    one = Bench("fastnorm", 1, libraries.prepare_numpy)
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


# What is said


def test_the_table_marks_the_fastest_and_what_is_wrong() -> None:
    layer, batch, moments = report.rows(RESULTS)
    assert layer == ["layer_norm 3x8", "1.0", "2.0*", "9.0 ", "4.0 ", "0.10", "50%", "torch 2.00"]
    assert batch[2:5] == ["4,000 ", "3,990*", "error "]
    assert batch[-1] == "numpy 0.99"  # 0.9975 is not shown as 1.00
    assert moments[1:] == ["", "1.0 ", "", "0.5*", "0.10", "", "torch 0.50"]


def test_sentences_count_every_cell_where_a_peer_is_ahead() -> None:
    said = "\n".join(report.sentences(RESULTS))
    mean = (2 * 0.9975 * 0.5) ** (1 / 3)
    assert f"geometric mean of 3 cells: {min(mean, 0.99):.2f} (the best peer is faster)" in said
    behind = "moments last 3x8 (torch 0.50); batch_norm training 3x4x2x5 (numpy 0.99)"
    assert f"A peer is ahead in 2 of 3 cells, the worst first: {behind}." in said
    assert "against each alone: numpy 2.12 (2), torch 1.00 (2)" in said
    assert "shortest round instead of its median: 0.87, a peer ahead in 1 of 2 cells" in said
    assert "By operation: moments 0.50, batch_norm training 0.99, layer_norm 2.00." in said
    assert "reaches 50% (geometric mean, none counted above 100%), least in layer_norm 3x8: 50%" in said
    assert "jax is left out: jax not installed." in said
    assert "Error of torch in batch_norm training 3x4x2x5: wrong result: off by 1.0e+00." in said
    assert "Time ran out: 1 cell had fewer than 2 rounds." in said


def test_a_limit_slower_than_fastnorm_counts_as_reached_and_is_told() -> None:
    first, *others = RESULTS.cells
    said = report.sentences(dataclasses.replace(RESULTS, cells=[dataclasses.replace(first, limit=8e-6), *others]))
    assert any("reaches 71% (geometric mean" in sentence for sentence in said)
    assert any(sentence.startswith("In 1 cell the limit was measured slower") for sentence in said)


def test_without_peers_nothing_is_claimed() -> None:
    said = report.sentences(ALONE)
    assert said[0] == "No peer was measured: there is nothing to compare with."
    assert not any("faster" in sentence for sentence in said)


def test_the_document_holds_what_the_table_says() -> None:
    document = json.loads(json.dumps(RESULTS.as_json()))
    assert [cell["best_peer_over_fastnorm"] for cell in document["cells"]] == [one.ratio for one in RESULTS.cells]
    assert [cell["share_of_limit"] for cell in document["cells"]] == [0.5, 0.5, None]
    assert document["behind"] == ["moments last 3x8", "batch_norm training 3x4x2x5"]
    assert math.isclose(document["geometric_mean"], 0.9975 ** (1 / 3))


# The command


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Measure nothing; return what the command asks for."""
    asked: list[Any] = []

    def pretend_to_measure(*arguments: Any) -> Results:
        asked[:] = arguments
        return RESULTS

    monkeypatch.setattr(bench, "measure", pretend_to_measure)
    return asked


def test_table_and_sentences_are_printed(measured: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("a processor, 2 CPUs, 2 threads for each library, 2 rounds; fastnorm 0, numpy 2\n")
    assert "numpy 0.99" in printed
    assert "A peer is ahead in 2 of 3 cells" in printed
    assert measured[:3] == [list(GRID), libraries.PEERS, fastnorm.get_num_threads()]


def test_json_is_all_that_is_printed(measured: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(RESULTS.as_json()))


def test_options_say_what_is_measured(measured: list[Any]) -> None:
    words = ["--quick", "--ops", "rms_norm", "--peers", "numpy", "numpy", "--threads", "3", "--rounds", "7"]
    assert main(["bench", *words]) == 0
    cells, peers, threads, effort, _ = measured
    assert cells == chosen(quick=True, ops=["rms_norm"])
    assert (peers, threads, effort.rounds) == (["numpy"], 3, 7)
    assert effort.deadline < 60
    main(["bench", "--no-peers"])
    assert measured[1] == ()
    assert measured[3].deadline == math.inf


@pytest.mark.parametrize(
    "words",
    [["--ops", "softmax"], ["--peers", "fastnorm"], ["--threads", "0"], ["--rounds", "x"], ["--plot", "bench.txt"]],
)
def test_arguments_that_make_no_sense_are_refused(words: list[str], measured: list[Any]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *words])
    assert stopped.value.code == 2
    assert not measured


def test_a_peer_asked_for_by_name_must_be_there(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "missing", lambda name: ["onnx"])
    assert main(["bench", "--peers", "openvino"]) == 1
    assert "--peers openvino: onnx not installed" in capsys.readouterr().err
    assert not measured


def test_without_matplotlib_it_says_what_to_install(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--plot", "bench.png"]) == 1
    assert "pip install 'fastnorm[demo]'" in capsys.readouterr().err
    assert not measured


def test_a_wrong_result_of_fastnorm_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = dataclasses.replace(RESULTS.cells[0], errors={"fastnorm": "wrong result: off by 2"})
    monkeypatch.setattr(bench, "measure", lambda *_: dataclasses.replace(RESULTS, cells=[wrong]))
    assert main(["bench"]) == 1
    assert "layer_norm 3x8: wrong result: off by 2" in capsys.readouterr().err


def test_fastnorm_itself_must_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: dataclasses.replace(RESULTS, left_out={"fastnorm": "no kernels"}))
    assert main(["bench"]) == 1
    assert "could not start: no kernels" in capsys.readouterr().err


# The figure


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("results", [RESULTS, ALONE], ids=["peers", "alone"])
def test_figures_are_written(
    results: Results,
    suffix: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws figures, is not installed")
    monkeypatch.setattr(bench, "measure", lambda *_: results)
    path = tmp_path / f"bench{suffix}"
    assert main(["bench", "--plot", str(path)]) == 0
    assert f"Drawn in {path}" in capsys.readouterr().err
    if suffix == ".svg":
        drawn = path.read_text(encoding="utf-8")
        assert "What the dispatcher chooses" in drawn
        assert ("batch_norm training" in drawn) is (results is RESULTS)
        assert ("best peer" in drawn) is (results is RESULTS)


def test_a_figure_that_cannot_be_written_is_reported_before_the_work(
    measured: list[Any], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws figures, is not installed")
    assert main(["bench", "--plot", str(tmp_path / "missing" / "bench.png")]) == 1
    assert "there is no directory" in capsys.readouterr().err
    assert not measured


def test_functions_with_the_same_choices_share_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Chosen:
        backend: str
        threads: int = 1

    monkeypatch.setattr(
        fastnorm, "explain", lambda op, shape: Chosen("numba" if op == "batch_norm" and shape[0] > 9 else "cython")
    )
    maps = choices.grouped(2)
    assert list(maps) == ["layer_norm, moments", "batch_norm"] or list(maps) == ["batch_norm", "layer_norm, moments"]
    assert maps["batch_norm"][4, 3] == ("numba", 1)
    assert maps["batch_norm"][3, 3] == ("cython", 1)
    assert set(choices.OPS) <= set(OPS)
