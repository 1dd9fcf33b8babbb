"""Ahead-of-time kernels: the lowest call cost, no compilation, a pool of threads of their own."""

import importlib
import importlib.util
import os
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import tuning
from fastnorm.backends.compiled import Compiled
from fastnorm.dtypes import computed_in, is_narrow
from fastnorm.recipe import Affine, Fusion, Measure, Moments, Neighbourhood, Rule
from fastnorm.settings import current

Array = npt.NDArray[Any]

VARIANTS = ("avx512", "avx2", "base")
# Whether the base variant is compiled for processors that cannot multiply and add with one rounding.
WITHOUT_FMA = platform.machine().lower() in ("x86_64", "amd64", "x86", "i386", "i686")


def built_variants() -> tuple[str, ...]:
    """Return the variants whose extension modules are installed, the best first."""
    return tuple(name for name in VARIANTS if importlib.util.find_spec(f"fastnorm.backends._kernels_{name}"))


def runnable_variants() -> tuple[str, ...]:
    """Return the installed variants that this processor can run, the best first.

    Raises
    ------
    ImportError
        The extension modules were not built, or it is the source tree that was imported, which has none.
    """
    try:
        from fastnorm.backends import _cpu
    except ImportError as error:
        raise ImportError(f"no compiled kernels in {Path(__file__).parent} ({error})") from error

    runnable = _cpu.runnable_variants()
    return tuple(name for name in built_variants() if name in runnable)


def _chosen_variant() -> str:
    variants = runnable_variants()
    forced = os.environ.get("FASTNORM_ISA")
    if not forced:
        if not variants:
            raise ImportError("fastnorm was installed without its compiled kernels")
        return variants[0]
    if forced not in VARIANTS:
        raise ValueError(f"FASTNORM_ISA must be one of {', '.join(map(repr, VARIANTS))}, got {forced!r}")
    if forced not in built_variants():
        raise RuntimeError(f"FASTNORM_ISA={forced}: this installation has no such variant, only {built_variants()}")
    if forced not in variants:
        raise RuntimeError(f"FASTNORM_ISA={forced}: this processor cannot run it, only {', '.join(variants)}")
    return forced


_PLAIN = Fusion(None, None, None)


def _fused(fusion: Fusion, x: Array) -> tuple[Array | int | None, ...]:
    """The arguments of a kernel that say what is fused."""
    code = None if fusion.activation is None else fusion.activation.code(computed_in(x.dtype))
    lines, scales = fusion.quantized or (None, None)
    return fusion.addend, fusion.residual, code, lines, scales


def _channels_of(x: Array, last: bool) -> tuple[int, int]:
    return x.shape[0], x.shape[2 if last else 1]


class Cython(Compiled):
    """The compiled extension, in one of its variants."""

    name = "cython"
    narrow = True

    def __init__(self, variant: str | None = None) -> None:
        self._variant = variant or _chosen_variant()
        self._kernels: ModuleType = importlib.import_module(f"fastnorm.backends._kernels_{self._variant}")

    def variant(self) -> str:
        return self._variant

    def hindrance(self) -> str | None:
        if self._variant != "base" or not WITHOUT_FMA or os.environ.get("FASTNORM_ISA"):
            return None
        return "is slower than NumPy here: this processor has no fused multiplication and addition"

    def threads(self, requested: int) -> int:
        return requested

    def _threads_for(self, x: Array) -> int:
        return tuning.threads_for(x.size, current().num_threads)

    def takes_narrow_lines(self, view: tuple[int, int, int], arrays: int) -> bool:
        elements: int = view[1] * (arrays if view[2] == 1 else self._kernels.TILE_COLUMNS)
        longest: int = self._kernels.DESK_ELEMENTS
        return elements <= longest

    def convert(self, source: Array, target: Array) -> None:
        self._kernels.convert(source, target, self._threads_for(source))

    def copy(self, source: Array, target: Array) -> None:
        aligned = source.flags.aligned and target.flags.aligned
        if aligned and source.dtype == target.dtype and source.itemsize in (2, 4, 8):
            self._kernels.copy(source, target, self._threads_for(source))
        else:
            super().copy(source, target)

    def fast_path(self, name: str) -> Callable[..., Any]:
        """Return what serves plain calls, one of the functions of `fastnorm.fast_path`."""
        function: Callable[..., Any] = getattr(self._kernels, name)
        return function

    def moments_into(self, x: Array, measure: Measure, parts: Moments) -> None:
        self._kernels.moments(x, measure, *parts, self._threads_for(x))

    def merge_into(self, parts: Moments, count: float, last: float, merged: Moments) -> None:
        self._kernels.merge(*parts, count, last, *merged)

    def extrema_into(self, x: Array, low: Array, high: Array) -> None:
        self._kernels.extrema(x, low, high, self._threads_for(x))

    def textbook_into(self, number: int, x: Array, weights: Array | None, rounds: bool, mean: Array, m2: Array) -> None:
        self._kernels.textbook(x, weights, number, rounds, mean, m2)

    def affine(
        self, x: Array, y: Array, coefficients: Affine, weight: Array | None = None, bias: Array | None = None
    ) -> None:
        numbers = (np.ascontiguousarray(part) for part in coefficients)
        self._kernels.affine(x, y, *numbers, weight, bias, *_fused(_PLAIN, x), self._threads_for(x))

    def affine_fused(self, fusion: Fusion, x: Array, y: Array, coefficients: Affine) -> None:
        if 1 < x.shape[2] <= tuning.FEW_COLUMNS:  # several positions as one, which goes step by step alone
            super().affine_fused(fusion, x, y, coefficients)
            return
        numbers = (np.ascontiguousarray(part) for part in coefficients)
        self._kernels.affine(x, y, *numbers, None, None, *_fused(fusion, x), self._threads_for(x))

    def after(self, fusion: Fusion, y: Array) -> None:
        if fusion.activation is not None:
            self._kernels.activate(y.reshape(-1), fusion.activation.code(y.dtype), self._threads_for(y))
        super().after(fusion._replace(activation=None), y)

    def normalize(
        self, x: Array, y: Array, weight: Array, bias: Array, per_position: bool, segments: int, rule: Rule,
        want_stats: bool,
    ) -> Moments | None:  # fmt: skip
        return self.normalize_fused(_PLAIN, x, y, weight, bias, per_position, segments, rule, want_stats)

    def normalize_fused(
        self, fusion: Fusion, x: Array, y: Array, weight: Array, bias: Array, per_position: bool, segments: int,
        rule: Rule, want_stats: bool,
    ) -> Moments | None:  # fmt: skip
        outer, reduce, inner = x.shape
        mean = m2 = None
        if want_stats:
            mean, m2 = np.empty((outer, inner)), np.empty((outer, inner))
        self._kernels.normalize(
            x, y, weight, bias, per_position, segments, rule.measure, rule.divisor(reduce), rule.eps, rule.floor,
            mean, m2, *_fused(fusion, x), self._threads_for(x),
        )  # fmt: skip
        return None if mean is None or m2 is None else Moments(mean, np.zeros(mean.shape), m2)

    def dots_into(self, x: Array, dy: Array, mean: Array, products: Array, sums: Array) -> None:
        self._kernels.dots(x, dy, mean, products, sums, self._threads_for(x))

    def affine_grad(
        self, x: Array, dy: Array, dx: Array, mean: Array, scale: Array, slope: Array, shift: Array
    ) -> None:
        coefficients = (np.ascontiguousarray(part) for part in (mean, scale, slope, shift))
        self._kernels.affine_grad(x, dy, dx, *coefficients, self._threads_for(x))

    def normalize_grad(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, parameters: bool,
    ) -> tuple[Array, Array] | None:  # fmt: skip
        if not is_narrow(x.dtype) or self.takes_narrow_lines(x.shape, 3):
            return super().normalize_grad(x, dy, dx, weight, per_position, segments, rule, given, parameters)
        wide: Array = np.empty(x.shape, np.float32)
        found = self.normalize_grad(
            self._wide(x), self._wide(dy), wide, weight, per_position, segments, rule, given, parameters
        )
        self.convert(wide.reshape(-1), dx.reshape(-1))
        return found

    def normalize_grad_into(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, products: Array | None, sums: Array | None, rows: int,
    ) -> None:  # fmt: skip
        mean, rstd = given or (None, None)
        self._kernels.normalize_grad(
            x, dy, dx, weight, per_position, segments, rule.measure, rule.divisor(x.shape[1]), rule.eps, rule.floor,
            mean, rstd, products, sums, rows, self._threads_for(x),
        )  # fmt: skip

    def counted_moments(self, x: Array, weights: Array, last: bool) -> Moments:
        found = Moments(*(np.empty(_channels_of(x, last)) for _ in range(3)))
        self._kernels.counted_moments(x, weights, last, *found, self._threads_for(x))
        return found

    def counted_dots(self, x: Array, dy: Array, weights: Array, last: bool, mean: Array) -> tuple[Array, Array]:
        sums, products = np.empty(_channels_of(x, last)), np.empty(_channels_of(x, last))
        self._kernels.counted_dots(
            x, dy, weights, last, np.ascontiguousarray(mean), sums, products, self._threads_for(x)
        )
        return sums, products

    def counted_grad(
        self, x: Array, dy: Array, dx: Array, weights: Array, last: bool, mean: Array, rstd: Array, scale: Array,
        a: Array, b: Array,
    ) -> None:  # fmt: skip
        numbers = (np.ascontiguousarray(part) for part in (mean, rstd, scale, a, b))
        self._kernels.counted_grad(x, dy, dx, weights, last, *numbers, self._threads_for(x))

    def clip(self, x: Array, y: Array, low: float, high: float) -> None:
        self._kernels.clip(x, y, low, high, self._threads_for(x))

    def local_response(self, x: Array, y: Array, near: Neighbourhood, rstd: Array | None) -> None:
        self._kernels.local_response(x, y, near, rstd, self._threads_for(x))

    def local_response_grad(self, x: Array, dy: Array, dx: Array, near: Neighbourhood, rstd: Array | None) -> None:
        self._kernels.local_response_grad(x, dy, dx, near, rstd, self._threads_for(x))

    def _wide(self, x: Array) -> Array:
        wide: Array = np.empty(x.shape, np.float32)
        self.convert(np.ascontiguousarray(x).reshape(-1), wide.reshape(-1))
        return wide

    def image(self, x: Array, y: Array, planar: bool, mean: Array, scale: Array) -> None:
        channels = x.shape[2]
        # For whole vectors of pixels, and so that the largest fits what the kernel has on its desk.
        repeats = 1 if planar else max(1, self._kernels.IMAGE_COEFFICIENTS // channels)
        with np.errstate(all="ignore"):
            centre = mean.reshape(-1, channels).astype(np.float32)
            factor = scale.reshape(-1, channels)
            shift = (centre - mean.reshape(-1, channels)) * factor
            parts = [np.tile(part.astype(np.float32), repeats) for part in (centre, factor, shift)]
        if not all(np.isfinite(part).all() for part in parts):  # float32 cannot hold them
            super().image(x, y, planar, mean, scale)
            return
        self._kernels.image(x, y, planar, *parts, self._threads_for(x))

    def image_statistics(self, x: Array) -> tuple[Array, Array]:
        images, pixels, channels = x.shape
        shape = images, -(-pixels // self._kernels.COUNTED_PIXELS), channels
        sums, squares = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
        self._kernels.image_statistics(x, sums, squares, self._threads_for(x))
        sum_, square = sums.sum(axis=1), squares.sum(axis=1)
        # Whole numbers without rounding, so that nothing is lost to cancellation: n^2 var = n sum(x^2) - sum(x)^2.
        variance = [pixels * int(q) - int(s) ** 2 for s, q in zip(sum_.ravel(), square.ravel(), strict=True)]
        return sum_ / pixels, np.sqrt(np.array(variance, np.float64)).reshape(sum_.shape) / pixels
