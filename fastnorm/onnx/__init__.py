"""ONNX's normalization operators on fastnorm, for ``onnx.reference.ReferenceEvaluator``.

Plain NumPy runs an ONNX graph there, without a runtime; with these operators its norms are fastnorm's. They stand in
front of onnx's own, so no norm of the graph is expanded into primitive operators. `Evaluator` is that evaluator with
them; `ops` are the operators for one that is made otherwise.

>>> import numpy as np
>>> import onnx
>>> import fastnorm.onnx
>>> model = onnx.parser.parse_model('''
...     <ir_version: 10, opset_import: ["": 21]>
...     norm (float[N, C] x, float[C] scale) => (float[N, C] y) {
...         y = LayerNormalization (x, scale)
...     }
... ''')
>>> evaluator = fastnorm.onnx.Evaluator(model)
>>> x = np.array([[1, 2, 3], [4, 4, 4]], np.float32)
>>> evaluator.run(None, {"x": x, "scale": np.ones(3, np.float32)})[0].round(4)
array([[-1.2247,  0.    ,  1.2247],
       [ 0.    ,  0.    ,  0.    ]], dtype=float32)
"""

from fastnorm.onnx.evaluator import Evaluator, ops

__all__ = ["Evaluator", "ops"]
