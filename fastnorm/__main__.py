"""``python -m fastnorm``: the command line."""

from fastnorm.cli import start

raise SystemExit(start())
