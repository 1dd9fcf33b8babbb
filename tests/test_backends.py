"""Every primitive of every compiled backend against every other, to the bit, and every norm composed of them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import CASES, build, outcome
from kernel_data import assert_bits, lines, strange_lines, weights
from primitive_cases import RULES, coefficients, each_dtype, each_view, normalizations
from variants import BY_NUMPY, implementation

import fastnorm
from fastnorm import tuning
from fastnorm.backends.reference import Reference
from fastnorm.recipe import Measure, Moments

Array = np.ndarray[Any, Any]


def primitives(backend: Reference, x: Array) -> Iterator[tuple[str, Array]]:
    """Yield everything that a backend makes of x."""
    for measure in Measure:
        for name, part in zip(Moments._fields, backend.moments(x, measure), strict=True):
            yield f"moments, {measure.name}, {name}", part
    for name, part in zip(("least", "largest"), backend.extrema(x), strict=True):
        yield f"extrema, {name}", part
    y = np.empty_like(x)
    backend.affine(x, y, coefficients(x.shape))
    yield "affine", y.copy()
    backend.affine(x, y, coefficients((1, *x.shape[1:])))
    yield "affine, one set of coefficients", y.copy()
    backend.affine(x, y, coefficients(x.shape), *weights(x.shape[1], x.dtype))
    yield "affine, weight a position", y.copy()
    for rule in RULES:
        for number, (weight, bias, per_position, segments) in enumerate(normalizations(x.shape, x.dtype.type)):
            if rule is not RULES[0] and not per_position:
                continue
            stats = backend.normalize(x, y, weight, bias, per_position, segments, rule, True)
            assert stats is not None
            options = f"per_position={per_position}, segments={segments}"
            label = f"normalize {number}, {rule}, {weight.size} weights, {options}"
            yield label, y.copy()
            yield f"{label}: mean", stats.hi + stats.lo
            yield f"{label}: m2", stats.m2
            y.fill(np.nan)
            assert backend.normalize(x, y, weight, bias, per_position, segments, rule, False) is None
            yield f"{label}: without statistics", y.copy()


@each_view
@each_dtype
def test_all_compiled_backends_and_thread_counts_give_the_same_bits(
    view: tuple[int, int, int], dtype: Any, compiled_labels: list[str], threads_for_all: None
) -> None:
    backends = [(label, implementation(label)) for label in compiled_labels]
    for source in (lines, strange_lines):
        for kind, x in source(view, dtype):
            with fastnorm.config(num_threads=1):
                expected = dict(primitives(backends[0][1], x))
            for label, backend in backends:
                for threads in (1, 2, 3, 8) if view[1] * view[2] < 40000 else (1, 3):
                    with fastnorm.config(num_threads=threads):
                        for name, part in primitives(backend, x):
                            assert_bits(part, expected[name], f"{label}, {threads} threads, {kind}: {name}")


COMPOSED = [
    index for index, case in enumerate(CASES) if case.dtype in ("float32", "float64") and case.op not in BY_NUMPY
]


@pytest.mark.parametrize("index", COMPOSED, ids=lambda index: CASES[index].name)
def test_which_backend_served_with_how_many_threads_does_not_show(
    index: int,
    compiled_labels: list[str],
    serve: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    threads_for_all: None,
) -> None:
    case = CASES[index]
    args, kwargs = build(case, np.random.default_rng(index))

    def served(label: str, threads: int, lines_per_thread: float) -> Array:
        monkeypatch.setattr(tuning, "LINES_PER_THREAD", lines_per_thread)
        with fastnorm.config(backend=serve(label), num_threads=threads):
            return outcome(case, getattr(fastnorm, case.op)(*args, **kwargs))

    expected = served(compiled_labels[0], 1, 1)
    for label in compiled_labels:
        for threads in (1, 2, 3, 8):
            for lines_per_thread in (0, 10**9) if threads > 1 else (1,):  # fused; statistics first
                message = f"{label}, {threads} threads, {lines_per_thread} lines a thread"
                assert_bits(served(label, threads, lines_per_thread), expected, message)
