"""Integer arithmetic in a TFLite file, read from a loaded interpreter: how much of it, and that its scales are right.

LiteRT takes a bias scale that is not input scale x weight scale without a word and computes as if it were, so nothing
but a comparison tells that such a file says one thing and computes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines.base import Floats
from edgeseq.errors import GateFailed

_MATMULS = ("FULLY_CONNECTED", "BATCH_MATMUL")
_SCALE_TOLERANCE = 1e-6  # relative: one rounding of a float32 product, whichever way it was computed
_ADVICE = "export the model anew"


def check_unquantized(file: Path, details: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an input or output, name -> tensor detail, that is quantized: files take and give plain float32.

    Raises:
        GateFailed: naming the tensor and its scale.
    """
    for name, detail in details.items():
        scales = _scales(detail)
        if len(scales):
            raise GateFailed(f"{file}: tensor {name!r} is quantized (scale {scales[0]}), float32 is needed: {_ADVICE}")


def count_matmuls(interpreter: Any) -> tuple[int, int]:
    """How many matrix products run on integers alone (int8 x int8 + int32 -> int8), and how many do not."""
    tensors = _tensors(interpreter)
    products = [node for node in interpreter._get_ops_details() if node["op_name"] in _MATMULS]
    integer = sum(_is_integer(node, tensors) for node in products)
    return integer, len(products) - integer


def check_scales(file: Path, interpreter: Any) -> None:
    """Compare the scales of every integer product's bias and weights with what the kernels compute by.

    Raises:
        GateFailed: a bias scale is not input scale x weight scale, or weights have a zero point other than 0.
    """
    tensors = _tensors(interpreter)
    for node in interpreter._get_ops_details():
        if node["op_name"] not in _MATMULS or not _is_integer(node, tensors):
            continue
        x, weights, bias = (tensors[int(index)] for index in node["inputs"])
        zeros = weights["quantization_parameters"]["zero_points"]
        if np.any(zeros):
            found = next(int(zero) for zero in zeros if zero)
            raise GateFailed(f"{file}: weights {weights['name']!r} have zero point {found}, 0 is needed: {_ADVICE}")
        expected, stated = _scales(x) * _scales(weights), _scales(bias)
        if stated.shape != expected.shape:
            raise GateFailed(
                f"{file}: bias {bias['name']!r} has {len(stated)} scales, its weights {len(expected)}: {_ADVICE}"
            )
        wrong = np.flatnonzero(~(np.abs(stated - expected) <= _SCALE_TOLERANCE * expected))
        if len(wrong):
            row = wrong[0]
            raise GateFailed(
                f"{file}: bias {bias['name']!r} has scale {stated[row]} in row {row}, input scale x weight scale is "
                f"{expected[row]}: {_ADVICE}"
            )


def _tensors(interpreter: Any) -> dict[int, dict[str, Any]]:
    return {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}


def _scales(detail: Mapping[str, Any]) -> Floats:
    return np.asarray(detail["quantization_parameters"]["scales"], np.float32)


def _is_integer(node: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]]) -> bool:
    indices = [*(int(index) for index in node["inputs"]), *(int(index) for index in node["outputs"])]
    dtypes = [np.dtype(tensors[index]["dtype"]).name if index in tensors else "" for index in indices]
    return dtypes == ["int8", "int8", "int32", "int8"]
