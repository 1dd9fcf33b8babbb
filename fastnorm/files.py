"""What goes wrong with files that others wrote."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

# What zipfile, zlib and NumPy raise where a file is not, or no longer, an archive of arrays or an array.
_DAMAGED = (
    ValueError, TypeError, AttributeError, KeyError, EOFError, RuntimeError, NotImplementedError, MemoryError,
    OverflowError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def readable(complaint: str) -> Iterator[None]:
    """Turn what reading a damaged file raises into a ValueError that begins with a complaint.

    Raises
    ------
    ValueError
        The file is not what its reader takes it for.
    OSError
        It cannot be opened or read: an error of the system, which names the file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(f"{complaint}: {error}") from error
    except _DAMAGED as error:
        raise ValueError(f"{complaint}: {error}") from error
