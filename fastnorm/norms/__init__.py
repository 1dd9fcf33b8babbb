"""The norms, one file for each family: data, a little algebra, docstrings."""
