"""Clipping the gradient keeps a recurrent network from being thrown away by a single step.

The network sees one number, then 99 zeros, and is asked for the number: what it stores passes 100 times through the
same weights, and so does the gradient on its way back, which the weights here can make longer by 1.3 each time. The
first gradients are hundreds of times as long as the later ones; steps along them take the weights to where many units
saturate, and the network keeps little more than the sign of the number. Clipped by their global norm, all gradients
keep their direction, and none is longer than 1.

    python examples/exploding_gradient.py --plot exploding_gradient.png

Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), algorithm 1,
https://arxiv.org/abs/1211.5063.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lesson
import numpy as np

import fastnorm
from fastnorm.cli.printing import print_table

LENGTH, HIDDEN, BATCH_SIZE = 100, 32, 32
GROWTH = 1.3  # by how much the first recurrent weights make every vector longer
LEARNING_RATE, MAX_NORM = 0.03, 1.0
WINDOW = 50  # steps that a mean is taken over


@dataclass(frozen=True)
class Training:
    """The loss before every step, and the norm of its gradient before it was clipped."""

    losses: np.ndarray
    norms: np.ndarray


def first_parameters(rng: np.random.Generator) -> list[np.ndarray]:
    """Return recurrent weights, GROWTH times an orthogonal matrix, then input weights, bias, and the output's two."""
    recurrent, _ = np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))
    weights = 0.1 * rng.standard_normal((1, HIDDEN)), np.zeros(HIDDEN)
    return [GROWTH * recurrent, *weights, rng.standard_normal((HIDDEN, 1)) / math.sqrt(HIDDEN), np.zeros(1)]


def loss_and_gradients(parameters: Sequence[np.ndarray], numbers: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Run the network on `numbers`, (batch, 1), and back through time; the loss is the mean squared error."""
    recurrent, from_input, bias, to_output, output_bias = parameters
    states = [np.zeros((len(numbers), HIDDEN))]
    for t in range(LENGTH):
        x = numbers if t == 0 else np.zeros_like(numbers)
        states.append(np.tanh(states[-1] @ recurrent + x @ from_input + bias))
    error = states[-1] @ to_output + output_bias - numbers

    d_output = 2 * error / len(error)
    d_state = d_output @ to_output.T
    d_recurrent, d_from_input, d_bias = np.zeros_like(recurrent), np.zeros_like(from_input), np.zeros_like(bias)
    for t in reversed(range(LENGTH)):
        d_sum = d_state * (1 - states[t + 1] ** 2)
        d_recurrent += states[t].T @ d_sum
        d_bias += d_sum.sum(axis=0)
        if t == 0:
            d_from_input += numbers.T @ d_sum
        d_state = d_sum @ recurrent.T
    gradients = [d_recurrent, d_from_input, d_bias, states[-1].T @ d_output, d_output.sum(axis=0)]
    return float(np.mean(error**2)), gradients


def train(max_norm: float, steps: int, seed: int = 0) -> Training:
    """Train from the same weights on the same numbers, whatever `max_norm`, infinity included."""
    rng = np.random.default_rng(seed)
    parameters = first_parameters(rng)
    losses, norms = np.empty(steps), np.empty(steps)
    for index in range(steps):
        losses[index], gradients = loss_and_gradients(parameters, rng.uniform(-1, 1, (BATCH_SIZE, 1)))
        gradients, norms[index] = fastnorm.clip_by_global_norm(gradients, max_norm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= LEARNING_RATE * gradient
    return Training(losses, norms)


def draw(figure: Any, trainings: dict[str, Training]) -> None:
    """Draw the loss and the norm of the gradient over the steps."""
    top, bottom = figure.subplots(2, 1, sharex=True)
    for (name, training), colour in zip(trainings.items(), (lesson.ORANGE, lesson.BLUE), strict=True):
        steps = np.arange(1, len(training.losses) + 1)
        top.plot(steps, training.norms, color=colour, linewidth=0.8)
        smooth = np.convolve(training.losses, np.full(WINDOW, 1 / WINDOW), "valid")
        bottom.plot(steps[WINDOW - 1 :], smooth, color=colour, linewidth=2, label=name)
    top.axhline(MAX_NORM, color="0.2", linestyle=(0, (4, 3)), linewidth=1)
    top.set(yscale="log", ylabel="norm of the gradient")
    top.set_title("Norm before clipping; the dashed line is where it is clipped to")
    for loss, answer in ((1 / 3, "always answering 0"), (1 / 12, "knowing the sign alone")):
        bottom.axhline(loss, color="0.35", linestyle=(0, (4, 3)), linewidth=1)
        bottom.annotate(
            answer, (1, loss), xycoords=("axes fraction", "data"), xytext=(0, 3 if loss > 0.1 else -3),
            textcoords="offset points", ha="right", va="bottom" if loss > 0.1 else "top", color="0.35", fontsize=9,
        )  # fmt: skip
    bottom.set(yscale="log", ylabel="mean squared error", xlabel="step", xlim=(0, len(steps)), ylim=(None, 1))
    bottom.set_title(f"Loss, the mean over {WINDOW} steps")
    figure.legend(*bottom.get_legend_handles_labels(), loc="outside upper left", ncols=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Train without clipping and with it, print the table, and draw."""
    options = lesson.options(__doc__, argv, quick=True)
    steps = 300 if options.quick else 1000
    trainings = {"without clipping": train(math.inf, steps), f"clipped to {MAX_NORM:g}": train(MAX_NORM, steps)}
    rows = [
        [
            name,
            f"{np.median(training.norms):.2f}",
            f"{training.norms.max():.0f}",
            f"{training.losses[:WINDOW].mean():.1e}",
            f"{training.losses[-WINDOW:].mean():.1e}",
        ]
        for name, training in trainings.items()
    ]
    heads = ("", "median norm", "largest norm", f"loss, first {WINDOW} steps", f"loss, last {WINDOW} steps")
    print_table(heads, rows, text_columns={0})
    if options.plot is not None:
        with lesson.figure(options.plot, 8, 5) as figure:
            draw(figure, trainings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
