"""The tests of the device's kernels need one, or the simulator, which is chosen before Numba is imported."""

import sys
from pathlib import Path

import pytest

from fastnorm.backends import registry

sys.path.insert(0, str(Path(__file__).parent))

REASON = registry.why_no_cuda()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a device, where there is none, and say why."""
    here = Path(__file__).parent
    if REASON is None:
        return
    for item in items:
        if here in item.path.parents and "needs_no_device" not in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"{REASON}; NUMBA_ENABLE_CUDASIM=1 simulates one"))


@pytest.fixture(scope="session", autouse=True)
def _threads_take_turns() -> None:
    """The simulator's threads wait for each other all the time: let the interpreter change between them at once."""
    sys.setswitchinterval(1e-5)
