"""The norms, one file each: data, a little algebra, a docstring."""
