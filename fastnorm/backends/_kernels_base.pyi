from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

def moments(x: Array, measure: int, hi: Doubles, lo: Doubles, m2: Doubles, threads: int) -> None: ...
def extrema(x: Array, lows: Array, highs: Array, threads: int) -> None: ...
def merge(
    hi: Doubles,
    lo: Doubles,
    m2: Doubles,
    count: float,
    last: float,
    merged_hi: Doubles,
    merged_lo: Doubles,
    merged_m2: Doubles,
) -> None: ...
def normalize(
    x: Array,
    y: Array,
    weight: Array,
    bias: Array,
    per_position: bool,
    segments: int,
    measure: int,
    divisor: float,
    eps: float,
    floor: bool,
    mean: Doubles | None,
    m2: Doubles | None,
    threads: int,
) -> None: ...
def affine(
    x: Array,
    y: Array,
    hi: Doubles,
    lo: Doubles,
    scale: Doubles,
    shift: Doubles,
    weight: Array | None,
    bias: Array | None,
    threads: int,
) -> None: ...
