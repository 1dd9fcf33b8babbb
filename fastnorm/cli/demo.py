"""`fastnorm demo`: real data normalized by NumPy and by fastnorm, timed against each other and against float64."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnorm
from fastnorm.cli import numpy_norms, plot, workloads
from fastnorm.cli.drawing import figure_file, why_not_drawn, write_figure
from fastnorm.cli.measure import DemoResult, NormResult, PipelineResult, worst_difference, worst_error
from fastnorm.cli.pipelines import Pipeline, pipelines
from fastnorm.cli.printing import fail, print_machine, print_table
from fastnorm.cli.progress import progress_bar
from fastnorm.lab.peers import versions
from fastnorm.lab.timing import interleaved
from fastnorm.settings import usable_cpus
from fastnorm.tuning import cpu_model

NORM_HEADERS = ("norm", "shape", "NumPy µs", "fastnorm µs", "speed-up", "backend", "NumPy error", "fastnorm error")
PIPELINE_HEADERS = ("pipeline", "NumPy ms", "fastnorm ms", "speed-up", "norms' share", "largest difference", "accuracy")
NORM_NOTE = "Medians of interleaved rounds; error: largest |y - y64| / max(1, |y64|), y64 the same in float64."
PIPELINE_NOTE = (
    "Matrix products included, the norms alone exchanged; norms' share: of the time with NumPy; "
    "accuracy: on the 360 digits the network was not trained on."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, times in seconds")
    parser.add_argument("--quick", action="store_true", help="measure each norm for a shorter time")
    parser.add_argument("--plot", type=figure_file, metavar="FILE.png", help="draw the result as well, .png or .svg")


def run(arguments: argparse.Namespace) -> int:
    """
    Measure, print, and draw where that is asked for.

    Returns
    -------
    int
        The command's exit status: 0, or 1 if a package that the demo needs is missing or the plot cannot be written.
    """
    try:
        data = workloads.load_data()
    except ImportError as error:
        return fail("demo", str(error))
    if reason := why_not_drawn(arguments.plot):
        return fail("demo", reason)
    result = _measure(data, quick=arguments.quick)
    if arguments.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        _print_result(result)
    return write_figure("demo", plot.draw, result, arguments.plot)


def _measure(data: workloads.Data, *, quick: bool) -> DemoResult:
    fastnorm.warm()
    rows, pipes = workloads.rows(fastnorm, data), pipelines(data)
    steps = len(rows) + len(pipes)
    norm_results, pipeline_results = [], []
    with progress_bar() as progress:
        for done, row in enumerate(rows):
            progress(done, steps, row.name)
            norm_results.append(_measure_row(row, quick=quick))
        for done, pipeline in enumerate(pipes, len(rows)):
            progress(done, steps, pipeline.name)
            pipeline_results.append(_measure_pipeline(pipeline, quick=quick))
        progress(steps, steps, "")
    packages = versions(("python", "fastnorm", "numpy", "numba", "scikit-learn"))
    return DemoResult(norm_results, pipeline_results, _machine(), packages)


def _measure_row(row: workloads.Row, *, quick: bool) -> NormResult:
    truth = row.truth()
    errors = {"numpy": worst_error(row.numpy(), truth), "fastnorm": worst_error(row.fastnorm(), truth)}
    del truth
    seconds = interleaved({"numpy": row.numpy, "fastnorm": row.fastnorm}, **_effort(0.8, quick=quick))
    return NormResult(
        name=row.name,
        op=row.op,
        shape=row.shape,
        dtype=row.dtype,
        numpy_seconds=seconds["numpy"],
        fastnorm_seconds=seconds["fastnorm"],
        backend=fastnorm.explain(row.op, row.shape, row.dtype).backend,
        numpy_error=errors["numpy"],
        fastnorm_error=errors["fastnorm"],
    )


def _measure_pipeline(pipeline: Pipeline, *, quick: bool) -> PipelineResult:
    outputs = {"numpy": pipeline.run(numpy_norms), "fastnorm": pipeline.run(fastnorm)}
    seconds = interleaved(
        {"numpy": lambda: pipeline.run(numpy_norms), "fastnorm": lambda: pipeline.run(fastnorm)},
        **_effort(3.0, quick=quick),
    )
    accuracies = {
        name: None if pipeline.accuracy is None else pipeline.accuracy(output) for name, output in outputs.items()
    }
    return PipelineResult(
        name=pipeline.name,
        numpy_seconds=seconds["numpy"],
        fastnorm_seconds=seconds["fastnorm"],
        norm_share=_norm_share(pipeline),
        largest_difference=worst_difference(outputs["fastnorm"], outputs["numpy"]),
        numpy_accuracy=accuracies["numpy"],
        fastnorm_accuracy=accuracies["fastnorm"],
    )


def _effort(budget: float, *, quick: bool) -> dict[str, Any]:
    if quick:
        return {"budget": budget / 8, "sample": 0.003, "minimum_rounds": 3}
    return {"budget": budget, "sample": 0.01, "minimum_rounds": 7}


class _TimedNorms:
    """The NumPy norms, adding up the seconds spent in them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(numpy_norms, name)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def _norm_share(pipeline: Pipeline, runs: int = 5) -> float:
    """Share of the pipeline's time with NumPy that is spent in its norms, the median of a few runs."""
    shares = []
    for _ in range(runs):
        norms = _TimedNorms()
        start = time.perf_counter()
        pipeline.run(norms)
        shares.append(norms.seconds / (time.perf_counter() - start))
    return float(np.median(shares))


def _machine() -> dict[str, Any]:
    return {
        "processor": cpu_model(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cpus": usable_cpus(),
        "fastnorm_threads": fastnorm.get_num_threads(),
    }


def _as_json(result: DemoResult) -> dict[str, Any]:
    document = dataclasses.asdict(result)
    measured: list[NormResult | PipelineResult] = [*result.norms, *result.pipelines]
    for entry, one in zip([*document["norms"], *document["pipelines"]], measured, strict=True):
        entry["speedup"] = one.speedup
    return document


def _norm_cells(result: NormResult) -> list[str]:
    return [
        result.name,
        "x".join(map(str, result.shape)),
        f"{result.numpy_seconds * 1e6:,.0f}",
        f"{result.fastnorm_seconds * 1e6:,.0f}",
        f"{result.speedup:.1f}x",
        result.backend,
        f"{result.numpy_error:.1e}",
        f"{result.fastnorm_error:.1e}",
    ]


def _pipeline_cells(result: PipelineResult) -> list[str]:
    return [
        result.name,
        f"{result.numpy_seconds * 1e3:,.2f}",
        f"{result.fastnorm_seconds * 1e3:,.2f}",
        f"{result.speedup:.2f}x",
        f"{result.norm_share:.0%}",
        f"{result.largest_difference:.1e}",
        "" if result.fastnorm_accuracy is None else f"{result.numpy_accuracy:.1%} / {result.fastnorm_accuracy:.1%}",
    ]


def _print_result(result: DemoResult) -> None:
    print_machine(result.machine, f"{result.machine['fastnorm_threads']} threads for fastnorm", result.versions)
    print()
    print_table(NORM_HEADERS, [_norm_cells(one) for one in result.norms], text_columns={0, 1, 5})
    print(NORM_NOTE)
    print()
    print_table(PIPELINE_HEADERS, [_pipeline_cells(one) for one in result.pipelines], text_columns={0})
    print(PIPELINE_NOTE)
