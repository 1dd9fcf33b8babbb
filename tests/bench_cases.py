"""Calls of every kind that `fastnorm bench` measures, so small that they take no time."""

from fastnorm.cli.benchmark.grid import Cell

TINY = (
    Cell("layer_norm", (3, 8)),
    Cell("layer_norm", (3, 8), "float64"),
    Cell("layer_norm", (3, 8), "float16"),
    Cell("rms_norm", (3, 8)),
    Cell("batch_norm", (3, 4)),
    Cell("batch_norm", (3, 4, 2, 5)),
    Cell("batch_norm", (3, 4, 2, 5), training=True),
    Cell("group_norm", (3, 4, 2, 5), groups=2),
    Cell("instance_norm", (3, 4, 2, 5)),
    Cell("l2_normalize", (3, 8)),
    Cell("moments", (3, 8), along="last"),
    Cell("moments", (30, 8), along="first"),
    Cell("moments", (3, 8), "float64", along="first"),
    Cell("moments", (24,), along="all"),
)
LAYER, BATCH, MOMENTS = TINY[0], TINY[6], TINY[10]
