"""What `fastnorm demo` computes, prints and draws; no test depends on how long anything takes."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from terminals import rich_terminal

import fastnorm
from fastnorm.cli import demo, measure, numpy_norms, pipelines, plot, workloads
from fastnorm.lab.timing import interleaved

NORM_RESULTS = [
    measure.NormResult("layer_norm, rows", "layer_norm", (8, 4), "float32", 3e-5, 1e-5, "cython", 2e-7, 5e-8),
    measure.NormResult("l2_normalize, rows", "l2_normalize", (8, 4), "float32", 2e-6, 3e-6, "numba", 1e-7, 0.0),
]
PIPELINE_RESULTS = [
    measure.PipelineResult("digits", 2e-3, 1e-3, 0.4, 1e-6, 0.99, 0.99),
    measure.PipelineResult("patches", 4e-2, 4e-2, 0.05, 1e-6),
]
RESULT = measure.DemoResult(
    NORM_RESULTS,
    PIPELINE_RESULTS,
    {"processor": "a processor", "cpus": 2, "fastnorm_threads": 2},
    {"python": "3", "numpy": "2"},
)


@pytest.fixture(scope="module")
def data() -> workloads.Data:
    """Load the demo's data, or skip where scikit-learn is not installed."""
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the demo's data, is not installed")
    pytest.importorskip("PIL", reason="Pillow, which reads the demo's photographs, is not installed")
    return workloads.load_data()


@pytest.fixture(scope="module")
def small_data(data: workloads.Data) -> workloads.Data:
    """Cut a slice of it."""
    return workloads.Data(data.photographs[:, 100:164, 200:296], data.digits[:200], data.labels[:200])


def batch(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.5, 2.0, size=shape)


# The norms in NumPy


def test_numpy_norms_in_float32_agree_with_float64(small_data: workloads.Data) -> None:
    for row in workloads.rows(numpy_norms, small_data):
        result, truth = row.numpy(), row.truth()
        assert measure.worst_error(result, truth) < 1e-4, row.name


def test_numpy_norms_keep_float32(small_data: workloads.Data) -> None:
    for row in workloads.rows(numpy_norms, small_data):
        result = row.numpy()
        for part in result if isinstance(result, tuple) else (result,):
            for array in part if isinstance(part, list) else (part,):
                assert array.dtype == np.float32, row.name


@pytest.mark.parametrize(
    ("name", "arguments", "keywords"),
    [
        ("batch_norm", (np.zeros(6), np.ones(6), np.arange(6.0), np.ones(6)), {}),
        ("batch_norm", (None, None, np.arange(6.0), np.ones(6)), {"training": True}),
        ("instance_norm", (np.arange(6.0), np.ones(6)), {}),
        ("group_norm", (3, np.arange(6.0), np.ones(6)), {}),
        ("switchable_norm", (np.array([0.1, 0.2, 0.3]), np.zeros(3), np.arange(6.0), np.ones(6)), {"training": True}),
        ("switchable_norm", (np.zeros(3), np.zeros(3), None, None, np.zeros(6), np.ones(6)), {}),
        ("pixel_norm", (), {}),
        ("local_response_norm", (5,), {"alpha": 0.5}),
        ("normalize", (np.zeros(6), np.ones(6)), {}),
    ],
)
def test_numpy_norms_give_the_same_for_channels_first_and_last(
    name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    x = batch(2, 6, 5, 4)
    function = getattr(numpy_norms, name)
    first = function(x, *arguments, channel_axis=1, **keywords)
    last = function(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), *arguments, channel_axis=-1, **keywords)
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), first, rtol=1e-12, atol=1e-12)


def test_numpy_batch_norm_in_training_updates_the_running_statistics() -> None:
    x = batch(50, 3)
    running_mean, running_var = np.zeros(3), np.ones(3)
    y = numpy_norms.batch_norm(x, running_mean, running_var, training=True, momentum=0.25, eps=0.0)
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(running_mean, 0.25 * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(running_var, 0.75 + 0.25 * x.var(axis=0, ddof=1), rtol=1e-12)


def test_numpy_switchable_norm_can_be_each_of_its_three_norms() -> None:
    x = batch(3, 4, 5, 6)
    instance, layer, whole = (np.where(np.arange(3) == which, 0.0, -1e9) for which in range(3))
    for logits, axes in ((instance, (2, 3)), (layer, (1, 2, 3)), (whole, (0, 2, 3))):
        expected = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
        y = numpy_norms.switchable_norm(x, logits, logits, training=True)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["batch_norm", "switchable_norm"])
def test_numpy_norms_say_what_inference_needs(name: str) -> None:
    arguments = () if name == "batch_norm" else (np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=f"{name}: running_mean and running_var"):
        getattr(numpy_norms, name)(batch(2, 3, 4), *arguments)


def test_numpy_local_response_norm_sums_over_the_neighbours() -> None:
    x = batch(2, 7, 3)
    expected = np.empty_like(x)
    for channel in range(7):
        neighbours = x[:, max(0, channel - 2) : channel + 3]
        total = np.square(neighbours).sum(axis=1)
        expected[:, channel] = x[:, channel] / (2.0 + 0.3 / 5 * total) ** 0.75
    np.testing.assert_allclose(numpy_norms.local_response_norm(x, 5, alpha=0.3, k=2.0), expected, rtol=1e-12)


def test_numpy_scalers_survive_constant_columns() -> None:
    x = batch(10, 3)
    x[:, 1] = 0.0
    for scaled in (numpy_norms.standardize(x), numpy_norms.min_max_scale(x), numpy_norms.max_abs_scale(x)):
        assert np.isfinite(scaled).all()
        assert (scaled[:, 1] == 0).all()
    halved = numpy_norms.min_max_scale(x, feature_range=(-1, 1))
    np.testing.assert_allclose(halved[:, 0].min(), -1)
    np.testing.assert_allclose(halved[:, 0].max(), 1)


def test_numpy_norms_of_weights() -> None:
    w = batch(6, 3, 2, 2)
    lengths = np.arange(1.0, 7.0).reshape(6, 1, 1, 1)
    normed = numpy_norms.weight_norm(w, lengths).reshape(6, -1)
    np.testing.assert_allclose(np.linalg.norm(normed, axis=1), lengths.ravel())
    standardized = numpy_norms.weight_standardize(w, eps=0.0).reshape(6, -1)
    np.testing.assert_allclose(standardized.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(standardized.std(axis=1), 1)
    divided, sigma, _, _ = numpy_norms.spectral_norm(w, np.ones(6), n_power_iterations=200)
    np.testing.assert_allclose(sigma, np.linalg.norm(w.reshape(6, -1), ord=2))
    np.testing.assert_allclose(divided * sigma, w)


def test_numpy_clips_leave_alone_what_is_short() -> None:
    x = np.array([[3.0, 4.0], [0.3, 0.4]])
    np.testing.assert_allclose(numpy_norms.clip_by_norm(x, 1.0, axis=-1), [[0.6, 0.8], [0.3, 0.4]])
    clipped, norm = numpy_norms.clip_by_global_norm([x[0], np.array([12.0])], 6.5)
    assert norm == pytest.approx(13.0)
    np.testing.assert_allclose(np.concatenate(clipped), [1.5, 2.0, 6.0])
    unchanged, _ = numpy_norms.clip_by_global_norm([x[0]], 100.0)
    np.testing.assert_array_equal(unchanged[0], x[0])


# The table


def test_every_row_with_fastnorm_is_close_to_float64(small_data: workloads.Data) -> None:
    for row in workloads.rows(fastnorm, small_data):
        result, truth = row.fastnorm(), row.truth()
        error, of_numpy = measure.worst_error(result, truth), measure.worst_error(row.numpy(), truth)
        # Up to the rounding of the result itself.
        assert error <= max(of_numpy, 4 * 2.0**-24), row.name


def test_rows_name_public_functions_and_are_told_apart(small_data: workloads.Data) -> None:
    rows = workloads.rows(numpy_norms, small_data)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert callable(getattr(fastnorm, row.op)), row.op


def test_space_to_depth_and_patches_keep_every_pixel() -> None:
    images = np.arange(2 * 5 * 8 * 3).reshape(2, 5, 8, 3)
    features = workloads.space_to_depth(images, 4)
    assert features.shape == (2, 1, 2, 48)
    np.testing.assert_array_equal(features[1, 0, 1], images[1, :4, 4:8].ravel())
    patches = workloads.split_into_patches(images, 4)
    assert patches.shape == (2, 2, 48)
    np.testing.assert_array_equal(patches[0, 1], images[0, :4, 4:8].ravel())


def test_missing_extra_says_what_to_install() -> None:
    with pytest.raises(workloads.MissingExtraError, match=r"scikit-learn.*pip install 'fastnorm\[demo\]'"):
        workloads.import_extra("fastnorm_no_such_module", "scikit-learn")


# The pipelines


def test_photographs_become_a_normalized_batch(small_data: workloads.Data) -> None:
    output = pipelines.prepare_photographs(numpy_norms, small_data.photographs)
    pixels = small_data.photographs.astype(np.float64) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_digits_network_reads_digits(data: workloads.Data) -> None:
    network = pipelines.DigitsNetwork()
    probabilities = network(numpy_norms, data.digits)
    assert probabilities.shape == (1797, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert network.accuracy(probabilities, data.labels) >= 0.95
    assert len(np.unique(network.test_rows)) == 360


def test_transformer_block_treats_images_alone() -> None:
    photographs = np.random.default_rng(0).integers(0, 256, size=(2, 32, 48, 3), dtype=np.uint8)
    block = pipelines.TransformerBlock(width=24, heads=3)
    together = block(numpy_norms, photographs)
    assert together.shape == (2, 6, 24)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[1:], block(numpy_norms, photographs[1:]), atol=1e-5)


def test_transformer_block_rejects_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="heads must divide width, got heads=5 and width=24"):
        pipelines.TransformerBlock(width=24, heads=5)


def test_pipelines_agree_between_numpy_and_fastnorm(data: workloads.Data) -> None:
    for pipeline in pipelines.pipelines(data):
        with_numpy, with_fastnorm = pipeline.run(numpy_norms), pipeline.run(fastnorm)
        assert measure.worst_difference(with_fastnorm, with_numpy) < 1e-4, pipeline.name
        if pipeline.accuracy is not None:
            assert pipeline.accuracy(with_fastnorm) == pipeline.accuracy(with_numpy)


# Measuring


def test_interleaved_returns_a_median_for_each_name() -> None:
    calls: list[str] = []
    medians = interleaved(
        {"first": lambda: calls.append("first"), "second": lambda: calls.append("second")},
        budget=0.0,
        sample=0.0,
        minimum_rounds=3,
    )
    assert list(medians) == ["first", "second"]
    assert all(seconds > 0 for seconds in medians.values())
    # Two to warm up, two to calibrate, and in each of three rounds one untimed and one timed.
    assert calls.count("first") == calls.count("second") == 2 + 2 + 3 * 2
    assert calls[-12:] == ["first"] * 2 + ["second"] * 4 + ["first"] * 4 + ["second"] * 2


def test_interleaved_handles_no_functions_and_rejects_no_rounds() -> None:
    assert interleaved({}) == {}
    with pytest.raises(ValueError, match="minimum_rounds"):
        interleaved({"nothing": lambda: None}, minimum_rounds=0)


def test_worst_error_is_absolute_below_one_and_relative_above() -> None:
    assert measure.worst_error([0.25, 100.0], [0.5, 100.0]) == 0.25
    assert measure.worst_error([0.5, 110.0], [0.5, 100.0]) == pytest.approx(0.1)
    assert measure.worst_error(([1.0], [[2.0]]), ([1.0], [[2.0]])) == 0.0
    assert measure.worst_error([np.nan, np.inf], [np.nan, np.inf]) == 0.0
    assert np.isnan(measure.worst_error([np.nan, 5.0], [1.0, 1.0]))
    assert np.isnan(measure.worst_error(([np.nan], [1.0]), ([1.0], [1.0])))
    assert measure.worst_error(np.empty((0, 3)), np.empty((0, 3))) == 0.0
    assert measure.worst_difference([0.5, 110.0], [0.5, 100.0]) == 10.0


def test_worst_error_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        measure.worst_error(np.zeros((2, 1)), np.zeros((1, 2)))


# Printing and drawing


def demo_arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(words)


def run_quietly(
    data: workloads.Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Run the demo on a slice of the data, without its time-consuming parts."""
    rows = workloads.rows
    monkeypatch.setattr(workloads, "load_data", lambda: data)
    monkeypatch.setattr(workloads, "rows", lambda norms, own: rows(norms, own)[:3])
    monkeypatch.setattr(demo, "pipelines", lambda own: [pipelines.Pipeline("three", lambda norms: own.digits)])
    monkeypatch.setattr(demo, "_effort", lambda budget, quick: {"budget": 0.0, "sample": 0.0, "minimum_rounds": 1})
    monkeypatch.setattr(fastnorm, "warm", lambda: None, raising=False)
    status = demo.run(demo_arguments(*words))
    return status, capsys.readouterr().out


def test_demo_prints_a_line_for_each_norm_and_pipeline(
    small_data: workloads.Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = run_quietly(small_data, monkeypatch, capsys)
    assert status == 0
    for word in ("layer_norm, patches", "48x768", "speed-up", "fastnorm error", "three"):
        assert word in printed


def test_demo_prints_json(
    small_data: workloads.Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = run_quietly(small_data, monkeypatch, capsys, "--json", "--quick")
    assert status == 0
    document = json.loads(printed)
    assert [entry["op"] for entry in document["norms"]] == ["layer_norm", "layer_norm", "rms_norm"]
    assert document["norms"][0]["shape"] == [48, 768]
    assert document["norms"][0]["speedup"] > 0
    assert document["pipelines"][0]["largest_difference"] == 0.0
    assert document["machine"]["cpus"] >= 1
    assert document["versions"]["numpy"] == np.__version__


def test_demo_without_scikit_learn_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert demo.run(demo_arguments()) == 1
    assert "pip install 'fastnorm[demo]'" in capsys.readouterr().err


def test_tables_on_a_terminal_use_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = rich_terminal(monkeypatch, "stdout", columns=200)
    demo._print_result(RESULT)
    printed = terminal.getvalue()
    assert "layer_norm, rows" in printed
    assert "─" in printed


def test_tables_elsewhere_are_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    demo._print_result(RESULT)
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("norm "))
    row = next(line for line in lines if line.startswith("layer_norm, rows"))
    for title, cell in (("NumPy µs", "30"), ("speed-up", "3.0x"), ("NumPy error", "2.0e-07")):
        assert header.index(title) + len(title) == row.index(cell) + len(cell)


def test_plot_writes_a_png(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "demo.png"
    plot.draw(RESULT, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    plot.draw(measure.DemoResult(NORM_RESULTS, []), path)
    with pytest.raises(ValueError, match="at least one norm"):
        plot.draw(measure.DemoResult([], PIPELINE_RESULTS), path)


def test_demo_reports_a_plot_that_cannot_be_written(
    small_data: workloads.Data,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (tmp_path / "demo.png").mkdir()
    status, _ = run_quietly(small_data, monkeypatch, capsys, "--plot", str(tmp_path / "demo.png"))
    assert status == 1


def test_a_missing_directory_shows_before_the_measurement(
    small_data: workloads.Data,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(workloads, "load_data", lambda: small_data)
    monkeypatch.setattr(demo, "_measure", lambda *_, **__: pytest.fail("measured before it looked"))
    folder = tmp_path / "missing"
    assert demo.run(demo_arguments("--plot", str(folder / "demo.png"))) == 1
    assert f"there is no directory {folder}" in capsys.readouterr().err
