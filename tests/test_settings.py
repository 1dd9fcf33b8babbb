"""Threads, the choice of a backend, and what is said about them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import output
from variants import why_not

import fastnorm
from fastnorm import tuning
from fastnorm.inspection import configuration


@pytest.fixture(autouse=True)
def _restore_threads() -> object:
    """Give the process its number of threads back."""
    before = fastnorm.get_num_threads()
    yield
    fastnorm.set_num_threads(before)


def test_set_num_threads() -> None:
    for threads in (1, 3, 64, np.int64(2)):
        fastnorm.set_num_threads(threads)
        assert type(fastnorm.get_num_threads()) is int
        assert fastnorm.get_num_threads() == threads
        assert configuration()["settings"]["num_threads"] == threads
        fastnorm.layer_norm(np.ones((300, 400), np.float32))


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("2", TypeError)])
def test_a_bad_number_of_threads_changes_nothing(bad: Any, error: type[Exception]) -> None:
    before = fastnorm.get_num_threads()
    with pytest.raises(error, match="num_threads"):
        fastnorm.set_num_threads(bad)
    with pytest.raises(error, match="num_threads"), fastnorm.config(num_threads=bad):
        pass
    others: tuple[Any, ...] = (None, True, np.ones(1))
    for other in others:
        with pytest.raises(TypeError, match="num_threads"):
            fastnorm.set_num_threads(other)
    assert fastnorm.get_num_threads() == before


def test_config_is_nested_and_ends_with_its_block() -> None:
    before, served = fastnorm.get_num_threads(), fastnorm.explain("layer_norm", (8, 8)).backend
    with fastnorm.config(num_threads=3):
        assert fastnorm.get_num_threads() == 3
        with fastnorm.config(backend="reference"):
            assert fastnorm.get_num_threads() == 3
            assert fastnorm.explain("layer_norm", (8, 8)).backend == "reference"
            with fastnorm.config(num_threads=5, backend="auto"):
                assert fastnorm.get_num_threads() == 5
                assert fastnorm.explain("layer_norm", (8, 8)).backend == served
            assert fastnorm.get_num_threads() == 3
        assert fastnorm.explain("layer_norm", (8, 8)).backend == served
        with fastnorm.config():
            assert fastnorm.get_num_threads() == 3
    assert fastnorm.get_num_threads() == before


def test_config_ends_with_its_block_after_an_error() -> None:
    before = fastnorm.get_num_threads()
    with pytest.raises(KeyError), fastnorm.config(backend="reference", num_threads=7):
        raise KeyError
    assert fastnorm.get_num_threads() == before
    assert configuration()["settings"]["backend"] != "reference" or os.environ.get("FASTNORM_BACKEND") == "reference"


def test_config_belongs_to_one_thread() -> None:
    before = fastnorm.get_num_threads()
    inside, seen = threading.Event(), threading.Event()

    def other() -> int:
        with fastnorm.config(num_threads=9):
            inside.set()
            assert seen.wait(30)
            return fastnorm.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        result = pool.submit(other)
        assert inside.wait(30)
        assert fastnorm.get_num_threads() == before
        with fastnorm.config(num_threads=4):
            assert pool.submit(fastnorm.get_num_threads).result() == before
            assert copy_context().run(fastnorm.get_num_threads) == 4
        seen.set()
        assert result.result() == 9


def test_set_num_threads_holds_for_all_threads_but_inside_config() -> None:
    with ThreadPoolExecutor(1) as pool:
        fastnorm.set_num_threads(6)
        assert pool.submit(fastnorm.get_num_threads).result() == 6
        with fastnorm.config(num_threads=2):
            fastnorm.set_num_threads(5)
            assert fastnorm.get_num_threads() == 2
        assert fastnorm.get_num_threads() == 5


def test_config_refuses_other_backends() -> None:
    with (
        pytest.raises(ValueError, match=r"backend must be one of 'auto', .*, got 'fast'"),
        fastnorm.config(backend="fast"),
    ):
        pass


def test_the_argument_wins_over_config(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 7))
    expected = fastnorm.layer_norm(x, backend="reference")
    with fastnorm.config(backend=backend):
        np.testing.assert_array_equal(fastnorm.layer_norm(x, backend="reference"), expected)


def test_show_config_prints_what_configuration_holds(capsys: pytest.CaptureFixture[str]) -> None:
    fastnorm.show_config()
    text = capsys.readouterr().out
    found = configuration()
    assert f"fastnorm{' ' * 24}{fastnorm.__version__}" in text
    for key in ("python", "cpu", "settings", "cython", "numba", "versions", "cache directory"):
        assert key in found
        assert key in text
    assert np.__version__ in text
    assert found["cython"]["available"] == (why_not("cython-base") is None)
    if found["cython"]["available"]:
        assert found["cython"]["variant chosen"] in found["cython"]["variants this processor runs"]
        assert set(found["cython"]["variants this processor runs"]) <= set(found["cython"]["variants built"])
    assert found["numba"]["available"] == (why_not("numba") is None)


def test_warm_compiles_and_may_be_repeated() -> None:
    fastnorm.warm()
    fastnorm.warm()


# The environment, each in a process of its own

THREADS = "import fastnorm; print(fastnorm.get_num_threads())"


def test_threads_come_from_the_environment() -> None:
    assert output(THREADS, FASTNORM_NUM_THREADS="3") == "3"
    assert output(THREADS, NUMBA_NUM_THREADS="2") == "2"
    assert output(THREADS, FASTNORM_NUM_THREADS="3", NUMBA_NUM_THREADS="2") == "3"
    assert output(THREADS, FASTNORM_NUM_THREADS="", NUMBA_NUM_THREADS="2") == "2"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this operating system has no processor affinity")
def test_threads_are_the_processors_that_the_process_may_use() -> None:
    assert output(THREADS) == str(len(os.sched_getaffinity(0)))
    first = min(os.sched_getaffinity(0))
    assert output(f"import os; os.sched_setaffinity(0, [{first}]); {THREADS}") == "1"


def test_more_threads_than_processors_or_work_are_no_error() -> None:
    code = "import numpy as np, fastnorm; print(fastnorm.layer_norm(np.ones((3, 90000), np.float32)).any())"
    for threads in ("1", "64"):
        for name in ("cython", "numba"):
            if why_not("cython-base" if name == "cython" else name) is None:
                assert output(code, FASTNORM_NUM_THREADS=threads, FASTNORM_BACKEND=name) == "False"


def test_the_last_cache_is_the_largest_that_the_system_names(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "512K\n", "32768K\n")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size)
    assert tuning.last_level_cache(tmp_path) == 2**25
    (tmp_path / "index2" / "size").write_text("unknown")
    assert tuning.last_level_cache(tmp_path) is None
    assert tuning.last_level_cache(tmp_path / "missing") is None
