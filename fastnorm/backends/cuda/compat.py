"""The one door to CUDA: whatever is imported from numba-cuda, or will be from its successor, is imported here.

`machine` chooses what differs between hardware and the simulator (``NUMBA_ENABLE_CUDASIM=1``), where each GPU thread is
a Python thread and device memory is that of the host; kernels are written once.
"""

import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import config, cuda, types

SIMULATED = bool(config.ENABLE_CUDASIM)
NOT_INSTALLED = "numba-cuda is not installed: pip install 'fastnorm[cuda12]' or 'fastnorm[cuda13]'"

# The types of a kernel's arguments: an address on the device, an index or a length, a number of the algebra.
Pointer = types.uint64
Integer = types.int64
Real = types.float64

if not SIMULATED and importlib.util.find_spec("numba_cuda") is not None:
    from numba.cuda import types  # numba-cuda's own, where it is installed
    from numba.cuda.extending import intrinsic
else:
    intrinsic = None  # nothing is compiled for hardware


@cache
def why_not() -> str | None:
    """Return why no kernel can run here, None if it can."""
    if SIMULATED:
        return None
    if intrinsic is None:
        return NOT_INSTALLED
    try:
        cuda.current_context()
    except Exception as error:  # whatever a driver that is missing, too old or without a card raises
        return f"no CUDA device can be used: {' '.join(str(error).split())}"
    return None


def description() -> str:
    """Return what the kernels run on."""
    if SIMULATED:
        return "Numba's simulator"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"


def device_function(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels, always inlined: arrays in registers cannot be handed to a call."""
    return function if intrinsic is None else cuda.jit(device=True, forceinline=True)(function)


class Kernel:
    """A kernel: a function whose arguments are annotated `Pointer`, `Integer` or `Real`, and the shape of its blocks.

    Addresses are handed over as numbers: unlike arrays they cost nothing to prepare, and every index in a kernel is
    64 bits wide by construction.
    """

    def __init__(self, function: Callable[..., None], block: tuple[int, int]) -> None:
        self.function = function
        self.block = block
        self.signature = types.void(*function.__annotations__.values())
        self._compiled: dict[int, Any] = {}

    def compiled(self, device: int) -> Any:
        """Return the kernel compiled for a device, whose context is current."""
        if device not in self._compiled:
            if SIMULATED:
                self._compiled[device] = cuda.jit(self.function)
            else:
                bounds = self.block[0] * self.block[1]
                self._compiled[device] = cuda.jit(self.signature, launch_bounds=bounds)(self.function)
        return self._compiled[device]


@cache
def _stream(device: int, pointer: int) -> Any:
    """The stream of an address, None the default one's; 1 and 2 are the default ones of `cuda.h`."""
    if SIMULATED or pointer in (0, 1):
        return 0
    return cuda.per_thread_default_stream() if pointer == 2 else cuda.external_stream(pointer)


@contextmanager
def _context(device: int) -> Iterator[None]:
    """Make a device the current one, if it is not."""
    if SIMULATED:
        with warnings.catch_warnings():  # a device knows none: overflow is infinity
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    elif cuda.current_context().device.id == device:
        yield
    else:
        with cuda.gpus[device]:
            yield


_configuring = threading.Lock()


@lru_cache(maxsize=4096)
def _configured(kernel: Kernel, blocks: int, device: int, stream: int) -> Any:
    """A kernel with its grid and stream, ready to be called: the context of the device is current."""
    compiled = kernel.compiled(device)
    # Numba warns of grids that do not fill a card, at this point alone: small arrays are no mistake.
    with _configuring, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compiled[blocks, kernel.block, _stream(device, stream)]


def launch(kernel: Kernel, blocks: int, device: int, stream: int, *arguments: int | float) -> None:
    """Put a kernel on a stream of a device; nothing waits for it."""
    if not blocks:  # nothing to do, and no configuration of a launch on hardware
        return
    with _context(device):
        if SIMULATED:  # whose kernels have one configuration each, the last
            kernel.compiled(device)[blocks, kernel.block, _stream(device, stream)](*arguments)
        else:
            _configured(kernel, blocks, device, stream)(*arguments)


def current_device() -> int:
    """Return the number of the current device."""
    return 0 if SIMULATED else int(cuda.current_context().device.id)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], device: int, stream: int) -> Any:
    """Return an uninitialised array of Numba's, which tells whoever reads it of the stream that writes it."""
    if SIMULATED:  # whose arrays do not tell where they lie
        from fastnorm.backends.cuda.simulated import DeviceArray

        return DeviceArray(np.empty(shape, dtype), stream)
    with _context(device):
        return cuda.device_array(shape, dtype, stream=_stream(device, stream))


def copy(target: Any, source: Any, device: int, stream: int) -> None:
    """Copy a contiguous array to another on a device, by their interfaces."""
    if SIMULATED:
        from fastnorm.backends.cuda import simulated

        simulated.copy(target, source)
    else:
        with _context(device):
            on = _stream(device, stream)
            cuda.as_cuda_array(target, sync=False).copy_to_device(cuda.as_cuda_array(source, sync=False), stream=on)
