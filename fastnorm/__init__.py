"""Normalization for NumPy arrays at the speed of memory and the accuracy of float64.

Submodules load on first use: ``import fastnorm`` costs little more than ``import numpy``, and Numba is imported when a
call first needs it.
"""

from typing import TYPE_CHECKING, Any

from fastnorm.loading import load as _load

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnorm.engine import Stats
    from fastnorm.explanation import explain
    from fastnorm.gradients import Gradients
    from fastnorm.inspection import show_config, warm
    from fastnorm.norms.batch import batch_norm, batch_norm_backward
    from fastnorm.norms.clip import clip_by_global_norm, clip_by_norm, clip_by_value
    from fastnorm.norms.given import normalize
    from fastnorm.norms.group import group_norm, group_norm_backward, instance_norm, instance_norm_backward
    from fastnorm.norms.image import normalize_image
    from fastnorm.norms.layer import layer_norm, layer_norm_backward
    from fastnorm.norms.local_response import local_response_norm, local_response_norm_backward
    from fastnorm.norms.lp import lp_normalize
    from fastnorm.norms.pixel import l2_normalize, l2_normalize_backward, pixel_norm, pixel_norm_backward
    from fastnorm.norms.rms import rms_norm, rms_norm_backward
    from fastnorm.norms.scalers import max_abs_scale, min_max_scale, standardize
    from fastnorm.norms.switchable import SwitchableGradients, switchable_norm, switchable_norm_backward
    from fastnorm.norms.weights import fold_batch_norm, spectral_norm, weight_norm, weight_standardize
    from fastnorm.settings import config, get_num_threads, set_num_threads
    from fastnorm.stats.extrema import extrema
    from fastnorm.stats.moments import Moments, moments
    from fastnorm.stats.welford import Welford

# Where each public name lives.
_PUBLIC = {
    "engine": "Stats",
    "explanation": "explain",
    "gradients": "Gradients",
    "inspection": "show_config warm",
    "norms.batch": "batch_norm batch_norm_backward",
    "norms.clip": "clip_by_global_norm clip_by_norm clip_by_value",
    "norms.given": "normalize",
    "norms.group": "group_norm group_norm_backward instance_norm instance_norm_backward",
    "norms.image": "normalize_image",
    "norms.layer": "layer_norm layer_norm_backward",
    "norms.local_response": "local_response_norm local_response_norm_backward",
    "norms.lp": "lp_normalize",
    "norms.pixel": "l2_normalize l2_normalize_backward pixel_norm pixel_norm_backward",
    "norms.rms": "rms_norm rms_norm_backward",
    "norms.scalers": "max_abs_scale min_max_scale standardize",
    "norms.switchable": "SwitchableGradients switchable_norm switchable_norm_backward",
    "norms.weights": "fold_batch_norm spectral_norm weight_norm weight_standardize",
    "settings": "config get_num_threads set_num_threads",
    "stats.extrema": "extrema",
    "stats.moments": "Moments moments",
    "stats.welford": "Welford",
}
_HOMES = {name: home for home, names in _PUBLIC.items() for name in names.split()}

# Of these `nn` alone is in __all__: `onnx` needs a package that need not be installed.
_SUBMODULES = ("lab", "memory", "nn", "onnx")

__all__ = [
    "Gradients",
    "Moments",
    "Stats",
    "SwitchableGradients",
    "Welford",
    "batch_norm",
    "batch_norm_backward",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "config",
    "explain",
    "extrema",
    "fold_batch_norm",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "l2_normalize",
    "l2_normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "lp_normalize",
    "max_abs_scale",
    "min_max_scale",
    "moments",
    "nn",
    "normalize",
    "normalize_image",
    "pixel_norm",
    "pixel_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
    "spectral_norm",
    "standardize",
    "switchable_norm",
    "switchable_norm_backward",
    "warm",
    "weight_norm",
    "weight_standardize",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return _load(f"fastnorm.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastnorm' has no attribute {name!r}")
    value = getattr(_load(f"fastnorm.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
