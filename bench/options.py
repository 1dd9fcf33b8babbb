"""Calls beside plain calls: what an option, a layout or an axis costs, on few and on many elements.

Every norm has a plain call, on a C-contiguous float32 array over the axes that it is known for. Beside it stand the
same numbers in another layout, another dtype, with a mask, over other axes. Medians of interleaved rounds; ratios above
4 are marked.

    python bench/options.py [--only SUBSTRING]
"""

import argparse
from collections.abc import Callable

import numpy as np

import fastnorm
from fastnorm.lab.timing import interleaved

MARKED = 4.0
SHAPES = {"few": (2, 8, 6, 6), "many": (8, 64, 56, 56)}
GROUPS = 4

Calls = dict[str, Callable[[], object]]


def lines(shape: tuple[int, ...]) -> dict[str, Calls]:
    """Norms whose lines are one axis, or the trailing ones."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape, dtype=np.float32)
    channels = shape[1]
    x = np.ascontiguousarray(np.moveaxis(images, 1, -1)).reshape(-1, channels)
    dy, between = x[::-1].copy(), np.repeat(x, 2, axis=0).reshape(len(x), 2, channels)
    weight, bias = rng.standard_normal((2, channels), dtype=np.float32)
    wide, whole = weight.astype(np.float64), rng.standard_normal(shape[1:], dtype=np.float32)
    upstream, half = images[::-1].copy(), x.astype(np.float16)
    forward: Calls = {
        "plain": lambda: fastnorm.layer_norm(x, weight, bias),
        "float64 parameters": lambda: fastnorm.layer_norm(x, wide, wide),
        "float16": lambda: fastnorm.layer_norm(half, weight, bias),
        "statistics": lambda: fastnorm.layer_norm(x, weight, bias, return_stats=True),
        "every other row": lambda: fastnorm.layer_norm(between[:, 0], weight, bias),
        "every other column": lambda: fastnorm.layer_norm(x[:, ::2]),
        "axis=1 of NCHW": lambda: fastnorm.layer_norm(images, weight, bias, axis=1),
        "axis=(1, 2, 3)": lambda: fastnorm.layer_norm(images, whole, whole, axis=(1, 2, 3)),
        "transposed": lambda: fastnorm.layer_norm(images.transpose(0, 2, 3, 1), weight, bias),
        "dtype=float64": lambda: fastnorm.layer_norm(x, weight, bias, dtype="float64"),
        "int8": lambda: fastnorm.layer_norm(x, weight, bias, quantize="int8"),
    }
    backward: Calls = {
        "plain": lambda: fastnorm.layer_norm_backward(dy, x, weight),
        "axis=1 of NCHW": lambda: fastnorm.layer_norm_backward(upstream, images, weight, axis=1),
        "axis=(1, 2, 3)": lambda: fastnorm.layer_norm_backward(upstream, images, whole, axis=(1, 2, 3)),
        "pixel_norm": lambda: fastnorm.pixel_norm_backward(upstream, images),
    }
    clip: Calls = {
        "plain": lambda: fastnorm.l2_normalize(x),
        "clip_by_norm": lambda: fastnorm.clip_by_norm(x, 1.0),
        "clip_by_norm of rows": lambda: fastnorm.clip_by_norm(x, 1.0, axis=1),
        "clip_by_global_norm of 3": lambda: fastnorm.clip_by_global_norm([x, dy, weight], 1.0),
    }
    return {"layer_norm": forward, "layer_norm backward": backward, "l2_normalize": clip}


def channels_of(shape: tuple[int, ...]) -> dict[str, Calls]:
    """Norms of channels: batch, group, instance."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *shape), dtype=np.float32)
    last, dy_last = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (x, dy))
    features, dy_features = (array.reshape(-1, shape[1]) for array in (last, dy_last))
    weight, bias = rng.standard_normal((2, shape[1]), dtype=np.float32)
    given = {"running_mean": bias, "running_var": np.abs(weight) + 1}
    clips = x.reshape(shape[0] // 2, 2, *shape[1:])
    mask = rng.random((shape[0], 1, *shape[2:])) < 0.8
    batch, back = fastnorm.batch_norm, fastnorm.batch_norm_backward
    group, group_back = fastnorm.group_norm, fastnorm.group_norm_backward
    instance, instance_back = fastnorm.instance_norm, fastnorm.instance_norm_backward
    return {
        "batch_norm": {
            "plain": lambda: batch(x, **given, weight=weight, bias=bias),
            "channels last": lambda: batch(last, **given, weight=weight, bias=bias, channel_axis=-1),
            "channels third": lambda: batch(clips, **given, weight=weight, bias=bias, channel_axis=2),
            "transposed": lambda: batch(x.transpose(0, 2, 1, 3), **given, weight=weight, channel_axis=2),
            "statistics": lambda: batch(x, **given, weight=weight, bias=bias, return_stats=True),
            "training": lambda: batch(x, weight=weight, bias=bias, training=True),
            "training, channels last": lambda: batch(last, weight=weight, training=True, channel_axis=-1),
            "training, mask": lambda: batch(x, weight=weight, bias=bias, training=True, where=mask),
        },
        "batch_norm backward": {
            "plain": lambda: back(dy, x, weight, training=True),
            "channels last": lambda: back(dy_last, last, weight, training=True, channel_axis=-1),
            "inference": lambda: back(dy, x, weight, **given),
            "mask": lambda: back(dy, x, weight, training=True, where=mask),
        },
        "group_norm": {
            "plain": lambda: group(x, GROUPS, weight, bias),
            "channels last": lambda: group(last, GROUPS, weight, bias, channel_axis=-1),
            "two dimensions": lambda: group(features, GROUPS, weight, bias),
            "mask": lambda: group(x, GROUPS, weight, bias, where=mask),
        },
        "group_norm backward": {
            "plain": lambda: group_back(dy, x, GROUPS, weight),
            "channels last": lambda: group_back(dy_last, last, GROUPS, weight, channel_axis=-1),
            "two dimensions": lambda: group_back(dy_features, features, GROUPS, weight),
            "mask": lambda: group_back(dy, x, GROUPS, weight, where=mask),
        },
        "instance_norm": {
            "plain": lambda: instance(x, weight, bias),
            "channels last": lambda: instance(last, weight, bias, channel_axis=-1),
            "backward": lambda: instance_back(dy, x, weight),
            "backward, channels last": lambda: instance_back(dy_last, last, weight, channel_axis=-1),
            "mask": lambda: instance(x, weight, bias, where=mask),
        },
    }


def main() -> None:
    """Print a table: microseconds of each call, and how many times that of the plain one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="rows whose norm has this in its name")
    wanted = parser.parse_args().only
    tables = {size: lines(shape) | channels_of(shape) for size, shape in SHAPES.items()}
    print(f"{'':48s}" + "".join(f"{size + ', us':>14s}{'/ plain':>9s}" for size in SHAPES))
    for norm in tables["few"]:
        if wanted not in norm:
            continue
        times = {size: interleaved(tables[size][norm], sample=0.005, maximum_rounds=15) for size in SHAPES}
        for name in tables["few"][norm]:
            row = f"{norm + ', ' + name:48s}"
            for size in SHAPES:
                ratio = times[size][name] / times[size]["plain"]
                row += f"{times[size][name] * 1e6:14,.1f}{ratio:8.1f}{'*' if ratio > MARKED else ' '}"
            print(row.rstrip(), flush=True)


if __name__ == "__main__":
    main()
