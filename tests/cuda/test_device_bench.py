"""The script that times a card checks its results; in the simulator that is all it does."""

import re

import gpu
import pytest


def test_checks_print_errors_within_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """4 units forward; sums for parameters are in proportion to what they add up, on these few rows 16 at most."""
    gpu.main(["--check-only"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 6
    for line in lines:
        error = float(re.findall(r"([\d.]+) units", line)[0])
        assert error <= (16 if "backward" in line else 8), line


def test_only_takes_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--check-only", "--only", "rms_norm 8192x1024 float32"])
    assert len(capsys.readouterr().out.splitlines()) == 1
