"""The command line, ``fastnorm``."""

import io
import os
import sys

from fastnorm.cli.printing import tell

__all__ = ["start"]


def start() -> int:
    """Run ``fastnorm`` as a program: what the environment has wrong is a message, and nobody need read to the end.

    Returns
    -------
    int
        The exit status: that of the command; 2 for a wrong environment variable, 1 if the output cannot be written, 130
        if it was interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every encoding has a micro sign
    try:
        from fastnorm.cli.main import main  # the import reads the environment

        try:
            status = main()
        finally:  # the parser leaves by SystemExit
            if sys.stdout is not None:  # else it was closed
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _leave_stdout()
        return 1
    except (ValueError, RuntimeError) as error:
        if not any(name in str(error) for name in ("FASTNORM_", "NUMBA_NUM_THREADS")):
            raise
        tell(f"fastnorm: {error}")
        return 2
    except OSError as error:
        if error.filename is not None:
            raise
        _leave_stdout()
        tell(f"fastnorm: the output could not be written: {error}")
        return 1
    return status


def _leave_stdout() -> None:
    """Have what is left in its buffer go nowhere when the interpreter ends."""
    if sys.stdout is None:
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
