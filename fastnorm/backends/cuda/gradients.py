"""The backward primitives on a device: dots, affine_grad, and normalize_grad, which is both in one pass over rows."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fastnorm.backends.cuda import lane_gradients, merging, row_gradients, shapes
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


def normalize_grad(
    place: Place, gradient: Gradient, lines: int, rule: Rule, found: Statistics | None,
    results: tuple[Buffer, Buffer] | None,
) -> bool:  # fmt: skip
    """Write dx of rows in one pass, and to `results` dweight and dbias of positions; False if registers do not do."""
    x = gradient.x
    length = x.size // lines
    form = replace(gradient.form(rule, found), parameter_sums=results is not None)
    shape = shapes.row_shape(length, gradient.vector(length), form.real is np.float64, halved=True)
    if shape is None or form.paired or shape.width > shapes.LADDER[-2].width:
        return False
    together = shapes.rows_of_unit(lines, shape)
    units = blocks_for(lines, together)
    parts = None
    if results is not None:
        name = np.dtype(form.real).name
        parts = place.empty((units, length), name), place.empty((units, length), name)
    launch(
        row_gradients.normalize_grad_rows(shape, form), blocks_for(units, shape.rows), place.device, place.stream,
        x.address, gradient.dy.address, gradient.dx.address, address(gradient.weight),
        address(found and found.mean), address(found and found.rstd), address(parts and parts[0]),
        address(parts and parts[1]), lines, length, together, rule.eps, rule.divisor(length), least_squares(rule.eps),
    )  # fmt: skip
    if results is not None and parts is not None:
        columns = shapes.column_shape()
        launch(
            merging.merge_columns(columns, parts[0].storage, results[0].storage), blocks_for(length, columns.width),
            place.device, place.stream,
            parts[0].address, parts[1].address, results[0].address, results[1].address, units, length,
        )  # fmt: skip
    return True


def dots(
    place: Place, gradient: Gradient, view: View, rule: Rule, found: Statistics, whose: Whose,
    by_position: bool = False,
) -> Sums:  # fmt: skip
    """Return the sums of chunks of each line. `whose` is as in `primitives.affine`.

    `by_position`, a statistic goes with the position p: of rows ``r // block * length + p``, of lanes
    ``o * length + p``.
    """
    outer, length, inner = view
    form = replace(gradient.form(rule, found), by_position=by_position)
    wide = form.real is np.float64
    if inner == 1:
        shape = shapes.chunk_shape(length, gradient.vector(length), wide)
        chunks = blocks_for(length, shape.capacity)
    else:
        tile = shapes.lane_shape(inner, gradient.vector(inner), wide, halved=True)
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
            lane_gradients.dots_lanes(tile, form), outer * chunks * blocks_for(inner, tile.lanes), place.device,
            place.stream, *pointers, length, inner, rule.eps,
        )  # fmt: skip
    return parts


def affine_grad(
    place: Place, gradient: Gradient, view: View, rule: Rule, found: Statistics, whose: Whose, a: Buffer, b: Buffer
) -> None:
    """Write dx = rstd * (g - A - xhat * B); A and B, float64, go with the statistics."""
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
        launch(
            row_gradients.affine_grad_rows(shape, form), blocks_for(outer * chunks, shape.rows), place.device,
            place.stream, *pointers, outer, length, chunks, whose.block, whose.channels, rule.eps,
        )  # fmt: skip
    else:
        tile = shapes.lane_shape(inner, gradient.vector(inner), wide, halved=True)
        blocks = outer * blocks_for(length, tile.chunk) * blocks_for(inner, tile.lanes)
        launch(
            lane_gradients.affine_grad_lanes(tile, form), blocks, place.device, place.stream,
            *pointers, length, inner, rule.eps,
        )  # fmt: skip
