"""Images of bytes to normalised floats, beside what users of NumPy, OpenCV and PyTorch write.

python bench/images.py [--rounds 7] [--only '* 224x224*']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import race

LIBRARIES = ("fastnorm", "numpy", "cv2", "torch")
CELLS = tuple(
    f"{kind} {count}x{size}x3"
    for kind in ("NCHW", "NCHW-float16", "NHWC", "NCHW-own")
    for count in (1, 32)
    for size in ("224x224", "640x427")
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(library: str, cell: str) -> Callable[[], object] | None:
    """Return the call of a cell; "own" means the image's own mean and standard deviation."""
    kind, sizes = cell.split()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, tuple(int(size) for size in sizes.split("x")), dtype=np.uint8)
    layout, _, how = kind.partition("-")
    return {"fastnorm": _fastnorm, "numpy": _numpy, "cv2": _cv2, "torch": _torch}[library](images, layout, how)


def _fastnorm(images: Any, layout: Any, how: str) -> Callable[[], object]:
    import fastnorm

    dtype = np.float16 if how == "float16" else np.float32
    given = () if how == "own" else (MEAN, STD)
    return lambda: fastnorm.normalize_image(images, *given, layout=layout, dtype=dtype)


def _numpy(images: Any, layout: str, how: str) -> Callable[[], object]:
    mean, std = (np.array(values, np.float32) for values in (MEAN, STD))

    def call() -> object:
        x = images.astype(np.float32) / np.float32(255)
        m, s = (x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True)) if how == "own" else (mean, std)
        y = (x - m) / s
        y = np.ascontiguousarray(y.transpose(0, 3, 1, 2)) if layout == "NCHW" else y
        return y.astype(np.float16) if how == "float16" else y

    return call


def _cv2(images: Any, layout: str, how: str) -> Callable[[], object] | None:
    import cv2

    cv2.setNumThreads(race.threads())
    if how == "own":
        return None
    mean, std = (np.array(values) * 255 for values in (MEAN, STD))

    def call() -> object:
        normal = [cv2.divide(cv2.subtract(image, mean, dtype=cv2.CV_32F), (*std, 1.0)) for image in images]
        if layout == "NHWC":
            return np.stack(normal)
        y = cv2.dnn.blobFromImages(normal)
        return y.astype(np.float16) if how == "float16" else y

    return call


def _torch(images: Any, layout: str, how: str) -> Callable[[], object] | None:
    """What torchvision's ToTensor and Normalize do, for a batch at once."""
    import torch

    if how == "own":
        return None
    x = torch.from_numpy(images)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def call() -> object:
        y = x.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255).sub_(mean).div_(std)
        y = y.permute(0, 2, 3, 1).contiguous() if layout == "NHWC" else y
        return y.to(torch.float16) if how == "float16" else y

    return call


if __name__ == "__main__":
    race.main(__file__)
