"""The backward primitives on a device: dots, affine_grad, and normalize_grad, which is both where registers do."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fastnorm.backends.cuda import column_gradients, merging, row_gradients, shapes
from fastnorm.backends.cuda.buffers import Buffer, Place, address
from fastnorm.backends.cuda.compat import launch
from fastnorm.backends.cuda.forms import GradientForm, Owner
from fastnorm.backends.cuda.primitives import (
    Parameters,
    Statistics,
    View,
    Whose,
    blocks_for,
    computed_in,
    least_squares,
    vector_of,
)
from fastnorm.backends.cuda.shapes import RowShape
from fastnorm.recipe import Measure, Rule


@dataclass(frozen=True, slots=True)
class Gradient:
    """x, dy and where dx goes, and what g = weight * dy has of a weight."""

    x: Buffer
    dy: Buffer
    dx: Buffer
    weight: Buffer | None = None
    owner: Owner = "none"

    @property
    def parameters(self) -> Parameters:
        """The weight as a kernel's parameters."""
        return Parameters(self.weight, None, self.owner)

    def form(self, rule: Rule, found: Statistics | None) -> GradientForm:
        """Return what its kernels are made for."""
        given = found or Statistics(self.x, self.x)
        return GradientForm(
            self.x.storage, self.dx.storage, computed_in(self.x.storage, self.dx.storage),
            parameters=self.parameters.storage, weight="none" if self.weight is None else self.owner,
            centred=rule.measure == Measure.VARIANCE, floor=rule.floor, upstream=self.dy.storage,
            statistics=given.rstd.storage, rooted=given.rooted, paired=given.rest is not None,
            given=found is not None,
        )  # fmt: skip

    def vector(self, period: int) -> int:
        """Return how many adjacent elements a thread can access at once."""
        return vector_of((self.x, self.dy, self.dx), self.parameters, period)


class Sums(NamedTuple):
    """Sums of g and of g * xhat of chunks of lines, (outer, chunks, inner) float64; of rows inner is 1."""

    sums: Buffer
    products: Buffer
    chunks: int


def _normalize_grad_rows(
    place: Place, gradient: Gradient, lines: int, shape: RowShape, form: GradientForm, rule: Rule,
    found: Statistics | None, sums: tuple[Buffer, Buffer] | None, segments: int = 1, together: int = 1,
) -> None:  # fmt: skip
    length = gradient.x.size // lines
    launch(
        row_gradients.normalize_grad_rows(shape, form), blocks_for(blocks_for(lines, together), shape.rows),
        place.device, place.stream,
        gradient.x.address, gradient.dy.address, gradient.dx.address, address(gradient.weight),
        address(found and found.mean), address(found and found.rest), address(found and found.rstd),
        address(sums and sums[0]), address(sums and sums[1]), lines, length, length // segments, segments,
        gradient.parameters.count, together, rule.eps, rule.divisor(length), least_squares(rule.eps),
    )  # fmt: skip


def normalize_grad(
    place: Place, gradient: Gradient, lines: int, rule: Rule, found: Statistics | None,
    results: tuple[Buffer, Buffer] | None,
) -> bool:  # fmt: skip
    """Write dx of rows that registers hold, and to `results` dweight and dbias of positions; False if they do not.

    Registers hold x and dy and the sums for positions; or x and dy; or x, and then dy is read twice, from the L2 cache
    with some luck; if there are sums for positions, these and dx are a second pass over both.
    """
    x = gradient.x
    length = x.size // lines
    form, vector = gradient.form(rule, found), gradient.vector(length)
    wide = form.real is np.float64
    shape = shapes.row_shape(length, vector, wide, halved=True)
    if results is not None and shape is not None and shape.width > shapes.LADDER[-2].width:
        shape = None
    held = shape is not None
    shape = shape or shapes.row_shape(length, vector, wide)
    if shape is None or form.paired:
        return False
    if results is None:
        _normalize_grad_rows(place, gradient, lines, shape, replace(form, held=held), rule, found, None)
    elif held:
        together = shapes.rows_of_unit(lines, shape.width)
        parts = _parts_of_positions(place, blocks_for(lines, together), length, form)
        form = replace(form, sums="position")
        _normalize_grad_rows(place, gradient, lines, shape, form, rule, found, parts, together=together)
        _add_up_positions(place, parts, results)
    elif found is None:
        rest = place.numbers(lines) if wide and form.centred else None
        found = Statistics(place.numbers(lines), place.numbers(lines), rest=rest)
        terms = place.numbers(lines), place.numbers(lines)
        _normalize_grad_rows(
            place, gradient, lines, shape, replace(form, held=False, terms=True), rule, found, terms
        )  # fmt: skip
        affine_grad(place, gradient, (lines, length, 1), rule, found, Whose(lines, lines), *terms, results)
    else:  # `dots` reads x and dy once, too
        return False
    return True


def normalize_grad_runs(
    place: Place, gradient: Gradient, lines: int, segments: int, rule: Rule, found: Statistics | None
) -> Sums | None:
    """Write dx of rows of so many runs, and return the sums of dy and of dy * xhat of each run, (lines, segments).

    None, having done nothing, if registers do not hold a row of x, or shared memory the sums of vectors.
    """
    length = gradient.x.size // lines
    form, vector = gradient.form(rule, found), gradient.vector(length // segments)
    wide = form.real is np.float64
    shape = shapes.row_shape(length, vector, wide, halved=True)
    if segments > 1 and shape is not None and shape.width > shapes.LADDER[-2].width:
        shape = None
    held = shape is not None
    shape = shape or shapes.row_shape(length, vector, wide)
    if shape is None or form.paired or (segments > 1 and not shapes.sums_fit(shape, wide)):
        return None
    parts = Sums(place.numbers(lines, segments), place.numbers(lines, segments), 1)
    form = replace(form, held=held, segmented=segments > 1, sums="run" if segments > 1 else "row")
    _normalize_grad_rows(place, gradient, lines, shape, form, rule, found, parts[:2], segments)
    return parts


def _parts_of_positions(place: Place, units: int, length: int, form: GradientForm) -> tuple[Buffer, Buffer]:
    name = np.dtype(form.real).name
    return place.empty((units, length), name), place.empty((units, length), name)


def _add_up_positions(place: Place, parts: tuple[Buffer, Buffer], results: tuple[Buffer, Buffer]) -> None:
    """Write dweight and dbias of sums of dy and of dy * xhat, (units, positions)."""
    units, length = parts[0].shape
    columns = shapes.merging_shape()
    launch(
        merging.merge_columns(columns, parts[0].storage, results[0].storage), blocks_for(length, columns.width),
        place.device, place.stream,
        parts[1].address, parts[0].address, results[0].address, results[1].address, units, length,
    )  # fmt: skip


def dots(
    place: Place, gradient: Gradient, view: View, rule: Rule, found: Statistics, whose: Whose,
    by_position: bool = False,
) -> Sums:  # fmt: skip
    """Return the sums of chunks of each line. `whose` is as in `primitives.affine`.

    `by_position`, for rows alone, row r has at position p the statistic ``r // block * length + p``.
    """
    outer, length, inner = view
    form = replace(gradient.form(rule, found), by_position=by_position)
    wide = form.real is np.float64
    if inner == 1:
        shape = shapes.chunk_shape(length, gradient.vector(length), wide)
        chunks = blocks_for(length, shape.capacity)
    else:
        tile = shapes.column_shape(inner, gradient.vector(inner), wide, halved=True)
        chunks = blocks_for(length, tile.chunk)
    parts = Sums(place.numbers(outer, chunks, inner), place.numbers(outer, chunks, inner), chunks)
    pointers = (
        gradient.x.address, gradient.dy.address, found.mean.address, address(found.rest), found.rstd.address,
        address(gradient.weight), parts.sums.address, parts.products.address,
    )  # fmt: skip
    if inner == 1:
        launch(
            row_gradients.dots_rows(shape, form), blocks_for(outer * chunks, shape.rows), place.device, place.stream,
            *pointers, outer, length, chunks, whose.block, whose.channels, rule.eps,
        )  # fmt: skip
    else:
        launch(
            column_gradients.dots_columns(tile, form), outer * chunks * blocks_for(inner, tile.columns), place.device,
            place.stream, *pointers, length, inner, rule.eps,
        )  # fmt: skip
    return parts


def affine_grad(
    place: Place, gradient: Gradient, view: View, rule: Rule, found: Statistics, whose: Whose, a: Buffer, b: Buffer,
    results: tuple[Buffer, Buffer] | None = None,
) -> None:  # fmt: skip
    """Write dx = rstd * (g - A - xhat * B); A and B, float64, go with the statistics.

    `results` are for dweight and dbias of the positions of rows.
    """
    outer, length, inner = view
    form = gradient.form(rule, found)
    wide = form.real is np.float64
    pointers = (
        gradient.x.address, gradient.dy.address, gradient.dx.address, found.mean.address, address(found.rest),
        found.rstd.address, a.address, b.address, address(gradient.weight),
    )  # fmt: skip
    if inner == 1:
        shape = shapes.chunk_shape(length, gradient.vector(length), wide)
        chunks = blocks_for(length, shape.capacity)
        together, parts = 1, None
        if results is not None:
            together = shapes.rows_of_unit(outer, shape.width * chunks)
            parts = _parts_of_positions(place, blocks_for(outer, together), length, form)
            form = replace(form, sums="position")
        launch(
            row_gradients.affine_grad_rows(shape, form),
            blocks_for(blocks_for(outer, together) * chunks, shape.rows), place.device, place.stream,
            *pointers, address(parts and parts[0]), address(parts and parts[1]), outer, length, chunks, together,
            whose.block, whose.channels, rule.eps,
        )  # fmt: skip
        if results is not None and parts is not None:
            _add_up_positions(place, parts, results)
    else:
        tile = shapes.column_shape(inner, gradient.vector(inner), wide, halved=True)
        blocks = outer * blocks_for(length, tile.chunk) * blocks_for(inner, tile.columns)
        launch(
            column_gradients.affine_grad_columns(tile, form), blocks, place.device, place.stream,
            *pointers, length, inner, rule.eps,
        )  # fmt: skip
