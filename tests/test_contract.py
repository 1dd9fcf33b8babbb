"""The three promises about accuracy: the contract of the norms, the bounds of the algorithms, the freedom of scale."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from formulas import FORMULAS, Wide

import fastnorm
from fastnorm.stats.bounds import relative_error_bound

Array = np.ndarray[Any, Any]

# The contract: float32 lines are normalised to within 4 units of max(1, |y|), whatever their length and mean / std;
# with weight and bias of |weight| * max(1, |xhat|) + |bias|.
CONTRACT = 4 * 2.0**-24
LINES = 8


class Norm(NamedTuple):
    """A norm of lines (LINES, n); `arrange` puts them where the norm looks for them."""

    formula: str  # of a line
    arrange: Callable[[Array], Array]
    call: Callable[..., Array]


def per_group(n: int) -> int:
    return next((p for p in (2, 3, 5, 7) if n % p == 0), 1)


def rows(lines: Array) -> Array:
    return lines


def columns(lines: Array) -> Array:
    return np.ascontiguousarray(lines.T)


def batches(lines: Array) -> Array:
    """Each line a channel of several items: (N, C, S)."""
    items = per_group(lines.shape[1])
    return np.ascontiguousarray(lines.reshape(LINES, items, -1).swapaxes(0, 1))


def pairs(lines: Array) -> Array:
    """Each line a channel of one of two items: (2, C, S)."""
    return lines.reshape(2, LINES // 2, -1)


def pairs_last(lines: Array) -> Array:
    return np.ascontiguousarray(pairs(lines).swapaxes(1, 2))


def groups(lines: Array) -> Array:
    """Each line a group of channels of one of two items: (2, C, S)."""
    return lines.reshape(2, LINES // 2 * per_group(lines.shape[1]), -1)


def groups_last(lines: Array) -> Array:
    return np.ascontiguousarray(groups(lines).swapaxes(1, 2))


def by_group(x: Array, axis: int = 1, **keywords: Any) -> Array:
    return fastnorm.group_norm(x, LINES // 2, channel_axis=axis, **keywords)


def in_training(x: Array, axis: int = 1, **keywords: Any) -> Array:
    return fastnorm.batch_norm(x, training=True, channel_axis=axis, **keywords)


NORMS = {
    "layer_norm, rows": Norm("layer_norm", rows, fastnorm.layer_norm),
    "layer_norm, lanes": Norm("layer_norm", columns, lambda x, **k: fastnorm.layer_norm(x, axis=0, **k)),
    "batch_norm, rows": Norm("layer_norm", batches, in_training),
    "batch_norm, lanes": Norm("layer_norm", columns, in_training),
    "group_norm, rows": Norm("layer_norm", groups, by_group),
    "group_norm, lanes": Norm("layer_norm", groups_last, lambda x, **k: by_group(x, -1, **k)),
    "instance_norm, rows": Norm("layer_norm", pairs, fastnorm.instance_norm),
    "instance_norm, lanes": Norm(
        "layer_norm", pairs_last, lambda x, **k: fastnorm.instance_norm(x, channel_axis=-1, **k)
    ),
    "standardize, rows": Norm("standardize", rows, lambda x, **k: fastnorm.standardize(x, axis=1, **k)),
    "standardize, lanes": Norm("standardize", columns, lambda x, **k: fastnorm.standardize(x, axis=0, **k)),
}
# Those for data of any scale, with eps=0 where they have one.
SCALABLE = {name: norm for name, norm in NORMS.items() if not name.startswith("group")} | {
    "rms_norm, rows": Norm("rms_norm", rows, fastnorm.rms_norm),
    "rms_norm, lanes": Norm("rms_norm", columns, lambda x, **k: fastnorm.rms_norm(x, axis=0, **k)),
    "l2_normalize, rows": Norm("l2_normalize", rows, lambda x, **k: fastnorm.l2_normalize(x, axis=1, **k)),
    "l2_normalize, lanes": Norm("l2_normalize", columns, lambda x, **k: fastnorm.l2_normalize(x, axis=0, **k)),
}

LENGTHS = [2, 3, 7, 64, 65, 100, 768, 4096, 4097, 10007, 65537]


def least(norm: Norm) -> int:
    """No subtraction, no cancellation: without a centre every element has its relative error."""
    return int(norm.formula not in ("rms_norm", "l2_normalize"))


@cache
def lines_of(n: int) -> Array:
    """Lines with mean / std of 0, 1, 100 and 10,000 and a std of 1 and 0.01, as float32 stores them."""
    offsets = np.array([0.0, 1.0, 1e2, 1e4] * 2)[:, np.newaxis]
    scales = np.repeat([1.0, 0.01], 4)[:, np.newaxis]
    x = (np.random.default_rng(n).standard_normal((LINES, n)) + offsets) * scales
    return x.astype(np.float32)


@cache
def truth_of(n: int, formula: str) -> Array:
    options = {"axis": 1} if formula == "standardize" else {}
    return FORMULAS[formula](lines_of(n).astype(Wide), **options).normalized.astype(np.float64)


def contract_ratio(y: Array, truth: Array, least: int = 1) -> float:
    """The largest error in units of what the contract allows; `least` 0 takes units of |y| alone."""
    return float(np.max(np.abs(y - truth) / (CONTRACT * np.maximum(least, np.abs(truth)))))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", NORMS)
def test_the_contract_holds_for_every_length(name: str, n: int, backend: str) -> None:
    norm = NORMS[name]
    y = norm.call(norm.arrange(lines_of(n)), backend=backend)
    assert y.dtype == np.float32
    assert contract_ratio(y, norm.arrange(truth_of(n, norm.formula))) <= 1


@pytest.mark.parametrize("name", ["layer_norm, rows", "batch_norm, lanes"])
def test_the_contract_holds_for_a_million_elements(name: str, backend: str) -> None:
    norm = NORMS[name]
    y = norm.call(norm.arrange(lines_of(10**6)[:4]), backend=backend)
    assert contract_ratio(y, norm.arrange(truth_of(10**6, norm.formula)[:4])) <= 1


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("n", [3, 64, 768, 4097])
def test_the_contract_with_weight_and_bias(n: int, size: int, backend: str) -> None:
    """A weight scales the error of what it is given, which the bias need not be larger than where they cancel."""
    rng, lines, truth = np.random.default_rng(n), lines_of(n), truth_of(n, "layer_norm")
    for shape in ((n,), (LINES, 1)):
        weight, bias = (rng.standard_normal(shape).astype(np.float32) * np.float32(size) for _ in range(2))
        if shape == (n,):
            y = fastnorm.layer_norm(lines, weight, bias, backend=backend)
        else:
            y = in_training(columns(lines), weight=weight.ravel(), bias=bias.ravel(), backend=backend).T
        expected = truth * weight.astype(np.float64) + bias
        allowed = CONTRACT * (np.abs(weight) * np.maximum(1, np.abs(truth)) + np.abs(bias))
        assert (np.abs(y - expected) <= allowed).all()


HEAVY_TAILS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "lognormal": lambda rng, shape: np.exp(5 * rng.standard_normal(shape)),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "an outlier": lambda rng, shape: np.where(
        np.arange(shape[1]) == rng.integers(shape[1]), 300, rng.normal(size=shape)
    ),
}


@pytest.mark.parametrize("tails", HEAVY_TAILS)
@pytest.mark.parametrize("name", ["layer_norm, rows", "layer_norm, lanes"])
def test_heavy_tails_cost_what_the_bound_of_m2_allows(name: str, tails: str, backend: str) -> None:
    """16 u of M2, its bound, are 8 of its root: where few elements make up the sum, additions round alike."""
    norm, rng = NORMS[name], np.random.default_rng(0)
    for n in (300, 1000, 4097):
        lines = HEAVY_TAILS[tails](rng, (40, n)).astype(np.float32)
        truth = FORMULAS[norm.formula](lines.astype(Wide), eps=0.0).normalized.astype(np.float64)
        y = norm.call(norm.arrange(lines), eps=0.0, backend=backend)
        assert contract_ratio(y, norm.arrange(truth)) <= 1 + 8 / 4


# The bounds of fastnorm.stats.bounds


class Cases(NamedTuple):
    """Lines (L, n), the condition number of each, and its sum of squared deviations, high + low."""

    x: Array
    kappa: Array
    high: Array
    low: Array


ALGORITHMS = ("auto", "welford", "two_pass", "corrected_two_pass", "naive", "shifted", "pairwise", "compensated")
FAMILIES: tuple[Callable[[np.random.Generator, tuple[int, int]], Array], ...] = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: rng.random(shape),
    lambda rng, shape: np.sort(rng.standard_normal(shape), axis=1),
    lambda rng, shape: (
        (-1.0) ** np.arange(shape[1]) + rng.standard_normal(shape) * rng.choice([0, 1e-3], (shape[0], 1))
    ),
    lambda rng, shape: np.arange(shape[1]) * 10 / shape[1] + rng.standard_normal(shape),
    lambda rng, shape: (
        rng.standard_normal(shape) + 1e3 * (np.arange(shape[1]) == rng.integers(0, shape[1], (shape[0], 1)))
    ),
)
PER_FAMILY = 24
# (the dtype's roundoff, the longest line, the scale of a deviation, the largest n kappa^2). In float16 the sum of the
# squares about 0 is 2^-6 n kappa^2, which must stay below 2^16, and that about any element at most 2^-6 n^2. What
# squares lose to underflow is less than 2^-25 each, beside 2^-6.
KINDS = {
    "float16": (2.0**-11, 1000, 2.0**-3, 2.0**21),
    "float32": (2.0**-24, 3000, 1.0, np.inf),
    "float64": (2.0**-53, 3000, 1.0, np.inf),
}


def exact(x: Array) -> Cases:
    """Leave constant lines out, and add what integers give: x is integers times a power of two in each line."""
    mantissas, exponents = np.frexp(x.astype(np.float64))
    least = exponents.min(axis=1, keepdims=True)
    integers = (mantissas * 2.0**53).astype(np.int64).astype(object) << (exponents - least).astype(object)
    n = x.shape[1]
    first, second = integers.sum(axis=1), (integers * integers).sum(axis=1)
    spread = n * second - first * first  # n m2
    kept = spread > 0
    first, spread, unit = first[kept], spread[kept], 2 * (least[kept, 0] - 53)
    high = np.array([s / n for s in spread])
    low = np.array([float(Fraction(s, n) - Fraction(h)) for s, h in zip(spread, high, strict=True)])
    kappa = np.array([(1 + f * f / s) ** 0.5 for f, s in zip(first, spread, strict=True)])
    return Cases(x[kept], kappa, np.ldexp(high, unit), np.ldexp(low, unit))


@cache
def cases(dtype: str) -> tuple[Cases, ...]:
    """Lines of every family with a condition number from 1 to the inverse of the roundoff."""
    roundoff, longest, scale, largest = KINDS[dtype]
    rng = np.random.default_rng(7)
    result = []
    for n in np.unique(np.geomspace(2, longest, 28).astype(int)).tolist():
        shape = PER_FAMILY, n
        base = np.concatenate([family(rng, shape) for family in FAMILIES])
        base -= base.mean(axis=1, keepdims=True)
        base /= base.std(axis=1, keepdims=True)
        kappa = min(1 / roundoff, (largest / n) ** 0.5) ** rng.random((len(base), 1))
        offset = np.sqrt(kappa**2 - 1) * rng.choice([-1.0, 1.0], kappa.shape)
        result.append(exact(((base + offset) * scale).astype(dtype)))
    return tuple(result)


def test_the_bounds_are_tried_with_ten_thousand_lines() -> None:
    assert sum(len(part.x) for dtype in KINDS for part in cases(dtype)) >= 10_000
    assert all(max(part.kappa.max() for part in cases(dtype)) > 0.1 / KINDS[dtype][0] for dtype in KINDS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", KINDS)
def test_no_algorithm_errs_more_than_its_bound(dtype: str, algorithm: Any, backend: str) -> None:
    roundoff = KINDS["float32" if dtype == "float16" and algorithm == "auto" else dtype][0]
    for x, kappa, high, low in cases(dtype):
        m2 = fastnorm.moments(x, axis=1, algorithm=algorithm, backend=backend).m2
        error = np.abs((m2 - high) - low) / high
        allowed = relative_error_bound(algorithm, x.shape[1], kappa, roundoff)
        ratio = error / allowed
        worst = int(np.argmax(ratio))
        assert ratio[worst] <= 1, f"n {x.shape[1]}, line {worst}, kappa {kappa[worst]:.3g}: {error[worst]:.3g}"


# Scale


@pytest.mark.parametrize("power", [-100, -64, -30, -1, 1, 30, 64, 100])
@pytest.mark.parametrize("name", SCALABLE)
def test_a_power_of_two_does_not_change_the_result(name: str, power: int, backend: str) -> None:
    norm = SCALABLE[name]
    options = {} if norm.formula == "standardize" else {"eps": 0}
    for n in (2, 7, 100, 4097):
        lines = lines_of(n)
        scaled = np.ldexp(lines, power)
        np.testing.assert_array_equal(np.ldexp(scaled, -power), lines, err_msg="the scaling is exact")
        expected = norm.call(norm.arrange(lines), backend=backend, **options)
        y = norm.call(norm.arrange(scaled), backend=backend, **options)
        assert contract_ratio(y, expected.astype(np.float64), least(norm)) <= 1


@pytest.mark.parametrize("n", [2, 7, 100, 4097, 10007])
@pytest.mark.parametrize("name", SCALABLE)
def test_data_of_1e30_meet_the_contract(name: str, n: int, backend: str) -> None:
    norm = SCALABLE[name]
    lines = lines_of(n) * np.float32(1e30)
    truth = FORMULAS[norm.formula](lines.astype(Wide), axis=1).normalized.astype(np.float64)
    y = norm.call(norm.arrange(lines), backend=backend)
    assert np.isfinite(y).all()
    assert contract_ratio(y, norm.arrange(truth), least(norm)) <= 1
