"""The backward passes: derivatives of the norms, whatever the layout, the dtype, the backend and the data."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from cases import BACKWARD_CASES, Case, build_backward, dtype_of, named
from formulas import FORMULAS, Wide, joined
from gradient_formulas import gradients
from variants import serving

import fastnorm

Array = np.ndarray[Any, Any]


def backward(op: str) -> Callable[..., Any]:
    return getattr(fastnorm, f"{op}_backward")


def served(case: Case, dy: Array, x: Array, kwargs: dict[str, Any], backend: str, **more: Any) -> dict[str, Array]:
    """Return the gradients of a case by name."""
    return named(backward(case.op)(dy, x, **kwargs, **more, backend=serving(case.op, backend)))


def each(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


SMALL = [case for case in BACKWARD_CASES if prod(case.shape) <= 60]
ONCE = [case for case in SMALL if case.dtype == "float64"]
FLOAT32 = [case for case in BACKWARD_CASES if case.dtype == "float32" and prod(case.shape) <= 2000]


# What they compute


def derivative(function: Callable[[Array], Array], at: Array, dy: Array) -> Array:
    """Return the gradient of sum(dy * function) by central differences of two steps, extrapolated to none."""
    found = np.empty(at.shape, Wide)
    for index in np.ndindex(at.shape):
        estimates = []
        for step in (Wide(2) ** -11, Wide(2) ** -12):
            above, below = at.copy(), at.copy()
            above[index] += step
            below[index] -= step
            estimates.append((dy * (function(above) - function(below))).sum() / (2 * step))
        found[index] = (4 * estimates[1] - estimates[0]) / 3
    return found


@each([case for case in ONCE if prod(case.shape) > 1])
def test_gradients_are_the_derivatives_of_the_formulas(case: Case, backend: str) -> None:
    """The differences are off by h^4 / 480 of the fifth derivative, h^4 = 2^-44, and by roundings over h.

    The fifth derivative is less than 5! dx (4 / sigma)^4, 10^5 dx with the sigmas of these data.
    """
    dy, x, kwargs = build_backward(case, np.random.default_rng(7))
    found = served(case, dy, x, kwargs, backend)
    variables = {"x": x, **{name: kwargs[name] for name in ("mean_weight", "var_weight", "weight") if name in kwargs}}
    if "dbias" in found:
        variables["bias"] = np.zeros_like(found["dbias"])
    if "dweight" in found and "weight" not in variables:
        variables["weight"] = np.ones_like(found["dweight"])
    assert {f"d{name}" for name in variables} == set(found)
    wide = {name: np.asarray(value).astype(Wide) for name, value in variables.items()}

    for name in wide:

        def forward(value: Array, name: str = name) -> Array:
            given = {**kwargs, **wide, name: value}
            return joined(FORMULAS[case.op](given.pop("x"), **given))

        expected = derivative(forward, wide[name], dy)
        np.testing.assert_allclose(
            found[f"d{name}"], expected.astype(np.float64), rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max())
        )


def roundings(case: Case) -> float:
    """Return how many units of their magnitude gradients may be off.

    A block of 4096 elements is summed in 32 (float64: 16) lanes, one chain of additions each, and a tree; the forward
    pass's statistics and normalised numbers are within 4 units each; a gradient is made in fewer than 8 more roundings.
    In float64 a mean is one number, whose rounding is `offset` units of a deviation.
    """
    lanes = 32 if case.dtype == "float32" else 16
    length = min(max(case.shape) * (1 if case.op != "batch_norm" else case.shape[0]), 4096)
    return length / lanes + 7 + 16 + (abs(case.offset) if case.dtype == "float64" else 0)


def assert_within(case: Case, found: dict[str, Array], truth: Any, units: float | None = None) -> None:
    units = roundings(case) if units is None else units
    u = float(np.finfo(case.dtype).eps) / 2
    assert set(found) == set(truth)
    for name, (value, magnitude) in truth.items():
        actual = found[name]
        assert actual.shape == value.shape, name
        allowed = units * u * magnitude + u * np.abs(value)
        assert (np.abs(actual - value) <= allowed).all(), (name, float(np.max(np.abs(actual - value) / allowed)))


@each(BACKWARD_CASES)
def test_gradients_are_those_of_the_formulas(case: Case, backend: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    before = dy.tobytes(), x.tobytes()
    found = served(case, dy, x, kwargs, backend)
    assert all(part.dtype == (np.float64 if "_weight" in name else x.dtype) for name, part in found.items())
    assert found["dx"].flags.c_contiguous
    assert_within(case, found, gradients(case.op, dy, x, **kwargs))
    assert (dy.tobytes(), x.tobytes()) == before


def test_the_gradient_of_a_constant_sum_is_zero(backend: str) -> None:
    """sum(y) and sum(y^2) of a line do not depend on x: the parts of dx cancel, up to their rounding."""
    x = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    y = fastnorm.layer_norm(x, eps=0)
    for dy in (np.ones_like(x), y):
        dx = fastnorm.layer_norm_backward(dy, x, eps=0, backend=backend).dx
        assert np.abs(dx).max() <= (1000 / 32 + 23) * 2.0**-24 * 3 * np.abs(y).max() ** 2


# Statistics


GIVEN = [case for case in FLOAT32 + ONCE if case.op != "switchable_norm"]


@each(GIVEN)
def test_statistics_of_the_forward_pass_do_as_well(case: Case, backend: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    options = {"backend": serving(case.op, backend), "return_stats": True}
    _, (mean, rstd) = getattr(fastnorm, case.op)(x, **kwargs, **options)
    kwargs = {name: value for name, value in kwargs.items() if "running" not in name}
    found = served(case, dy, x, kwargs, backend, mean=mean, rstd=rstd)
    if case.options.get("running_mean"):
        kwargs["running_mean"], kwargs["running_var"] = (
            mean.reshape(-1),
            rstd.reshape(-1) ** -2 - kwargs.get("eps", 1e-5),
        )
    assert_within(case, found, gradients(case.op, dy, x, **kwargs))
    others = served(case, dy, x, kwargs, backend, mean=mean, rstd=2 * rstd)
    assert not np.allclose(others["dx"], found["dx"]) or np.allclose(found["dx"], 0), "given statistics are taken"


def test_norms_without_a_mean_do_without_that_statistic(backend: str) -> None:
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    for op, options in (
        ("rms_norm", {}),
        ("l2_normalize", {}),
        ("pixel_norm", {}),
        ("local_response_norm", {"size": 3}),
    ):
        chosen = {**options, "backend": serving(op, backend)}
        rstd = getattr(fastnorm, op)(x, **chosen, return_stats=True)[1].rstd
        alone, nonsense, recomputed = (
            named(backward(op)(dy, x, **chosen, **given))["dx"]
            for given in ({"rstd": rstd}, {"rstd": rstd, "mean": np.full((9, 9), np.nan)}, {})
        )
        np.testing.assert_array_equal(alone, nonsense)
        np.testing.assert_allclose(alone, recomputed, rtol=1e-13, atol=1e-15)


def test_batch_norm_in_inference_does_not_differentiate_its_statistics(backend: str) -> None:
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    x[0, 1, 2] = np.nan
    mean, var = np.full(4, 0.5), np.full(4, 3.0)
    for axis in (1, -1):
        arranged = (np.moveaxis(part, 1, axis) for part in (dy, x))
        found = fastnorm.batch_norm_backward(
            *arranged, running_mean=mean, running_var=var, eps=1.0, channel_axis=axis, backend=backend
        )
        np.testing.assert_allclose(np.moveaxis(found.dx, axis, 1), dy / 2, rtol=1e-15)
        np.testing.assert_array_equal(np.isnan(found.dweight), [False, True, False, False])


# out=, dtype=, dtypes, layouts


@each(SMALL)
def test_out_takes_dx(case: Case, backend: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    expected = served(case, dy, x, kwargs, backend)
    fresh = np.full(x.shape, 7, x.dtype)
    scattered = np.full((*x.shape, 2), 7, x.dtype)[..., 0]
    matrix = np.full_like(x, 7).view(np.matrix) if x.ndim == 2 else fresh
    for out in (fresh, scattered, matrix):
        found = served(case, dy, x, kwargs, backend, out=out)
        assert found["dx"] is out
        for name, part in found.items():
            np.testing.assert_array_equal(part, expected[name])
    upstream, source = dy.copy(), x.copy()
    found = served(case, upstream, x, kwargs, backend, out=upstream)
    assert found["dx"] is upstream
    np.testing.assert_array_equal(upstream, expected["dx"])
    found = served(case, dy, source, kwargs, backend, out=source)
    np.testing.assert_array_equal(source, expected["dx"])
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    both = x.copy()
    np.testing.assert_array_equal(
        served(case, both, both, kwargs, backend, out=both)["dx"], served(case, x, x, kwargs, backend)["dx"]
    )


@each([case for case in SMALL if case.dtype == "float32"])
def test_dtype_is_that_of_dx_and_of_what_it_is_computed_in(case: Case, backend: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    found = served(case, dy, x, kwargs, backend, dtype="float64")
    assert found["dx"].dtype == np.float64
    for name in ("dweight", "dbias"):
        if name in found:
            assert found[name].dtype == (np.float32 if "weight" in kwargs else np.float64)
    wide = {
        name: value.astype(np.float64) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()
    }
    expected = served(case, dy.astype(np.float64), x.astype(np.float64), wide, backend)
    np.testing.assert_array_equal(found["dx"], expected["dx"])
    narrow = served(case, dy, x, kwargs, backend, dtype="float16")["dx"]
    np.testing.assert_array_equal(narrow, served(case, dy, x, kwargs, backend)["dx"].astype(np.float16))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each([case for case in SMALL if case.dtype == "float32"])
def test_half_precision_is_computed_in_float32_and_rounded_once(case: Case, dtype: str, backend: str) -> None:
    half = dtype_of(dtype)
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    narrow = {name: value.astype(half) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()}
    wide = {
        name: value.astype(np.float32) if isinstance(value, np.ndarray) else value for name, value in narrow.items()
    }
    found = served(case, dy.astype(half), x.astype(half), narrow, backend)
    expected = served(case, dy.astype(half).astype(np.float32), x.astype(half).astype(np.float32), wide, backend)
    for name, part in found.items():
        if "_weight" not in name:
            assert part.dtype == half, name
        if name == "dx":
            np.testing.assert_array_equal(part, expected[name].astype(half))
        else:  # from float64 straight to half precision
            unit = float(np.finfo(np.float32).eps) + 2.0 ** (-11 if dtype == "float16" else -8)
            np.testing.assert_allclose(part.astype(np.float64), expected[name], rtol=unit, atol=1e-7)


def test_integers_are_taken_as_the_forward_pass_takes_them(backend: str) -> None:
    x, dy = np.array([[1, 5, 3], [250, 0, 7]], np.uint8), np.array([[1, 0, 0], [0, 2, 1]])
    found = fastnorm.layer_norm_backward(dy, x, [1, 2, 3], backend=backend)
    expected = fastnorm.layer_norm_backward(dy.astype("f4"), x.astype("f4"), np.array([1, 2, 3], "f4"), backend=backend)
    assert [part.dtype for part in found] == [np.float32] * 3
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, other)


@each(SMALL)
def test_any_layout_gives_the_same(case: Case, backend: str) -> None:
    dy, x, kwargs = build_backward(case, np.random.default_rng(3))
    expected = served(case, dy, x, kwargs, backend)
    units = roundings(case) * float(np.finfo(case.dtype).eps) * 8  # NumPy adds in the order of memory
    swapped = dy.dtype.newbyteorder(">")
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    strided = {name: np.repeat(v, 2)[::2].reshape(v.shape) if isinstance(v, np.ndarray) and v.ndim == 1 else v
               for name, v in kwargs.items()}  # fmt: skip
    for upstream, source in (
        (np.asfortranarray(dy), x),
        (dy, np.asfortranarray(x)),
        (np.repeat(dy, 2, axis=-1)[..., ::2], np.flip(np.flip(x).copy())),
        (dy.astype(swapped), x.astype(swapped)),
        (dy, unaligned),
    ):
        found = served(case, upstream, source, strided, backend)
        for name, part in expected.items():
            if backend == "reference" or case.op in ("switchable_norm", "local_response_norm"):
                np.testing.assert_allclose(found[name], part, rtol=units, atol=units * (1 + np.abs(part).max()))
            else:
                np.testing.assert_array_equal(found[name], part, err_msg=name)
            assert found[name].dtype == part.dtype, name


@pytest.mark.parametrize("shape", [(0, 6, 5), (3, 6, 0), (0, 6)], ids=str)
def test_nothing_has_gradients_of_zero(shape: tuple[int, ...], backend: str) -> None:
    x, mixture = np.empty(shape, np.float32), ([0.0] * 3, [0.0] * 3)
    running = {"running_mean": np.zeros(6), "running_var": np.ones(6)}
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("batch_norm", (), {"training": True}),
        ("batch_norm", (), running),
        ("instance_norm", (), {}),
        ("group_norm", (3,), {}),
        ("switchable_norm", mixture, {"training": True}),
        ("switchable_norm", mixture, running),
        ("pixel_norm", (), {}),
        ("local_response_norm", (3,), {}),
        ("layer_norm", (), {"axis": 1}),
        ("rms_norm", (), {"axis": 1}),
        ("l2_normalize", (), {"axis": 1}),
    ]
    for op, args, options in calls:
        found = named(backward(op)(x, x, *args, **options, backend=serving(op, backend)))
        assert found.pop("dx").shape == shape, op
        assert len(found) == {"pixel_norm": 0, "local_response_norm": 0, "l2_normalize": 0, "rms_norm": 1,
                              "switchable_norm": 4}.get(op, 2)  # fmt: skip
        for name, part in found.items():
            assert part.shape == ((3,) if "_weight" in name else (6,)), (op, name)
            assert not part.any(), (op, name)


# Errors of their own; those of all functions are in test_errors


def test_dy_has_the_shape_of_x() -> None:
    x, dy = np.ones((2, 3, 4)), np.ones((2, 4, 3))
    mixture = {"mean_weight": [0.0] * 3, "var_weight": [0.0] * 3}
    options = {"group_norm": {"num_groups": 1}, "local_response_norm": {"size": 3}, "switchable_norm": mixture}
    for op in sorted({case.op for case in BACKWARD_CASES}):
        training = {"training": True} if op in ("batch_norm", "switchable_norm") else {}
        out = np.full(x.shape, 7.0)
        message = rf"{op}_backward: dy must have the shape of x, \(2, 3, 4\), got \(2, 4, 3\)"
        with pytest.raises(ValueError, match=message):
            backward(op)(dy, x, **options.get(op, {}), **training, out=out)
        with pytest.raises(ValueError, match="dy must have the shape of x"):
            backward(op)(1.0, x, **options.get(op, {}), **training, out=out)
        assert (out == 7).all()


def test_statistics_come_in_pairs_and_have_the_shape_that_the_forward_pass_gives_them() -> None:
    x = np.ones((2, 3, 4))
    shapes = {"layer_norm": (2, 3, 1), "batch_norm": (1, 3, 1), "instance_norm": (2, 3, 1), "group_norm": (2, 3, 1)}
    for op, shape in shapes.items():
        options = {"num_groups": 3} if op == "group_norm" else {}
        for given in ({"mean": np.ones(shape)}, {"rstd": np.ones(shape)}):
            with pytest.raises(ValueError, match=f"{op}_backward: mean and rstd must be given together, or neither"):
                backward(op)(x, x, **options, **given)
        for name in ("mean", "rstd"):
            given = {"mean": np.ones(shape), "rstd": np.ones(shape), name: np.ones((2, 3))}
            with pytest.raises(ValueError, match=rf"{op}_backward: {name} must have shape \({str(shape)[1:-1]}\)"):
                backward(op)(x, x, **options, **given)
    for op in ("rms_norm", "l2_normalize", "pixel_norm"):
        with pytest.raises(ValueError, match="mean and rstd must be given together"):
            backward(op)(x, x, mean=np.ones((2, 3, 1)))
        with pytest.raises(ValueError, match=f"{op}_backward: rstd must have shape"):
            backward(op)(x, x, rstd=np.ones(3))


@pytest.mark.parametrize("op", ["batch_norm", "switchable_norm"])
def test_the_batch_needs_statistics_and_more_than_one_value_to_take_them_of(op: str) -> None:
    mixture = ([0.0] * 3, [0.0] * 3) if op == "switchable_norm" else ()
    x = np.ones((1, 3, 1))
    with pytest.raises(ValueError, match=f"{op}_backward: training needs more than one value per channel, got 1"):
        backward(op)(x, x, *mixture, training=True)
    for running in ({}, {"running_mean": np.zeros(3)}, {"running_var": np.ones(3)}):
        with pytest.raises(
            ValueError, match=rf"{op}_backward: .*running_mean and running_var.* needed unless training"
        ):
            backward(op)(x, x, *mixture, **running)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("op", ["layer_norm", "batch_norm"])
def test_dx_written_over_the_weight_is_that_of_no_overlap(op: str, backend: str) -> None:
    dy, x, memory = (random(24, 10, seed=seed) for seed in range(3))
    options = {"training": True} if op == "batch_norm" else {}
    expected = backward(op)(dy, x, memory[3].copy(), backend=backend, **options)
    found = backward(op)(dy, x, memory[3], out=memory, backend=backend, **options)
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, other)


def test_gradients_of_weights_of_other_dtypes(backend: str) -> None:
    dy, x = random(7, 12), random(7, 12, seed=1)
    for weight in (np.ones(12, ">f4"), np.ones(12, bool)):
        assert fastnorm.layer_norm_backward(dy, x, weight, backend=backend).dweight.dtype == np.float32
    weight = np.arange(1, 13) / 7
    wide, single = (
        fastnorm.group_norm_backward(dy, x, 3, given, backend=backend).dx
        for given in (weight, weight.astype(np.float32))
    )
    np.testing.assert_array_equal(wide, single)


def test_one_value_a_channel_has_no_gradient_where_training_takes_it(backend: str) -> None:
    dy, x = random(1, 3), random(1, 3, seed=1)
    found = fastnorm.batch_norm_backward(dy, x, training=True, convention="keras", backend=backend)
    np.testing.assert_allclose(found.dx, np.zeros((1, 3)), atol=1e-5)
