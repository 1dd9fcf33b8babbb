"""Parity with Flax: the convention of its batch normalization, and the eps of its other norms."""

from __future__ import annotations

import numpy as np
import pytest
from peer_cases import assert_close, sample

from fastnorm import nn

linen = pytest.importorskip("flax.linen", reason="flax, which these tests compare with, is not installed")


@pytest.mark.parametrize("kind", [{}, {"use_fast_variance": False}], ids=str)
def test_a_batch_norm_of_the_flax_convention_is_theirs_as_it_comes(kind: dict[str, bool]) -> None:
    ours, theirs = nn.BatchNorm2d(6, channel_axis=-1, convention="flax"), linen.BatchNorm(**kind)
    x = sample((3, 8, 7, 6))
    scale = {"scale": ours.weight, "bias": ours.bias}
    statistics = {"mean": ours.running_mean.copy(), "var": ours.running_var.copy()}
    for step in range(3):
        x = sample((3, 8, 7, 6), seed=step)
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
