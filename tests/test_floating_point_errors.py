"""What the caller has NumPy do about overflow, underflow and the like is for the caller's own arithmetic."""

from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import numpy as np
import pytest
from cases import BACKWARD_CASES, CASES, Case, build, build_backward
from variants import serving, why_not

import fastnorm
from fastnorm import nn

Array = np.ndarray[Any, Any]


def one_each(cases: list[Case]) -> list[Case]:
    """The smallest case of each function, set of options and floating dtype."""
    found: dict[Any, Case] = {}
    for case in sorted(cases, key=lambda case: prod(case.shape), reverse=True):
        if case.dtype in ("float16", "float32", "float64") and prod(case.shape) > 20:
            found[case.op, case.dtype, *sorted(case.options)] = case
    return list(found.values())


FORWARD, BACKWARD = one_each(CASES), one_each(BACKWARD_CASES)
HARD: dict[str, Callable[[Array], Array]] = {
    "tiny": lambda x: x * np.finfo(x.dtype).tiny,
    "huge": lambda x: x * (np.finfo(x.dtype).max / 8),
    "mixed": lambda x: x * np.where(np.arange(x.size).reshape(x.shape) % 3, np.finfo(x.dtype).tiny, 1).astype(x.dtype),
    "infinite": lambda x: np.where(np.arange(x.size).reshape(x.shape) % 5, x, np.inf).astype(x.dtype),
}
each_kind = pytest.mark.parametrize("kind", HARD)


def parts_of(result: Any) -> Any:
    """What NumPy's comparison does not look into: the fields of moments."""
    if isinstance(result, fastnorm.Moments):
        return result.mean, result.m2, result.count
    return result


def assert_quiet(call: Callable[[], Any]) -> None:
    with np.errstate(all="ignore"):
        expected = call()
    with np.errstate(all="raise"):
        found = call()
    np.testing.assert_equal(parts_of(found), parts_of(expected))


def hardened(x: Any, kind: str) -> Any:
    with np.errstate(all="ignore"):
        return [HARD[kind](part) for part in x] if isinstance(x, list) else HARD[kind](x)


@each_kind
@pytest.mark.parametrize("case", FORWARD, ids=lambda case: case.name)
def test_norms_raise_none(case: Case, kind: str, served: str) -> None:
    args, kwargs = build(case, np.random.default_rng(0))
    args = hardened(args[0], kind), *args[1:]
    function = getattr(fastnorm, case.op)
    assert_quiet(lambda: function(*deepcopy(args), **deepcopy(kwargs)))
    for backend in {serving(case.op, served), "reference"}:
        with fastnorm.config(backend=backend):
            assert_quiet(lambda: function(*deepcopy(args), **deepcopy(kwargs)))


@each_kind
@pytest.mark.parametrize("of", ["x", "dy"])
@pytest.mark.parametrize("case", BACKWARD, ids=lambda case: case.name)
def test_backward_passes_raise_none(case: Case, of: str, kind: str, served: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(0))
    given = {"dy": dy, "x": x} | {of: hardened({"dy": dy, "x": x}[of], kind)}
    function = getattr(fastnorm, f"{case.op}_backward")
    assert_quiet(lambda: function(**given, **kwargs))
    for backend in {serving(case.op, served), "reference"}:
        with fastnorm.config(backend=backend):
            assert_quiet(lambda: function(**given, **kwargs))


def test_gradients_that_float16_cannot_hold_raise_none(served: str) -> None:
    dy, x = np.float16([[[1e-7, 1, 2]]]), np.float16([[[1, 2, 3]]])
    for op in ("layer_norm", "instance_norm", "rms_norm"):
        assert_quiet(lambda op=op: getattr(fastnorm, f"{op}_backward")(dy, x, eps=1e30))


@pytest.mark.parametrize("backend", [None, "cython", "numba", "reference"])
def test_infinite_weights_and_factors_raise_none(backend: str | None) -> None:
    if backend is not None and (reason := why_not(backend)):
        pytest.skip(f"{backend}: {reason}")
    row, image = np.float32([[[1, 2]]]), np.uint8([[[0, 255]]])
    assert_quiet(lambda: fastnorm.instance_norm(row, [np.inf], eps=float("inf"), backend=backend))
    assert_quiet(lambda: fastnorm.instance_norm(row, weights=np.full(2, 1e308), backend=backend))
    for std in (1e-5, 1e-43):
        assert_quiet(lambda std=std: fastnorm.normalize_image(image, [0, 0], [std, std], backend=backend))
        assert_quiet(
            lambda std=std: fastnorm.normalize_image(image, [0, 0], [std, std], dtype="float16", backend=backend)
        )


@each_kind
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_statistics_raise_none(dtype: str, kind: str) -> None:
    x = hardened(np.random.default_rng(0).standard_normal((7, 12)).astype(dtype), kind)
    for algorithm in ("auto", "naive", "welford", "pairwise"):
        assert_quiet(lambda algorithm=algorithm: fastnorm.moments(x, axis=1, algorithm=algorithm))
        found = fastnorm.moments(x, axis=1, algorithm=algorithm)
        assert_quiet(lambda found=found: (found.var, found.std, found.condition, found.digits))
    for weights in (np.linspace(0, 1, 12), np.geomspace(1e-300, 1e300, 12), np.geomspace(1e-60, 1, 12)):
        for algorithm in ("auto", "welford"):
            assert_quiet(
                lambda weights=weights, algorithm=algorithm: fastnorm.moments(
                    x, axis=1, weights=weights, algorithm=algorithm
                )
            )

    def of_parts() -> Any:
        welford = fastnorm.Welford(axis=0)
        for part in (x[:3], x[3:]):
            welford.update(part)
        return welford.mean, welford.var, welford.variance(ddof=7 - 1e-15)

    assert_quiet(of_parts)


@each_kind
def test_running_statistics_move_whole(kind: str) -> None:
    """Where moving one had raised, the other would have moved alone."""
    x = hardened(np.random.default_rng(0).standard_normal((8, 3, 5)).astype(np.float32), kind)
    for make in (
        lambda: nn.BatchNorm1d(3), lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        lambda: nn.BatchNorm1d(3, momentum=1e-30),
    ):  # fmt: skip

        def trained(make: Callable[[], Any] = make) -> dict[str, Array]:
            layer = make()
            layer(x)
            layer.backward(np.ones_like(x))
            return layer.state_dict()

        assert_quiet(trained)
