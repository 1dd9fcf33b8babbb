"""JIT kernels for this very processor: whole lines, or chunks of long ones, shared among threads."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.activations import FORMULAS, Activation, Scalar
from fastnorm.backends.compiled import Compiled
from fastnorm.backends.numba import (
    activations,
    column_gradients,
    column_statistics,
    columns,
    half,
    local_response,
    moments,
    row_gradients,
    rows,
    short_rows,
    textbook,
)
from fastnorm.backends.numba.lowering import BUNDLE_BYTES
from fastnorm.dtypes import is_narrow
from fastnorm.plan import chunks_of
from fastnorm.recipe import Affine, Fusion, Measure, Moments, Neighbourhood, Rule
from fastnorm.settings import config, current

Array = npt.NDArray[Any]

_NOTHING = np.empty(0)
# Threading layers that may be entered by several Python threads at once; "workqueue" aborts the process then.
_REENTRANT_LAYERS = ("omp", "tbb")
_parallel_region = threading.Lock()
_in_forked_child = False


def _after_fork() -> None:
    global _in_forked_child, _parallel_region
    _in_forked_child = True  # libgomp and Numba hang or kill a child that enters their threads again
    _parallel_region = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threading_layer() -> str:
    """Return the name of Numba's threading layer, "not started" before the first parallel call."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "not started"


def _tiles(inner: int, dtype: np.dtype[Any]) -> int:
    return -(-inner // (column_statistics.TILE * (BUNDLE_BYTES // dtype.itemsize)))


def is_short(x: Array) -> bool:
    """Whether the rows of x are so short that several should be in flight."""
    return int(x.shape[1] * x.itemsize) <= short_rows.SHORT * BUNDLE_BYTES


def _share(kernel: Any, units: int, arguments: tuple[Any, ...]) -> None:
    """Run a kernel on its first argument, in `units` units, by several threads where that is allowed and worth it."""
    wanted = tuning.threads_for(arguments[0].size, current().num_threads)
    tasks = min(units, wanted, numba.config.NUMBA_NUM_THREADS)
    if tasks > 1 and not _in_forked_child:
        reentrant = threading_layer() in _REENTRANT_LAYERS
        if reentrant or _parallel_region.acquire(blocking=False):
            before = numba.get_num_threads()
            try:
                numba.set_num_threads(tasks)
                kernel.parallel(arguments, units, tasks)
                return
            finally:
                numba.set_num_threads(before)
                if not reentrant:
                    _parallel_region.release()
    kernel(*arguments, 0, units)


def _read_only(array: Array) -> Array:
    """A view whose type does not depend on the caller's flags: one compilation serves them all."""
    view = array.view()
    view.flags.writeable = False
    return view


class Numba(Compiled):
    """Numba's compiler, for this processor."""

    name = "numba"

    def variant(self) -> str:
        return "jit"

    def hindrance(self) -> str | None:
        features = llvmlite.binding.get_host_cpu_features()
        if "fma" not in features or features["fma"]:  # other processors than x86 have it without a name
            return None
        return "is slower than NumPy here: this processor has no fused multiplication and addition"

    def threads(self, requested: int) -> int:
        return 1 if _in_forked_child else min(requested, numba.config.NUMBA_NUM_THREADS)

    def convert(self, source: Array, target: Array) -> None:
        units = -(-source.size // half.PIECE)
        if is_narrow(source.dtype):
            _share(half.widen, units, (_read_only(source.view(np.uint16)), target, source.dtype == np.float16))
        else:
            _share(half.narrow, units, (_read_only(source), target.view(np.uint16), target.dtype == np.float16))

    def moments_into(self, x: Array, measure: Measure, parts: Moments) -> None:
        outer, chunks, inner = parts.hi.shape
        arguments = _read_only(x), int(measure), *parts
        if inner == 1 and is_short(x):
            _share(short_rows.moments_short_rows, outer, arguments)
        elif inner == 1:
            _share(rows.moments_rows, outer * chunks, arguments)
        else:
            _share(column_statistics.moments_columns, outer * chunks * _tiles(inner, x.dtype), arguments)

    def merge_into(self, parts: Moments, count: float, last: float, merged: Moments) -> None:
        moments.merge(*map(np.ascontiguousarray, parts), float(count), float(last), *merged)

    def textbook_into(self, number: int, x: Array, weights: Array | None, rounds: bool, mean: Array, m2: Array) -> None:
        counted = np.empty((len(x), 0), x.dtype) if weights is None else weights.astype(x.dtype, copy=False)
        textbook.textbook(_read_only(x), _read_only(counted), number, rounds, mean, m2)

    def extrema_into(self, x: Array, low: Array, high: Array) -> None:
        outer, chunks, inner = low.shape
        arguments = _read_only(x), low, high
        if inner == 1:
            _share(rows.extrema_rows, outer * chunks, arguments)
        else:
            _share(column_statistics.extrema_columns, outer * chunks * _tiles(inner, x.dtype), arguments)

    def affine(
        self, x: Array, y: Array, coefficients: Affine, weight: Array | None = None, bias: Array | None = None
    ) -> None:
        outer, _, inner = x.shape
        if weight is None and bias is None and 1 < inner <= tuning.FEW_COLUMNS:
            done = self._affine_few_columns(x, y, coefficients)
            if done == x.shape[1]:
                return
            x, y = x[:, done:], y[:, done:]
        chunks, _ = chunks_of(x.shape)
        numbers = (_read_only(np.ascontiguousarray(part)) for part in coefficients)
        positions = (_read_only(_NOTHING.astype(x.dtype) if part is None else part) for part in (weight, bias))
        arguments = _read_only(x), y, *numbers, *positions
        if inner == 1:
            _share(rows.affine_rows, outer * chunks, arguments)
        else:
            _share(columns.affine_columns, outer * chunks, arguments)

    def _affine_few_columns(self, x: Array, y: Array, coefficients: Affine) -> int:
        """Apply to columns too few for a vector, several positions as one; return how many of these are done.

        The bits are those of one by one.
        """
        outer, length, columns = x.shape
        together = tuning.PACKED_COLUMNS // columns
        done: int = length - length % together
        if not done or not (x.flags.c_contiguous and y.flags.c_contiguous):
            return 0
        packed = outer, done // together, columns * together
        repeated = Affine(*(np.tile(part, (1, together)) for part in coefficients))
        self.affine(x[:, :done].reshape(packed), y[:, :done].reshape(packed), repeated)
        return done

    def normalize(
        self, x: Array, y: Array, weight: Array, bias: Array, per_position: bool, segments: int, rule: Rule,
        want_stats: bool,
    ) -> Moments | None:  # fmt: skip
        outer, reduce, inner = x.shape
        size = outer * inner if want_stats else 0
        mean, m2 = np.empty(size), np.empty(size)
        numbers = int(rule.measure), float(rule.divisor(reduce)), float(rule.eps), rule.floor, mean, m2
        arrays = _read_only(x), y, _read_only(weight), _read_only(bias), per_position
        if inner == 1 and segments == 1 and is_short(x):
            _share(short_rows.normalize_short_rows, outer, (*arrays, *numbers))
        elif inner == 1:
            arguments = *arrays, segments, *numbers
            _share(rows.normalize_rows, outer, arguments)
        else:
            units = outer * _tiles(inner, x.dtype)
            _share(columns.normalize_columns, units, (*arrays, *numbers))
        if not want_stats:
            return None
        stats = mean.reshape(outer, inner), m2.reshape(outer, inner)
        return Moments(stats[0], np.zeros_like(stats[0]), stats[1])

    def after(self, fusion: Fusion, y: Array) -> None:
        activation = fusion.activation
        if activation is not None and not isinstance(activation, Scalar):
            units = -(-y.size // activations.BLOCK)
            _share(activations.activate, units, (y.reshape(-1), activation.code(y.dtype)))
            fusion = fusion._replace(activation=None)
        super().after(fusion, y)

    def dots_into(self, x: Array, dy: Array, mean: Array, products: Array, sums: Array) -> None:
        outer, chunks, inner = sums.shape
        arguments = _read_only(x), _read_only(dy), _read_only(mean), products, sums
        if inner == 1:
            _share(row_gradients.dots_rows, outer * chunks, arguments)
        else:
            _share(column_gradients.dots_columns, outer * chunks * _tiles(inner, x.dtype), arguments)

    def affine_grad(
        self, x: Array, dy: Array, dx: Array, mean: Array, scale: Array, slope: Array, shift: Array
    ) -> None:
        chunks, _ = chunks_of(x.shape)
        numbers = (_read_only(np.ascontiguousarray(part)) for part in (mean, scale, slope, shift))
        kernel = row_gradients.affine_grad_rows if x.shape[2] == 1 else column_gradients.affine_grad_columns
        _share(kernel, x.shape[0] * chunks, (_read_only(x), _read_only(dy), dx, *numbers))

    def normalize_grad_into(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, products: Array | None, sums: Array | None, rows: int,
    ) -> None:  # fmt: skip
        none = np.empty((0, 0))
        arguments = (
            _read_only(x), _read_only(dy), dx, _read_only(weight), per_position, segments, int(rule.measure),
            float(rule.divisor(x.shape[1])), float(rule.eps), rule.floor,
            *map(_read_only, given or (_NOTHING, _NOTHING)), none if products is None else products,
            none if sums is None else sums, rows,
        )  # fmt: skip
        _share(row_gradients.normalize_grad_rows, -(-len(x) // rows), arguments)

    def local_response(self, x: Array, y: Array, near: Neighbourhood, rstd: Array | None) -> None:
        factors = np.empty((0, 0, 0)) if rstd is None else rstd
        self._respond(local_response.local_response, (_read_only(x), y), near, factors)

    def local_response_grad(self, x: Array, dy: Array, dx: Array, near: Neighbourhood, rstd: Array | None) -> None:
        factors = _read_only(np.empty((0, 0, 0)) if rstd is None else rstd)
        self._respond(local_response.local_response_grad, (_read_only(x), _read_only(dy), dx), near, factors)

    def _respond(self, kernel: Any, arrays: tuple[Array, ...], near: Neighbourhood, rstd: Array) -> None:
        items, channels, positions = arrays[0].shape
        units = items * -(-positions // local_response.width_of_unit(channels, positions))
        _share(kernel, units, (*arrays, *near, rstd))

    def warm(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Compile every kernel, or load it from the cache, by calling it: serial and parallel, float32 and float64."""
        for call in self._calls():
            for num_threads in (1, 2):
                if not wanted():
                    return
                with config(num_threads=num_threads):
                    call()

    def _calls(self) -> Iterator[Callable[[], object]]:
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            # Short rows, long ones, columns.
            for x in (np.ones((2, 8, 1), dtype), np.ones((2, 2048, 1), dtype), np.ones((2, 8, 4), dtype)):
                y, weight, zeros = np.empty_like(x), np.ones(x.shape[1], dtype), np.zeros((2, x.shape[2]))
                yield partial(self.normalize, x, y, weight, weight, True, 1, Rule(), True)
                yield partial(self.moments, x, Measure.VARIANCE)
                yield partial(self.affine, x, y, Affine(zeros, zeros, zeros, zeros))
                yield partial(self.extrema, x)
                yield partial(self.dots, x, x, zeros)
                yield partial(self.affine_grad, x, x, y, zeros, zeros, zeros, zeros)
                near = Neighbourhood(1, 1, 1.0, 1.0, 1.0)
                yield partial(self.local_response, x, y, near, None)
                yield partial(self.local_response_grad, x, x, y, near, None)
                if x.shape[2] == 1:
                    yield partial(self.normalize_grad, x, x, y, weight, False, 1, Rule(), None, True)
            block = np.zeros(2 * activations.BLOCK, dtype)
            yield partial(self.after, Fusion(None, None, Activation(next(iter(FORMULAS)))), block)
        singles, halves = np.zeros(2 * half.PIECE, np.float32), np.zeros(2 * half.PIECE, np.float16)
        yield partial(self.convert, halves, singles)
        yield partial(self.convert, singles, halves)
        yield partial(self.merge, Moments(*(np.zeros((1, 2, 1)) for _ in range(3))), 1, 1)
