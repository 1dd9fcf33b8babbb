"""Power iteration finds the largest singular value of a weight matrix, and spectral norm divides by it.

Each iteration multiplies by the matrix and by its transpose, so that the part of the vector along the first singular
direction outgrows the rest by (sigma_1 / sigma_2)^2: in the end each makes the error (sigma_2 / sigma_1)^4 times
what it was, which is little where the two are far apart. Training affords one iteration a step: the weights move
little, and the vector of the last step is nearly right already.

    python examples/spectral_norm.py --plot spectral_norm.png

Miyato et al., "Spectral Normalization for Generative Adversarial Networks" (2018), algorithm 1,
https://arxiv.org/abs/1802.05957.
"""

import sys
from collections.abc import Sequence
from typing import Any

import lesson
import numpy as np

import fastnorm
from fastnorm.cli.printing import print_table

SHAPE = 64, 96
RATIOS = (0.5, 0.8, 0.95)  # sigma_2 / sigma_1
ITERATIONS, STEPS = 20, 40
SIGMA = 3.0  # the largest singular value of the matrices that are iterated on


def matrix(ratio: float) -> np.ndarray:
    """Make a matrix whose singular values are SIGMA, `ratio` times SIGMA, and smaller ones."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((SHAPE[0], SHAPE[0])))
    right, _ = np.linalg.qr(rng.standard_normal((SHAPE[1], SHAPE[0])))
    values = SIGMA * np.concatenate([[1.0], [ratio], np.linspace(ratio / 2, 0, SHAPE[0] - 2)])
    return (left * values) @ right.T


def errors(weight: np.ndarray) -> np.ndarray:
    """Return the relative error of sigma after 1, 2, ... iterations, each going on from the last one's vector."""
    truth = np.linalg.norm(weight, 2)
    u, estimates = None, []
    for _ in range(ITERATIONS):
        _, sigma, u, _ = fastnorm.spectral_norm(weight, u)
        estimates.append(sigma)
    return np.abs(np.array(estimates) - truth) / truth


def track() -> dict[str, np.ndarray]:
    """Move a random weight a little STEPS times; return the largest singular value of weight / sigma.

    Sigma is estimated with a single iteration a step, that begins anew or with the vector of the step before.
    """
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(SHAPE)
    found: dict[str, list[float]] = {"one iteration, begun anew": [], "one iteration, going on": []}
    u = None
    for _ in range(STEPS):
        anew = fastnorm.spectral_norm(weight)
        going_on = fastnorm.spectral_norm(weight, u)
        u = going_on.u
        for lengths, result in zip(found.values(), (anew, going_on), strict=True):
            lengths.append(float(np.linalg.norm(result.weight, 2)))
        weight = weight + 0.03 * rng.standard_normal(SHAPE)
    return {name: np.array(lengths) for name, lengths in found.items()}


def draw(figure: Any, by_ratio: dict[float, np.ndarray], tracked: dict[str, np.ndarray]) -> None:
    """Draw the errors over the iterations, and what one iteration a step is good for."""
    left, right = figure.subplots(1, 2)
    iterations = np.arange(1, ITERATIONS + 1)
    for (ratio, its_errors), colour, marker in zip(
        by_ratio.items(), (lesson.BLUE, lesson.GREEN, lesson.ORANGE), "o^s", strict=True
    ):
        visible = its_errors > 1e-15  # below that nothing is left but rounding
        left.plot(
            iterations[visible], its_errors[visible], marker=marker, markersize=4, linestyle="", color=colour,
            label=f"$\\sigma_2/\\sigma_1$ = {ratio:g}",
        )  # fmt: skip
        # Through the last point that is visible.
        last = iterations[visible][-1]
        left.plot(
            iterations[visible], its_errors[visible][-1] * ratio ** (4.0 * (iterations[visible] - last)),
            color=colour, linewidth=1, alpha=0.6,
        )  # fmt: skip
    left.set(yscale="log", ylim=(1e-16, 3), xlabel="power iterations k", ylabel="relative error of $\\sigma$")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_title("Lines: what it is in the end, a constant times $(\\sigma_2/\\sigma_1)^{4k}$")
    left.legend(loc="lower right")
    for (name, lengths), colour, style in zip(
        tracked.items(), (lesson.ORANGE, lesson.BLUE), ((0, (4, 2)), "-"), strict=True
    ):
        right.plot(np.arange(1, STEPS + 1), lengths, color=colour, linestyle=style, linewidth=2, label=name)
    right.axhline(1, color=lesson.GREY, linewidth=1)
    right.set(xlabel="step, the weights moving a little", ylabel="largest singular value of weight / $\\sigma$")
    right.set_ylim(0.95, None)
    right.set_title("One iteration a step is enough")
    right.legend(loc="center right")


def main(argv: Sequence[str] | None = None) -> int:
    """Iterate, print the table, and draw."""
    options = lesson.options(__doc__, argv)
    by_ratio = {ratio: errors(matrix(ratio)) for ratio in RATIOS}
    tracked = track()
    rows = [[str(k), *(f"{its[k - 1]:.1e}" for its in by_ratio.values())] for k in (1, 2, 3, 5, 10, 20)]
    heads = ("iterations", *(f"error of sigma,\nsigma_2/sigma_1 = {ratio:g}" for ratio in RATIOS))
    print_table(heads, rows, text_columns=())
    for name, lengths in tracked.items():
        print(f"{name}: weight / sigma has a norm of {lengths[-1]:.3f} at the last of {STEPS} steps")
    if options.plot is not None:
        with lesson.figure(options.plot, 9, 3.8) as figure:
            draw(figure, by_ratio, tracked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
