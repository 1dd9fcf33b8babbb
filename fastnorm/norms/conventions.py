"""How libraries keep the running statistics of batch normalization, and the numbers they begin with."""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnorm import arguments
from fastnorm.recipe import Moments

Array = npt.NDArray[Any]

ConventionName = Literal["torch", "keras", "onnx", "flax"]
# What an argument is that is left to the convention; None has meanings of its own (no momentum: the average).
LEFT_OPEN: Literal["convention"] = "convention"


class Convention(NamedTuple):
    """What a library does where others differ."""

    old_weighs: bool  # whether momentum is the weight of the old value, not of the new one
    unbiased: bool  # whether the running variance is the unbiased one
    momentum: float  # unless given
    eps: float

    def weight_of_old(self, momentum: float) -> float:
        """Return what the old running statistics weigh."""
        return momentum if self.old_weighs else 1.0 - momentum


# docs/conventions.md has the sources, and the other norms.
CONVENTIONS: dict[ConventionName, Convention] = {
    "torch": Convention(False, True, 0.1, 1e-5),
    "keras": Convention(True, False, 0.99, 1e-3),
    "onnx": Convention(True, False, 0.9, 1e-5),
    "flax": Convention(True, False, 0.99, 1e-5),
}
TORCH = CONVENTIONS["torch"]


def find_convention(name: ConventionName, function: str) -> Convention:
    """Return the convention of a library."""
    found = CONVENTIONS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{function}: convention must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return found


def left_open(value: str, default: float, function: str, name: str) -> float:
    """Return the convention's default for a string in place of a number, which must say so."""
    if value != LEFT_OPEN:
        raise TypeError(f"{function}: {name} must be a real number or {LEFT_OPEN!r}, got {value!r}")
    return default


def check_momentum(momentum: float | None, function: str) -> float:
    """Return a momentum, a number from 0 to 1."""
    value = arguments.number(momentum, function, "momentum", minimum=0)
    if value > 1:
        raise ValueError(f"{function}: momentum must be at most 1, got {value:g}")
    return value


def update_running(
    running_mean: Array | None, running_var: Array | None, moments: Moments, count: int | Array, momentum: float,
    convention: Convention,
) -> None:  # fmt: skip
    """Move the running statistics towards those of the batch, of `count` values a channel, in place."""
    old = convention.weight_of_old(momentum)
    divisor = count - convention.unbiased
    with np.errstate(all="ignore"):  # float32 may not hold the variance of what it holds
        if running_mean is not None:
            running_mean[...] = running_mean.astype(np.float64) * old + (moments.hi + moments.lo) * (1.0 - old)
        if running_var is not None:
            running_var[...] = running_var.astype(np.float64) * old + moments.m2 / divisor * (1.0 - old)
