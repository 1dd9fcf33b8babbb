"""The hardware's branch of every kernel, compiled without a device: PTX, and what the assembler says of registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastnorm

pytestmark = pytest.mark.needs_no_device

# In a process of its own: the simulator, which the others may run in, has no compiler.
COMPILE = Path(__file__).with_name("compile_kernels.py")


def test_every_kernel_compiles_for_hardware() -> None:
    """Rows are read by 16 bytes, and nothing of what is held goes to memory instead of registers."""
    pytest.importorskip("numba_cuda", reason="numba-cuda, which compiles for hardware, is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_ENABLE_CUDASIM"}
    environment["PYTHONPATH"] = str(Path(fastnorm.__file__).parents[1])
    done = subprocess.run([sys.executable, COMPILE], env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 25
    for name, kernel in found.items():
        if "vectors" in name:
            assert kernel["wide loads"] > 0, name
        if "no shared" in name:
            assert kernel["barriers"] == 0, name
        if kernel["registers"] is not None:  # there was an assembler
            # Less than the least that a thread holds of a row: float64's division is a call, which may save a little.
            assert kernel["stack"] < 64, name
            assert kernel["spills"] < 64, name
