"""The operators, and onnx's evaluator with them."""

from collections.abc import Sequence
from typing import Any

from fastnorm.onnx.base import Operator, ReferenceEvaluator
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


def ops() -> list[type[Operator]]:
    """Return the operators, for ``ReferenceEvaluator(model, new_ops=fastnorm.onnx.ops())``.

    LayerNormalization, RMSNormalization, BatchNormalization (from opset 7 on), InstanceNormalization,
    GroupNormalization, MeanVarianceNormalization, LpNormalization and LRN as https://onnx.ai/onnx/operators defines
    them; SkipLayerNormalization, SkipSimplifiedLayerNormalization and SimplifiedLayerNormalization as ONNX Runtime
    does, the last one in the default domain too. Statistics are computed in float64 whatever `stash_type` says, which
    gives the mean and the inverse deviation their dtype.

    Inside a model's local functions onnx's evaluator keeps its own operators; `Evaluator` does not.

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


class Evaluator(ReferenceEvaluator):  # type: ignore[misc]  # a base of type Any: mypy skips onnx, see base.py
    """``onnx.reference.ReferenceEvaluator`` with fastnorm's norms, also inside the model's local functions.

    Onnx hands `new_ops` on to the bodies of If, Loop and Scan, but not to functions, whose evaluators it makes of the
    class of their own: so it is the class that has these operators.

    Parameters
    ----------
    proto : ModelProto, GraphProto, FunctionProto, NodeProto, str or bytes
        What is to be run: a model, or the name of its file.
    new_ops : sequence of subclasses of ``onnx.reference.op_run.OpRun``, optional
        Others, in front of these; not inside functions.
    **options
        As `ReferenceEvaluator` takes them: `opsets`, `functions`, `verbose`.

    Raises
    ------
    ValueError, TypeError
        As `ops` says.

    Examples
    --------
    >>> import numpy as np, onnx, fastnorm.onnx
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 10, opset_import: ["": 21, "local": 1]>
    ...     graph (float[N, 3] x, float[3] scale) => (float[N, 3] y) { y = local.block (x, scale) }
    ...     <domain: "local", opset_import: ["": 21]>
    ...     block (x, scale) => (y) { y = LayerNormalization (x, scale) }
    ... ''')
    >>> x, scale = np.array([[1, 2, 3]], np.float32), np.ones(3, np.float32)
    >>> fastnorm.onnx.Evaluator(model).run(None, {"x": x, "scale": scale})[0].round(4)
    array([[-1.2247,  0.    ,  1.2247]], dtype=float32)
    """

    def __init__(self, proto: Any, *, new_ops: Sequence[type[Any]] | None = None, **options: Any) -> None:
        super().__init__(proto, new_ops=[*(new_ops or ()), *ops()], **options)
