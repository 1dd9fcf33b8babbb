"""The norms as layers, with torch's names, options, modes and state_dict keys.

>>> import numpy as np
>>> from fastnorm import nn
>>> layer = nn.BatchNorm2d(3)
>>> layer
BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
>>> batch = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
>>> trained = layer(batch)  # moves the running statistics
>>> inferred = layer.eval()(batch)  # uses them
>>> loaded = nn.BatchNorm2d(3).load_state_dict(layer.state_dict())
>>> copied = nn.from_state_dict(layer.state_dict(), kind=nn.BatchNorm2d)

`from_torch` takes a torch module instead; `save` and `load` keep the arrays in .npz and .safetensors files.
"""

from fastnorm.nn.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from fastnorm.nn.conversion import from_state_dict, from_torch
from fastnorm.nn.files import load, save
from fastnorm.nn.group import GroupNorm
from fastnorm.nn.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from fastnorm.nn.layer import Layer
from fastnorm.nn.lines import LayerNorm, RMSNorm
from fastnorm.nn.local_response import LocalResponseNorm
from fastnorm.nn.pixel import PixelNorm
from fastnorm.nn.switchable import SwitchableNorm2d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "Layer",
    "LayerNorm",
    "LocalResponseNorm",
    "PixelNorm",
    "RMSNorm",
    "SwitchableNorm2d",
    "from_state_dict",
    "from_torch",
    "load",
    "save",
]
