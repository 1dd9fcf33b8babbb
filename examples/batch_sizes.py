"""BatchNorm needs a batch, GroupNorm does not.

The same network of three hidden layers learns scikit-learn's digits with batches of 64 down to 2, once with BatchNorm
and once with GroupNorm, and sees the same digits as often. BatchNorm's mean and variance come from the batch: of few
examples they are noise in training, and the running statistics, by which it normalizes afterwards, describe no batch
that the network has seen. Of two examples nothing is left but which one is larger: both become -1 and +1. GroupNorm's
statistics come from one example alone, whatever the batch.

    python examples/batch_sizes.py --plot batch_sizes.png

Wu and He, "Group Normalization" (2018), figure 1, https://arxiv.org/abs/1803.08494. The learning rate goes with the
batch size, as there (Goyal et al., 2017, https://arxiv.org/abs/1706.02677).
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import lesson
import networks
import numpy as np

from fastnorm.cli.printing import print_table

BATCH_SIZES = (64, 32, 16, 8, 4, 2)
WIDTHS = (networks.PIXELS, 64, 64, 64, networks.CLASSES)
GROUPS = 8
LEARNING_RATE = 0.1  # for the largest batch
NORMS: dict[str, networks.Norm] = {"BatchNorm": networks.BatchNorm, "GroupNorm": partial(networks.GroupNorm, GROUPS)}

Errors = dict[str, np.ndarray]


def train(norm: networks.Norm, batch_size: int, seed: int, epochs: int) -> float:
    """Train one network; return its test error, the share of test digits that it gets wrong."""
    training, test = networks.load_digits()
    scales = [np.sqrt(2 / fan_in) for fan_in in WIDTHS[:-1]]  # He et al., 2015
    network = networks.perceptron(WIDTHS, scales, norm, seed)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        networks.train_epoch(network, training, batch_size, LEARNING_RATE * batch_size / BATCH_SIZES[0], rng)
    return 1 - networks.accuracy(network, test)


def sweep(seeds: int, epochs: int) -> Errors:
    """Return the test errors of each norm, (batch sizes, seeds)."""
    return {
        name: np.array([[train(norm, size, seed, epochs) for seed in range(seeds)] for size in BATCH_SIZES])
        for name, norm in NORMS.items()
    }


def draw(figure: Any, errors: Errors) -> None:
    """Draw the error over the batch size: a dot for each network, a line through the means."""
    axes = figure.subplots()
    for (name, its_errors), colour, marker in zip(errors.items(), (lesson.ORANGE, lesson.BLUE), "so", strict=True):
        axes.plot(BATCH_SIZES, 100 * its_errors.mean(axis=1), color=colour, linewidth=2, label=name, marker=marker)
        for column in its_errors.T:
            axes.plot(BATCH_SIZES, 100 * column, color=colour, marker=marker, linestyle="", alpha=0.4, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCH_SIZES, [str(size) for size in BATCH_SIZES])
    axes.invert_xaxis()
    axes.set_yscale("log")
    axes.set_yticks((1, 2, 5, 10, 20, 50, 100), ("1", "2", "5", "10", "20", "50", "100"))
    axes.yaxis.minorticks_off()
    axes.set(xlabel="examples in a batch", ylabel="test digits that are wrong, %")
    axes.set_title("The same digits seen as often; small dots: single networks")
    axes.legend(loc="upper left")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table, and draw."""
    options = lesson.options(__doc__, argv, quick=True)
    errors = sweep(seeds=1, epochs=2) if options.quick else sweep(seeds=2, epochs=6)
    rows = [
        [str(size), *(f"{its_errors[index].mean():.1%}" for its_errors in errors.values())]
        for index, size in enumerate(BATCH_SIZES)
    ]
    print_table(("batch", *(f"{name}, test error" for name in errors)), rows, text_columns=())
    if options.plot is not None:
        with lesson.figure(options.plot, 6.4, 4) as figure:
            draw(figure, errors)
    return 0


if __name__ == "__main__":
    sys.exit(main())
