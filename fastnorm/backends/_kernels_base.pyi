from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Doubles = npt.NDArray[np.float64]
_Neighbourhood = tuple[int, int, float, float, float]

__test__: dict[str, str]

COUNTED_PIXELS: int
DESK_ELEMENTS: int
IMAGE_COEFFICIENTS: int
TILE_COLUMNS: int

def moments(x: _Array, measure: int, hi: _Doubles, lo: _Doubles, m2: _Doubles, threads: int) -> None: ...
def convert(source: _Array, target: _Array, threads: int) -> None: ...
def extrema(x: _Array, lows: _Array, highs: _Array, threads: int) -> None: ...
def merge(
    hi: _Doubles,
    lo: _Doubles,
    m2: _Doubles,
    count: float,
    last: float,
    merged_hi: _Doubles,
    merged_lo: _Doubles,
    merged_m2: _Doubles,
) -> None: ...
def activate(y: _Array, activation: int, threads: int) -> None: ...
def image(x: _Array, y: _Array, planar: bool, centre: _Array, scale: _Array, shift: _Array, threads: int) -> None: ...
def image_statistics(x: _Array, sums: _Array, squares: _Array, threads: int) -> None: ...
def dots(x: _Array, dy: _Array, mean: _Doubles, products: _Doubles, sums: _Doubles, threads: int) -> None: ...
def affine_grad(
    x: _Array,
    dy: _Array,
    dx: _Array,
    mean: _Doubles,
    scale: _Doubles,
    slope: _Doubles,
    shift: _Doubles,
    threads: int,
) -> None: ...
def local_response(
    x: _Array, y: _Array, neighbourhood: _Neighbourhood, rstd: _Doubles | None, threads: int
) -> None: ...
def local_response_grad(
    x: _Array, dy: _Array, dx: _Array, neighbourhood: _Neighbourhood, rstd: _Doubles | None, threads: int
) -> None: ...
def counted_moments(
    x: _Array, weights: _Doubles, last: bool, hi: _Doubles, lo: _Doubles, m2: _Doubles, threads: int
) -> None: ...
def counted_dots(
    x: _Array,
    dy: _Array,
    weights: _Doubles,
    last: bool,
    mean: _Doubles,
    nothing: _Doubles,
    sums: _Doubles,
    products: _Doubles,
    threads: int,
) -> None: ...
def counted_grad(
    x: _Array,
    dy: _Array,
    dx: _Array,
    weights: _Doubles,
    last: bool,
    mean: _Doubles,
    rstd: _Doubles,
    scale: _Doubles,
    a: _Doubles,
    b: _Doubles,
    threads: int,
) -> None: ...
def normalize_grad(
    x: _Array,
    dy: _Array,
    dx: _Array,
    weight: _Array,
    per_position: bool,
    segments: int,
    measure: int,
    divisor: float,
    eps: float,
    floor: bool,
    mean: _Doubles | None,
    rstd: _Doubles | None,
    products: _Doubles | None,
    sums: _Doubles | None,
    rows: int,
    threads: int,
) -> None: ...
def lines(
    x: object,
    weight: object,
    bias: object,
    axis: object,
    eps: object,
    measure: int,
    floor: bool,
    summed: bool,
    out: object,
) -> _Array | None: ...
def lines_with_options(
    x: object,
    residual: object,
    weight: object,
    bias: object,
    axis: object,
    eps: object,
    measure: int,
    activation: object,
    code_of: Callable[[object, object], int | None],
    return_residual: object,
    return_stats: object,
    stats_class: type[tuple[_Array, _Array]],
    out: object,
) -> _Array | tuple[object, ...] | None: ...
def groups(
    x: object, num_groups: object, weight: object, bias: object, channel_axis: object, eps: object, out: object
) -> _Array | None: ...
def instances(
    x: object, weight: object, bias: object, channel_axis: object, eps: object, out: object
) -> _Array | None: ...
def groups_with_options(
    x: object,
    residual: object,
    num_groups: object,
    weight: object,
    bias: object,
    channel_axis: object,
    eps: object,
    activation: object,
    code_of: Callable[[object, object], int | None],
    return_residual: object,
    return_stats: object,
    stats_class: type[tuple[_Array, _Array]],
    out: object,
) -> _Array | tuple[object, ...] | None: ...
def instances_with_statistics(
    x: object,
    weight: object,
    bias: object,
    channel_axis: object,
    eps: object,
    return_stats: object,
    stats_class: type[tuple[_Array, _Array]],
    out: object,
) -> tuple[object, ...] | None: ...
def fused_given(
    x: object,
    residual: object,
    mean: object,
    var: object,
    weight: object,
    bias: object,
    channel_axis: object,
    eps: object,
    activation: int | None,
    keep: bool,
    out: object,
) -> _Array | tuple[_Array, _Array] | None: ...
def normalize_image(
    x: object, mean: object, std: object, max_value: object, layout: object, out: object, dtype: object
) -> _Array | None: ...
def given(
    x: object,
    mean: object,
    var: object,
    weight: object,
    bias: object,
    channel_axis: object,
    eps: object,
    out: object,
) -> _Array | None: ...
def train(
    x: object,
    running_mean: object,
    running_var: object,
    weight: object,
    bias: object,
    channel_axis: object,
    eps: object,
    old: float,
    unbiased: bool,
    stats_class: type[tuple[_Array, _Array]] | None,
    out: object,
) -> _Array | tuple[object, ...] | None: ...
def lines_backward(
    dy: object,
    x: object,
    weight: object,
    mean: object,
    rstd: object,
    axis: object,
    eps: object,
    measure: int,
    floor: bool,
    summed: bool,
    parameters: bool,
    out: object,
) -> tuple[_Array, _Array | None, _Array | None] | None: ...
def groups_backward(
    dy: object,
    x: object,
    num_groups: object,
    weight: object,
    mean: object,
    rstd: object,
    channel_axis: object,
    eps: object,
    out: object,
) -> tuple[_Array, _Array, _Array] | None: ...
def batch_backward(
    dy: object,
    x: object,
    weight: object,
    mean: object,
    rstd: object,
    running_mean: object,
    running_var: object,
    channel_axis: object,
    eps: object,
    training: bool,
    out: object,
) -> tuple[_Array, _Array, _Array] | None: ...
def clipped(x: object, max_norm: object, axis: object, out: object) -> _Array | None: ...
def clipped_together(
    arrays: object, max_norm: object, error_if_nonfinite: object, out: object, result_class: object
) -> Any: ...
def moments_along(x: object, axis: object, ddof: object, result_class: type[Any]) -> Any: ...
def extrema_along(x: object, axis: object, result_class: type[Any]) -> Any: ...
def standardized(x: object, axis: object, ddof: object, out: object) -> _Array | None: ...
def pixels(x: object, channel_axis: object, eps: object, out: object) -> _Array | None: ...
def scaled(x: object, axis: object, feature_range: object, magnitudes: bool, out: object) -> _Array | None: ...
def textbook(x: _Array, weights: _Array | None, algorithm: int, half: bool, mean: _Doubles, m2: _Doubles) -> None: ...
def normalize(
    x: _Array,
    y: _Array,
    weight: _Array,
    bias: _Array,
    per_position: bool,
    segments: int,
    measure: int,
    divisor: float,
    eps: float,
    floor: bool,
    mean: _Doubles | None,
    m2: _Doubles | None,
    addend: _Array | None,
    residual: _Array | None,
    activation: int | None,
    lines: _Array | None,
    scales: _Array | None,
    threads: int,
) -> None: ...
def affine(
    x: _Array,
    y: _Array,
    hi: _Doubles,
    lo: _Doubles,
    scale: _Doubles,
    shift: _Doubles,
    weight: _Array | None,
    bias: _Array | None,
    addend: _Array | None,
    residual: _Array | None,
    activation: int | None,
    lines: _Array | None,
    scales: _Array | None,
    threads: int,
) -> None: ...
