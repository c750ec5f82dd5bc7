"""The step program: structure, operators, numpy meaning, cost. No torch, no onnx, no runtime."""

from edgeseq.program.cost import Cost, cost
from edgeseq.program.graph import Builder, Node, Program, State, Value
from edgeseq.program.interpret import interpret
from edgeseq.program.operators import operator, operators

__all__ = ["Builder", "Cost", "Node", "Program", "State", "Value", "cost", "interpret", "operator", "operators"]
