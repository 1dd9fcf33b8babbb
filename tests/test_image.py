"""Images of bytes, against the formula in float64, on every backend."""

from typing import Any

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]
SHAPES = [(1, 1), (5, 7), (2, 33, 31), (3, 100, 90), (1, 300, 257)]


def pixels(*shape: int) -> Array:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def formula(image: Array, mean: Any, std: Any, layout: str) -> Array:
    values = image.astype(np.float64)
    if mean is None:
        mean, std = (part(values, axis=(-3, -2), keepdims=True) for part in (np.mean, np.std))
        values = np.where(std > 0, (values - mean) / np.where(std > 0, std, 1), 0)
    else:
        values = (values / 255 - mean) / std
    return np.moveaxis(values, -1, -3) if layout == "NCHW" else values


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "own"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_form(shape: tuple[int, ...], channels: int, given: bool, layout: Any, dtype: str, backend: str) -> None:
    image = pixels(*shape, channels)
    rng = np.random.default_rng(channels)
    mean, std = (rng.uniform(0.3, 0.6, channels), rng.uniform(0.1, 0.3, channels)) if given else (None, None)
    y = fastnorm.normalize_image(image, mean, std, layout=layout, dtype=dtype, backend=backend)
    expected = formula(image, mean, std, layout)
    assert (y.dtype, y.shape, y.flags.c_contiguous) == (np.dtype(dtype), expected.shape, True)
    # Three roundings in float32 and that of the centre, whose rest is added; float16 adds one.
    error = 4 * 2.0**-24 * np.maximum(1, np.abs(expected)) + (2.0**-11 * np.abs(expected) if dtype == "float16" else 0)
    assert (np.abs(y - expected) <= error + 2.0**-25).all()
    out = np.full_like(y, np.nan)
    assert fastnorm.normalize_image(image, mean, std, layout=layout, dtype=dtype, backend=backend, out=out) is out
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_more_channels_than_a_kernel_rounds_at_a_time(layout: Any, backend: str) -> None:
    image = pixels(2, 3, 4099)
    mean, std = np.linspace(0.3, 0.6, 4099), np.linspace(0.1, 0.3, 4099)
    y = fastnorm.normalize_image(image, mean, std, layout=layout, dtype="float16", backend=backend)
    expected = formula(image, mean, std, layout)
    np.testing.assert_allclose(y, expected, rtol=2.0**-11 + 4 * 2.0**-24, atol=4 * 2.0**-24 + 2.0**-25)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3, 5, 4099])
def test_plain_calls_have_a_fast_path_of_the_same_bits(
    channels: int, layout: Any, dtype: Any, kernels: str, calls: list[bool]
) -> None:
    image = pixels(2, 3, 11, channels)
    mean, std = np.linspace(0.3, 0.6, channels), np.linspace(0.1, 0.3, channels)
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            y = fastnorm.normalize_image(image, mean, std, layout=layout, dtype=dtype)
            general = fastnorm.normalize_image(image, mean, std, layout=layout, dtype=dtype, backend="cython")
        assert (y.dtype, y.shape) == (general.dtype, general.shape)
        assert y.tobytes() == general.tobytes()
    out = np.empty_like(y)
    assert fastnorm.normalize_image(image, list(mean), tuple(std), layout=layout, dtype=dtype, out=out) is out
    np.testing.assert_array_equal(out, y)
    assert all(calls)
    calls.clear()
    np.testing.assert_array_equal(
        fastnorm.normalize_image(np.asfortranarray(image), mean, std, layout=layout, dtype=dtype), y
    )
    with fastnorm.config(backend="cython"):
        fastnorm.normalize_image(image, mean, std, layout=layout, dtype=dtype)
    with pytest.raises(ValueError, match="std must be above 0"):
        fastnorm.normalize_image(image, mean, std * 0, layout=layout, dtype=dtype)
    assert not any(calls)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_views_of_images_and_of_outputs(layout: Any, backend: str) -> None:
    image = pixels(20, 30, 3)[::2, ::-1]
    expected = fastnorm.normalize_image(image.copy(), layout=layout, backend=backend)
    np.testing.assert_array_equal(fastnorm.normalize_image(image, layout=layout, backend=backend), expected)
    out = np.full((*expected.shape, 2), np.nan, np.float32)[..., 0]
    assert fastnorm.normalize_image(image, layout=layout, backend=backend, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_output_that_is_not_aligned(layout: Any, dtype: str, backend: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (8, 9, 3), np.uint8)
    expected = fastnorm.normalize_image(image, layout=layout, dtype=dtype, backend=backend)
    out = np.zeros(expected.nbytes + 1, np.uint8)[1:].view(dtype).reshape(expected.shape)
    assert fastnorm.normalize_image(image, out=out, layout=layout, dtype=dtype, backend=backend) is out
    np.testing.assert_array_equal(out, expected)


def test_each_image_of_a_batch_has_its_own_statistics(backend: str) -> None:
    images = pixels(3, 70, 80, 3) // np.array([1, 2, 4], np.uint8).reshape(3, 1, 1, 1)
    together = fastnorm.normalize_image(images, backend=backend)
    for image, y in zip(images, together, strict=True):
        np.testing.assert_array_equal(fastnorm.normalize_image(image, backend=backend), y)


def test_a_channel_of_one_colour_is_zero(backend: str) -> None:
    image = pixels(9, 9, 3)
    image[..., 1] = 200
    y = fastnorm.normalize_image(image, backend=backend)
    np.testing.assert_array_equal(y[1], 0)
    assert y[0].any()


def test_the_sums_of_a_large_bright_image_do_not_overflow(backend: str) -> None:
    """257 x 258 pixels of 255 or 254: their squares fill 32 bits."""
    image = np.full((257, 258, 1), 255, np.uint8)
    image[::2] = 254
    y = fastnorm.normalize_image(image, backend=backend)
    np.testing.assert_allclose(y[0], formula(image, None, None, "NCHW")[0], rtol=4 * 2.0**-24)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1e-41), (4e36, 1e38), (0.0, 1e-36), (-1e37, 1e35)])
def test_what_float32_cannot_hold_on_the_way(mean: float, std: float, backend: str) -> None:
    image = np.array([0, 1, 2, 255], np.uint8).reshape(1, 4, 1)
    with np.errstate(over="ignore"):
        expected = ((image / 255 - mean) / std).astype(np.float32)
    for given in (backend, None):
        for layout in ("NCHW", "NHWC"):
            found = fastnorm.normalize_image(image, [mean], [std], layout=layout, backend=given)
            np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-6)


def test_max_value_is_what_stands_for_one() -> None:
    image = pixels(4, 4, 3)
    expected = fastnorm.normalize_image(image, [0.25] * 3, [0.5] * 3, max_value=1)
    np.testing.assert_allclose(expected, np.moveaxis((image - 0.25) / 0.5, -1, 0), rtol=4 * 2.0**-24)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 0, 3), (4, 4, 0)], ids=str)
def test_no_pixels(shape: tuple[int, ...]) -> None:
    channels = shape[-1]
    y = fastnorm.normalize_image(np.empty(shape, np.uint8), np.zeros(channels), np.ones(channels))
    assert y.shape == (*shape[:-3], channels, *shape[-3:-1])


IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.zeros((2, 2, 3)),), {}, TypeError, "image must be of uint8, got float64"),
        ((np.zeros((2, 2), np.uint8),), {}, ValueError, r"image must have shape \(H, W, C\) or .*got \(2, 2\)"),
        ((IMAGE, [0.5]), {}, ValueError, "mean and std must be given together"),
        ((IMAGE, [0.5] * 2, [0.5] * 3), {}, ValueError, r"mean must have shape \(3,\), got \(2,\)"),
        ((IMAGE, [0.5] * 3, [0.5, 0, 0.5]), {}, ValueError, "std must be above 0"),
        ((IMAGE,), {"layout": "CHW"}, ValueError, "layout must be one of NCHW, NHWC, got 'CHW'"),
        ((IMAGE,), {"dtype": np.float64}, TypeError, "dtype must be float32 or float16, got float64"),
        ((IMAGE,), {"max_value": 0}, ValueError, "max_value must be above 0, got 0"),
        ((IMAGE,), {"out": np.zeros((2, 2, 3), np.float32)}, ValueError, "out must have the shape of the result"),
        ((IMAGE,), {"out": np.zeros((3, 2, 2))}, TypeError, "out must have the dtype of the result"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"normalize_image: {message}"):
        fastnorm.normalize_image(*arguments, **options)


def test_what_images_refuse(backend: str) -> None:
    image = pixels(4, 4, 3)
    for std in ([-1.0, 1, 1], [np.nan, 1, 1]):
        with pytest.raises(ValueError, match="std must be above 0"):
            fastnorm.normalize_image(image, [0.0] * 3, std, backend=backend)
    with pytest.raises(ValueError, match="image must have shape"):
        fastnorm.normalize_image(image[np.newaxis, np.newaxis], [0.0] * 3, [1.0] * 3, backend=backend)


def test_an_image_in_the_memory_of_its_result(backend: str) -> None:
    image, out = pixels(4, 4, 3), np.zeros((3, 4, 4), np.float32)
    shared = out.reshape(-1).view(np.uint8)[:48].reshape(4, 4, 3)
    shared[...] = image
    expected = fastnorm.normalize_image(image, [0.5] * 3, [0.2] * 3, backend=backend)
    found = fastnorm.normalize_image(shared, [0.5] * 3, [0.2] * 3, out=out, backend=backend)
    np.testing.assert_array_equal(found, expected)
