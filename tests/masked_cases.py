"""What the tests of where= and weights= share: masks, the exact statistics, and calls by name."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]

ROUNDOFF = 2.0**-24
# The contract of the norms, see test_contract.py: float32 is normalised to within 4 units of max(1, |y|).
CONTRACT = 4 * ROUNDOFF
EPS = 1e-3
GROUPS = 3
NORMS = ("batch_norm", "instance_norm", "group_norm")
LAYOUTS = [((6, 6), 1), ((4, 6, 7), 1), ((3, 6, 4, 5), 1), ((3, 4, 5, 6), -1), ((2, 3, 6, 4), 2)]
LAYOUTS += [((1, 6, 40), 1), ((1, 40, 6), -1)]
each_norm = pytest.mark.parametrize("name", NORMS)
each_layout = pytest.mark.parametrize(("shape", "axis"), LAYOUTS, ids=str)
each_kind = pytest.mark.parametrize("kind", ["where", "weights", "both"])


def sample(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 3).astype(dtype)


def options(name: str, axis: int = 1, **more: Any) -> dict[str, Any]:
    """Return what a norm needs besides x."""
    own = {"batch_norm": {"training": True}, "group_norm": {"num_groups": GROUPS}, "instance_norm": {}}[name]
    return {**own, "channel_axis": axis, "eps": EPS, **more}


def counting(kind: str, shape: tuple[int, ...], seed: int = 1) -> tuple[dict[str, Array], Array]:
    """Return where= or weights= or both, and what each element counts."""
    rng = np.random.default_rng(seed)
    where = rng.random(shape) < 0.7
    weights = np.round(rng.random(shape) * 4, 1) * (rng.random(shape) < 0.9)
    if kind == "where":
        return {"where": where}, where.astype(float)
    if kind == "weights":
        return {"weights": weights}, weights
    return {"where": where, "weights": weights}, where * weights


class Exact(NamedTuple):
    """Of each element: what it is normalised to, and the statistics and the sum of the weights behind that."""

    xhat: Array
    mean: Array
    rstd: Array
    total: Array
    line: Array  # the number of its statistics


def exact(name: str, x: Array, counts: Array, axis: int) -> Exact:
    """Select the elements of each of the statistics one after the other, in NumPy's widest float."""
    wide = x.astype(np.longdouble)
    item, channel = np.indices(x.shape)[0], np.indices(x.shape)[axis]
    together = x.shape[axis] // GROUPS if name == "group_norm" else 1
    line = channel // together + (0 if name == "batch_norm" else 1000 * item)
    mean, rstd, total = (np.zeros_like(wide) for _ in range(3))
    for number in np.unique(line):
        chosen = (line == number) & (counts > 0)
        if not chosen.any():
            continue
        w = counts[chosen].astype(np.longdouble)
        centre = (w * wide[chosen]).sum() / w.sum()
        variance = (w * (wide[chosen] - centre) ** 2).sum() / w.sum()
        mean[line == number], total[line == number] = centre, w.sum()
        rstd[line == number] = 1 / np.sqrt(variance + np.longdouble(EPS))
    return Exact((wide - mean) * rstd, mean, rstd, total, line)


def along(values: Array, axis: int, ndim: int) -> Array:
    return values.reshape([-1 if a == axis % ndim else 1 for a in range(ndim)])


def norm(name: str, x: Any, **keywords: Any) -> Any:
    return getattr(fastnorm, name)(x, **keywords)


def backward(name: str, dy: Any, x: Any, **keywords: Any) -> Any:
    return getattr(fastnorm, f"{name}_backward")(dy, x, **keywords)
