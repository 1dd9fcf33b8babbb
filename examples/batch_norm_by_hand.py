"""BatchNorm1d by hand, step by step, on two blocks small enough to check with a pencil.

The first is (N, C), three examples of three channels: a channel is a column. The second is (N, C, L), two examples of
two channels of three places: a channel is a row of each example. Mean and variance are one number a channel, over all
the rest. Every step is a line of NumPy; fastnorm computes the same in one call, and torch.nn.BatchNorm1d prints the
same digits.

    python examples/batch_norm_by_hand.py --plot batch_norm_by_hand.png

Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1 and section 3, https://arxiv.org/abs/1502.03167.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lesson
import numpy as np

import fastnorm

EPS = 1e-5
BLOCKS = {
    "(N, C) = (3, 3)": np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.float32),
    "(N, C, L) = (2, 2, 3)": np.arange(12, dtype=np.float32).reshape(2, 2, 3),
}


@dataclass(frozen=True)
class Steps:
    """All that is on the way from x to y, and back from dy to dx; statistics shaped to broadcast against x."""

    x: np.ndarray
    mean: np.ndarray
    centred: np.ndarray
    var: np.ndarray
    y: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    dy: np.ndarray
    dx: np.ndarray


def by_hand(x: np.ndarray) -> Steps:
    """Normalise each channel, axis 1, over all other axes, and find the gradient of the first value of the result."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    count = x.size // x.shape[1]

    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    var = (centred**2).mean(axis=axes, keepdims=True)  # divided by the count: the biased variance
    rstd = 1 / np.sqrt(var + np.float32(EPS))
    y = centred * rstd

    # What inference will use, after this one batch: a tenth of the way from 0 and 1, and here the unbiased variance.
    running_mean = 0.9 * 0 + 0.1 * mean
    running_var = 0.9 * 1 + 0.1 * var * count / (count - 1)

    dy = np.zeros_like(x)
    dy.flat[0] = 1
    # The first value moves its channel's mean, hence the second term, and its variance, hence the third.
    dx = rstd * (dy - dy.mean(axis=axes, keepdims=True) - y * (dy * y).mean(axis=axes, keepdims=True))
    return Steps(x, mean, centred, var, y, running_mean.ravel(), running_var.ravel(), dy, dx)


def by_fastnorm(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return y, the running mean and variance, and dx, in two calls."""
    running_mean, running_var = np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    y = fastnorm.batch_norm(x, running_mean, running_var, training=True, eps=EPS)
    dx = fastnorm.batch_norm_backward(dy, x, training=True, eps=EPS).dx
    return y, running_mean, running_var, dx


def largest_difference(steps: Steps) -> float:
    """Compare all that fastnorm returns with what was computed by hand."""
    ours = by_fastnorm(steps.x, steps.dy)
    theirs = steps.y, steps.running_mean, steps.running_var, steps.dx
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def digits(array: np.ndarray, places: int = 4) -> str:
    """Format an array as torch prints it."""
    return np.array2string(array, formatter={"float_kind": lambda value: f"{value:.{places}f}"}, separator=", ")


def draw(figure: Any, blocks: dict[str, Steps]) -> None:
    """Draw three steps of each block as tables, a colour for each channel."""
    panels = figure.subplots(len(blocks), 3)
    tints = np.array(["#cfe3f2", "#fbdcc8", "#cdeadf"])
    for row, (name, steps) in zip(panels, blocks.items(), strict=True):
        titles = (
            f"x, {name}",
            f"less the mean of its channel: {_list(steps.mean)}",
            f"y = that / $\\sqrt{{var + 10^{{-5}}}}$; var: {_list(steps.var)}",
        )
        for axes, array, title, places in zip(row, (steps.x, steps.centred, steps.y), titles, (0, 0, 4), strict=True):
            channel = np.broadcast_to(np.arange(array.shape[1]).reshape((1, -1) + (1,) * (array.ndim - 2)), array.shape)
            table, colours = array.reshape(-1, array.shape[-1]), tints[channel.reshape(-1, array.shape[-1])]
            for (i, j), value in np.ndenumerate(table):
                down = -i - (0.35 if array.ndim == 3 and i >= array.shape[1] else 0)  # a gap between the examples
                axes.add_patch(_rectangle(j, down, colours[i, j]))
                axes.text(j, down, f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}"), ha="center", va="center")
            axes.set(xlim=(-0.55, 2.55), ylim=(down - 0.55, 0.55))
            axes.set_axis_off()
            axes.set_title(title)


def _list(statistics: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in statistics.flat)


def _rectangle(column: float, down: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, down - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Print every step, and draw."""
    options = lesson.options(__doc__, argv)
    blocks = {name: by_hand(x) for name, x in BLOCKS.items()}
    for name, steps in blocks.items():
        print(f"x, {name}\n{digits(steps.x, 0)}")
        print(f"mean of each channel                {digits(steps.mean.ravel())}")
        print(f"variance of each channel            {digits(steps.var.ravel())}")
        print(f"y = (x - mean) / sqrt(var + 1e-5)\n{digits(steps.y)}")
        print(f"running mean after this batch       {digits(steps.running_mean)}")
        print(f"running variance after this batch   {digits(steps.running_var)}")
        print(f"dx, where the gradient of y is 1 for the first value and 0 for the others\n{digits(steps.dx)}")
        print(f"largest difference from fastnorm    {largest_difference(steps):.0e}\n")
    if options.plot is not None:
        with lesson.figure(options.plot, 10, 4.2) as figure:
            draw(figure, blocks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
