"""Shapes: an array and the axes a norm reduces become a canonical view and a way to pool its lines.

The view is (outer, reduce, inner). With inner = 1 a line is contiguous (the row form); with inner > 1 neighbours in
memory belong to different lines (the column form). Where the reduced axes are not adjacent (BatchNorm on NCHW), lines
are reduced first and then pooled.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

Shape = tuple[int, ...]

# A line is cut into chunks of so many elements, whose moments are joined in order: part of the definition of the
# result, the same in every compiled backend, so that it does not depend on the number of threads.
CHUNK_ROWS = 16 * 4096
CHUNK_COLUMNS = 16 * 64

# Positions of an item that are worth a unit of work where elements count unequally; fewer, with the channels last, are
# one item where the batch shares statistics.
LONG_ITEM = 64


def chunk_length(view: Shape) -> int:
    """Return the length of every chunk of a line but the last."""
    return CHUNK_ROWS if view[2] == 1 else CHUNK_COLUMNS


def chunks_of(view: Shape) -> tuple[int, int]:
    """Return how many chunks a line of a view has, and how long the last one is."""
    count = -(-view[1] // chunk_length(view))
    return count, view[1] - (count - 1) * chunk_length(view)


def rows_of_unit(rows: int, length: int) -> int:
    """Return how many rows have one sum a position, before those of all units are added up, in order.

    By the shape alone: results do not depend on the number of threads. So many that there are units for several threads
    early, two at least if they have 16 rows each, and that the sums of all units stay within 16 MiB, or 128 bytes a
    position.
    """
    length = max(length, 1)
    units = max(8, min(256, 2**20 // length))
    return max(min(64, max(16, min(65536 // length, rows // 2))), -(-rows // units))


def kept_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return `shape` with every axis but `axes` of length 1, which broadcasts against it."""
    return tuple(size if axis in axes else 1 for axis, size in enumerate(shape))


def dropped_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return `shape` without `axes`."""
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an array is seen.

    `order` is the transposition to make first (None: as it stands); then the array has shape `view`. With `pool` =
    (a, b, c), the lines (outer, inner) are seen as that shape and joined along b. `stats_shape` is that of the
    statistics, which broadcasts against the array before it was transposed.
    """

    view: tuple[int, int, int]
    pool: tuple[int, int, int] | None
    order: tuple[int, ...] | None
    stats_shape: Shape
    count: int  # elements behind one statistic


def _runs(shape: Shape, reduced: frozenset[int]) -> tuple[str, list[int]]:
    """Adjacent axes of one kind joined: 'K' kept or 'R' reduced, axes of length 1 left out."""
    kinds = ""
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        kind = "R" if axis in reduced else "K"
        if kinds.endswith(kind):
            sizes[-1] *= size
        else:
            kinds += kind
            sizes.append(size)
    return kinds, sizes


def _view(kinds: str, sizes: list[int]) -> tuple[tuple[int, int, int], tuple[int, int, int] | None] | None:
    """The canonical view and the pool of a pattern, None if it has neither."""
    match kinds, sizes:
        case "", _:
            return (1, 1, 1), None
        case "K", (k,):
            return (1, 1, k), None
        case "R", (r,):
            return (1, r, 1), None
        case "KR", (k, r):
            return (k, r, 1), None
        case "RK", (r, k):
            return (1, r, k), None
        case "KRK", (k, r, inner):
            return (k, r, inner), None
        case "RKR", (r, k, rest):
            return (r * k, rest, 1), (1, r, k)
        case "KRKR", (k, r, groups, rest):
            return (k, r, groups * rest), (k * groups, rest, 1)
    return None


@lru_cache(maxsize=4096)
def plan_reduction(shape: Shape, axes: tuple[int, ...]) -> Plan:
    """Return the plan of statistics over `axes` (not negative, no duplicates) of an array of `shape`."""
    reduced = frozenset(axes)
    stats_shape = tuple(1 if axis in reduced else size for axis, size in enumerate(shape))
    count = prod(shape[axis] for axis in axes)
    if 0 in shape:
        return Plan((prod(stats_shape), count, 1), None, None, stats_shape, count)
    found, order = _view(*_runs(shape, reduced)), None
    if found is None:  # the kept axes to the front
        order = (*(a for a in range(len(shape)) if a not in reduced), *sorted(reduced))
        found = (prod(stats_shape), count, 1), None
    view, pool = found
    return Plan(view, pool, order, stats_shape, count)


@lru_cache(maxsize=4096)
def plan_groups_last(batch: int, spatial: int, groups: int, per_group: int) -> Plan:
    """Return the plan of groups of channels that are last, (N, S, G, C / G): each channel, then those of a group.

    `plan_reduction` would see a batch of one differently, and the last bits would depend on the size of the batch.
    """
    view = batch, spatial, groups * per_group
    pool = (batch * groups, per_group, 1) if per_group > 1 else None
    return Plan(view, pool, None, (batch, 1, groups, 1), spatial * per_group)


@dataclass(frozen=True, slots=True)
class ChannelLayout:
    """An array with a batch axis and a channel axis, seen as (N, C, S) or, with `last`, as (N, S, C).

    `order` is the transposition to make first, where the channels are neither second nor last.
    """

    batch: int
    channels: int
    spatial: int
    last: bool
    order: tuple[int, ...] | None

    @property
    def shape(self) -> Shape:
        """The three axes in their order."""
        if self.last:
            return self.batch, self.spatial, self.channels
        return self.batch, self.channels, self.spatial

    def plan(self, *, per_item: bool) -> Plan:
        """Return the plan of statistics a channel: of each item, or of the batch."""
        positions = 1 if self.last else 2
        return plan_reduction(self.shape, (positions,) if per_item else (0, positions))

    def apply_view(self, items: int) -> tuple[int, int, int]:
        """Return the canonical view whose lines are channels, for coefficients items x C: of each item, or of all."""
        if self.last:
            return items, self.batch * self.spatial // items, self.channels
        return self.batch * self.channels, self.spatial, 1


@lru_cache(maxsize=4096)
def plan_channels(shape: Shape, channel_axis: int) -> ChannelLayout:
    """Return the layout of an array of `shape` whose channels are `channel_axis` (not negative, not 0)."""
    batch, channels = shape[0], shape[channel_axis]
    before, after = prod(shape[1:channel_axis]), prod(shape[channel_axis + 1 :])
    if after == 1:
        return ChannelLayout(batch, channels, before, True, None)
    if before == 1:
        return ChannelLayout(batch, channels, after, False, None)
    order = (0, channel_axis, *(a for a in range(1, len(shape)) if a != channel_axis))
    return ChannelLayout(batch, channels, before * after, False, order)


def unbatched_layout(shape: Shape, axis: int) -> ChannelLayout:
    """Return the layout of an array whose only distinguished axis is that of the channels."""
    before, channels, after = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    if after == 1:
        return ChannelLayout(1, channels, before, True, None)
    return ChannelLayout(before, channels, after, False, None)
