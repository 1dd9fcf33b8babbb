"""Fused forms of float16 and bfloat16: sum, norm and activation in float32, the result and the sum rounded once."""

from typing import Any

import numpy as np
import pytest
from kernel_data import assert_bits
from narrow_cases import (
    Array,
    Norm,
    Shape,
    data,
    each_dtype,
    parts,
    rounded,
    strange_rows,
    variances,
    vector,
    wide,
)

import fastnorm
from fastnorm.activations import FORMULAS

ROWS: list[Shape] = [(300, 1), (5, 33), (9, 768), (2, 4097), (3, 32768), (2, 32769), (1, 65537)]
GROUPS: list[Shape] = [(3, 6, 5, 7), (7, 6), (2, 4, 8193), (1, 4, 40000)]

NORMS: dict[str, tuple[list[Shape], Norm]] = {
    "layer_norm": (ROWS, fastnorm.layer_norm),
    "layer_norm, weight": (
        ROWS, lambda x, **k: fastnorm.layer_norm(x, vector(x.shape[-1], 1), vector(x.shape[-1], 2), **k)
    ),
    "rms_norm": (ROWS, lambda x, **k: fastnorm.rms_norm(x, vector(x.shape[-1], 1, "float64"), **k)),
    "group_norm": (GROUPS, lambda x, **k: fastnorm.group_norm(x, 2, vector(x.shape[1], 1), vector(x.shape[1], 2), **k)),
    "group_norm, last": (GROUPS, lambda x, **k: fastnorm.group_norm(x, 1, channel_axis=-1, **k)),
    "batch_norm": (
        GROUPS, lambda x, **k: fastnorm.batch_norm(x, vector(x.shape[1], 4), variances(x.shape[1]), **k)
    ),
}  # fmt: skip
each_norm = pytest.mark.parametrize("name", NORMS)
each_activation = pytest.mark.parametrize("activation", [None, *FORMULAS])


def assert_fused(norm: Norm, x: Array, served: str, residual: Array | None = None, **options: Any) -> None:
    """A plain call and one by the general path give what the float32 call does, rounded."""
    added = {} if residual is None else {"residual": residual}
    exact = {} if residual is None else {"residual": residual.astype(np.float32)}
    expected = parts(norm(wide(x), **exact, **options))
    for more in ({}, {"backend": served}):
        found = parts(norm(x, **added, **options, **more))
        assert len(found) == len(expected)
        for number, (part, other) in enumerate(zip(found, expected, strict=True)):
            scale = "quantize" in options and number == 1
            kind = np.float32 if scale else np.int8 if "quantize" in options and number == 0 else x.dtype
            assert_bits(part, rounded(other, kind), f"{x.shape} {more} {number}")


@each_dtype
@each_activation
@each_norm
def test_residual_and_activation(name: str, activation: str | None, dtype: str, served: str) -> None:
    shapes, norm = NORMS[name]
    for shape in shapes if activation in (None, "gelu") else shapes[:3]:
        x, residual = data(shape, dtype), data(shape, dtype, 1)
        if activation is not None:
            assert_fused(norm, x, served, activation=activation)
        assert_fused(norm, x, served, residual, activation=activation)
        assert_fused(norm, x, served, residual, activation=activation, return_residual=True)


@each_dtype
@each_norm
def test_a_residual_of_another_dtype(name: str, dtype: str, served: str) -> None:
    shapes, norm = NORMS[name]
    for shape in shapes:
        x = data(shape, dtype)
        for other in ("float16", "bfloat16", "float32", "float64", "int8"):
            residual = (wide(data(shape, dtype, 1)) / 3).astype(data((1,), other).dtype if "16" in other else other)
            assert_fused(norm, x, served, residual, activation="relu", return_residual=True)
        assert_fused(norm, x, served, np.asfortranarray(data(shape, dtype, 1)), return_residual=True)
        assert_fused(norm, np.asfortranarray(x), served, data(shape, dtype, 1), return_residual=True)


@each_dtype
@each_norm
def test_out_may_be_an_operand(name: str, dtype: str, served: str) -> None:
    shapes, norm = NORMS[name]
    for shape in shapes:
        x, residual = data(shape, dtype), data(shape, dtype, 1)
        wanted = parts(norm(wide(x), residual=wide(residual), activation="silu", return_residual=True))
        y, total = (rounded(part, x.dtype) for part in wanted)
        for more in ({}, {"backend": served}):
            for kept in (True, False):
                one, two = x.copy(), residual.copy()
                for out, first, second in (
                    (np.full(shape, 7, x.dtype), x, residual), (one, one, residual), (two, x, two),
                ):  # fmt: skip
                    found = parts(
                        norm(first, residual=second, activation="silu", return_residual=kept, out=out, **more)
                    )
                    assert found[0] is out
                    assert_bits(out, y, f"{shape} {more}")
                    if kept:
                        assert_bits(found[1], total, f"{shape} {more}")
            same = x.copy()
            doubled = rounded(norm(wide(x), residual=wide(x)), x.dtype)
            assert_bits(norm(same, residual=same, out=same, **more), doubled)


@each_dtype
@pytest.mark.parametrize("name", ["layer_norm", "layer_norm, weight", "rms_norm"])
def test_quantisation(name: str, dtype: str, served: str) -> None:
    shapes, norm = NORMS[name]
    for shape in shapes:
        x, residual = data(shape, dtype), data(shape, dtype, 1)
        assert_fused(norm, x, served, quantize="int8")
        assert_fused(norm, x, served, quantize="int8", activation="gelu")
        assert_fused(norm, x, served, residual, quantize="int8", return_residual=True)
        assert_fused(norm, x, served, residual.astype(np.float64), quantize="int8", return_residual=True)


@each_dtype
@pytest.mark.parametrize("columns", [3, 40, 5000])
def test_strange_numbers(columns: int, dtype: str, served: str) -> None:
    x = strange_rows(dtype, columns)
    residual = np.roll(x, 1, axis=0)
    for activation in (None, *FORMULAS):
        for norm in (fastnorm.layer_norm, fastnorm.rms_norm, lambda x, **k: fastnorm.layer_norm(x, eps=0.0, **k)):
            assert_fused(norm, x, served, residual, activation=activation, return_residual=True)
            assert_fused(norm, x, served, x, activation=activation, return_residual=True)
        assert_fused(
            lambda x, **k: fastnorm.group_norm(x, 3, **k), x[np.newaxis], served, residual[np.newaxis],
            activation=activation, return_residual=True,
        )  # fmt: skip


@each_dtype
def test_threads_do_not_show(dtype: str, served: str, threads_for_all: None) -> None:
    for shapes, norm in NORMS.values():
        for shape in (*shapes, (70, 1200) if shapes is ROWS else (9, 6, 2049)):
            for threads in (1, 2, 3):
                with fastnorm.config(num_threads=threads):
                    assert_fused(
                        norm, data(shape, dtype), served, data(shape, dtype, 1), activation="relu", return_residual=True
                    )
