"""How many matrix products of an ONNX file ONNX Runtime computes on integers: it fuses them, or not, when it loads."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from edgeseq.devices.engines.ort import session_options
from edgeseq.errors import MissingDependency, Unsupported

_INTEGER = ("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_FLOAT = ("Gemm", "MatMul", "FusedGemm", "FusedMatMul")


def onnx_integer_matmuls(file: Path) -> tuple[int, int]:
    """Integer and float matrix products in the graph that ONNX Runtime runs, optimised with the engine's own options.

    Raises:
        MissingDependency: onnxruntime or onnx is not installed.
        Unsupported: this onnxruntime cannot run the file.
    """
    kinds = Counter(_optimised_kinds(file))
    return sum(kinds[kind] for kind in _INTEGER), sum(kinds[kind] for kind in _FLOAT)


def _optimised_kinds(file: Path) -> list[str]:
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise MissingDependency("onnxruntime and onnx", "all", "counting integer products") from None
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = session_options(onnxruntime)
        options.optimized_model_filepath = str(optimised)
        try:
            onnxruntime.InferenceSession(str(file), sess_options=options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no public base
            raise Unsupported(f"{file} cannot be run by onnxruntime {onnxruntime.__version__}: {error}") from error
        return [node.op_type for node in onnx.load(optimised).graph.node]


def wrong_onnx_bias_scales(file: Path) -> list[str]:
    """The int32 biases of an ONNX file whose scale is not that of the products they are added to, by name.

    ONNX Runtime ignores the scale of a bias where it fuses the layer, another runtime need not.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = {n.output[0]: stored[n.input[1]] for n in graph.node if n.op_type == "DequantizeLinear"}
    biases = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return [
        biases[node.input[2]]
        for node in graph.node
        if node.op_type == "Gemm" and all(name in scales for name in node.input)
        and not np.array_equal(scales[node.input[2]], scales[node.input[0]] * scales[node.input[1]])
    ]  # fmt: skip
