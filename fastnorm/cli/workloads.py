"""The demo's data, which come inside scikit-learn's package, and its table: each norm on the data people meet it on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.cli import numpy_norms

# Of ImageNet's training images scaled to [0, 1]; what image models trained on ImageNet expect.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# Of the same pixels as bytes, from 0 to 255.
BYTE_MEAN, BYTE_VAR = IMAGENET_MEAN * 255, np.square(IMAGENET_STD * 255)


class MissingExtraError(ImportError):
    """A package that only the demo needs is not installed; the message says how to install it."""


def import_extra(module: str, package: str) -> Any:
    """
    Import a module of a package that only the demo needs.

    Parameters
    ----------
    module : str
        What to import.
    package : str
        What it is called where one installs it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"the demo needs {package}, which could not be imported ({error}): pip install 'fastnorm[demo]'"
        ) from error


@dataclass(frozen=True)
class Data:
    """
    The demo's data.

    Attributes
    ----------
    photographs : ndarray of uint8, shape (2, 427, 640, 3)
        Two photographs, RGB.
    digits : ndarray of float32, shape (1797, 64)
        Handwritten digits, 8 by 8 pixels from 0 to 16.
    labels : ndarray of int64, shape (1797,)
        Which digit each is.
    """

    photographs: NDArray[np.uint8]
    digits: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_data() -> Data:
    """
    Load the photographs and the digits from scikit-learn's package; nothing is downloaded.

    Returns
    -------
    Data
        The photographs and the digits.

    Raises
    ------
    MissingExtraError
        If scikit-learn, or Pillow with which it reads the photographs, is not installed.
    """
    datasets = import_extra("sklearn.datasets", "scikit-learn")
    import_extra("PIL.Image", "Pillow")
    digits, labels = datasets.load_digits(return_X_y=True)
    return Data(
        photographs=np.stack(datasets.load_sample_images().images),
        digits=digits.astype(np.float32),
        labels=labels.astype(np.int64),
    )


def split_into_patches(images: NDArray[Any], size: int) -> NDArray[Any]:
    """
    Cut images into square patches, each one row: what a vision transformer reads.

    Parameters
    ----------
    images : ndarray, shape (count, height, width, channels)
        What does not fill a patch at the lower and right edge is dropped.
    size : int
        Side of a patch in pixels.

    Returns
    -------
    ndarray, shape (count, patches, size * size * channels)
        The patches, row by row.
    """
    count, height, width, channels = images.shape
    down, across = height // size, width // size
    blocks = images[:, : down * size, : across * size].reshape(count, down, size, across, size, channels)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2, 4, 5)).reshape(count, down * across, -1)


def space_to_depth(images: NDArray[Any], size: int) -> NDArray[Any]:
    """
    Turn square blocks of pixels into channels: feature maps with many channels, made of real pixels.

    Parameters
    ----------
    images, size : ndarray and int
        As of `split_into_patches`, a patch being a block.

    Returns
    -------
    ndarray, shape (count, height // size, width // size, size * size * channels)
        The feature maps, channels last.
    """
    count, height, width, _ = images.shape
    return split_into_patches(images, size).reshape(count, height // size, width // size, -1)


@dataclass(frozen=True)
class Row:
    """
    One norm on one array, three times over.

    Attributes
    ----------
    name : str
        What the row is called in the table.
    op : str
        The function's name in fastnorm.
    shape, dtype : tuple of int, str
        Of the array that is normalized.
    numpy, fastnorm : callable
        Compute it with NumPy and with fastnorm; no arguments, an array or a tuple of arrays returned.
    truth : callable
        Compute it with NumPy in float64.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    numpy: Callable[[], Any]
    fastnorm: Callable[[], Any]
    truth: Callable[[], Any]


def _in_float64(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    return [_in_float64(part) for part in value] if isinstance(value, list) else value


def _own_copies(value: Any) -> Any:
    """Copy parameters, so that training with one library does not change the other's running statistics."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _make_row(
    norms: ModuleType,
    name: str,
    op: str,
    x: Any,
    *arguments: Any,
    result: Callable[[Any], Any] | None = None,
    **keywords: Any,
) -> Row:
    def call(functions: ModuleType, convert: Callable[[Any], Any], read: Any) -> Callable[[], Any]:
        function = getattr(functions, op)
        own = [convert(argument) for argument in arguments]
        if result is None:
            return lambda: function(read, *own, **keywords)
        return lambda: result(function(read, *own, **keywords))

    def truth() -> Any:
        # Converted only now: the float64 copies of all rows together would be large.
        return call(numpy_norms, _in_float64, _in_float64(x))()

    first = x[0] if isinstance(x, list) else x
    return Row(
        name=name,
        op=op,
        shape=first.shape,
        dtype=str(first.dtype),
        numpy=call(numpy_norms, _own_copies, x),
        fastnorm=call(norms, _own_copies, x),
        truth=truth,
    )


def _channel_parameters(
    x: NDArray[Any], channel_axis: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], ...]:
    """Make the running mean and variance of `x`, and a weight and bias as training leaves them, near 1 and 0."""
    axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis % x.ndim)
    channels: int = x.shape[channel_axis]
    return (
        np.asarray(x.mean(axis=axes, dtype=np.float64), dtype=np.float32),
        np.asarray(x.var(axis=axes, dtype=np.float64), dtype=np.float32),
        (1 + 0.1 * generator.standard_normal(channels)).astype(np.float32),
        (0.1 * generator.standard_normal(channels)).astype(np.float32),
    )


def rows(norms: ModuleType, data: Data) -> list[Row]:
    """
    Make the table: each norm of the family on the data in the shape in which people meet it.

    Photographs are float32 batches scaled to [0, 1], channels first (NCHW) and last (NHWC). Norms that want many
    channels get feature maps, 4 by 4 blocks of pixels turned into 48 channels; norms of rows get the 2,080 patches of
    16 by 16 pixels (768 values, a vision transformer's tokens) and the digits (64 values). Norms of weights get 768 of
    the patches as a bank of filters.

    Parameters
    ----------
    norms : module
        `fastnorm`, or another namespace with its functions.
    data : Data
        From `load_data`.

    Returns
    -------
    list of Row
        The table's rows.
    """
    return list(_rows(norms, data))


def _rows(norms: ModuleType, data: Data) -> Iterator[Row]:
    generator = np.random.default_rng(0)

    def row(name: str, op: str, x: Any, *arguments: Any, **keywords: Any) -> Row:
        return _make_row(norms, name, op, x, *arguments, **keywords)

    def parameters(x: NDArray[Any], channel_axis: int) -> tuple[NDArray[np.float32], ...]:
        return _channel_parameters(x, channel_axis, generator)

    digits = data.digits
    photographs = data.photographs.astype(np.float32) / np.float32(255)
    photographs_first = np.ascontiguousarray(photographs.transpose(0, 3, 1, 2))
    features = space_to_depth(photographs, 4)
    features_first = np.ascontiguousarray(features.transpose(0, 3, 1, 2))
    patches = split_into_patches(photographs, 16).reshape(-1, 16 * 16 * 3)
    filter_count = min(768, len(patches))
    filters = np.ascontiguousarray(patches[:filter_count].reshape(-1, 16, 16, 3).transpose(0, 3, 1, 2))

    for name, x in (("patches", patches), ("digits", digits)):
        _, _, weight, bias = parameters(x, -1)
        yield row(f"layer_norm, {name}", "layer_norm", x, weight, bias)
    for name, x in (("patches", patches), ("digits", digits)):
        yield row(f"rms_norm, {name}", "rms_norm", x, parameters(x, -1)[2])

    for name, x, channel_axis in (
        ("photographs NCHW", photographs_first, 1),
        ("photographs NHWC", photographs, -1),
        ("features NCHW", features_first, 1),
        ("digits", digits, 1),
    ):
        own = parameters(x, channel_axis)
        yield row(f"batch_norm eval, {name}", "batch_norm", x, *own, channel_axis=channel_axis)
    for name, x, channel_axis in (
        ("features NCHW", features_first, 1),
        ("features NHWC", features, -1),
        ("digits", digits, 1),
    ):
        own = parameters(x, channel_axis)
        yield row(f"batch_norm train, {name}", "batch_norm", x, *own, training=True, channel_axis=channel_axis)
    for name, x, channel_axis in (("photographs NCHW", photographs_first, 1), ("features NHWC", features, -1)):
        _, _, weight, bias = parameters(x, channel_axis)
        yield row(f"instance_norm, {name}", "instance_norm", x, weight, bias, channel_axis=channel_axis)

    both_layouts = (("features NCHW", features_first, 1), ("features NHWC", features, -1))
    for name, x, channel_axis in both_layouts:
        _, _, weight, bias = parameters(x, channel_axis)
        yield row(f"group_norm of 16, {name}", "group_norm", x, 16, weight, bias, channel_axis=channel_axis)
    logits = np.array([0.5, 0.0, -0.5], dtype=np.float32)
    for name, x, channel_axis in both_layouts:
        mean, var, weight, bias = parameters(x, channel_axis)
        yield row(
            f"switchable_norm, {name}",
            "switchable_norm",
            x,
            *(logits, logits[::-1].copy(), weight, bias, mean, var),
            channel_axis=channel_axis,
        )
    for name, x, channel_axis in both_layouts:
        yield row(f"pixel_norm, {name}", "pixel_norm", x, channel_axis=channel_axis)
    yield row("local_response_norm, features NCHW", "local_response_norm", features_first, 5, k=2.0)

    yield row("l2_normalize, patches", "l2_normalize", patches)
    yield row("l2_normalize, digits", "l2_normalize", digits)
    yield row("lp_normalize p=1, digits", "lp_normalize", digits, p=1)

    # Statistics of the pixels' own scale, so that the photographs' bytes go in as they are.
    yield row("normalize, photographs uint8", "normalize", data.photographs, BYTE_MEAN, BYTE_VAR, eps=0.0)
    unit_var = np.square(IMAGENET_STD)
    yield row("normalize, photographs NCHW", "normalize", photographs_first, IMAGENET_MEAN, unit_var, channel_axis=1)
    yield row("standardize, patches", "standardize", patches)
    yield row("standardize, digits", "standardize", digits)
    yield row("min_max_scale, digits", "min_max_scale", digits)
    yield row("max_abs_scale, digits", "max_abs_scale", digits)
    mean_and_var = attrgetter("mean", "var")
    yield row("moments, photographs NHWC", "moments", photographs, axis=(0, 1, 2), result=mean_and_var)
    yield row("moments, patches", "moments", patches, axis=-1, result=mean_and_var)

    lengths = np.ones((filter_count, 1, 1, 1), dtype=np.float32)
    yield row("weight_norm, filters", "weight_norm", filters, lengths)
    yield row("weight_standardize, filters", "weight_standardize", filters)
    start = generator.standard_normal(filter_count).astype(np.float32)
    yield row("spectral_norm, filters", "spectral_norm", filters, start / np.linalg.norm(start))
    # Half of the rows are longer than the median length and are clipped, half are not.
    median_length = float(np.median(np.linalg.norm(patches, axis=-1)))
    yield row("clip_by_norm, patches", "clip_by_norm", patches, median_length, axis=-1)
    yield row("clip_by_global_norm, all", "clip_by_global_norm", [features_first, patches, digits], 1.0)
