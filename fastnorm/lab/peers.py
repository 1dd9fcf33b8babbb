"""Other libraries that compute variances and layer norms, as their users call them; a peer is one row of a table."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnorm

Array = npt.NDArray[Any]
Call = Callable[[], Any]

EPSILON = 1e-5
ALL = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, and how to call it.

    Attributes
    ----------
    name : str
        What it is called where one installs it.
    modules : tuple of str
        What must be importable.
    dtypes : tuple of str
        What it computes in.
    prepare : callable
        Takes the data in their dtype, converts them to the library's own array, and returns a callable without
        arguments that computes: the mean and the standard deviation (n - 1) of a line, or the layer norm of rows.
    """

    name: str
    modules: tuple[str, ...]
    dtypes: tuple[str, ...]
    prepare: Callable[[Array], Call]


def installed(peer: Peer) -> bool:
    """Whether the modules of a peer can be imported.

    Examples
    --------
    >>> from fastnorm.lab import VARIANCE_PEERS, installed
    >>> VARIANCE_PEERS[0].name, installed(VARIANCE_PEERS[0])
    ('numpy', True)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for module in peer.modules:
                importlib.import_module(module)
        except (ImportError, OSError):  # OSError: a shared library that the package needs is missing
            return False
    return True


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages, and of "python", in this order; what is not installed is left out."""
    known = {"fastnorm": fastnorm.__version__, "python": platform.python_version()}
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = known.get(name) or importlib.metadata.version(name)
    return found


def _numpy_variance(x: Array) -> Call:
    return lambda: (x.mean(), x.std(ddof=1))


def _torch_variance(x: Array) -> Call:
    torch = importlib.import_module("torch")
    tensor = torch.from_numpy(x)

    def compute() -> tuple[float, float]:
        sd, mean = torch.std_mean(tensor, correction=1)
        return mean.item(), sd.item()

    return compute


def _with_jax(function: Callable[..., Any], x: Array) -> Call:
    """Compile a function for jax; float64, which is off by default, is allowed where the data are float64."""
    jax = importlib.import_module("jax")
    double = x.dtype == np.float64
    with jax.enable_x64(double):
        array, compiled = jax.numpy.asarray(x), jax.jit(function)

    def compute() -> Any:
        with jax.enable_x64(double):
            return jax.block_until_ready(compiled(array))

    return compute


def _jax_variance(x: Array) -> Call:
    return _with_jax(lambda array: (array.mean(), array.std(ddof=1)), x)


def _scaler_variance(x: Array) -> Call:
    preprocessing = importlib.import_module("sklearn.preprocessing")
    column, count = x.reshape(-1, 1), x.size

    def compute() -> tuple[float, float]:
        scaler = preprocessing.StandardScaler().fit(column)
        return scaler.mean_[0], np.sqrt(scaler.var_[0] * (count / (count - 1)))

    return compute


def _bottleneck_variance(x: Array) -> Call:
    bottleneck = importlib.import_module("bottleneck")
    return lambda: (bottleneck.nanmean(x), bottleneck.nanstd(x, ddof=1))


def _pandas_variance(x: Array) -> Call:
    series = importlib.import_module("pandas").Series(x)
    return lambda: (series.mean(), series.std())


def _numpy_layer_norm(x: Array) -> Call:
    def compute() -> Array:
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        result: Array = (x - mean) / np.sqrt(variance + x.dtype.type(EPSILON))
        return result

    return compute


def _torch_layer_norm(x: Array) -> Call:
    torch = importlib.import_module("torch")
    tensor = torch.from_numpy(x)
    return lambda: torch.nn.functional.layer_norm(tensor, tensor.shape[-1:], eps=EPSILON)


def _jax_layer_norm(x: Array) -> Call:
    lax = importlib.import_module("jax.lax")

    def layer_norm(array: Any) -> Any:
        mean, variance = array.mean(axis=-1, keepdims=True), array.var(axis=-1, keepdims=True)
        return (array - mean) * lax.rsqrt(variance + EPSILON)

    return _with_jax(layer_norm, x)


def _onnxruntime_layer_norm(x: Array) -> Call:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a measurement should tell nobody
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    kind, width = onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape[-1]
    describe = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1, epsilon=EPSILON)
    graph = onnx.helper.make_graph(
        [node],
        "layer_norm",
        [describe("x", kind, [None, width]), describe("scale", kind, [width])],
        [describe("y", kind, [None, width])],
    )
    # LayerNormalization is of opset 17; runtimes lag behind the newest version of the format.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"x": x, "scale": np.ones(width, x.dtype)}
    return lambda: session.run(None, inputs)[0]


VARIANCE_PEERS = (
    Peer("numpy", ("numpy",), ALL, _numpy_variance),
    Peer("torch", ("torch",), ALL, _torch_variance),
    Peer("jax", ("jax",), ALL, _jax_variance),
    Peer("scikit-learn", ("sklearn.preprocessing",), ALL, _scaler_variance),
    Peer("bottleneck", ("bottleneck",), ("float32", "float64"), _bottleneck_variance),
    Peer("pandas", ("pandas",), ALL, _pandas_variance),
)

LAYER_NORM_PEERS = (
    Peer("numpy", ("numpy",), ALL, _numpy_layer_norm),
    Peer("torch", ("torch",), ALL, _torch_layer_norm),
    Peer("onnxruntime", ("onnxruntime", "onnx"), ALL, _onnxruntime_layer_norm),
    Peer("jax", ("jax",), ALL, _jax_layer_norm),
)
