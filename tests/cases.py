"""One table of cases for every public forward norm.

`build` makes the arguments of a case, `truth` its result without the library.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from formulas import FORMULAS, Parts, Wide, joined

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One call of a public function.

    `options` are its keywords; True for one of `ARRAYS` asks `build` for that array. `data` is the kind of the data,
    `offset` their mean in standard deviations.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = "normal"
    offset: float = 0.0


ARRAYS = ("weight", "bias", "running_mean", "running_var", "mean", "var", "g", "u", "gamma", "beta")


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype of a name, or skip the test where ml_dtypes, which has it, is not installed."""
    if name == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which brings bfloat16, is not installed")
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def make_data(shape: tuple[int, ...], dtype: str, kind: str, offset: float, rng: np.random.Generator) -> Array:
    """Return data of mean `offset` and standard deviation 1, or for integers over their range."""
    target = dtype_of(dtype)
    if target.kind in "iub":
        low, high = (0, 2) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        low, high = max(low, -(10**9)), min(high, 10**9)
        return rng.integers(low, high, shape, endpoint=target.kind != "b").astype(target)
    position = np.arange(prod(shape), dtype=np.float64).reshape(shape)
    values = {
        "normal": lambda: rng.standard_normal(shape),
        "ramp": lambda: (position / max(position.size, 1) - 0.5) * 12**0.5,
        "two_valued": lambda: np.where(rng.random(shape) < 0.3, 1.3, 0.0),
        "outlier": lambda: rng.standard_normal(shape) + np.where(position % shape[-1] == 0, 1e3, 0.0),
        "constant": lambda: np.full(shape, 0.7),
    }[kind]()
    return (values + offset).astype(target)


def _parameter_shape(case: Case, name: str) -> tuple[int, ...]:
    if case.op in ("layer_norm", "rms_norm"):
        axis = case.options.get("axis", -1)
        return tuple(case.shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    if case.op == "spectral_norm":
        return case.shape[:1]
    if case.op == "weight_norm":
        axis = case.options.get("axis", 0)
        return () if axis is None else (case.shape[axis],)
    default = {"normalize": -1, "fold_batch_norm": 0}.get(case.op, 1)
    return (case.shape[case.options.get("channel_axis", default)],)


def build(case: Case, rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) of the public function."""
    x = make_data(case.shape, case.dtype, case.data, case.offset, rng)
    kwargs = dict(case.options)
    dtype = x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.dtype(np.float32)
    for name in ARRAYS:
        if kwargs.get(name) is not True:
            continue
        values = rng.standard_normal(_parameter_shape(case, name))
        if name in ("mean", "running_mean"):
            values = values * 0.1 + case.offset
        elif name in ("var", "running_var", "g"):
            values = np.exp(0.2 * values)
        kwargs[name] = values.astype(dtype)
    if case.op == "clip_by_global_norm":
        pieces = [x, (x[:1] * 3).astype(x.dtype), x.reshape(-1)[::2]]
        return (pieces,), kwargs
    if case.op == "fold_batch_norm":
        order = ("bias", "running_mean", "running_var", "gamma", "beta")
        return (x, *(kwargs.pop(name, None) for name in order)), kwargs
    return (x,), kwargs


def outcome(case: Case, result: Any) -> Array:
    """Return what `truth` is to be compared with: the array of a result, several joined flat."""
    if case.op == "spectral_norm":
        return result.weight
    if case.op == "clip_by_global_norm":
        return np.concatenate([part.reshape(-1) for part in result.arrays])
    if case.op == "fold_batch_norm":
        return np.concatenate([result.weight.reshape(-1), result.bias])
    return result


def parts(case: Case, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Parts:
    """Return the result of a case as normalized * weight + bias, in the widest float."""
    first = [part.astype(Wide) for part in args[0]] if isinstance(args[0], list) else args[0].astype(Wide)
    return FORMULAS[case.op](first, *args[1:], **kwargs)


def truth(case: Case, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Array:
    """Return the result of a case, computed in the widest float and rounded to float64."""
    return joined(parts(case, args, kwargs)).astype(np.float64)


def _case(
    op: str, shape: tuple[int, ...], dtype: str = "float32", data: str = "normal", offset: float = 0, **options: Any
) -> Case:
    """A case whose name says what it is."""
    words = [key if value is True else f"{key}={value}" for key, value in options.items()]
    words += [] if data == "normal" else [data]
    words += [f"offset={offset:g}"] if offset else []
    name = f"{op}[{'x'.join(map(str, shape))} {dtype} {' '.join(words)}".rstrip() + "]"
    return Case(name, op, shape, dtype, options, data, offset)


BOTH = {"weight": True, "bias": True}
RUNNING = {"running_mean": True, "running_var": True}
MIXTURE = {"mean_weight": (0.3, -0.2, 0.5), "var_weight": (-0.4, 0.1, 0.2)}

# Shapes around the borders of a bundle (32 or 16 lanes), a block (4096 in a row, 64 down a column), a chunk (65536 and
# 1024) and a tile of columns (256 or 128).
ROWS = [(1, 1), (5, 1), (7, 31), (3, 33), (11, 768), (2, 4097), (3, 2, 101), (2, 65536 + 4097)]
COLUMNS = [(2, 3, 2), (3, 31, 7), (2, 65, 33), (67, 300), (1025, 17), (2, 1091, 257)]
CHANNELS_SECOND = [(3, 4), (1, 6, 5), (2, 6, 5, 7), (5, 4, 33, 3), (2, 2, 4099)]
CHANNELS_LAST = [(2, 5, 7, 6), (3, 65, 4), (1, 1031, 6), (2, 3, 3, 2, 258)]
CHANNELS_MIDDLE = [(2, 3, 4, 5), (3, 2, 6, 1), (1, 7, 2, 3, 3)]
CHANNELS = [*((shape, 1) for shape in CHANNELS_SECOND), *((shape, -1) for shape in CHANNELS_LAST)]
CHANNELS += [(shape, 2) for shape in CHANNELS_MIDDLE]
FLOATS = ["float16", "bfloat16", ">f4", ">f8"]
OTHER_DTYPES = [*FLOATS, "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
SCALED = [((1093, 7), 0), ((3, 5, 301), -1), ((6, 5, 7), (0, 2)), ((4, 5), None), ((4, 3, 5, 2), (1, 3))]
DATA = ["ramp", "two_valued", "outlier", "constant"]


def _line_norms() -> Iterator[Case]:
    for op in ("layer_norm", "rms_norm"):
        for dtype in ("float32", "float64"):
            for shape in ROWS:
                yield _case(op, shape, dtype)
                yield _case(op, shape, dtype, **BOTH)
            for shape in COLUMNS:
                axis = len(shape) - 2
                yield _case(op, shape, dtype, axis=axis)
                yield _case(op, shape, dtype, axis=axis, **BOTH)
            for kind in DATA:
                yield _case(op, (2, 5003), dtype, kind)
                yield _case(op, (1093, 5), dtype, kind, axis=0, weight=True)
            yield _case(op, (3, 5, 7, 11), dtype, axis=(-2, -1), **BOTH)
            yield _case(op, (3, 5, 7), dtype, axis=(0, 1, 2), bias=True)
            yield _case(op, (4, 1000), dtype, eps=0, offset=1.0)
        for dtype in OTHER_DTYPES:
            yield _case(op, (5, 77), dtype, **BOTH)
            yield _case(op, (77, 5), dtype, axis=0)
    for dtype in ("float32", "float64"):
        for offset in (-10.0, 1e3, 1e4):
            yield _case("layer_norm", (8, 768), dtype, offset=offset)
            yield _case("layer_norm", (2, 70001), dtype, offset=offset)
            yield _case("layer_norm", (1100, 40), dtype, offset=offset, axis=0)
            yield _case("layer_norm", (8, 768), dtype, offset=offset, **BOTH)


def _channel_norms() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for shape, axis in CHANNELS:
            where = {"channel_axis": axis}
            yield _case("batch_norm", shape, dtype, **RUNNING, **where)
            yield _case("batch_norm", shape, dtype, **RUNNING, **BOTH, **where)
            yield _case("batch_norm", shape, dtype, training=True, **where)
            yield _case("batch_norm", shape, dtype, training=True, **BOTH, **where)
            yield _case("instance_norm", shape, dtype, **where)
            yield _case("instance_norm", shape, dtype, **BOTH, **where)
            for groups in sorted({1, 2, shape[axis]}):
                yield _case("group_norm", shape, dtype, num_groups=groups, **where)
                yield _case("group_norm", shape, dtype, num_groups=groups, **BOTH, **where)
            yield _case("switchable_norm", shape, dtype, training=True, **MIXTURE, **BOTH, **where)
            yield _case("switchable_norm", shape, dtype, **MIXTURE, **RUNNING, **where)
            yield _case("normalize", shape, dtype, mean=True, var=True, **where)
            yield _case("normalize", shape, dtype, mean=True, var=True, **BOTH, **where)
        yield _case("normalize", (9,), dtype, mean=True, var=True)
        yield _case("normalize", (4, 9), dtype, mean=True, var=True, channel_axis=0, weight=True)
        for data, offset in (("normal", 1e4), ("ramp", 0), ("two_valued", 0)):
            for shape, axis in (((4, 3, 2049), 1), ((4, 2049, 3), -1)):
                where = {"channel_axis": axis}
                yield _case("batch_norm", shape, dtype, data, offset, training=True, **where)
                yield _case("batch_norm", shape, dtype, data, offset, **RUNNING, **where)
                yield _case("instance_norm", shape, dtype, data, offset, **where)
                yield _case("group_norm", shape, dtype, data, offset, num_groups=1, **where)
    for dtype in OTHER_DTYPES:
        for shape, axis in (((3, 4, 35), 1), ((3, 35, 4), -1)):
            yield _case("batch_norm", shape, dtype, **RUNNING, **BOTH, channel_axis=axis)
            yield _case("batch_norm", shape, dtype, training=True, channel_axis=axis)
            yield _case("group_norm", shape, dtype, num_groups=2, **BOTH, channel_axis=axis)
            yield _case("instance_norm", shape, dtype, channel_axis=axis)


def _scalers() -> Iterator[Case]:
    for dtype in ("float32", "float64", "float16", "uint8", "int64", ">f4"):
        for shape, axis in SCALED:
            yield _case("standardize", shape, dtype, axis=axis)
            yield _case("standardize", shape, dtype, axis=axis, ddof=1)
            yield _case("min_max_scale", shape, dtype, axis=axis)
            yield _case("min_max_scale", shape, dtype, axis=axis, feature_range=(-2.5, 7.0))
            yield _case("max_abs_scale", shape, dtype, axis=axis)
        for shape, axis in (((9, 4097), -1), ((2, 33, 5, 7), 1), ((70, 3), 0)):
            yield _case("pixel_norm", shape, dtype, channel_axis=axis)
            yield _case("l2_normalize", shape, dtype, axis=axis)
            for p in (1, 2, 3, 0.5, np.inf):
                yield _case("lp_normalize", shape, dtype, axis=axis, p=p)
        for shape, axis in (((2, 7, 5, 3), 1), ((2, 5, 3, 7), -1), ((3, 11), 1)):
            yield _case("local_response_norm", shape, dtype, size=5, channel_axis=axis)
            yield _case("local_response_norm", shape, dtype, size=2, alpha=1.5, beta=0.5, k=2.0, channel_axis=axis)
    yield _case("local_response_norm", (3, 400, 400), size=3)
    yield _case("standardize", (500, 30), offset=1e4)


def _weights_and_clips() -> Iterator[Case]:
    for dtype in ("float32", "float64", "float16"):
        for axis in (0, 1, -1, None):
            yield _case("weight_norm", (6, 5, 3, 3), dtype, axis=axis, g=True)
        yield _case("weight_norm", (7, 4099), dtype, g=True)
        yield _case("weight_standardize", (6, 5, 3, 3), dtype)
        yield _case("weight_standardize", (2, 4099), dtype, eps=0)
        yield _case("clip_by_value", (7, 33), dtype, low=-0.5, high=0.75)
        for max_norm in (0.0, 1.5, 1e9):
            yield _case("clip_by_norm", (7, 33), dtype, max_norm=max_norm)
            yield _case("clip_by_norm", (7, 33), dtype, max_norm=max_norm, axis=-1)
            yield _case("clip_by_norm", (7, 3, 5), dtype, max_norm=max_norm, axis=(0, 2))
            yield _case("clip_by_global_norm", (7, 33), dtype, max_norm=max_norm)
        yield _case("fold_batch_norm", (6, 5, 3, 3), dtype, **RUNNING)
        yield _case("fold_batch_norm", (5, 6), dtype, **RUNNING, bias=True, gamma=True, beta=True, channel_axis=1)
    for dtype in ("float32", "float64"):
        yield _case("spectral_norm", (6, 5, 3, 3), dtype, u=True)
        yield _case("spectral_norm", (31, 64), dtype, u=True, n_power_iterations=7)


CASES = [*_line_norms(), *_channel_norms(), *_scalers(), *_weights_and_clips()]


# Backward passes


def build_backward(case: Case, rng: np.random.Generator) -> tuple[Array, Array, dict[str, Any]]:
    """Return dy, x and the keywords of the backward pass; the forward one takes these too."""
    (x,), kwargs = build(case, rng)
    kwargs.pop("bias", None)
    floating = x.dtype if x.dtype.kind not in "iub" else np.dtype(np.float32)
    return make_data(case.shape, "float64", "normal", 0.0, rng).astype(floating), x, kwargs


def named(result: Any) -> dict[str, Array]:
    """Return the gradients of a backward pass by name: "dx", "dweight" and so on, as far as there are any."""
    parts = {"dx": result} if isinstance(result, np.ndarray) else result._asdict()
    return {name: part for name, part in parts.items() if part is not None}


WEIGHT = {"weight": True}


def _backward_cases() -> Iterator[Case]:
    for dtype in ("float64", "float32"):
        for op in ("layer_norm", "rms_norm"):
            for shape in ((1, 1), (4, 7), (3, 33), (5, 768), (2, 4099)):
                yield _case(op, shape, dtype, **WEIGHT)
            yield _case(op, (5, 6), dtype)
            yield _case(op, (5, 6), dtype, eps=0)
            yield _case(op, (5, 6), dtype, eps=0.5, **WEIGHT)
            yield _case(op, (3, 5, 4), dtype, axis=1)
            yield _case(op, (3, 5, 4), dtype, axis=1, **WEIGHT)
            yield _case(op, (5, 300), dtype, axis=0, **WEIGHT)
            yield _case(op, (2, 3, 4, 2), dtype, axis=(-2, -1), **WEIGHT)
            yield _case(op, (8, 768), dtype, offset=100.0, **WEIGHT)
        for shape, axis in (((3, 4), 1), ((1, 6, 5), 1), ((3, 4, 5), 1), ((3, 5, 4), -1), ((2, 3, 4, 2), 2)):
            where = {"channel_axis": axis}
            yield _case("batch_norm", shape, dtype, **RUNNING, **WEIGHT, **where)
            yield _case("batch_norm", shape, dtype, **RUNNING, **where, eps=0)
            if len(shape) > 2 or shape[0] > 2:
                yield _case("batch_norm", shape, dtype, training=True, **WEIGHT, **where)
                yield _case("batch_norm", shape, dtype, training=True, **where, eps=0)
            yield _case("switchable_norm", shape, dtype, training=True, **MIXTURE, **WEIGHT, **where)
            yield _case("switchable_norm", shape, dtype, **MIXTURE, **RUNNING, **where, eps=0.5)
            yield _case("group_norm", shape, dtype, num_groups=1, **where)
            yield _case("local_response_norm", shape, dtype, size=3, alpha=1.5, **where)
            yield _case("local_response_norm", shape, dtype, size=2, alpha=1.5, beta=0.5, k=2.0, **where)
            yield _case("pixel_norm", shape, dtype, **where)
            yield _case("l2_normalize", shape, dtype, axis=axis)
            yield _case("l2_normalize", shape, dtype, axis=axis, eps=2.0)
            if len(shape) > 2:
                yield _case("instance_norm", shape, dtype, **where)
                yield _case("instance_norm", shape, dtype, **WEIGHT, **where)
                yield _case("group_norm", shape, dtype, num_groups=shape[axis] // 2, **WEIGHT, **where)
        for shape, axis in (((4, 6, 1031), 1), ((4, 1031, 6), -1), ((2, 40, 6, 33), 2)):
            where = {"channel_axis": axis}
            yield _case("batch_norm", shape, dtype, training=True, **WEIGHT, **where, offset=10.0)
            yield _case("switchable_norm", shape, dtype, training=True, **MIXTURE, **WEIGHT, **where)
            yield _case("instance_norm", shape, dtype, **WEIGHT, **where)
            yield _case("group_norm", shape, dtype, num_groups=2, **WEIGHT, **where)
            yield _case("pixel_norm", shape, dtype, **where)
            yield _case("local_response_norm", shape, dtype, size=5, **where)
            yield _case("l2_normalize", shape, dtype)


BACKWARD_CASES = list(_backward_cases())
