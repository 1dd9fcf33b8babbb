"""The hardware's branch of the kernels that calls launch, compiled without a device, and what the assembler says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastnorm

pytestmark = pytest.mark.needs_no_device

# In a process of its own: the simulator, which the others may run in, has no compiler.
COMPILE = Path(__file__).with_name("compile_kernels.py")

SHARED = 48 * 1024  # bytes that every block can have
# Calls whose rows are no whole vectors, and kernels that read a few numbers, or one for each line.
ODD = r" 1023 | of 14x14 (float16|bfloat16)"
SMALL = ("merge_moments", "merge_sums", "merge_columns", "merge_extrema", "spread", "rooted")


def test_every_kernel_compiles_for_hardware() -> None:
    """Rows are read by 16 bytes, and hardly anything of what is held goes to memory instead of registers."""
    pytest.importorskip("numba_cuda", reason="numba-cuda, which compiles for hardware, is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_ENABLE_CUDASIM"}
    environment["PYTHONPATH"] = str(Path(fastnorm.__file__).parents[1])
    done = subprocess.run([sys.executable, COMPILE], env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 200
    for kernel in found:
        if kernel["kernel"] not in SMALL and not re.search(ODD, kernel["call"]):
            assert kernel["wide loads"] > 0, kernel
        if kernel["kernel"] == "normalize_rows" and kernel["threads side by side"] <= 32:
            assert kernel["barriers"] == 0, kernel  # a warp needs none
        assert kernel["shared"] <= SHARED, kernel
        if kernel["registers"] is not None:  # there was an assembler
            # Less than the least that a thread holds of a row: float64's division is a call, which may save a little.
            assert kernel["stack"] < 64, kernel
            assert kernel["spills"] < 64, kernel
