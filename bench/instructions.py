"""How many instructions the Cython kernels execute, beside the numbers in bench/instructions.json.

Callgrind counts them in a process of its own for each variant that Valgrind knows (base and avx2), on one thread. The
cases are calls of public functions; counted is what the kernel modules and the libraries that they call do, from their
entry points on, without the search for memory, which takes more or fewer instructions with all that was freed before,
even with the length of a path, and without the interpreter, whose caches of attributes hit or miss by the addresses of
names. Two runs of one installation agree to the instruction, however busy the machine is, and two installations of the
same sources nearly so: a change of half a percent means something.

    python bench/instructions.py [--update]

The exit code is 1 where a case takes more than 0.5 % above its stored count, or has none. Counts depend on compilers
and libraries: where these are others than those the counts were stored with, differences are shown, not judged.
Without Valgrind nothing is counted, and the exit code is 0.
"""

import argparse
import gc
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnorm
from fastnorm.backends import registry

STORE = Path(__file__).with_name("instructions.json")
THRESHOLD = 0.005
VARIANTS = ("base", "avx2")  # Valgrind has no AVX-512
# A function of the C library that nothing else here calls: at each call Callgrind writes down what it has counted.
MARKER = "getsid"

# Functions of the C library and NumPy that find memory and give it back; no kernel is named like one.
ALLOCATION = re.compile(r"alloc|free|unlink_chunk|systrim|tcache|mmap|munmap|brk", re.IGNORECASE)

# The files of the interpreter.
INTERPRETER = re.compile(rf"{re.escape(os.path.realpath(sys.executable))}$|libpython[\d.]+t?[.\d]*\.(so|dylib)")

Array = npt.NDArray[Any]


class CountingError(Exception):
    """Nothing could be counted; the message says why."""


def values(shape: tuple[int, ...], dtype: str, first: int = 1) -> Array:
    """Return data in [-1, 1) that are the same everywhere, in memory that begins at a cache line; `first` is a seed."""
    size = int(np.prod(shape))
    bits = np.arange(first, first + size, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)
    memory = np.empty(size * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    x: Array = memory[start : memory.size - 64 + start].view(dtype).reshape(shape)
    x[...] = (bits.astype(np.float64) / 2.0**31 - 1.0).reshape(shape)
    return x


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and make the calls that are counted."""
    for dtype in ("float32", "float64"):

        def case(
            op: str, shape: tuple[int, ...], parameters: int = 0, note: str = "", dtype: str = dtype, **options: Any
        ) -> tuple[str, Callable[[], object]]:
            """A call with so many arrays of parameters; they stand in the order weight, bias, mean, variance.

            A backward pass is given the statistics of its forward pass.
            """
            function, x = getattr(fastnorm, op), values(shape, dtype)
            channels = shape[options.get("channel_axis", 1 if len(shape) == 4 else -1)]
            names = ("weight", "bias", "running_mean", "running_var")[:parameters]
            options.update({name: values((channels,), dtype) + 1.5 for name in names})
            name = " ".join(filter(None, (op, "x".join(map(str, shape)), dtype, note)))
            if not op.endswith("_backward"):
                return name, lambda: function(x, **options)
            _, stats = getattr(fastnorm, op.removesuffix("_backward"))(x, return_stats=True, **options)
            dy = values(shape, dtype, first=x.size)
            return name, lambda: function(dy, x, mean=stats.mean, rstd=stats.rstd, **options)

        # Rows: short, of a few bundles, of several blocks and a rest, of several chunks.
        yield case("layer_norm", (128, 64), 2)
        yield case("layer_norm", (16, 768))
        yield case("layer_norm", (16, 768), 2, "weight and bias")
        yield case("layer_norm", (3, 4133), 2)
        yield case("layer_norm", (1, 70001))
        yield case("rms_norm", (128, 64), 1)
        yield case("rms_norm", (16, 768), 1)
        yield case("l2_normalize", (32, 384))
        # Columns: whole tiles and a rest, of several chunks.
        yield case("layer_norm", (64, 768), note="axis 0", axis=0)
        yield case("layer_norm", (1100, 17), note="axis 0", axis=0)
        # Groups of channels, and images of a channel.
        yield case("group_norm", (2, 32, 8, 8), 2, num_groups=8)
        yield case("instance_norm", (2, 32, 14, 14), 2)
        # An affine map of rows and of columns, by given statistics and by the batch's.
        yield case("batch_norm", (2, 32, 14, 14), 4, "inference")
        yield case("batch_norm", (2, 14, 14, 32), 4, "inference, channels last", channel_axis=-1)
        yield case("batch_norm", (64, 256), 4, "inference")
        yield case("batch_norm", (2, 32, 14, 14), 2, "training", training=True)
        yield case("batch_norm", (64, 256), 2, "training", training=True)
        # Statistics alone.
        yield case("moments", (16, 768), note="last axis", axis=-1)
        yield case("moments", (512, 64), note="axis 0", axis=0)
        yield case("moments", (70001,))
        yield case("extrema", (16, 768), note="last axis", axis=-1)
        yield case("extrema", (512, 64), note="axis 0", axis=0)
        # Backward: rows, short and of a few bundles; by steps, sums and then dx; channels as above.
        yield case("layer_norm_backward", (128, 64), 1)
        yield case("layer_norm_backward", (128, 768), 1)
        yield case("rms_norm_backward", (16, 768), 1)
        yield case("l2_normalize_backward", (128, 64))
        yield case("layer_norm_backward", (64, 768), note="axis 0", axis=0)
        yield case("group_norm_backward", (2, 32, 8, 8), 1, num_groups=8)
        yield case("batch_norm_backward", (2, 32, 14, 14), 1, "training", training=True)
        yield case("batch_norm_backward", (2, 14, 14, 32), 1, "training, channels last", training=True, channel_axis=-1)


def work() -> int:
    """Make every call between two markers, under Callgrind; the names of the cases go to standard output."""
    reason = registry.why_not("cython")
    if reason is not None:
        print(f"the compiled kernels cannot run here: {reason}", file=sys.stderr)
        return 1
    gc.disable()
    names = []
    for name, call in cases():
        call()  # binds the symbols of shared libraries, and imports what the call needs
        os.getsid(0)
        call()
        os.getsid(0)
        names.append(name)
    print(json.dumps(names))
    return 0


def module_path(variant: str) -> Path | None:
    """Return the file of a variant's extension module, None if it is not installed."""
    found = importlib.util.find_spec(f"fastnorm.backends._kernels_{variant}")
    return Path(found.origin) if found is not None and found.origin else None


def entry_points(variant: str, module: Path) -> list[str]:
    """Return the symbols of the functions that Python calls in a module; none of them calls another."""
    pattern = rf"\0(__pyx_pw_\w*_kernels_{variant}_\d+[A-Za-z]\w*)(?=\0)"
    symbols = sorted({match.decode() for match in re.findall(pattern.encode(), module.read_bytes())})
    if not symbols:
        raise CountingError(f"{module.name} has no symbols to count by; was it stripped?")
    return symbols


def instructions_in(dump: str) -> int:
    """Return the instructions in a file of Callgrind's, without the interpreter's and those that allocate."""
    names: dict[str, dict[str, str]] = {"fn": {}, "ob": {}}  # a name stands beside its number once
    here = {"fn": "", "ob": ""}  # the function, and the file that it comes from
    instructions, counted, inclusive = 0, False, False
    for line in dump.splitlines():
        kind, _, rest = line.partition("=")
        if kind in ("fn", "cfn", "ob", "cob"):
            number, _, name = rest.partition(" ")
            known = names[kind[-2:]]
            known.setdefault(number, name)
            if kind in here:  # the others are what is called from here
                here[kind] = known[number]
                counted = not (ALLOCATION.search(here["fn"]) or INTERPRETER.search(here["ob"]))
        elif kind == "calls":
            inclusive = True  # the next line is what the called function took
        elif line[:1] in tuple("0123456789+-*"):
            if counted and not inclusive:
                instructions += int(line.split()[1])
            inclusive = False
    return instructions


def count(variant: str, module: Path) -> dict[str, int]:
    """Return the instructions of each case in one variant of the kernels."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FASTNORM_", "NUMBA_"))}
    environment.update(
        FASTNORM_ISA=variant,
        FASTNORM_NUM_THREADS="1",
        FASTNORM_PREFETCH="1",
        OPENBLAS_NUM_THREADS="1",
        PYTHONHASHSEED="0",
    )
    with tempfile.TemporaryDirectory(prefix="fastnorm-instructions-") as folder:
        command = [
            "valgrind", "--tool=callgrind", "--collect-atstart=no", f"--dump-before={MARKER}",
            f"--callgrind-out-file={folder}/counts",
            *(f"--toggle-collect={symbol}" for symbol in entry_points(variant, module)),
            sys.executable, os.path.abspath(__file__), "--work",
        ]  # fmt: skip
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise CountingError(f"counting {variant} failed:\n{finished.stderr}")
        names: list[str] = json.loads(finished.stdout.splitlines()[-1])
        totals = [  # the odd files end what came before a counted call
            instructions_in(Path(folder, f"counts.{number}").read_text(encoding="utf-8"))
            for number in range(2, 2 * len(names) + 1, 2)
        ]
    counts = dict(zip(names, totals, strict=True))
    if not all(counts.values()):
        nothing = [name for name, total in counts.items() if not total]
        raise CountingError(f"no instruction of the {variant} kernels was seen in {', '.join(nothing)}")
    return counts


def surroundings(modules: dict[str, Path]) -> dict[str, str]:
    """Return what counts depend on besides the sources of fastnorm."""
    compilers = {
        match.decode()
        for module in modules.values()
        for match in re.findall(rb"GCC: \([^\0]*\) [\d.]+|[\w ]*clang version [^\0\n]*", module.read_bytes())
    }
    kernels = importlib.import_module("fastnorm.backends._kernels_base")
    cython = type(kernels.moments).__module__.removeprefix("_cython_").replace("_", ".")
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "compiler": ", ".join(sorted(compilers)) or "unknown",
        "cython": cython,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": " ".join(platform.libc_ver()),  # its fma serves the base variant
        "valgrind": valgrind.removeprefix("valgrind-"),
        "machine": platform.machine(),
    }


def compare(counts: dict[str, dict[str, int]], stored: dict[str, dict[str, int]]) -> tuple[list[str], list[str]]:
    """Print every count that has changed; return what is above the threshold or not stored, and what is below."""
    more, fewer = [], []
    width = max(len(name) for cases_of in counts.values() for name in cases_of)
    for variant, cases_of in counts.items():
        for name, now in cases_of.items():
            before = stored.get(variant, {}).get(name)
            if before == now:
                continue
            change = "not stored" if before is None else f"{now / before - 1:+.2%}"
            print(f"{variant:5} {name:{width}} {before if before is not None else '':>12} {now:12} {change:>10}")
            if before is None or now > before * (1 + THRESHOLD):
                more.append(f"{variant} {name}")
            elif now < before * (1 - THRESHOLD):
                fewer.append(f"{variant} {name}")
        for name in stored.get(variant, {}).keys() - cases_of.keys():
            print(f"{variant:5} {name:{width}} stored, but no longer a case")
            more.append(f"{variant} {name}")
    return more, fewer


def main() -> int:
    """Count, compare or store, and return 1 where a case takes more than it may, 2 where nothing could be counted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--update", action="store_true", help=f"store the counts in {STORE.name}")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work()
    if shutil.which("valgrind") is None:
        print("Valgrind is not installed: no instructions are counted.")
        return 0
    reason = registry.why_not("cython")
    if reason is not None:
        print(f"bench-instructions: the compiled kernels cannot run here: {reason}", file=sys.stderr)
        return 2
    from fastnorm.backends.cython import runnable_variants

    runnable = runnable_variants()
    modules = {
        variant: path for variant in VARIANTS if variant in runnable and (path := module_path(variant)) is not None
    }
    try:
        counts = {variant: count(variant, path) for variant, path in modules.items()}
    except CountingError as error:
        print(f"bench-instructions: {error}", file=sys.stderr)
        return 2
    here = surroundings(modules)
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    kept = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {"surroundings": {}, "counts": {}}
    more, fewer = compare(counts, kept["counts"])
    total = sum(len(cases_of) for cases_of in counts.values())
    if arguments.update:
        if set(modules) != set(VARIANTS):
            print(f"bench-instructions: only {', '.join(modules)} can run here; not stored", file=sys.stderr)
            return 2
        STORE.write_text(json.dumps({"surroundings": here, "counts": counts}, indent=1) + "\n", encoding="utf-8")
        print(f"{total} counts stored in {STORE.name}.")
        return 0
    others = [
        f"{name} {kept['surroundings'].get(name)}"
        for name, value in here.items()
        if kept["surroundings"].get(name) != value
    ]
    if others:
        print(f"NOT JUDGED: the counts in {STORE.name} were stored with {', '.join(others)}.")
        return 0
    if fewer:
        print(f"{len(fewer)} counts fell by more than {THRESHOLD:.1%}: store them with --update, to keep what was won.")
    if more:
        print(
            f"{len(more)} of {total} counts rose by more than {THRESHOLD:.1%}, or are not those stored in {STORE.name}."
        )
        print("If that is meant, store them with: python bench/instructions.py --update")
        return 1
    print(f"{total} counts, none more than {THRESHOLD:.1%} above its stored one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
