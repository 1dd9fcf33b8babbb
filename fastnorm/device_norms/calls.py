"""What the calls on a device have in common: arguments checked, outputs made, results handed out."""

from dataclasses import dataclass
from typing import Any

from fastnorm import device
from fastnorm.activations import FORMULAS
from fastnorm.backends.cuda import primitives
from fastnorm.backends.cuda.buffers import Buffer, Shape
from fastnorm.backends.cuda.primitives import Statistics
from fastnorm.device import Device
from fastnorm.engine import Stats


def refuse(function: str, **given: Any) -> None:
    """Refuse arguments that a device does not serve: those that are not None.

    Raises
    ------
    TypeError
        One of them is given.
    """
    for name, value in given.items():
        if value is not None:
            raise TypeError(f"{function}: {name} is not served on a CUDA device, got {type(value).__name__}")


def parameter(where: Device, value: Any, shape: Shape, function: str, name: str) -> Buffer | None:
    """Return a weight or bias, which must have `shape`; None stays None."""
    return None if value is None else statistic(where, value, shape, function, name)


def statistic(where: Device, value: Any, shape: Shape, function: str, name: str) -> Buffer:
    """Return an array that must be there, of `shape`."""
    found = where.take(value, function, name)
    if found.shape != shape:
        raise ValueError(f"{function}: {name} must have shape {shape}, got {found.shape}")
    return found


def check_same_dtype(function: str, **given: Buffer | None) -> None:
    """Check that two arrays which one kernel reads have one dtype.

    Raises
    ------
    TypeError
        They have two.
    """
    storages = [part.storage for part in given.values() if part is not None]
    if len(set(storages)) > 1:
        raise TypeError(
            f"{function}: {' and '.join(given)} must have one dtype on a device, got {' and '.join(storages)}"
        )


def parameters(
    where: Device, weight: Any, bias: Any, shape: Shape, function: str
) -> tuple[Buffer | None, Buffer | None]:
    """Return weight and bias, which must have `shape` and one dtype."""
    scale = parameter(where, weight, shape, function, "weight")
    shift = parameter(where, bias, shape, function, "bias")
    check_same_dtype(function, weight=scale, bias=shift)
    return scale, shift


def activation_name(value: Any, function: str) -> str | None:
    """Return the name of an activation; a function of the user's was compiled for the CPU."""
    if value is None or (isinstance(value, str) and value in FORMULAS):
        return value
    if isinstance(value, str):
        raise ValueError(f"{function}: activation must be one of {', '.join(map(repr, FORMULAS))}, got {value!r}")
    raise TypeError(
        f"{function}: activation must be a name on a CUDA device, got {type(value).__name__}, compiled for the CPU"
    )


@dataclass(frozen=True, slots=True)
class Call:
    """The input and the output of one call, checked. `out` is what the caller wants the result in."""

    where: Device
    x: Buffer
    y: Buffer
    out: Any

    def finish(self) -> Any:
        """Return the result where the caller wants it."""
        if self.out is not None and self.y.array is not self.out:
            self.where.library.assign(self.out, self.y.array)
            return self.out
        return self.y.array


def begin(
    where: Device, x: Buffer, out: Any, dtype: Any, function: str, others: tuple[Buffer | None, ...] = ()
) -> Call:
    """Check `out` and `dtype`; `others` are read besides x. Where `out` cannot be written meanwhile, it is later."""
    storage = device.storage_of(dtype, x.storage, function)
    y = where.output(out, x.shape, storage, function)
    if out is not None:
        same = x.address == y.address and x.storage == y.storage
        shared = (x.overlaps(y) and not same) or any(other is not None and other.overlaps(y) for other in others)
        if shared:
            y = where.place.empty(x.shape, storage)
    return Call(where, x, y, out)


@dataclass(frozen=True, slots=True)
class Addition:
    """A residual, and where its sum with x goes if that is wanted."""

    residual: Buffer | None
    total: Buffer | None


def addition(where: Device, residual: Any, wanted: bool, x: Buffer, storage: str, function: str) -> Addition:
    """Check a residual, which must be like x; the sum is of the storage type of the result."""
    if residual is None:
        if wanted:
            raise ValueError(f"{function}: return_residual needs a residual")
        return Addition(None, None)
    found = where.take(residual, function, "residual")
    if found.shape != x.shape:
        raise ValueError(f"{function}: residual must have the shape of x, {x.shape}, got {found.shape}")
    if found.storage != x.storage:
        raise TypeError(f"{function}: residual must have the dtype of x on a device, {x.storage}, got {found.storage}")
    return Addition(found, where.place.empty(x.shape, storage) if wanted else None)


def summed(call: Call, added: Addition) -> Buffer:
    """Return x + residual in the type that is computed in, for kernels that read it twice; else x."""
    if added.residual is None:
        return call.x
    computed = primitives.computed_in(call.x.storage, call.y.storage).__name__
    total = call.where.place.empty(call.x.shape, computed)
    primitives.add(call.where.place, call.x, added.residual, total, added.total)
    return total


def shaped(found: Statistics, shape: Shape) -> Stats:
    """Return statistics in the shape that broadcasts against x."""
    return Stats(*(part.array.reshape(shape) for part in (found.mean, found.rstd)))


def results(call: Call, stats: Stats | None, added: Addition) -> Any:
    """Return the result, then the statistics and the sum with a residual, if wanted: a tuple if there are several."""
    parts: tuple[Any, ...] = (call.finish(),)
    if stats is not None:
        parts += (stats,)
    if added.total is not None:
        parts += (added.total.array,)
    return parts if len(parts) > 1 else parts[0]


def statistics_of(where: Device, x: Buffer, count: int) -> Statistics:
    """Return memory for so many statistics of x; those of nothing are NaN."""
    found = Statistics(where.place.numbers(count), where.place.numbers(count))
    if not x.size:
        primitives.fill_as_empty(where.place, found.mean, defined=False)
        primitives.fill_as_empty(where.place, found.rstd, defined=False)
    return found
