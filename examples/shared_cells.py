"""Which cells of a batch of images each norm takes its mean and its variance from.

A block (N, C, H, W) holds N images of C channels of H by W pixels. What tells BatchNorm, LayerNorm, InstanceNorm and
GroupNorm apart is only which cells share a mean and a variance. Nothing here knows which: one cell is changed a little,
and the outputs that move are those that share its statistics. The gradient says the same: the output of a cell depends
on exactly the inputs where the backward pass of that one cell is not zero.

    python examples/shared_cells.py --plot shared_cells.png

Wu and He, "Group Normalization" (2018), figure 2, https://arxiv.org/abs/1803.08494.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lesson
import numpy as np

import fastnorm
from fastnorm.cli.printing import print_table

SHAPE = 4, 6, 2, 3
GROUPS = 2
CELL = 0, 0, 0, 0  # the one that is changed
PIXELS = 1, 2, 3  # the axes of one image


@dataclass(frozen=True)
class Norm:
    """A norm, forward and backward, with its statistics; no weight and no bias."""

    forward: Callable[[np.ndarray], tuple[np.ndarray, fastnorm.Stats]]
    backward: Callable[[np.ndarray, np.ndarray], np.ndarray]


NORMS = {
    "BatchNorm": Norm(
        lambda x: fastnorm.batch_norm(x, training=True, return_stats=True),
        lambda dy, x: fastnorm.batch_norm_backward(dy, x, training=True).dx,
    ),
    "LayerNorm": Norm(
        lambda x: fastnorm.layer_norm(x, axis=PIXELS, return_stats=True),
        lambda dy, x: fastnorm.layer_norm_backward(dy, x, axis=PIXELS).dx,
    ),
    "InstanceNorm": Norm(
        lambda x: fastnorm.instance_norm(x, return_stats=True),
        lambda dy, x: fastnorm.instance_norm_backward(dy, x).dx,
    ),
    "GroupNorm": Norm(
        lambda x: fastnorm.group_norm(x, GROUPS, return_stats=True),
        lambda dy, x: fastnorm.group_norm_backward(dy, x, GROUPS).dx,
    ),
}


@dataclass(frozen=True)
class Sharing:
    """Which cells share the statistics of one, found forwards and backwards, and how many statistics there are."""

    moved: np.ndarray
    reached: np.ndarray
    statistics: int


def share(norm: Norm) -> Sharing:
    """Change one cell, and see which outputs move; ask for one output's gradient, and see which inputs it reaches."""
    x = np.random.default_rng(0).standard_normal(SHAPE)
    changed = x.copy()
    changed[CELL] += 0.5
    before, stats = norm.forward(x)
    after, _ = norm.forward(changed)
    dy = np.zeros(SHAPE)
    dy[CELL] = 1
    return Sharing(before != after, norm.backward(dy, x) != 0, len(np.unique(stats.mean)))


def draw(figure: Any, sharing: dict[str, Sharing]) -> None:
    """Draw the block once for each norm, its axes C, N and H, W; the cells that share are filled."""
    for index, (name, found) in enumerate(sharing.items(), start=1):
        axes = figure.add_subplot(1, len(sharing), index, projection="3d")
        # (N, C, H, W) -> (C, N, H * W), the first pixel at the top and the first image in front.
        shared = found.moved.reshape(*SHAPE[:2], -1).transpose(1, 0, 2)[:, :, ::-1]
        colours = np.where(shared, lesson.BLUE, "#f2f3f5")
        colours[CELL[1], CELL[0], -1] = lesson.ORANGE
        axes.voxels(np.ones_like(shared), facecolors=colours, edgecolor="0.45", linewidth=0.5, shade=False)
        axes.set_title(name, loc="center", y=0.98)
        axes.set_box_aspect(shared.shape)
        axes.view_init(elev=24, azim=-122)
        axes.set_axis_off()
        if index == 1:
            axes.text2D(0.72, 0.06, "C, channels", transform=axes.transAxes, ha="center")
            axes.text2D(0.16, 0.06, "N, images", transform=axes.transAxes, ha="center")
            axes.text2D(0.0, 0.5, "H, W: pixels", transform=axes.transAxes, ha="center", va="center", rotation=90)


def main(argv: Sequence[str] | None = None) -> int:
    """Find the cells, print the table, and draw."""
    options = lesson.options(__doc__, argv)
    sharing = {name: share(norm) for name, norm in NORMS.items()}
    rows = []
    for name, found in sharing.items():
        images, channels, *pixels = (len(np.unique(indices)) for indices in np.nonzero(found.moved))
        together = f"{images} x {channels} x {pixels[0]} x {pixels[1]}"
        rows.append([name, together, str(found.moved.sum()), str(found.reached.sum()), str(found.statistics)])
    heads = (
        "norm",
        "cells that share\nN x C x H x W",
        "outputs\nmoved",
        "inputs with\na gradient",
        "means and\nvariances",
    )
    print_table(heads, rows, text_columns={0, 1})
    if options.plot is not None:
        with lesson.figure(options.plot, 10.5, 2.9) as figure:
            draw(figure, sharing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
