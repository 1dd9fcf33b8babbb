"""How far a command has come: a bar with rich, else a line; nothing if standard error is no terminal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a function that shows how far the work has come, told steps done, steps in all, and what comes next."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    try:
        console_module, progress_module = (importlib.import_module(f"rich.{name}") for name in ("console", "progress"))
    except ImportError:
        yield _show_line
        return
    bar = progress_module.Progress(
        progress_module.BarColumn(),
        progress_module.TaskProgressColumn(),
        progress_module.TextColumn("{task.description}", markup=False),
        console=console_module.Console(stderr=True),
        transient=True,
        auto_refresh=False,  # a thread that draws would disturb the times
    )
    with bar:
        task = bar.add_task("")

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name, refresh=True)

        yield show


def _show_line(done: int, total: int, name: str) -> None:
    text = f"[{done + 1}/{total}] {name}" if done < total else ""
    sys.stderr.write(f"\r\x1b[2K{text}")
    sys.stderr.flush()
