"""Images of bytes, normalised for a network."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastnorm import arguments, calls
from fastnorm.dispatch import choose
from fastnorm.dtypes import find_dtype
from fastnorm.fast_path import fast_path
from fastnorm.memory import empty
from fastnorm.ranges import LARGEST_MAX, SMALLEST_MAX

Array = npt.NDArray[Any]

LAYOUTS = ("NCHW", "NHWC")
DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


def normalize_image(
    image: npt.ArrayLike,
    mean: npt.ArrayLike | None = None,
    std: npt.ArrayLike | None = None,
    *,
    max_value: float = 255.0,
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    out: Array | None = None,
    dtype: npt.DTypeLike | None = np.float32,
    backend: str | None = None,
) -> Array:
    """Turn images of bytes into what a network reads: ``(image / max_value - mean) / std``, in one pass.

    What ``torchvision.transforms``' ``ToTensor`` and ``Normalize`` do together.

    Parameters
    ----------
    image : array_like of uint8
        (H, W, C), or (N, H, W, C).
    mean, std : array_like, optional
        (C,), as shares of `max_value`; ImageNet's mean is (0.485, 0.456, 0.406). Without them each image's own, of each
        channel; a channel of one colour gives 0.
    max_value : float, default 255
        The byte that stands for 1.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Where the result has its channels: (N, C, H, W) or (C, H, W); or where the image has them.
    out : ndarray, optional
        Where to put the result, C-contiguous.
    dtype : dtype, default float32
        float32 or float16.
    backend : str, optional
        As in `layer_norm`; what has no kernels of its own leaves it to NumPy.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        The image is not of uint8, or mean and std not of a real number dtype; another dtype or that of `out`.
    ValueError
        A shape or a layout that does not fit; std or max_value not above 0; mean or std without the other.
    RuntimeError
        The backend that is asked for cannot run here.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> image = np.array([[[0, 255], [255, 0]]], np.uint8)  # (1, 2, 2): a row of two pixels of two channels
    >>> fastnorm.normalize_image(image, [0.5, 0.5], [0.5, 0.25])
    array([[[-1.,  1.]],
           [[ 2., -2.]]], dtype=float32)
    """
    function = "normalize_image"
    if backend is None and mean is not None:
        y = fast_path.normalize_image(image, mean, std, max_value, layout, out, dtype)
        if y is not None:
            served: Array = y
            return served
    array = calls.take(image, function, "image")
    if array.dtype != np.uint8:
        raise TypeError(f"{function}: image must be of uint8, got {array.dtype}; `normalize` takes other dtypes")
    if array.ndim not in (3, 4):
        raise ValueError(f"{function}: image must have shape (H, W, C) or (N, H, W, C), got {array.shape}")
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ValueError(f"{function}: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    result = DTYPES[0] if dtype is None else find_dtype(dtype)
    if result is None or result not in DTYPES:
        raise TypeError(f"{function}: dtype must be float32 or float16, got {dtype if result is None else result}")
    most = arguments.number(max_value, function, "max_value", minimum=0, open_end=True)
    if not SMALLEST_MAX <= most <= LARGEST_MAX:
        raise ValueError(f"{function}: max_value must be within {SMALLEST_MAX:g} and {LARGEST_MAX:g}, got {most:g}")
    height, width, channels = array.shape[-3:]
    planar = layout == "NCHW"
    shape = (*array.shape[:-3], channels, height, width) if planar else array.shape
    if (mean is None) != (std is None):
        raise ValueError(f"{function}: mean and std must be given together, or neither")
    given = None
    if mean is not None and std is not None:
        given = tuple(
            arguments.statistic(value, channels, function, name) * most
            for name, value in (("mean", mean), ("std", std))
        )
        if not (given[1] > 0).all():
            raise ValueError(f"{function}: std must be above 0, got {given[1] / most}")
    if out is not None:
        calls.check_out(out, shape, result, function)
    serving = choose(array.size, backend, function)
    usable = out is not None and calls.usable_as_output(out, None, result, (array,))
    target = np.asarray(out) if usable and out is not None else empty(shape, result)
    if array.size:
        x = np.ascontiguousarray(array).reshape(-1, height * width, channels)
        centre, deviation = serving.image_statistics(x) if given is None else given
        with np.errstate(all="ignore"):
            scale = np.where(deviation > 0, 1.0 / deviation, 0.0)
        serving.image(x, target.reshape(len(x), *((channels, -1) if planar else (-1, channels))), planar, centre, scale)
    if out is not None and target is not out:
        np.copyto(out, target)
        return out
    return target
