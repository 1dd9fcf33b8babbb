"""Bad arguments: a clear TypeError or ValueError that names function and argument, and nothing is changed."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from variants import BY_NUMPY

import fastnorm

Array = np.ndarray[Any, Any]

# Valid arguments of every public function; x is (4, 6, 5), and comes first: the others follow from it.
VECTOR = {"weight": (6,), "bias": (6,)}
RUNNING = {"running_mean": (6,), "running_var": (6,)}
BOTH = {"x": (4, 6, 5), "dy": (4, 6, 5)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "layer_norm": {"x": (4, 6, 5), "weight": (5,), "bias": (5,)},
    "rms_norm": {"x": (4, 6, 5), "weight": (5,), "bias": (5,)},
    "batch_norm": {"x": (4, 6, 5), **RUNNING, **VECTOR},
    "instance_norm": {"x": (4, 6, 5), **VECTOR},
    "group_norm": {"x": (4, 6, 5), **VECTOR},
    "switchable_norm": {"x": (4, 6, 5), "mean_weight": (3,), "var_weight": (3,), **VECTOR, **RUNNING},
    "pixel_norm": {"x": (4, 6, 5)},
    "l2_normalize": {"x": (4, 6, 5)},
    "lp_normalize": {"x": (4, 6, 5)},
    "local_response_norm": {"x": (4, 6, 5)},
    "normalize": {"x": (4, 5, 6), "mean": (6,), "var": (6,), **VECTOR},
    "standardize": {"x": (4, 6, 5)},
    "min_max_scale": {"x": (4, 6, 5)},
    "max_abs_scale": {"x": (4, 6, 5)},
    "weight_norm": {"v": (6, 5), "g": (6,)},
    "weight_standardize": {"w": (6, 5)},
    "spectral_norm": {"w": (6, 5), "u": (6,)},
    "clip_by_value": {"x": (4, 6, 5)},
    "clip_by_norm": {"x": (4, 6, 5)},
    "clip_by_global_norm": {"arrays": (4, 6, 5)},
    "fold_batch_norm": {"weight": (6, 5), "bias": (6,), **RUNNING, "gamma": (6,), "beta": (6,)},
    "moments": {"x": (4, 6, 5), "weights": (4, 6, 5), "where": (4, 6, 5)},
    "extrema": {"x": (4, 6, 5)},
    "layer_norm_backward": {**BOTH, "weight": (5,), "mean": (4, 6, 1), "rstd": (4, 6, 1)},
    "rms_norm_backward": {**BOTH, "weight": (5,), "rstd": (4, 6, 1)},
    "batch_norm_backward": {**BOTH, "weight": (6,), **RUNNING},
    "instance_norm_backward": {**BOTH, "weight": (6,), "mean": (4, 6, 1), "rstd": (4, 6, 1)},
    "group_norm_backward": {**BOTH, "weight": (6,), "mean": (4, 6, 1), "rstd": (4, 6, 1)},
    "switchable_norm_backward": {**BOTH, "mean_weight": (3,), "var_weight": (3,), "weight": (6,), **RUNNING},
    "pixel_norm_backward": {**BOTH, "rstd": (4, 1, 5)},
    "l2_normalize_backward": {**BOTH, "rstd": (4, 6, 1)},
    "local_response_norm_backward": {**BOTH, "rstd": (4, 6, 5)},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "group_norm": {"num_groups": 3},
    "lp_normalize": {"p": 3},
    "local_response_norm": {"size": 3},
    "clip_by_value": {"low": -1.0, "high": 1.0},
    "clip_by_norm": {"max_norm": 1.0},
    "clip_by_global_norm": {"max_norm": 1.0},
    "group_norm_backward": {"num_groups": 3},
    "local_response_norm_backward": {"size": 3},
}
FUNCTIONS = list(SHAPES)
SEVERAL_RESULTS = ("clip_by_global_norm", "fold_batch_norm")  # out= is a sequence
TRAINABLE = ("batch_norm", "switchable_norm")


def with_backward(*norms: str) -> list[str]:
    """Return the functions, and their backward passes as far as they have one."""
    return [name for norm in norms for name in (norm, f"{norm}_backward") if name in FUNCTIONS]


OF_BATCHES = with_backward("batch_norm", "instance_norm", "group_norm", "switchable_norm", "local_response_norm")


def takes(function: str, name: str) -> bool:
    return name in inspect.signature(getattr(fastnorm, function)).parameters


def valid(function: str) -> dict[str, Any]:
    """Return valid arguments by name, with out= and in training wherever a function knows these."""
    rng = np.random.default_rng(0)
    arguments: dict[str, Any] = {}
    for name, shape in SHAPES[function].items():
        values = rng.random(shape) + 0.5
        arguments[name] = values if "running" in name else values.astype(np.float32)
    if function == "moments":
        arguments["where"] = arguments["where"] > 0.6
    if function == "clip_by_global_norm":
        arguments["arrays"] = [arguments["arrays"], arguments["arrays"][0]]
    arguments |= OPTIONS.get(function, {})
    if function == "clip_by_global_norm":
        arguments["out"] = [np.full(array.shape, 7, np.float32) for array in arguments["arrays"]]
    elif function == "fold_batch_norm":
        arguments["out"] = (np.full((6, 5), 7, np.float32), np.full(6, 7, np.float32))
    elif takes(function, "out"):
        arguments["out"] = np.full(next(iter(SHAPES[function].values())), 7, np.float32)
    if function in TRAINABLE:
        arguments["training"] = True
    return arguments


def call(function: str, arguments: dict[str, Any]) -> Any:
    if function.endswith("_backward"):
        return getattr(fastnorm, function)(**arguments)
    first, *rest = arguments
    return getattr(fastnorm, function)(arguments[first], **{name: arguments[name] for name in rest})


def written(arguments: dict[str, Any]) -> list[bytes]:
    """Return the bytes of all that a call may write to."""
    given = [arguments.get(name) for name in ("out", "running_mean", "running_var")]
    arrays = [array for value in given for array in (value if isinstance(value, (list, tuple)) else (value,))]
    return [array.tobytes() for array in arrays if isinstance(array, np.ndarray)]


def refuse(function: str, error: type[Exception], *, name: str | None = None, **bad: Any) -> str:
    """Assert that the bad argument is refused by name, and nothing written; return the message."""
    arguments = valid(function) | bad
    before = written(arguments)
    with pytest.raises(error) as caught:
        call(function, arguments)
    assert type(caught.value) is error
    assert written(arguments) == before, "something was written"
    message = str(caught.value)
    assert function in message
    assert (name or next(iter(bad))) in message
    return message


def having(name: str) -> list[str]:
    return [function for function in FUNCTIONS if takes(function, name)]


def array_arguments() -> Iterator[tuple[str, str]]:
    for function, shapes in SHAPES.items():
        for name in shapes:
            if name != "where":
                yield function, name


def parameter_arguments() -> Iterator[tuple[str, str]]:
    """Yield the array arguments whose shape follows from the first."""
    for function, name in array_arguments():
        if name != next(iter(SHAPES[function])):
            yield function, name


def test_every_public_function_is_here() -> None:
    functions = {name for name in fastnorm.__all__ if inspect.isroutine(getattr(fastnorm, name))}
    settings = {"config", "explain", "get_num_threads", "set_num_threads", "show_config", "warm"}
    bytes_alone = {"normalize_image"}  # tests/test_image.py has its errors
    assert functions - settings - bytes_alone == set(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_valid_arguments_are_valid(function: str) -> None:
    call(function, valid(function))


# Dtypes and shapes of arrays


@pytest.mark.parametrize(("function", "name"), list(array_arguments()))
@pytest.mark.parametrize("dtype", [object, "U3", "S3", np.complex64, np.complex128, "M8[s]", "m8[s]"], ids=str)
def test_other_dtypes_than_of_real_numbers(function: str, name: str, dtype: Any) -> None:
    shape = SHAPES[function][name]
    bad: Any = np.full(shape, None) if dtype is object else np.zeros(shape, dtype)
    message = refuse(function, TypeError, **{name: [bad] if name == "arrays" else bad})
    assert str(np.dtype(dtype)) in message


@pytest.mark.parametrize("function", FUNCTIONS)
def test_ragged_sequences_and_things_that_are_no_arrays(function: str) -> None:
    first = next(iter(SHAPES[function]))
    for bad in ([[1.0, 2.0], [3.0]], {"a": 1}, "text", None, object()):
        refuse(function, TypeError, **{first: [bad] if first == "arrays" else bad})


@pytest.mark.parametrize(("function", "name"), list(parameter_arguments()))
def test_a_parameter_of_the_wrong_length(function: str, name: str) -> None:
    right = SHAPES[function][name]
    for wrong in ((right[0] + 1, *right[1:]), (1, 2, *right), right[1:] + (2,)):
        bad = np.ones(wrong)
        message = refuse(function, ValueError, **{name: bad})
        assert str(wrong) in message, "the shape it has"
        assert str(right) in message or (name == "g" and f"{right[0]} elements" in message), "the shape it needs"


def test_where_must_be_of_bool_and_broadcast() -> None:
    refuse("moments", TypeError, where=np.ones((4, 6, 5)))
    refuse("moments", ValueError, where=np.ones(4, bool))
    refuse("moments", ValueError, weights=np.full((4, 6, 5), -1.0))
    refuse("moments", ValueError, weights=np.full((4, 6, 5), np.nan))


@pytest.mark.parametrize("function", OF_BATCHES)
@pytest.mark.parametrize("shape", [(), (5,)])
def test_a_batch_has_two_dimensions_or_more(function: str, shape: tuple[int, ...]) -> None:
    assert str(shape) in refuse(function, ValueError, x=np.ones(shape, np.float32))


@pytest.mark.parametrize("function", ["weight_standardize", "spectral_norm"])
def test_a_layer_weight_has_two_dimensions_or_more(function: str) -> None:
    refuse(function, ValueError, w=np.ones(6, np.float32))


# Axes and groups


@pytest.mark.parametrize("function", having("axis"))
def test_axis_out_of_range_or_no_axis(function: str) -> None:
    ndim = len(next(iter(SHAPES[function].values())))
    for axis in (ndim, -ndim - 1, 10**20):
        assert str(axis) in refuse(function, ValueError, axis=axis)
    for bad in ("0", 1.0, np.float64(1), True, [0.5], object()):
        refuse(function, TypeError, axis=bad)
    if function in (*with_backward("layer_norm", "rms_norm"), "standardize", "moments", "extrema", "clip_by_norm"):
        refuse(function, ValueError, axis=(0, 0))
        refuse(function, ValueError, axis=(-1, ndim - 1))
        refuse(function, ValueError, axis=(0, ndim))
    if function in with_backward("layer_norm", "rms_norm"):
        refuse(function, ValueError, axis=(0, 2))
        refuse(function, ValueError, axis=())


@pytest.mark.parametrize("function", having("channel_axis"))
def test_channel_axis_out_of_range_or_no_axis(function: str) -> None:
    ndim = len(next(iter(SHAPES[function].values())))
    for axis in (ndim, -ndim - 1):
        assert str(axis) in refuse(function, ValueError, channel_axis=axis)
    for bad in ("1", 1.0, None, (1,), False):
        refuse(function, TypeError, channel_axis=bad)
    if function in OF_BATCHES:
        refuse(function, ValueError, channel_axis=0)
        refuse(function, ValueError, channel_axis=-ndim)


@pytest.mark.parametrize("function", with_backward("group_norm"))
def test_num_groups_that_do_not_divide_or_are_no_number(function: str) -> None:
    message = refuse(function, ValueError, num_groups=4)
    assert "6" in message
    for bad in (0, -3, 7, 12, 10**30, -(10**30)):
        refuse(function, ValueError, num_groups=bad)
    for bad in (3.0, "3", None, True):
        refuse(function, TypeError, num_groups=bad)


# Numbers


@pytest.mark.parametrize("function", having("eps"))
def test_eps(function: str) -> None:
    for bad in (-1e-5, -1, float("-inf"), float("nan"), np.float32("nan")):
        refuse(function, ValueError, eps=bad)
    for bad in ("1e-5", None, 1j, [1e-5], True, np.ones(1)):
        refuse(function, TypeError, eps=bad)


NUMBERS: list[tuple[str, str, list[Any], list[Any]]] = [
    ("batch_norm", "momentum", [-0.1, 1.1, float("nan")], ["0.1", None]),
    ("switchable_norm", "momentum", [-0.1, 1.1, float("nan")], ["0.1", None]),
    ("lp_normalize", "p", [0, -1, float("nan")], ["2", None, 2j]),
    *((function, "size", [0, -1], [3.0, "3", None]) for function in with_backward("local_response_norm")),
    *(
        (function, name, [float("nan")], ["1", None])
        for function in with_backward("local_response_norm")
        for name in ("alpha", "beta", "k")
    ),
    ("standardize", "ddof", [-1, 4, 5], ["1", None, 0.5]),
    ("moments", "ddof", [float("nan")], ["1", None]),
    ("min_max_scale", "feature_range", [(1, 0), (0, 0), (0, float("nan"))], [1, "ab", (0, 1, 2), ("0", 1), None]),
    ("clip_by_value", "low", [2.0, float("nan")], ["0", np.zeros(3)]),
    ("clip_by_value", "high", [-2.0, float("nan")], ["0", np.zeros(3)]),
    ("clip_by_norm", "max_norm", [-1, float("nan")], ["1", None]),
    ("clip_by_global_norm", "max_norm", [-1, float("nan")], ["1", None]),
    ("spectral_norm", "n_power_iterations", [0, -1], [1.0, "1", None]),
]


@pytest.mark.parametrize(("function", "name", "values", "types"), NUMBERS, ids=lambda value: str(value)[:30])
def test_other_numbers(function: str, name: str, values: list[Any], types: list[Any]) -> None:
    for bad in values:
        refuse(function, ValueError, **{name: bad})
    for bad in types:
        refuse(function, TypeError, **{name: bad})


def test_names_of_conventions_and_algorithms() -> None:
    for bad in ("caffe", "", None, 1, "Torch"):
        refuse("batch_norm", ValueError, convention=bad)
        refuse("moments", ValueError, algorithm=bad)


def test_clip_by_global_norm_of_numbers_that_are_not_finite() -> None:
    x = np.array([1.0, np.inf])
    with pytest.raises(ValueError, match=r"clip_by_global_norm: the norm of the arrays must be finite .*, got inf"):
        fastnorm.clip_by_global_norm([x], 1.0, error_if_nonfinite=True)
    assert fastnorm.clip_by_global_norm([x], 1.0).global_norm == np.inf


def test_flags_are_bools() -> None:
    for function, name in (
        ("moments", "keepdims"),
        ("extrema", "keepdims"),
        ("clip_by_global_norm", "error_if_nonfinite"),
    ):
        for bad in ("no", 1, None):
            refuse(function, TypeError, **{name: bad})


@pytest.mark.parametrize("name", ["return_stats", "return_residual"])
def test_what_else_is_wanted_is_said_by_bools(name: str) -> None:
    for function in having(name):
        for bad in ("no", 1, None, np.array([True, False])):
            refuse(function, TypeError, **{name: bad})


def test_extrema_of_nothing() -> None:
    for shape, axis in (((0,), None), ((3, 0), 1), ((0, 3), 0)):
        with pytest.raises(ValueError, match="extrema: a line without elements"):
            fastnorm.extrema(np.empty(shape), axis=axis)


# out=, dtype=, backend=


@pytest.mark.parametrize("function", [name for name in having("out") if name not in SEVERAL_RESULTS])
def test_out(function: str) -> None:
    out = valid(function)["out"]
    message = refuse(function, ValueError, out=np.zeros((*out.shape, 2), np.float32))
    assert str(out.shape) in message
    assert str((*out.shape, 2)) in message
    refuse(function, ValueError, out=np.zeros(out.shape[::-1], np.float32))
    refuse(function, TypeError, out=np.zeros(out.shape))
    refuse(function, TypeError, out=np.zeros(out.shape, ">f4"))
    refuse(function, TypeError, out=np.zeros(out.shape, np.int32))
    refuse(function, TypeError, out=out.tolist())
    refuse(function, TypeError, out=(out,))
    assert "masked" in refuse(function, TypeError, out=np.ma.array(np.zeros_like(out), mask=True))
    refuse(function, TypeError, out=np.zeros(out.shape, np.float32), dtype="float64", name="out")
    out.flags.writeable = False
    refuse(function, ValueError, out=out)


@pytest.mark.parametrize("sequence", [list, tuple])
@pytest.mark.parametrize("function", SEVERAL_RESULTS)
def test_out_of_several_results(function: str, sequence: Callable[..., Any]) -> None:
    first, second = valid(function)["out"]
    call(function, valid(function) | {"out": sequence([first, second])})
    assert "a sequence of numpy.ndarray, got ndarray" in refuse(function, TypeError, out=first)
    refuse(function, TypeError, out=iter([first, second]))
    assert "got 1" in refuse(function, ValueError, out=sequence([first]))
    assert "got 3" in refuse(function, ValueError, out=sequence([first, second, second.copy()]))
    refuse(function, TypeError, out=sequence([first, second.tolist()]))
    refuse(function, TypeError, out=sequence([first, second.astype(np.float64)]))
    message = refuse(function, ValueError, out=sequence([first, np.zeros((9, 2), np.float32)]))
    assert str(second.shape) in message
    assert "(9, 2)" in message
    shared = first.ravel()[: second.size].reshape(second.shape)
    assert "share memory" in refuse(function, ValueError, out=sequence([first, shared]))
    second.flags.writeable = False
    refuse(function, ValueError, out=sequence([first, second]))


@pytest.mark.parametrize("function", having("dtype"))
def test_dtype(function: str) -> None:
    for bad in (
        "int32",
        np.complex64,
        object,
        "float128",
        "no dtype",
        3.5,
        (np.float32, "a"),
        np.array(["bfloat16", "x"]),
    ):
        assert "dtype must be" in refuse(function, TypeError, dtype=bad)


@pytest.mark.parametrize("function", having("backend"))
def test_backend(function: str) -> None:
    for bad in ("fast", "", "Cython", 1):
        refuse(function, ValueError, backend=bad)
    assert "cuda" in refuse(function, TypeError, backend="cuda")


@pytest.mark.parametrize("function", BY_NUMPY)
@pytest.mark.parametrize("name", ["cython", "numba"])
def test_a_backend_without_kernels_for_the_function_fails_loudly(function: str, name: str) -> None:
    assert name in refuse(function, RuntimeError, backend=name)
    with fastnorm.config(backend=name), pytest.raises(RuntimeError, match=f"{function}: NumPy computes it"):
        call(function, valid(function))
    with fastnorm.config(backend=name), pytest.raises(RuntimeError, match=f"{function}: NumPy computes it"):
        fastnorm.explain(function, (4, 6, 5))
    call(function, valid(function) | {"backend": "reference"})


def test_every_norm_takes_the_common_keywords() -> None:
    for function in FUNCTIONS:
        if function not in ("moments", "extrema"):
            for keyword in ("out", "dtype", "return_stats", "backend"):
                if keyword != "return_stats" or not function.endswith("_backward"):
                    assert takes(function, keyword), f"{function} lacks {keyword}"


# Running statistics


@pytest.mark.parametrize("function", TRAINABLE)
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_cannot_be_updated(function: str, name: str) -> None:
    for bad in (np.ones(6, int), np.ones(6, bool), [1.0] * 6, 1.0, np.ones(6, np.complex64)):
        refuse(function, TypeError, **{name: bad})
    for wrong in ((5,), (7,), (6, 1), (1, 6), ()):
        message = refuse(function, ValueError, **{name: np.ones(wrong)})
        assert str(wrong) in message
        assert "(6,)" in message
    assert "masked" in refuse(function, TypeError, **{name: np.ma.array(np.ones(6), mask=[1, 0, 0, 0, 0, 0])})
    frozen = np.ones(6)
    frozen.flags.writeable = False
    assert "read-only" in refuse(function, ValueError, **{name: frozen})


@pytest.mark.parametrize("function", TRAINABLE)
def test_running_statistics_are_needed_in_inference(function: str) -> None:
    for name in ("running_mean", "running_var"):
        refuse(function, ValueError, training=False, name=name, **{name: None})


def test_arguments_that_look_like_others() -> None:
    x = np.ones((4, 6), np.float32)
    with pytest.raises(TypeError, match="moments: axis"):
        fastnorm.moments(x, axis="")
    with pytest.raises(ValueError, match="layer_norm: quantize must be"):
        fastnorm.layer_norm(x, quantize=np.array(["int8", "int8"]))
    with pytest.raises(ValueError, match="weight_norm: g must have 4 elements along one axis"):
        fastnorm.weight_norm(x, np.ones((2, 2)))
    with pytest.raises(ValueError, match="min_max_scale: feature_range must be finite"):
        fastnorm.min_max_scale(x, feature_range=(0.0, np.inf))
    with fastnorm.config(backend="cuda"), pytest.raises(TypeError, match="spectral_norm: the cuda backend"):
        fastnorm.spectral_norm(x)
