"""Thresholds of the dispatcher: data with its reason, so that a change is a change of a number.

``fastnorm tune`` measures what it can on the machine at hand and keeps it in the user's cache directory, per processor;
what it kept comes before what is written here.
"""

import contextlib
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

from fastnorm.settings import cache_directory, usable_cpus


def cpu_model() -> str:
    """Return the name of this processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def tuned_file() -> Path:
    """Return where ``fastnorm tune`` keeps what it measured on this processor (it need not exist)."""
    name = "".join(letter if letter.isalnum() else "-" for letter in cpu_model())
    return cache_directory() / "tuned" / f"{name}-{usable_cpus()}.json"


def last_level_cache(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Return the bytes of the largest cache that this processor reads through, as Linux describes it, or None."""
    try:
        sizes = [path.read_text(encoding="ascii").strip() for path in folder.glob("index*/size")]
        return max((int(size.removesuffix("K")) * 2**10 for size in sizes), default=None)
    except (OSError, ValueError):
        return None


class Tuned(NamedTuple):
    """What ``fastnorm tune`` measures."""

    # Up to so many elements a call is served by its own thread alone: waking another costs as much as it would save.
    # Two threads, microseconds: layer_norm 32x512 3.8 -> 3.8, 640x64 14 -> 9.5, batch_norm training 40x1024 25 -> 18.
    serial_elements: int = 2**15
    # The order of preference below and above that; the first that can run here serves.
    small: tuple[str, ...] = ("cython", "numba", "reference")
    large: tuple[str, ...] = ("cython", "numba", "reference")
    # Outputs of at least so many bytes come from recycled memory. The C library keeps smaller ones itself: after the
    # first, np.empty of 3 MiB costs 4 microseconds with its page faults, of 31 MiB 44, but of 40 MiB 2,053 (glibc 2.36,
    # which maps each block above 32 MiB anew).
    pool_smallest_bytes: int = 2**24
    # Outputs of at least so many bytes are written past the caches: what leaves them anyhow need not be read first.
    # Half of the last cache, since x fills the other; at most 64 MiB. With 32 MiB of cache (Zen 3) and nobody else on
    # the processor, calls so written take 1.5 to 2.8 times as long at 8 MiB, 0.9 to 1.2 at 16, 0.7 to 1.0 at 24; with
    # 260 MiB (Emerald Rapids) layer_norm followed by rms_norm 1.1 at 32 MiB and 0.79 at 96.
    stream_bytes: int = min((last_level_cache() or 2**28) // 2, 2**26)


def _kept() -> str | None:
    """Return what was kept for this processor; None where nothing was, or nobody lets us look."""
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        if (cache_directory() / "tuned").is_dir():
            return tuned_file().read_text(encoding="utf-8")
    return None


def _tuned() -> tuple[Tuned, Path | None]:
    """Return what was measured here and where it was kept, or the defaults.

    A file that is not what it should be is reported and ignored.
    """
    if os.environ.get("FASTNORM_TUNED", "1") == "0":
        return Tuned(), None
    try:
        text = _kept()
        if text is None:
            return Tuned(), None
        import json  # an import that most processes need not pay for

        found = json.loads(text)["thresholds"]
        for name in ("serial_elements", "pool_smallest_bytes", "stream_bytes"):
            if type(found[name]) is not int or not 0 <= found[name] <= sys.maxsize:
                raise ValueError(f"{name} must be an integer from 0 to {sys.maxsize}, got {found[name]!r}")
        for name in ("small", "large"):
            if sorted(found[name]) != sorted(Tuned().small):
                raise ValueError(f"{name} must name every backend once, got {found[name]!r}")
            found[name] = tuple(found[name])
        return Tuned(**found), tuned_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        warnings.warn(f"fastnorm: {tuned_file()} is ignored: {error}", RuntimeWarning, stacklevel=2)
        return Tuned(), None


# The second is None unless thresholds that were measured are in force.
TUNED, TUNED_FROM = _tuned()
SERIAL_ELEMENTS = TUNED.serial_elements
POOL_SMALLEST_BYTES = TUNED.pool_smallest_bytes
STREAM_BYTES = TUNED.stream_bytes
# The same for the second output of a call: two blocks of a size, freed together, the C library may give back to the
# system each time (glibc, from twice the largest block freed before). layer_norm 128x768 with the sum of a residual
# took 240 microseconds in a young process, 30 in an old one, and 1024x768 2,000 instead of 160.
POOL_SMALLEST_SECOND_BYTES = 2**17
# How much memory is kept for large outputs; FASTNORM_POOL_MIB changes it, 0 keeps none.
POOL_BYTES = 2**29


def _choice(variable: str, default: int, choices: tuple[int, ...], expected: str) -> int:
    choice = os.environ.get(variable) or str(default)
    if choice not in map(str, choices):
        raise ValueError(f"{variable} must be {expected}, got {choice!r}")
    return int(choice)


# Whether compiled loops ask for memory ahead: 1, 0, or -1, by the processor (see src_pyx/vectors/lanes.h).
PREFETCH = _choice("FASTNORM_PREFETCH", -1, (-1, 0, 1), "0 or 1, or -1 for the library's choice")

# Whether threads that share a processor are moved apart (see src_pyx/pool.h); some sandboxes forbid that.
MOVE_THREADS = _choice("FASTNORM_MOVE_THREADS", 1, (0, 1), "0 or 1")


class Preference(NamedTuple):
    """The backends for a size of work, in their order: the first that can run here serves."""

    backends: tuple[str, ...]
    reason: str


# Up to SERIAL_ELEMENTS, and above.
SMALL = Preference(TUNED.small, "small: one thread")
LARGE = Preference(TUNED.large, "large: several threads")


def threads_for(elements: int, num_threads: int) -> int:
    """Return how many threads share a call: above SERIAL_ELEMENTS two, and one more for each half of that."""
    if elements <= SERIAL_ELEMENTS:
        return 1
    return min(num_threads, 2 * elements // SERIAL_ELEMENTS) if SERIAL_ELEMENTS else num_threads


# Rows of up to so many columns do not fill a vector (RGB has 3): where it changes no bit, rows are taken together, so
# many that they make about PACKED_COLUMNS.
FEW_COLUMNS = 24
PACKED_COLUMNS = 128

# An array that must be copied or converted anyway goes through the fast path as that copy, if it has up to so many
# elements: a larger copy takes longer than what is saved, 10 to 80 microseconds of Python, and should not be made for a
# call that turns out to be wrong.
COPIED_ELEMENTS = 2**16

# A long line is shared by threads, its statistics first and its result then, if there are fewer lines than this times
# the number of threads; above it whole lines are handed out, and each is read from memory once.
LINES_PER_THREAD = 1
