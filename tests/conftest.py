"""What every test file shares: the backends that can run here, and how hypothesis searches."""

import os
from collections.abc import Callable, Iterator
from typing import Any

# Before Numba starts: more threads than a small machine has processors, since how work is split must not show.
os.environ.setdefault("NUMBA_NUM_THREADS", "8")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from variants import COMPILED_LABELS, LABELS, implementation, why_not

import fastnorm
from fastnorm import tuning
from fastnorm.backends import registry
from fastnorm.backends.cython import Cython
from fastnorm.fast_path import ENTRIES, FastPath, fast_path

# A fixture of a test that searches is the same for all of its examples, and need not be made anew for each.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture], "print_blob": True}
settings.register_profile("local", max_examples=60, **_COMMON)
settings.register_profile("ci", max_examples=30, derandomize=True, database=None, **_COMMON)
settings.load_profile("ci" if os.environ.get("CI", "").lower() in ("1", "true") else "local")


@pytest.fixture(scope="session", autouse=True)
def bound() -> None:
    """The fast path is bound by the first plain call; not by one for which a test has put another backend in place.

    A variant of the kernels reads thresholds as it is loaded: not while a test has others in place.
    """
    fastnorm.layer_norm(np.ones((1, 2), np.float32))
    for label in COMPILED_LABELS:
        if label.startswith("cython") and why_not(label) is None:
            implementation(label)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Have the backend of a label serve the calls that ask for its name, which is returned."""
    load = registry._load

    def serve_label(label: str) -> str:
        name, _, variant = label.partition("-")
        if variant:
            chosen = implementation(label)
            monkeypatch.setattr(registry, "_load", lambda other: chosen if other == name else load(other))
        return name

    return serve_label


def required(label: str) -> str:
    """Return the label, or skip the test where its backend cannot run."""
    reason = why_not(label)
    if reason is not None:
        pytest.skip(f"{label}: {reason}")
    return label


@pytest.fixture(params=LABELS)
def backend(request: pytest.FixtureRequest, serve: Callable[[str], str]) -> str:
    """A name to pass as `backend=`, for every backend and variant that can run here."""
    return serve(required(request.param))


@pytest.fixture(params=COMPILED_LABELS)
def compiled(request: pytest.FixtureRequest, serve: Callable[[str], str]) -> str:
    """As `backend`, without the reference."""
    return serve(required(request.param))


@pytest.fixture
def compiled_labels() -> list[str]:
    """The labels of all compiled backends that can run here; two or more, or there is nothing to compare."""
    labels = [label for label in COMPILED_LABELS if why_not(label) is None]
    if len(labels) < 2:
        pytest.skip(f"fewer than two compiled backends can run here: {labels}")
    return labels


@pytest.fixture
def cython_labels(compiled_labels: list[str]) -> list[str]:
    """Those of the variants of one backend's kernels alone; two or more."""
    labels = [label for label in compiled_labels if label.startswith("cython")]
    if len(labels) < 2:
        pytest.skip(f"fewer than two variants of the kernels can run here: {labels}")
    return labels


@pytest.fixture
def threads_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand even the smallest work to as many threads as the settings say."""
    monkeypatch.setattr(tuning, "SERIAL_ELEMENTS", 0)


@pytest.fixture(params=[label for label in COMPILED_LABELS if label.startswith("cython")])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the fast path served by each variant of the kernels."""
    serving, backend = FastPath(), implementation(required(request.param))
    assert isinstance(backend, Cython)
    serving.bind(backend)
    for name in ENTRIES:
        monkeypatch.setattr(fast_path, name, getattr(serving, name))
    return str(request.param)


@pytest.fixture
def served(kernels: str, serve: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Have each variant of the kernels serve all calls, plain ones and those that ask for the name, "cython"."""
    monkeypatch.setenv("FASTNORM_ISA", kernels.removeprefix("cython-"))  # who asks for a slow one gets it
    monkeypatch.setattr(registry, "_chosen", {})
    return serve(kernels)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of the fast path so far served."""
    log: list[bool] = []
    fastnorm.layer_norm(np.ones((1, 2)))  # bound on first use

    def logged(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            log.append(result is not None)
            return result

        return call

    for name in ENTRIES:
        monkeypatch.setattr(fast_path, name, logged(getattr(fast_path, name)))
    return log


@pytest.fixture(scope="module")
def double_precision() -> Iterator[None]:
    """Have JAX keep float64, in the tests of a file."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
