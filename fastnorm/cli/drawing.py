"""The figures of commands: what is checked before the measurement, and the file that is written after it."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from fastnorm.cli.printing import fail, tell
from fastnorm.lab.plots import require_matplotlib

FORMATS = (".png", ".svg")


def figure_file(text: str) -> pathlib.Path:
    """Return the path of a figure that a command is given: for ``argparse``, which says what is wrong with it."""
    path = pathlib.Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(FORMATS)}, got {text!r}")
    return path


def why_not_drawn(*paths: pathlib.Path | None) -> str | None:
    """
    Return why figures cannot be written; asked before the measurement, so that what is missing shows at once.

    Parameters
    ----------
    *paths : Path or None
        The files to write; None where no file is asked for.

    Returns
    -------
    str or None
        None if nothing is in the way.
    """
    wanted = [path for path in paths if path is not None]
    try:
        if wanted:
            require_matplotlib()
    except ImportError as error:
        return str(error)
    for path in wanted:
        if path.is_dir():
            return f"could not write {path}: it is a directory"
        if not path.parent.is_dir():
            return f"could not write {path}: there is no directory {path.parent}"
    return None


def write_figure(
    command: str, draw: Callable[[Any, pathlib.Path], None], results: Any, path: pathlib.Path | None
) -> int:
    """
    Draw results into a file, if one is asked for, and say so.

    Parameters
    ----------
    command : str
        The command's name.
    draw : callable
        Takes the results and the path.
    results : object
        What was measured.
    path : Path or None
        The file to write, if any.

    Returns
    -------
    int
        The exit status: 1 if the file cannot be written.
    """
    if path is None:
        return 0
    try:
        draw(results, path)
    except (OSError, ValueError) as error:
        return fail(command, f"could not write {path}: {error}")
    tell(f"Drawn in {path}")
    return 0
