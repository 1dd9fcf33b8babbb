"""What the lessons share: a command line and a figure."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnorm.lab.plots import GRID, LOOK, require_matplotlib

# Okabe and Ito's, told apart also by readers who do not see red or green.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c8c8c"


def options(description: str, argv: Sequence[str] | None, *, quick: bool = False) -> argparse.Namespace:
    """Parse the command line of a lesson: ``--plot FILE`` and, for those that train long, ``--quick``.

    What a figure needs is checked now, before anything is trained.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result there (.png, .svg, .pdf)")
    if quick:
        parser.add_argument("--quick", action="store_true", help="train less: a few seconds instead of half a minute")
    chosen = parser.parse_args(argv)
    if chosen.plot is not None:
        try:
            require_matplotlib()
        except ImportError as error:
            parser.error(str(error))
        if chosen.plot.suffix not in (".png", ".svg", ".pdf") or not chosen.plot.absolute().parent.is_dir():
            parser.error(f"--plot must be a .png, .svg or .pdf in a folder that exists, got {chosen.plot}")
    return chosen


@contextmanager
def figure(path: Path, width: float, height: float, *, grid: bool = True) -> Iterator[Any]:
    """Hand out an empty figure, inches wide and high, and write it to `path` at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK | GRID if grid else LOOK):
        empty = Figure(figsize=(width, height), layout="constrained")
        # Drawn on Agg's canvas: needs no display, and leaves the process's choice of backend alone.
        FigureCanvasAgg(empty)
        yield empty
        empty.savefig(path, dpi=100, facecolor="white")
