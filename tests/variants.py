"""The backends, and the variants of their kernels, by a label each: "cython-avx2"."""

from fastnorm.backends import registry
from fastnorm.backends.reference import Reference

VARIANTS = {"cython": ("base", "avx2", "avx512")}
# Whatever the registry lists, a new backend too.
LABELS = tuple(
    f"{name}-{variant}" if variant else name for name in registry.NAMES for variant in VARIANTS.get(name, ("",))
)
COMPILED_LABELS = tuple(label for label in LABELS if label != "reference")


# What has no kernels of its own: a compiled backend refuses it.
BY_NUMPY = ("fold_batch_norm",)


def serving(op: str, backend: str) -> str:
    """Return the backend for a function: the one given, or the reference where NumPy computes it."""
    return "reference" if op in BY_NUMPY else backend


def why_not(label: str) -> str | None:
    """Return why the backend, or the variant of the kernels, cannot run here; None if it can."""
    name, _, variant = label.partition("-")
    if name != "cython" or not variant:
        return registry.why_not(name)
    try:
        from fastnorm.backends.cython import built_variants, runnable_variants

        if variant not in built_variants():
            return f"the {variant} variant of the kernels is not built"
        return None if variant in runnable_variants() else f"this processor cannot run {variant}"
    except ImportError as error:
        return f"the compiled kernels are not installed: {error}"


def implementation(label: str) -> Reference:
    """Return the backend of a label."""
    name, _, variant = label.partition("-")
    if name != "cython" or not variant:
        return registry.load(name)
    from fastnorm.backends.cython import Cython

    return Cython(variant)
