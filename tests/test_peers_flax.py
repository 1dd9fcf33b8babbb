"""Parity with Flax: the convention of its batch normalization, and the eps of its other norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnorm import nn

linen = pytest.importorskip("flax.linen", reason="flax, which these tests compare with, is not installed")

Array = np.ndarray
# Beyond what the rounding of float32 explains, with numbers of the order of 1 to 10.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def sample(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=shape).astype(np.float32)


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs), **TOLERANCE)


@pytest.mark.parametrize("kind", [{}, {"use_fast_variance": False}], ids=str)
def test_a_batch_norm_of_the_flax_convention_is_theirs_as_it_comes(kind: dict[str, bool]) -> None:
    ours, theirs = nn.BatchNorm2d(6, channel_axis=-1, convention="flax"), linen.BatchNorm(**kind)
    x = sample((3, 8, 7, 6))
    scale = {"scale": ours.weight, "bias": ours.bias}
    statistics = {"mean": ours.running_mean.copy(), "var": ours.running_var.copy()}
    for step in range(3):
        x = sample((3, 8, 7, 6), step)
        variables = {"params": scale, "batch_stats": statistics}
        y, changed = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        statistics = changed["batch_stats"]
        assert_close(ours(x), y)
        assert_close(ours.running_mean, statistics["mean"])
        assert_close(ours.running_var, statistics["var"])
    variables = {"params": scale, "batch_stats": statistics}
    assert_close(ours.eval()(x), theirs.apply(variables, x, use_running_average=True))


def test_the_other_norms_have_an_eps_of_one_millionth() -> None:
    # Numbers so small that eps decides: with another one the results differ in the first digit.
    x = sample((3, 5, 12)) * np.float32(1e-3)
    scale = {"scale": np.ones(12, np.float32)}
    both = {"params": scale | {"bias": np.zeros(12, np.float32)}}
    assert_close(nn.LayerNorm(12, 1e-6)(x), linen.LayerNorm().apply(both, x))
    assert_close(nn.RMSNorm(12, 1e-6)(x), linen.RMSNorm().apply({"params": scale}, x))
    assert_close(nn.GroupNorm(4, 12, 1e-6, channel_axis=-1)(x), linen.GroupNorm(4).apply(both, x))
    assert_close(nn.InstanceNorm1d(12, 1e-6, channel_axis=-1)(x), linen.InstanceNorm().apply(both, x))
