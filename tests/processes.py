"""Code run in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import fastnorm

VARIABLES = ("FASTNORM_BACKEND", "FASTNORM_ISA", "FASTNORM_NUM_THREADS", "NUMBA_NUM_THREADS")


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with these environment variables, and no other that the library reads.

    The current directory is not on its path: there may lie a source tree without compiled modules.
    """
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment |= {"PYTHONPATH": str(Path(fastnorm.__file__).parents[1])} | variables
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )


def output(code: str, **variables: str) -> str:
    """Return what the code prints; it must succeed."""
    done = python(code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
