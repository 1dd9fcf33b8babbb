"""Calls of fastnorm, and of NumPy as its users write the norms: both have the same functions."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnorm.cli.benchmark.arrays import Inputs
    from fastnorm.cli.benchmark.grid import Cell

EPSILON = 1e-5
AXES = {"last": -1, "first": 0, "all": None}


def prepare(norms: Any, cell: Cell, given: Inputs) -> Callable[[], Any]:
    """Return a cell's call of the functions of a module, `fastnorm` or `fastnorm.cli.numpy_norms`."""
    x, weight, bias, mean, var = given
    axis, mean_and_var = AXES.get(cell.along), attrgetter("mean", "var")
    calls: dict[str, Callable[[], Any]] = {
        "layer_norm": lambda: norms.layer_norm(x, weight, bias, eps=EPSILON),
        "rms_norm": lambda: norms.rms_norm(x, weight, eps=EPSILON),
        "batch_norm": lambda: norms.batch_norm(x, mean, var, weight, bias, training=cell.training, eps=EPSILON),
        "group_norm": lambda: norms.group_norm(x, cell.groups, weight, bias, eps=EPSILON),
        "instance_norm": lambda: norms.instance_norm(x, weight, bias, eps=EPSILON),
        "l2_normalize": lambda: norms.l2_normalize(x),
        "moments": lambda: mean_and_var(norms.moments(x, axis=axis)),
    }
    return calls[cell.op]
