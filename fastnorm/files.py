"""What goes wrong with files that others wrote."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def readable(complaint: str) -> Iterator[None]:
    """Turn what reading a damaged file raises into a ValueError that begins with a complaint.

    Raises
    ------
    ValueError
        The file is not what its reader takes it for.
    OSError
        It cannot be opened or read.
    """
    try:
        yield
    except Exception as error:
        # The index of a damaged archive may point before the file; a decompressor's errors have no number.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{complaint}: {error}") from error  # zipfile, zlib, lzma and NumPy raise a dozen others
