"""What the suite of benchmarks adds to pytest-benchmark: cells to choose, the library's settings, ratios to NumPy."""

import warnings
from typing import Any

import pytest
from grid import GRID, Cell, select

from fastnorm.inspection import configuration

# "auto" names no backend, which alone takes the short cuts of small calls; NumPy is measured like one.
BACKENDS = ("auto", "cython", "numba", "numpy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose cells."""
    group = parser.getgroup("fastnorm")
    group.addoption("--cells", action="append", default=[], metavar="PATTERN", help="such as 'layer_norm 1x*'")
    group.addoption("--small", action="store_true", help="only cells whose calls take microseconds")


def _chosen(config: pytest.Config) -> list[Cell]:
    try:
        cells = select([pattern for pattern in config.getoption("--cells") if pattern])
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    return [cell for cell in cells if cell.small] if config.getoption("--small") else cells


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by op, shape and dtype, and by backend where a test asks for it."""
    cells = _chosen(metafunc.config)
    metafunc.parametrize(
        ("op", "shape", "dtype"),
        [(cell.op, "x".join(map(str, cell.shape)), cell.dtype) for cell in cells],
        ids=[cell.name.replace(" ", "-") for cell in cells],
    )
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Store the variant of the kernels, threads and versions beside what pytest-benchmark knows of the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Numba's of threading layers that are not installed
        machine_info["fastnorm"] = configuration()


def _ratios(benchmarks: list[Any]) -> dict[str, dict[str, float]]:
    """NumPy's median time over that of each backend, for each cell that has both."""
    medians: dict[str, dict[str, float]] = {}
    for benchmark in benchmarks:
        parameters = benchmark.params
        name = " ".join(parameters[key] for key in ("op", "shape", "dtype"))
        medians.setdefault(name, {})[parameters["backend"]] = benchmark.stats.median
    return {
        name: {backend: times["numpy"] / median for backend, median in times.items() if backend != "numpy"}
        for name, times in medians.items()
        if "numpy" in times
    }


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Store the ratios to NumPy."""
    output_json["numpy_over_backend"] = _ratios(benchmarks)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the ratios to NumPy; nothing depends on them."""
    session = getattr(config, "_benchmarksession", None)
    ratios = _ratios([benchmark for benchmark in session.benchmarks if benchmark]) if session else {}
    if not ratios:
        return
    backends = [name for name in BACKENDS if any(name in values for values in ratios.values())]
    width = max(len(cell.name) for cell in GRID)
    terminalreporter.section("NumPy's median over that of each backend")
    terminalreporter.write_line(f"{'':{width}}" + "".join(f"{name:>10}" for name in backends))
    for name, values in ratios.items():
        cells = (f"{values[backend]:9.2f}x" if backend in values else " " * 10 for backend in backends)
        terminalreporter.write_line(f"{name:{width}}" + "".join(cells))
