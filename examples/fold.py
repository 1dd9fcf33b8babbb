"""After training, BatchNorm can be folded into the layer before it: the same outputs, one pass less.

In inference BatchNorm is one multiplication and one addition a channel, by numbers that no longer change, and the dense
layer before it is linear: ``(x @ W + b - mean) / sqrt(var + eps) * gamma + beta`` is again ``x @ W' + b'``. A network
that has learned scikit-learn's digits with BatchNorm gives the same scores without.

    python examples/fold.py --plot fold.png

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
equation 14, https://arxiv.org/abs/1712.05877.
"""

import sys
from collections.abc import Sequence
from typing import Any

import lesson
import networks
import numpy as np

import fastnorm

WIDTHS = (networks.PIXELS, 100, 100, networks.CLASSES)
EPOCHS, BATCH_SIZE, LEARNING_RATE = 10, 50, 0.1


def train() -> list[networks.Layer]:
    """Train a network whose dense layers are followed by BatchNorm."""
    training, _ = networks.load_digits()
    scales = [np.sqrt(2 / fan_in) for fan_in in WIDTHS[:-1]]  # He et al., 2015
    network = networks.perceptron(WIDTHS, scales, networks.BatchNorm, seed=0)
    rng = np.random.default_rng(1)
    for _ in range(EPOCHS):
        networks.train_epoch(network, training, BATCH_SIZE, LEARNING_RATE, rng)
    return network


def fold(network: Sequence[networks.Layer]) -> list[networks.Layer]:
    """Return the network with every BatchNorm inside the dense layer before it."""
    folded: list[networks.Layer] = []
    for layer in network:
        if isinstance(layer, networks.BatchNorm):
            weight, bias = folded.pop().parameters
            folded.append(
                networks.Dense(
                    *fastnorm.fold_batch_norm(
                        weight, bias, layer.running_mean, layer.running_var, *layer.parameters, channel_axis=1
                    )
                )
            )
        else:
            folded.append(layer)
    return folded


def factors(network: Sequence[networks.Layer]) -> list[np.ndarray]:
    """Return, for each BatchNorm, what it multiplies its channels by: gamma / sqrt(var + eps)."""
    norms = [layer for layer in network if isinstance(layer, networks.BatchNorm)]
    return [norm.parameters[0] / np.sqrt(norm.running_var + np.float32(1e-5)) for norm in norms]


def draw(figure: Any, network: Sequence[networks.Layer], before: np.ndarray, after: np.ndarray) -> None:
    """Draw what the weights are multiplied by, and by how much the scores differ."""
    left, right = figure.subplots(1, 2)
    for number, (factor, colour) in enumerate(
        zip(factors(network), (lesson.BLUE, lesson.ORANGE), strict=True), start=1
    ):
        left.plot(np.sort(factor), color=colour, linewidth=2, label=f"hidden layer {number}")
    left.set(xlabel="channels, in the order of their factor", ylabel="factor of the channel's weights", ylim=(0, None))
    left.set_title("Folding multiplies each channel's weights")
    left.legend(loc="upper left")
    right.plot(before.ravel(), (after - before).ravel() * 1e6, ".", markersize=3, color=lesson.BLUE)
    right.set(xlabel="score, with BatchNorm", ylabel="folded score less that, millionths")
    right.set_title(f"{before.size:,} scores of {len(before)} test digits")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, fold, print what differs, and draw."""
    options = lesson.options(__doc__, argv)
    _, test = networks.load_digits()
    network = train()
    folded = fold(network)
    before, after = (networks.predict(one, test.images) for one in (network, folded))
    print(f"layers: {len(network)} before, {len(folded)} folded")
    print(f"test digits that are right: {networks.accuracy(network, test):.1%} before, ", end="")
    print(f"{networks.accuracy(folded, test):.1%} folded")
    print(
        f"largest difference of the scores: {np.abs(after - before).max():.1e}; scores up to {np.abs(before).max():.1f}"
    )
    if options.plot is not None:
        with lesson.figure(options.plot, 9, 3.6) as figure:
            draw(figure, network, before, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
