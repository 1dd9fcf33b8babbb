"""What backends with kernels share: arrays for the chunks of lines, which a kernel fills, and the joining of them."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm.backends.reference import Reference
from fastnorm.backends.textbook import ALGORITHMS
from fastnorm.dtypes import computed_in
from fastnorm.plan import chunk_length, chunks_of, rows_of_unit
from fastnorm.recipe import Measure, Moments, Rule

Array = npt.NDArray[Any]

_NUMBERS = {name: number for number, name in enumerate(ALGORITHMS)}


class Compiled(Reference, ABC):
    """A backend whose kernels write into given arrays: the methods that end in ``_into``."""

    def moments(self, x: Array, measure: Measure) -> Moments:
        outer, _, inner = x.shape
        chunks, last = chunks_of(x.shape)
        parts = Moments(*(np.empty((outer, chunks, inner)) for _ in range(3)))
        self.moments_into(x, measure, parts)
        if chunks == 1:
            return Moments(*(part[:, 0] for part in parts))
        return self.merge(parts, chunk_length(x.shape), last)

    def merge(self, parts: Moments, count: float, last: float) -> Moments:
        outer, _, inner = parts.hi.shape
        merged = Moments(*(np.empty((outer, inner)) for _ in range(3)))
        self.merge_into(parts, count, last, merged)
        return merged

    def extrema(self, x: Array) -> tuple[Array, Array]:
        outer, _, inner = x.shape
        chunks, _ = chunks_of(x.shape)
        low, high = (np.empty((outer, chunks, inner), computed_in(x.dtype)) for _ in range(2))
        self.extrema_into(x, low, high)
        return (low[:, 0], high[:, 0]) if chunks == 1 else (low.min(axis=1), high.max(axis=1))

    def dots(self, x: Array, dy: Array, mean: Array) -> tuple[Array, Array]:
        outer, _, inner = x.shape
        chunks, _ = chunks_of(x.shape)
        products, sums = (np.empty((outer, chunks, inner)) for _ in range(2))
        self.dots_into(x, dy, np.ascontiguousarray(mean), products, sums)
        with np.errstate(all="ignore"):
            return sums.sum(axis=1), products.sum(axis=1)

    def normalize_grad(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, parameters: bool,
    ) -> tuple[Array, Array] | None:  # fmt: skip
        outer, reduce, _ = x.shape
        rows = rows_of_unit(outer, reduce) if per_position else 1
        products = sums = None
        if parameters:
            shape = (-(-outer // rows), reduce) if per_position else (outer, segments)
            products, sums = np.zeros(shape), np.zeros(shape)
        self.normalize_grad_into(x, dy, dx, weight, per_position, segments, rule, given, products, sums, rows)
        if products is None or sums is None:
            return None
        if not per_position:
            return products.ravel(), sums.ravel()
        with np.errstate(all="ignore"):
            return products.sum(axis=0), sums.sum(axis=0)

    def textbook(self, algorithm: str, x: Array, weights: Array | None) -> tuple[Array, Array]:
        rounds = x.dtype == np.float16
        if rounds:  # exact, and every operation rounds back
            x, weights = x.astype(np.float32), None if weights is None else weights.astype(np.float32)
        mean, m2 = np.empty(len(x)), np.empty(len(x))
        self.textbook_into(_NUMBERS[algorithm], x, weights, rounds, mean, m2)
        return mean, m2

    @abstractmethod
    def moments_into(self, x: Array, measure: Measure, parts: Moments) -> None:
        """Write the moments of each chunk of each line, (outer, chunks, inner)."""

    @abstractmethod
    def merge_into(self, parts: Moments, count: float, last: float, merged: Moments) -> None:
        """Write the moments of lines, (outer, inner), from those of their chunks."""

    @abstractmethod
    def extrema_into(self, x: Array, low: Array, high: Array) -> None:
        """Write the least and the largest element of each chunk, (outer, chunks, inner)."""

    @abstractmethod
    def dots_into(self, x: Array, dy: Array, mean: Array, products: Array, sums: Array) -> None:
        """Write the sums of dy * (x - mean) and of dy over each chunk, (outer, chunks, inner)."""

    @abstractmethod
    def normalize_grad_into(
        self, x: Array, dy: Array, dx: Array, weight: Array, per_position: bool, segments: int, rule: Rule,
        given: tuple[Array, Array] | None, products: Array | None, sums: Array | None, rows: int,
    ) -> None:  # fmt: skip
        """Write dx and, where they are wanted, sums: of each unit of `rows` rows for each position, or of each run."""

    @abstractmethod
    def textbook_into(self, number: int, x: Array, weights: Array | None, rounds: bool, mean: Array, m2: Array) -> None:
        """Write mean and m2 of rows by an algorithm, which rounds to float16 after every operation if `rounds`."""
