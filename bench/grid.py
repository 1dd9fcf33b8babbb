"""The cells that are measured, (op, shape, dtype), and the calls of fastnorm and of NumPy that serve one.

Everything in `bench` that measures the library as a whole takes its cells from here. Nothing of fastnorm is imported,
the grid of `fastnorm bench` neither: a cell is bound to whichever version of the library its user has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Cells of up to so many elements are small: their calls take microseconds.
SMALL_ELEMENTS = 2**17


@dataclass(frozen=True)
class Operation:
    """What an op of the grid calls: a public function, its array arguments in order, and its other keywords."""

    function: str
    parameters: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    parameter_axis: int = 1


RUNNING = ("running_mean", "running_var")
BOTH = ("weight", "bias")

OPERATIONS = {
    "layer_norm": Operation("layer_norm", BOTH, parameter_axis=-1),
    "rms_norm": Operation("rms_norm", ("weight",), parameter_axis=-1),
    "batch_norm_infer": Operation("batch_norm", RUNNING + BOTH),
    "batch_norm_train": Operation("batch_norm", RUNNING + BOTH, {"training": True}),
    "group_norm": Operation("group_norm", BOTH, {"num_groups": 32}),
    "instance_norm": Operation("instance_norm", BOTH),
    "l2_normalize": Operation("l2_normalize"),
    "moments_last": Operation("moments", options={"axis": -1}),
    "moments_first": Operation("moments", options={"axis": 0}),
    "moments_all": Operation("moments"),
}


@dataclass(frozen=True)
class Cell:
    """One call that is measured."""

    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """What tables call it, such as ``layer_norm 128x768 float32``."""
        return f"{self.op} {'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def small(self) -> bool:
        """Whether its calls take microseconds."""
        return prod(self.shape) <= SMALL_ELEMENTS

    def arguments(self) -> tuple[Array, dict[str, Any]]:
        """Return x and the keywords of the call: normal data about 0.5, the same every time."""
        rng = np.random.default_rng(0)
        operation = OPERATIONS[self.op]
        # The generator knows float32 and float64; what float16 rounds does not matter here.
        kind = np.float64 if self.dtype == "float64" else np.float32
        x = rng.standard_normal(self.shape, dtype=kind)
        x += 0.5
        keywords = dict(operation.options)
        for name in operation.parameters:
            values = rng.standard_normal(self.shape[operation.parameter_axis])
            keywords[name] = (np.exp(0.2 * values) if name == "running_var" else values).astype(self.dtype)
        return x.astype(self.dtype, copy=False), keywords

    def bind(self, namespace: Any, **keywords: Any) -> Callable[[], Any]:
        """Return the call of this cell with arguments of its own.

        Parameters
        ----------
        namespace : module
            Where the function is looked up: `fastnorm`, or `fastnorm.cli.numpy_norms` for what NumPy takes.
        **keywords
            Handed to the function besides the cell's own.

        Raises
        ------
        AttributeError
            The namespace has no such function.
        """
        function = getattr(namespace, OPERATIONS[self.op].function)
        x, own = self.arguments()
        own.update(keywords)
        return lambda: function(x, **own)


def _cells(op: str, shapes: str, dtype: str = "float32") -> Iterator[Cell]:
    for shape in shapes.split():
        yield Cell(op, tuple(map(int, shape.split("x"))), dtype)


GRID = (
    *_cells("layer_norm", "1x64 1x768 1x4096 8x768 128x768 1024x768 4096x64 65536x64 4096x1024 8192x4096 65536x768"),
    *_cells("layer_norm", "64x262144"),
    *_cells("layer_norm", "1024x768", "float64"),
    *_cells("layer_norm", "1024x768", "float16"),
    *_cells("rms_norm", "1x64 1x4096 128x4096 4096x4096 65536x128"),
    *_cells("batch_norm_infer", "64x1024 1x64x56x56 32x64x56x56 32x256x14x14 32x512x7x7 4096x256"),
    *_cells("batch_norm_train", "64x1024 4096x256 32x64x56x56 32x256x14x14 32x512x7x7"),
    *_cells("group_norm", "1x64x56x56 32x256x14x14 2x512x64x64"),
    *_cells("instance_norm", "1x64x56x56 32x64x56x56 1x32x256x256"),
    *_cells("l2_normalize", "1x384 4096x384 100000x768"),
    *_cells("moments_last", "1024x768"),
    *_cells("moments_first", "65536x256"),
    *_cells("moments_first", "1000000x16", "float64"),
    *_cells("moments_all", "16777216"),
)


def select(patterns: Sequence[str] = ()) -> list[Cell]:
    """Return the cells whose name matches one of some patterns, in the order of the grid.

    Parameters
    ----------
    patterns : sequence of str
        As of shells, such as ``layer_norm*`` or ``* 1x* float32``; none at all: the whole grid.

    Raises
    ------
    ValueError
        A pattern matches no cell.
    """
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in GRID):
            raise ValueError(f"no cell of the grid matches {pattern!r}; they are called such as {GRID[0].name!r}")
    return [cell for cell in GRID if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]
