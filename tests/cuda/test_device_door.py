"""Everything of CUDA comes through one module, which is what a successor of numba-cuda would change."""

import ast
from pathlib import Path

import pytest

import fastnorm

pytestmark = pytest.mark.needs_no_device

FOLDER = Path(fastnorm.__file__).parent


def imported(source: Path) -> set[str]:
    """Return the packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_numba_is_imported_by_one_module() -> None:
    files = [
        *(FOLDER / "backends" / "cuda").glob("*.py"),
        *(FOLDER / "device_norms").glob("*.py"),
        FOLDER / "device.py",
    ]
    assert len(files) > 20
    assert [source.name for source in files if "numba" in imported(source)] == ["compat.py"]
