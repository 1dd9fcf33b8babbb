"""ONNX's normalization operators on fastnorm, for ``onnx.reference.ReferenceEvaluator``.

Plain NumPy runs an ONNX graph there, without a runtime; with these operators its norms are fastnorm's. They stand in
front of onnx's own, so no norm of the graph is expanded into primitive operators.

>>> import numpy as np
>>> import onnx
>>> from onnx.reference import ReferenceEvaluator
>>> import fastnorm.onnx
>>> model = onnx.parser.parse_model('''
...     <ir_version: 10, opset_import: ["": 21]>
...     norm (float[N, C] x, float[C] scale) => (float[N, C] y) {
...         y = LayerNormalization (x, scale)
...     }
... ''')
>>> evaluator = ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())
>>> x = np.array([[1, 2, 3], [4, 4, 4]], np.float32)
>>> evaluator.run(None, {"x": x, "scale": np.ones(3, np.float32)})[0].round(4)
array([[-1.2247,  0.    ,  1.2247],
       [ 0.    ,  0.    ,  0.    ]], dtype=float32)
"""

from fastnorm.onnx.base import Operator
from fastnorm.onnx.channels import LRN, BatchNormalization, GroupNormalization, InstanceNormalization
from fastnorm.onnx.lines import (
    LayerNormalization,
    LpNormalization,
    MeanVarianceNormalization,
    RMSNormalization,
    SimplifiedInDefaultDomain,
    SimplifiedLayerNormalization,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
)

__all__ = ["ops"]


def ops() -> list[type[Operator]]:
    """Return the operators, for ``ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())``.

    LayerNormalization, RMSNormalization, BatchNormalization (from opset 7 on), InstanceNormalization,
    GroupNormalization, MeanVarianceNormalization, LpNormalization and LRN as https://onnx.ai/onnx/operators defines
    them; SkipLayerNormalization, SkipSimplifiedLayerNormalization and SimplifiedLayerNormalization as ONNX Runtime
    does, the last one in the default domain too. Statistics are computed in float64 whatever `stash_type` says, which
    gives the mean and the inverse deviation their dtype.

    The evaluator keeps its own operators inside a model's local functions: ``onnx.inliner.inline_local_functions``
    brings their nodes to where these are seen.

    Returns
    -------
    list of subclasses of ``onnx.reference.op_run.OpRun``

    Raises
    ------
    ImportError
        On importing ``fastnorm.onnx``: onnx is not installed.
    ValueError
        On building the evaluator: a node has an attribute that its operator has not. On running it: an attribute or an
        input has a value or a shape that does not fit.
    TypeError
        On running it: an attribute or an input has a type that does not fit.

    Examples
    --------
    >>> import fastnorm.onnx
    >>> sorted(operator.__name__ for operator in fastnorm.onnx.ops() if operator.op_domain == "com.microsoft")
    ['SimplifiedLayerNormalization', 'SkipLayerNormalization', 'SkipSimplifiedLayerNormalization']
    """
    return [
        LayerNormalization,
        RMSNormalization,
        BatchNormalization,
        InstanceNormalization,
        GroupNormalization,
        MeanVarianceNormalization,
        LpNormalization,
        LRN,
        SkipLayerNormalization,
        SkipSimplifiedLayerNormalization,
        SimplifiedLayerNormalization,
        SimplifiedInDefaultDomain,
    ]
