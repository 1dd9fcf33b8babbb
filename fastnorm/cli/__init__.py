"""The command line, ``fastnorm``."""
