"""Imports of the library's own modules on first use, which a fork waits for.

A process forked while one of its threads imports a module would wait for that module's lock for ever: the child has no
such thread. Numba's import is not waited for: it takes locks that a forking thread may hold already (logging's), and a
child uses Numba only if it is asked for by name.
"""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_LONGEST = 30.0  # seconds that a fork waits: an import may itself wait for what the forking thread holds

_changed = threading.Condition()
_importing: list[int] = []  # the threads


@contextmanager
def importing() -> Iterator[None]:
    """Have forks of other threads wait."""
    thread = threading.get_ident()
    with _changed:
        _importing.append(thread)
    try:
        yield
    finally:
        with _changed:
            _importing.remove(thread)
            _changed.notify_all()


def load(name: str) -> ModuleType:
    """Import a module by its full name."""
    with importing():
        return importlib.import_module(name)


def _before_fork() -> None:
    """Wait for the imports of other threads, and let none begin."""
    _changed.acquire()
    thread = threading.get_ident()
    _changed.wait_for(lambda: all(other == thread for other in _importing), _LONGEST)


def _after_fork() -> None:
    _changed.release()


def _after_fork_in_child() -> None:
    _importing[:] = [thread for thread in _importing if thread == threading.get_ident()]
    _changed.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
