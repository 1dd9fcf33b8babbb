"""What `fastnorm bench` chooses, prints and draws; nothing here is measured."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from bench_cases import BATCH, LAYER, MOMENTS, TINY

import fastnorm
from fastnorm.cli import bench
from fastnorm.cli.benchmark import arrays, choices, libraries, report
from fastnorm.cli.benchmark.grid import GRID, KINDS, OPS, QUICK_GRID, Cell, chosen
from fastnorm.cli.benchmark.results import CellResult, Results
from fastnorm.cli.main import main

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
