"""What a graph may not ask of ONNX's operators on fastnorm."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx_cases import CHANNELS, LINE, MICROSOFT, STATISTICS, X4, run

X2 = X4[0, 0]
BATCH = (X4, *CHANNELS, *STATISTICS)
SKIP = {"domain": MICROSOFT}
UNFIT = [
    ("LayerNormalization", (X2, LINE), {"eps": 1.0}, "no attribute 'eps'; there are axis, epsilon, stash_type"),
    ("LayerNormalization", (X2, LINE), {"axis": 2}, "axis 2 is out of range for an array of 2 dimensions"),
    ("LayerNormalization", (X2, LINE), {"epsilon": -1.0}, "epsilon must be at least 0, got -1"),
    ("LayerNormalization", (X2, LINE), {"stash_type": 7}, "stash_type must be one of 1, 10, 11, 16, got 7"),
    ("LayerNormalization", (X2, X4), {}, "Scale must broadcast to the shape of X, (3, 4), got (2, 6, 3, 4)"),
    ("LayerNormalization", (X2, LINE, X2[:2]), {}, "B must broadcast to the shape of X, (3, 4), got (2, 4)"),
    ("RMSNormalization", (X2, LINE), {"bias": 1.0}, "no attribute 'bias'"),
    ("SimplifiedLayerNormalization", (X2, LINE), {"p": 2}, "no attribute 'p'"),
    ("BatchNormalization", BATCH, {"momentum": 1.5}, "momentum must be at most 1, got 1.5"),
    ("BatchNormalization", BATCH, {"training_mode": 2}, "training_mode must be one of 0, 1, got 2"),
    ("BatchNormalization", BATCH, {"outputs": 3}, "there is 1 output unless training_mode is 1, the node names 3"),
    ("BatchNormalization", BATCH, {"opset": 6}, "the opset must be at least 7, got 6"),
    ("BatchNormalization", BATCH, {"opset": 7, "spatial": 0}, "spatial must be one of 1, got 0"),
    ("BatchNormalization", (X4, LINE, *BATCH[2:]), {}, "weight must have shape (6,), got (4,)"),
    ("InstanceNormalization", (X4, LINE, LINE), {}, "weight must have shape (6,), got (4,)"),
    ("GroupNormalization", (X4, *CHANNELS), {"num_groups": 0}, "num_groups must be at least 1, got 0"),
    ("GroupNormalization", (X4, *CHANNELS), {"num_groups": 4}, "num_groups must divide the 6 channels, got 4"),
    ("GroupNormalization", (X4, *CHANNELS), {"num_groups": 3, "opset": 18}, "scale must have shape (3,), got (6,)"),
    ("MeanVarianceNormalization", (X4,), {"axes": [0, 4]}, "axis 4 is out of range for an array of 4 dimensions"),
    ("LpNormalization", (X4,), {"p": 3}, "p must be one of 1, 2, got 3"),
    ("LRN", (X4,), {"size": 0}, "size must be at least 1, got 0"),
    (
        "SkipLayerNormalization",
        (X4, X2[:2], LINE),
        SKIP,
        "skip must broadcast to the shape of input, (2, 6, 3, 4), got",
    ),
    ("SkipLayerNormalization", (X4, X4, X2), SKIP, "gamma must have shape (4,), got (3, 4)"),
    ("SkipLayerNormalization", (X4, X4, LINE, X2), SKIP, "beta must have shape (4,), got (3, 4)"),
    ("SkipSimplifiedLayerNormalization", (X4, X4, LINE, X2), SKIP, "bias must have shape (4,), got (3, 4)"),
]
OF_WRONG_TYPE = [
    ("LayerNormalization", (X2, LINE), {"axis": 1.5}, "axis must be an int, got float32"),
    ("LayerNormalization", (X2, LINE), {"epsilon": "small"}, "epsilon must be a real number, got str"),
    ("LayerNormalization", (X2.astype(np.complex64), LINE), {}, "x must have a real number dtype"),
    ("LRN", (X4,), {"size": 2.0}, "size must be an int, got float32"),
]
REFUSED = [(ValueError, *row) for row in UNFIT] + [(TypeError, *row) for row in OF_WRONG_TYPE]


@pytest.mark.parametrize(
    ("error", "operator", "inputs", "options", "message"), REFUSED, ids=[f"{row[1]}: {row[4]}" for row in REFUSED]
)
def test_what_does_not_fit_is_refused_by_name(
    error: type[Exception], operator: str, inputs: Any, options: Any, message: str
) -> None:
    # The operator's own checks name it; those of the function that serves it are named by that.
    with pytest.raises(error, match=rf"^({operator}|[a-z_]+): {re.escape(message)}"):
        run(operator, *inputs, **options)


def test_shapes_that_do_not_fit_name_the_input() -> None:
    scale = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="GroupNormalization: bias must have shape"):
        run("GroupNormalization", X4, scale, np.ones(6, np.float32), opset=18, num_groups=3)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        run("LRN", np.ones(4, np.float32), size=2)
