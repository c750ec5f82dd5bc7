"""The closed set of operators of the step program.

One operator is one small definition: what it computes (numpy), the shape and type of its result, its ONNX nodes, its
TFLite operators, and what it costs. A model that needs another one is refused by name; a new operator is one more
class in one of the rooms below and one more example in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from edgeseq.errors import unknown
from edgeseq.program.base import Operator


@cache
def operators() -> Mapping[str, Operator]:
    """All operators by name, in the order of the documentation."""
    from edgeseq.program import elementwise, layout, linear, neurons, quantized, reduce

    rooms = (linear, elementwise, layout, reduce, quantized, neurons)
    return {entry.name: entry for room in rooms for entry in room.OPERATORS}


def operator(name: str) -> Operator:
    """The operator of that name.

    Raises:
        InputError: there is none.
    """
    found = operators().get(name)
    if found is None:
        raise unknown("operator of the step program", name, operators())
    return found
