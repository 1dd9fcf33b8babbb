"""The forward primitives on a device: moments, their merging, affine, and normalize, which is all in one pass.

x is a canonical view (outer, length, inner), with inner = 1 rows and otherwise columns, as on the CPU.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastnorm.backends.cuda import columns, elementwise, extrema, merging, rows, shapes
from fastnorm.backends.cuda.buffers import Buffer, Place, address
from fastnorm.backends.cuda.compat import launch
from fastnorm.backends.cuda.forms import Form, Owner
from fastnorm.backends.cuda.merging import Pool
from fastnorm.backends.cuda.statistics import EPS_THAT_COVERS, LEAST_SQUARES
from fastnorm.recipe import Measure, Rule

View = tuple[int, int, int]


class Statistics(NamedTuple):
    """Mean and rstd of lines, of one storage type, float64 if they were computed here.

    Where they are not `rooted`, `rstd` is the variance that it is still to be made of.
    """

    mean: Buffer
    rstd: Buffer
    rooted: bool = True
    rest: Buffer | None = None  # what the mean's rounding left, where x is float64


class Running(NamedTuple):
    """Running statistics to be moved, and by which rule."""

    mean: Buffer | None
    var: Buffer | None
    weight_of_old: float
    divisor: float  # of the sum of squared deviations


@dataclass(frozen=True, slots=True)
class Parameters:
    """Weight and bias of one storage type, and whose they are; `segments` runs to a row where they go by runs."""

    weight: Buffer | None = None
    bias: Buffer | None = None
    owner: Owner = "none"
    segments: int = 1

    @property
    def storage(self) -> str:
        """The storage type of both."""
        given = self.weight or self.bias
        return "float32" if given is None else given.storage

    @property
    def count(self) -> int:
        """How many parameters there are."""
        given = self.weight or self.bias
        return 1 if given is None else given.size

    def form(self, form: Form) -> Form:
        """Return a form with these parameters."""
        return replace(
            form, parameters=self.storage, weight="none" if self.weight is None else self.owner,
            bias="none" if self.bias is None else self.owner,
        )  # fmt: skip

    def vectors(self) -> tuple[int, ...]:
        """Return the addresses of what is read as vectors."""
        given = (self.weight, self.bias) if self.owner in ("position", "column") else ()
        return tuple(part.address for part in given if part is not None)


def computed_in(*storages: str) -> Any:
    """Return the type that is computed in."""
    return np.float64 if "float64" in storages else np.float32


def vector_of(buffers: tuple[Buffer, ...], parameters: Parameters, period: int) -> int:
    """Return how many adjacent elements of all of these a thread can access at once."""
    addresses = tuple(buffer.address for buffer in buffers) + parameters.vectors()
    return shapes.vector_length(tuple(buffer.storage for buffer in buffers), addresses, period)


def least_squares(eps: float) -> float:
    """Return the sum of squares below which float32 is given up: none if eps hides what is lost."""
    return 0.0 if eps >= EPS_THAT_COVERS else LEAST_SQUARES


def blocks_for(units: int, together: int) -> int:
    """Return how many blocks so many units need."""
    return -(-units // together)


@dataclass(frozen=True, slots=True)
class Fused:
    """What a pass over rows does besides: the sum with a residual comes first, kept or not, an activation last."""

    residual: Buffer | None = None
    total: Buffer | None = None
    activation: str | None = None


def normalize(
    place: Place, x: Buffer, y: Buffer, lines: int, parameters: Parameters, rule: Rule, fused: Fused,
    found: Statistics | None, repeat: int = 1,
) -> bool:  # fmt: skip
    """Write normalised rows in one pass; return False, having done nothing, if registers cannot hold a row.

    `found` is where statistics go, each `repeat` times.
    """
    length, real = x.size // lines, computed_in(x.storage, y.storage)
    buffers = tuple(buffer for buffer in (x, y, fused.residual, fused.total) if buffer is not None)
    vector = vector_of(buffers, parameters, length)
    # A loop around erfc is unrolled over 16 elements, not over 32; what is not unrolled is not held in registers.
    shape = shapes.row_shape(length, vector, real is np.float64, halved=fused.activation == "gelu")
    if shape is None:
        return False
    run_length = length // parameters.segments
    form = Form(
        x.storage, y.storage, real, segmented=parameters.segments > 1, whole_runs=run_length % vector == 0,
        centred=rule.measure == Measure.VARIANCE, floor=rule.floor, residual=fused.residual is not None,
        keep_total=fused.total is not None, activation=fused.activation, want_stats=found is not None,
    )  # fmt: skip
    kernel = rows.normalize_rows(shape, parameters.form(form))
    launch(
        kernel, blocks_for(lines, shape.rows), place.device, place.stream,
        x.address, address(fused.residual), address(fused.total), y.address, address(parameters.weight),
        address(parameters.bias), address(found and found.mean), address(found and found.rstd), lines, length,
        run_length, parameters.segments, parameters.count, repeat, rule.eps, rule.divisor(length),
        least_squares(rule.eps),
    )  # fmt: skip
    return True


def add(place: Place, x: Buffer, residual: Buffer, total: Buffer, kept: Buffer | None) -> None:
    """Write x + residual, to `kept` as its storage type has it."""
    real = computed_in(total.storage)
    written = (x, residual, total) if kept is None else (x, residual, total, kept)
    vector = vector_of(written, Parameters(), x.size)
    shape = shapes.chunk_shape(x.size, vector, real is np.float64)._replace(rows=1)
    kernel = elementwise.add(shape, x.storage, total.storage if kept is None else kept.storage, real, kept is not None)
    launch(
        kernel, blocks_for(x.size, shape.capacity), place.device, place.stream,
        x.address, residual.address, total.address, address(kept), x.size,
    )  # fmt: skip


class Parts(NamedTuple):
    """Moments of chunks of lines: (outer, chunks, inner) float64; of rows inner is 1."""

    means: Buffer
    rests: Buffer | None  # where x is float64: what the rounding of the means left
    m2s: Buffer
    chunks: int
    length: int  # of every chunk but the last
    last: int


def moments(place: Place, x: Buffer, view: View, rule: Rule) -> Parts:
    """Return the moments of chunks of each line."""
    outer, length, inner = view
    real, centred = computed_in(x.storage), rule.measure == Measure.VARIANCE
    least = least_squares(rule.eps)
    if inner == 1:
        shape = shapes.chunk_shape(length, vector_of((x,), Parameters(), length), real is np.float64)
        chunk, units = shape.capacity, shape.rows
        kernel = rows.moments_rows(shape, x.storage, real, centred)
    else:
        tile = shapes.column_shape(inner, vector_of((x,), Parameters(), inner), real is np.float64)
        chunk, units = tile.chunk, tile.columns
        kernel = columns.moments_columns(tile, x.storage, real, centred)
    chunks = blocks_for(length, chunk)
    shape_of_parts = outer, chunks, inner
    parts = Parts(
        place.numbers(*shape_of_parts), place.numbers(*shape_of_parts) if centred and real is np.float64 else None,
        place.numbers(*shape_of_parts), chunks, chunk, length - (chunks - 1) * chunk,
    )  # fmt: skip
    if inner == 1:
        launch(
            kernel, blocks_for(outer * chunks, units), place.device, place.stream,
            x.address, parts.means.address, address(parts.rests), parts.m2s.address, outer, length, chunks, least,
        )  # fmt: skip
    else:
        launch(
            kernel, outer * chunks * blocks_for(inner, units), place.device, place.stream,
            x.address, parts.means.address, address(parts.rests), parts.m2s.address, length, inner, least,
        )  # fmt: skip
    return parts


def merge(
    place: Place, parts: Parts, pool: Pool, rule: Rule, count: int, repeat: int = 1, running: Running | None = None,
    rooted: bool = True,
) -> Statistics:  # fmt: skip
    """Return mean and rstd of the statistics of a pool, each `repeat` times; `count` elements are behind one.

    Without `rooted`, m2 is in the place of rstd.
    """
    size = pool.statistics * repeat
    rest = None if parts.rests is None else place.numbers(size)
    found = Statistics(place.numbers(size), place.numbers(size), rest=rest)
    step = shapes.width_for_sums(pool.members)
    moved = running and (running.mean or running.var)
    storage = moved.storage if moved else None
    centred = rule.measure == Measure.VARIANCE
    kernel = merging.merge_moments(step, centred, rest is not None, rule.floor, storage, rooted)
    launch(
        kernel, blocks_for(pool.statistics, step.rows), place.device, place.stream,
        parts.means.address, address(parts.rests), parts.m2s.address, found.mean.address, address(rest),
        found.rstd.address,
        address(running and running.mean), address(running and running.var), pool.statistics, pool.groups, pool.runs,
        pool.chunks, pool.members, *pool[5:], parts.length, parts.last, repeat, rule.eps, rule.divisor(count),
        running.weight_of_old if running else 1.0, running.divisor if running else 1.0,
    )  # fmt: skip
    return found


class Extremes(NamedTuple):
    """The least and the largest elements of chunks of lines, (outer, chunks, inner)."""

    lows: Buffer
    highs: Buffer
    chunks: int


def extremes(place: Place, x: Buffer, view: View) -> Extremes:
    """Return the extrema of chunks of each line."""
    outer, length, inner = view
    real = computed_in(x.storage)
    if inner == 1:
        shape = shapes.chunk_shape(length, vector_of((x,), Parameters(), length), real is np.float64)
        chunks = blocks_for(length, shape.capacity)
    else:
        tile = shapes.column_shape(inner, vector_of((x,), Parameters(), inner), real is np.float64)
        chunks = blocks_for(length, tile.chunk)
    low, high = (place.empty((outer, chunks, inner), np.dtype(real).name) for _ in range(2))
    if inner == 1:
        launch(
            extrema.extrema_rows(shape, x.storage, real), blocks_for(outer * chunks, shape.rows), place.device,
            place.stream, x.address, low.address, high.address, outer, length, chunks,
        )  # fmt: skip
    else:
        launch(
            extrema.extrema_columns(tile, x.storage, real), outer * chunks * blocks_for(inner, tile.columns),
            place.device, place.stream, x.address, low.address, high.address, length, inner,
        )  # fmt: skip
    return Extremes(low, high, chunks)


def merge_extremes(place: Place, parts: Extremes, pool: Pool, low: Buffer, high: Buffer) -> None:
    """Write the extrema of the statistics of a pool."""
    step, real = shapes.width_for_sums(pool.members), computed_in(parts.lows.storage)
    launch(
        extrema.merge_extrema(step, parts.lows.storage, low.storage, real), blocks_for(pool.statistics, step.rows),
        place.device, place.stream, parts.lows.address, parts.highs.address, low.address, high.address,
        pool.statistics, pool.groups, pool.runs, pool.chunks, pool.members, *pool[5:],
    )  # fmt: skip


class Whose(NamedTuple):
    """Which statistic a row has: row r that of ``r // block * channels + r % channels``."""

    block: int
    channels: int


def affine(
    place: Place, x: Buffer, y: Buffer, view: View, found: Statistics, whose: Whose, parameters: Parameters,
    rule: Rule, activation: str | None = None,
) -> None:  # fmt: skip
    """Write lines normalised by statistics. `whose` is for rows; column l of block o has the one ``o * inner + l``."""
    outer, length, inner = view
    real = computed_in(x.storage, y.storage)
    form = parameters.form(
        Form(
            x.storage, y.storage, real, centred=rule.measure == Measure.VARIANCE, activation=activation,
            statistics=found.rstd.storage, rooted=found.rooted, paired=found.rest is not None,
        )
    )  # fmt: skip
    vector = vector_of((x, y), parameters, length if inner == 1 else inner)
    if inner == 1:
        shape = shapes.chunk_shape(length, vector, real is np.float64)
        chunks = blocks_for(length, shape.capacity)
        launch(
            rows.affine_rows(shape, form), blocks_for(outer * chunks, shape.rows), place.device, place.stream,
            x.address, y.address, found.mean.address, address(found.rest), found.rstd.address,

            address(parameters.weight), address(parameters.bias), outer, length, chunks, whose.block, whose.channels,
            rule.eps,
        )  # fmt: skip
    else:
        tile = shapes.column_shape(inner, vector, real is np.float64, halved=activation == "gelu")
        blocks = outer * blocks_for(length, tile.chunk) * blocks_for(inner, tile.columns)
        launch(
            columns.affine_columns(tile, form), blocks, place.device, place.stream,
            x.address, y.address, found.mean.address, address(found.rest), found.rstd.address,
            address(parameters.weight), address(parameters.bias), length, inner, rule.eps,
        )  # fmt: skip


def add_up(
    place: Place, first: Buffer | None, second: Buffer | None, pool: Pool, first_out: Buffer | None,
    second_out: Buffer | None, factor: float = 1.0, weights: Buffer | None = None, repeat: int = 1,
) -> None:  # fmt: skip
    """Write ``factor * sum(weight * part)`` of the parts of each statistic of a pool, each `repeat` times.

    There is a weight for each run of each group. An output may be None; without parts all sums are 0.
    """
    step = shapes.width_for_sums(pool.members)
    result = next(part.storage for part in (first_out, second_out) if part is not None)
    kernel = merging.merge_sums(step, weights and weights.storage, result)
    launch(
        kernel, blocks_for(pool.statistics, step.rows), place.device, place.stream,
        address(first), address(second), address(weights), address(first_out), address(second_out), pool.statistics,
        pool.groups, pool.runs, pool.chunks, pool.members, *pool[5:], repeat, factor,
    )  # fmt: skip


def fill_as_empty(place: Place, target: Buffer | None, defined: bool) -> None:
    """Write what sums of no parts come to: 0 where that is `defined`, and NaN where it is divided by their number."""
    if target is not None and target.size:
        nothing = Pool(target.size, 1, 0, 1, 1, 0, 0, 0, 0, 0)
        add_up(place, None, None, nothing, target, None, 1.0 if defined else float("nan"))


def spread(place: Place, m2: Buffer, var: Buffer, std: Buffer, divisor: float) -> None:
    """Write variances and standard deviations of sums of squared deviations."""
    launch(
        elementwise.spread(), blocks_for(m2.size, elementwise.THREADS), place.device, place.stream,
        m2.address, var.address, std.address, m2.size, divisor,
    )  # fmt: skip


def given_statistics(place: Place, mean: Buffer, var: Buffer, eps: float) -> Statistics:
    """Return mean and rstd, float64, of statistics that were not computed from x."""
    found = Statistics(place.numbers(mean.size), place.numbers(var.size))
    launch(
        elementwise.rooted(mean.storage), blocks_for(mean.size, elementwise.THREADS), place.device, place.stream,
        mean.address, var.address, found.mean.address, found.rstd.address, mean.size, eps,
    )  # fmt: skip
    return found
