"""Shapes beside shapes: where a call takes much longer a byte than the calls of nearly the same size around it.

Every series is a run of sizes; a cliff is a size that takes more than 1.5 times as long a byte as the median of its
four neighbours, in the median of interleaved rounds.

    python bench/cliffs.py [--quick]
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator

import numpy as np

import fastnorm
from fastnorm.lab.timing import interleaved

CLIFF = 1.5
BYTES = 2**21  # of input, so that lengths differ and not sizes
ROUNDS = 9
SECONDS_PER_SAMPLE = 0.002

Series = dict[str, Callable[[], object]]


def rows(lengths: list[int], dtype: str = "float32", offset: int = 0) -> Series:
    """layer_norm of as many rows of each length as make BYTES, beginning `offset` elements off an aligned address."""

    def call(length: int) -> Callable[[], object]:
        count = BYTES // (length * np.dtype(dtype).itemsize)
        memory = np.random.default_rng(0).standard_normal(count * length + 64).astype(dtype)
        x = memory[offset : offset + count * length].reshape(count, length)
        out = np.empty_like(memory)[offset : offset + count * length].reshape(count, length)
        weight = np.ones(length, dtype)
        return lambda: fastnorm.layer_norm(x, weight, weight, out=out)

    return {str(length): call(length) for length in lengths}


def channels_last(counts: list[int], norm: Callable[..., object]) -> Series:
    """A norm of NHWC images with so many channels."""

    def call(channels: int) -> Callable[[], object]:
        pixels = BYTES // (4 * 4 * channels)
        x = np.random.default_rng(0).standard_normal((4, pixels, channels)).astype(np.float32)
        out = np.empty_like(x)
        return lambda: norm(x, channel_axis=-1, out=out)

    return {str(channels): call(channels) for channels in counts}


def columns(counts: list[int]) -> Series:
    """Standardize down so many columns."""

    def call(count: int) -> Callable[[], object]:
        x = np.random.default_rng(0).standard_normal((BYTES // (4 * count), count)).astype(np.float32)
        out = np.empty_like(x)
        return lambda: fastnorm.standardize(x, out=out)

    return {str(count): call(count) for count in counts}


def few_rows(counts: list[int]) -> Series:
    """layer_norm of 1, 2, ... rows that make BYTES together."""

    def call(count: int) -> Callable[[], object]:
        x = np.random.default_rng(0).standard_normal((count, BYTES // 4 // count)).astype(np.float32)
        out = np.empty_like(x)
        return lambda: fastnorm.layer_norm(x, out=out)

    return {str(count): call(count) for count in counts}


def training(x: np.ndarray, **keywords: object) -> object:
    """BatchNorm in training without running statistics."""
    return fastnorm.batch_norm(x, training=True, **keywords)


def all_series(quick: bool) -> Iterator[tuple[str, Series]]:
    """Yield every series with its name."""
    step = 7 if quick else 1
    powers = sorted({2**k + d for k in range(3, 15) for d in (-1, 0, 1)})
    primes = [n for n in range(300, 4000, 50) if all(n % p for p in range(2, int(n**0.5) + 1))] or [307, 1009, 3989]
    primes = [307, 401, 503, 601, 701, 809, 907, 1009, 1201, 1409, 1601, 2003, 2503, 3001, 3511, 3989] + primes
    yield "rows of 1 to 300", rows(list(range(1, 301, step)))
    yield "rows of 2^k and one more or less", rows(powers)
    yield "rows of primes", rows(sorted(set(primes)))
    yield "rows of 1 to 300, float64", rows(list(range(1, 301, step)), "float64")
    yield "rows of 1 to 300, float16", rows(list(range(1, 301, step)), "float16")
    yield "rows of 1 to 300, unaligned", rows(list(range(1, 301, step)), offset=3)
    yield "1 to 40 rows", few_rows(list(range(1, 41)))
    yield "columns, 1 to 300", columns(list(range(1, 301, step)))
    yield "batch_norm training, channels last, 1 to 300", channels_last(list(range(1, 301, step)), training)
    yield "instance_norm, channels last, 1 to 300", channels_last(list(range(1, 301, step)), fastnorm.instance_norm)


def nanoseconds(calls: Series) -> dict[str, float]:
    """Return the median nanoseconds of each call, over interleaved rounds."""
    seconds = interleaved(calls, sample=SECONDS_PER_SAMPLE, minimum_rounds=ROUNDS, maximum_rounds=ROUNDS)
    return {name: taken * 1e9 for name, taken in seconds.items()}


def main() -> int:
    """Print the cliffs of every series, and return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="every seventh length")
    arguments = parser.parse_args()
    found = 0
    for name, calls in all_series(arguments.quick):
        times = nanoseconds(calls)
        sizes, taken = list(times), list(times.values())
        ratios = []
        for place in range(len(taken)):
            first = max(0, min(place - 2, len(taken) - 5))
            around = [taken[k] for k in range(first, min(first + 5, len(taken))) if k != place]
            ratios.append(taken[place] / statistics.median(around))
        worst = max(range(len(ratios)), key=ratios.__getitem__)
        cliffs = [f"{sizes[k]} ({ratios[k]:.2f})" for k in range(len(ratios)) if ratios[k] > CLIFF]
        found += len(cliffs)
        print(
            f"{name:45} {BYTES / statistics.median(taken):6.1f} GB/s, slowest {BYTES / max(taken):5.1f} at "
            f"{sizes[taken.index(max(taken))]}; worst beside its neighbours {sizes[worst]} ({ratios[worst]:.2f})"
            + (f"; cliffs: {', '.join(cliffs)}" if cliffs else ""),
            flush=True,
        )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
