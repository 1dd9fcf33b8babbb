"""BatchNorm makes a network forgive the scale of its first weights.

A network of five hidden layers of 100 units learns scikit-learn's digits from 16 starts: normal weights times 1, times
0.54, and so on down to times 0.0001. Without BatchNorm every layer multiplies the size of what passes through it, so
five layers either overflow or fade to nothing, except for a narrow band of scales. With BatchNorm the scale of a weight
matrix cancels in the forward pass, BN((a W) x) = BN(W x), and its gradient shrinks by what the weight grew.

    python examples/weight_scales.py --plot weight_scales.png

Ioffe and Szegedy, "Batch Normalization" (2015), section 3.3, https://arxiv.org/abs/1502.03167.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lesson
import networks
import numpy as np

from fastnorm.cli.printing import print_table

SCALES = np.logspace(0, -4, 16)
WIDTHS = (networks.PIXELS, 100, 100, 100, 100, 100, networks.CLASSES)
LEARNING_RATE, BATCH_SIZE = 0.1, 100
LEARNED = 0.8  # of the test digits right
SHOWN = (1, 3, 7)  # the scales whose curves are drawn: too large, right, too small


@dataclass(frozen=True)
class Run:
    """A network that was trained: its accuracy on the training digits after each epoch, and on the test digits."""

    curve: list[float]
    accuracy: float


def train(scale: float, norm: networks.Norm | None, epochs: int) -> Run:
    """Train one network from weights of this scale."""
    training, test = networks.load_digits()
    network = networks.perceptron(WIDTHS, [scale] * (len(WIDTHS) - 1), norm, seed=0)
    rng = np.random.default_rng(1)
    curve = [networks.accuracy(network, training)]
    with np.errstate(over="ignore", invalid="ignore"):  # a network that diverges overflows on its way
        while len(curve) <= epochs and np.isfinite(
            networks.train_epoch(network, training, BATCH_SIZE, LEARNING_RATE, rng)
        ):
            curve.append(networks.accuracy(network, training))
        curve += [networks.accuracy(network, training)] * (epochs + 1 - len(curve))  # diverged: nothing more to come
        return Run(curve, networks.accuracy(network, test))


def sweep(epochs: int) -> dict[str, list[Run]]:
    """Train a network for each scale, without BatchNorm and with it."""
    norms: dict[str, networks.Norm | None] = {"without BatchNorm": None, "with BatchNorm": networks.BatchNorm}
    return {name: [train(scale, norm, epochs) for scale in SCALES] for name, norm in norms.items()}


def scales_that_learn(runs: Sequence[Run]) -> int:
    """Count the runs that end with most test digits right."""
    return sum(run.accuracy >= LEARNED for run in runs)


def draw(figure: Any, runs: dict[str, list[Run]]) -> None:
    """Draw the accuracy over the scales, and the training of three of them."""
    grid = figure.add_gridspec(len(SHOWN), 2, width_ratios=(5, 3))
    colours = {"without BatchNorm": lesson.ORANGE, "with BatchNorm": lesson.BLUE}
    final = figure.add_subplot(grid[:, 0])
    for (name, its_runs), marker in zip(runs.items(), "so", strict=True):
        accuracies = [100 * run.accuracy for run in its_runs]
        final.plot(SCALES, accuracies, color=colours[name], marker=marker, markersize=6, label=name)
    final.axhline(10, color=lesson.GREY, linestyle=(0, (4, 3)), linewidth=1)
    final.annotate("guessing", (SCALES[11], 10), xytext=(0, 4), textcoords="offset points", color="0.35")
    final.set(xscale="log", ylim=(0, 103), ylabel="test digits that are right, %")
    final.set_xlabel("standard deviation of the first weights")
    final.set_title("After training: five hidden layers of 100 units")
    final.legend(loc="center left", bbox_to_anchor=(0.02, 0.6))
    for row, index in enumerate(SHOWN):
        axes = figure.add_subplot(grid[row, 1])
        for name, its_runs in runs.items():
            axes.plot([100 * accuracy for accuracy in its_runs[index].curve], color=colours[name], linewidth=2)
        axes.set(ylim=(0, 105), yticks=(0, 50, 100), xlim=(0, len(its_runs[index].curve) - 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(f"first weights {SCALES[index]:.2g}")
        if row < len(SHOWN) - 1:
            axes.tick_params(labelbottom=False)
    axes.set_xlabel("epoch")
    figure.axes[2].set_ylabel("training digits that are right, %")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table, and draw."""
    options = lesson.options(__doc__, argv, quick=True)
    runs = sweep(epochs=6 if options.quick else 20)
    without, with_norm = runs.values()
    rows = [
        [f"{scale:.1e}", f"{one.accuracy:.1%}", f"{other.accuracy:.1%}"]
        for scale, one, other in zip(SCALES, without, with_norm, strict=True)
    ]
    print_table(("weight scale", *runs), rows, text_columns=())
    for name, its_runs in runs.items():
        print(
            f"{name}: {scales_that_learn(its_runs)} of {len(SCALES)} scales get {LEARNED:.0%} of the test digits right"
        )
    if options.plot is not None:
        with lesson.figure(options.plot, 9, 4.6) as figure:
            draw(figure, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
