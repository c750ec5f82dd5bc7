"""Capture: from the step form, a torch module, to the step program.

``torch.export`` with its empty decomposition table gives a flat graph in which linear maps, normalizations and
activations stay whole. Names of inputs, states and outputs come from the structure that was passed in and returned,
never from the graph. Whatever depends on constants alone is computed here.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from edgeseq.devices.compare import Ties
from edgeseq.errors import EdgeseqError, GateFailed, InputError, Unsupported
from edgeseq.export.aten import RULES, Refused
from edgeseq.export.lower import StepForm
from edgeseq.models.check import attributes, changed
from edgeseq.models.store import initial_values
from edgeseq.program import Builder, Program, Value, interpret
from edgeseq.program.graph import Array

CHECK_TOLERANCE = 1e-5
ATTEMPTS = 10  # examples to draw, so that in one no value lies beside a tie
_INTEGERS = (torch.int8, torch.int32)  # of quantized layers; everything else is float32
_LOUD = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_PASSED = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))  # not the model's own lines
_RAISED_AT = re.compile(r'File "([^"\n]+)", line (\d+), in ')
_DROPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")


def capture(form: StepForm) -> Program:
    """The program of one step of ``form``, checked against it on random distinct states.

    Raises:
        Unsupported: naming the operator outside the set and the module it came from, or the attribute that the step
            keeps something in.
        GateFailed: program and module do not agree.
    """
    x, state = _example(form, seed=0)
    exported = _export(form, x, state)
    signature = exported.graph_signature
    if signature.user_inputs_to_mutate or signature.buffers_to_mutate:
        what = [*signature.user_inputs_to_mutate.values(), *signature.buffers_to_mutate.values()]
        raise Unsupported(
            f"the step changes {what[0]!r} in place; a step must return its next state and change nothing"
        )
    (in_x, in_state), _ = pytree.tree_unflatten(list(signature.user_inputs), exported.call_spec.in_spec)
    returned = pytree.tree_unflatten(list(signature.user_outputs), exported.call_spec.out_spec)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise Unsupported("the step must return its answer and its state, a dict of tensors")
    out_y, out_state = returned
    if list(out_state) != list(in_state):
        raise Unsupported(
            f"the step is given states {list(in_state)} and returns {list(out_state)}; they must be the same"
        )
    builder = Builder(Value("x", (1, form.input_width)), [Value(name, tuple(state[name].shape)) for name in in_state])
    names: dict[str, Any] = {in_x: "x", **{graph_name: name for name, graph_name in in_state.items()}}
    tensors = _translate(exported, builder, names, lambda operator: _called_at(form, x, state, operator))
    y, *after = (_named(graph_name, builder, names, tensors) for graph_name in (out_y, *out_state.values()))
    program = builder.finish(y, dict(zip(out_state, after, strict=True)), initial_values(form.initial_state()))
    shape = program.values[y].shape
    if len(shape) != 2 or shape[0] != 1:
        raise Unsupported(f"the step answers with shape {list(shape)}; [1, K] is needed")
    _check(program, form)
    return program


def _example(form: StepForm, seed: int, scale: float = 1.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Distinct tensors: export merges one tensor given twice into a single input without a word."""
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(1, form.input_width, generator=generator)
    return x, {name: scale * torch.randn(v.shape, generator=generator) for name, v in form.initial_state().items()}


def _export(form: StepForm, x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            _check_attributes(form, x, state)
            warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specs and warns of it
            with _quiet_if_refused():
                whole = torch.export.export(form, (x, state), strict=False)
            return cast(torch.export.ExportedProgram, whole.run_decompositions({}))
    except EdgeseqError:
        raise
    except Exception as error:  # torch.export raises many types, none of them public
        first, found = str(error).strip().splitlines()[:1] or [type(error).__name__], _RAISED_AT.findall(str(error))
        where = f" (at {Path(found[-1][0]).name}:{found[-1][1]})" if found else ""
        raise Unsupported(
            f"the step cannot be captured: {first[0]}{where}. A step may not branch on data, and takes and returns "
            "tensors only"
        ) from error


def _check_attributes(form: StepForm, x: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
    """Refuse a step that leaves something in an attribute, which export would take for a constant or make unusable."""
    before = attributes(form.model)
    for _ in range(2):
        form(x.clone(), {name: tensor.clone() for name, tensor in state.items()})
    for name in changed(before, attributes(form.model)):
        raise Unsupported(f"the step keeps something in attribute {name!r}: carry it in the state")


@contextmanager
def _quiet_if_refused() -> Iterator[None]:
    """Keep back what torch prints of its graph beside the error that it raises; without an error it is passed on."""
    said, loud = io.StringIO(), _LOUD.disabled
    _LOUD.disabled = True
    try:
        with redirect_stderr(said):
            yield
    finally:
        _LOUD.disabled = loud
    sys.stderr.write(said.getvalue())


class _Calls(TorchFunctionMode):
    """Notes the lines, outside torch and this package's export, from which a torch function of one name is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.lines: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame and frame.f_code.co_filename.startswith(_PASSED):
            frame = frame.f_back
        if frame and getattr(func, "__name__", "").strip("_") == self.name:
            self.lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))


def _called_at(form: StepForm, x: torch.Tensor, state: dict[str, torch.Tensor], operator: str) -> str:
    """ " (called at file:line)", where the step calls a torch function of the operator's name; else nothing."""
    with torch.no_grad(), _Calls(operator) as calls:
        form(x.clone(), {name: tensor.clone() for name, tensor in state.items()})
    lines = list(dict.fromkeys(calls.lines))[:3]
    return f" (called at {', '.join(lines)})" if lines else ""


def _translate(
    exported: torch.export.ExportedProgram, builder: Builder, names: dict[str, Any], called_at: Callable[[str], str]
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}  # what is known now: weights, buffers, and what follows from them alone
    roots: dict[str, str] = {}  # of what follows: the first weight or buffer that it was computed from
    signature = exported.graph_signature
    stored = {**exported.state_dict, **exported.constants}
    for held in (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    ):
        for graph_name, target in held.items():
            tensors[graph_name] = stored[target].detach()
            names[graph_name] = _Constant(target.removeprefix("model."))
    for node in exported.graph.nodes:
        if node.op != "call_function" or any(part in str(node.target) for part in _DROPPED):
            continue
        builder.origin = _origin(node)
        if all(name in tensors for name in (n.name for n in node.all_input_nodes)):
            tensors[node.name] = _compute(node, tensors)
            roots[node.name] = next((roots.get(n.name, names[n.name]) for n in node.all_input_nodes), "constant")
            names[node.name] = _Constant(f"{roots[node.name]}.{node.name}")
        elif node.target.__name__ == "getitem":
            names[node.name] = names[node.args[0].name][node.args[1]]
        else:
            names[node.name] = _apply(node, builder, names, tensors, called_at)
    return tensors


def _named(graph_name: str, builder: Builder, names: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The name in the program of a value of the graph; a tensor that is known becomes a constant here."""
    name = names[graph_name]
    if not isinstance(name, _Constant):
        return name
    tensor = tensors[graph_name]
    kept = tensor if tensor.dtype in _INTEGERS else tensor.to(torch.float32)
    return builder.constant(str(name), kept.numpy().copy())


class _Constant(str):
    """The name of a tensor that is known, and becomes a constant of the program where a rule uses it."""

    __slots__ = ()


def _compute(node: torch.fx.Node, tensors: dict[str, torch.Tensor]) -> Any:
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: tensors[n.name])
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _apply(
    node: torch.fx.Node,
    builder: Builder,
    names: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    called_at: Callable[[str], str],
) -> Any:
    target = node.target
    operator = target.__name__.split(".")[0] if callable(target) else str(target)
    namespace = getattr(target, "namespace", "")
    rule = RULES.get(operator if namespace == "aten" else f"{namespace}::{operator}")
    where = f"operator {operator!r} of module {builder.origin or 'the model'!r}"
    if rule is None:
        raise Unsupported(
            f"{where} is not in the step program's set{called_at(operator)}; write it with the operators of "
            "docs/operators.md"
        )

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: _named(n.name, builder, names, tensors))
    try:
        return rule(builder, *args, **kwargs)
    except (Refused, InputError, TypeError) as error:  # TypeError: an argument that the rule does not know
        raise Unsupported(f"{where} cannot be said in the step program: {error}") from error


def _origin(node: torch.fx.Node) -> str:
    """The module's name in its family's own words: without "model", which the step form, and a front end, call it.

    A family's own "front" stays "model.front" behind a front end, which is called so too.
    """
    stack = node.meta.get("nn_module_stack") or {}
    path = [entry[0] for entry in stack.values()]
    parts = path[-1].split(".") if path else []
    if parts[:1] == ["model"]:
        parts = parts[1:]
    if parts[:1] == ["model"] and parts[1:2] != ["front"]:
        parts = parts[1:]
    return ".".join(parts)


def _check(program: Program, form: StepForm) -> None:
    for seed, scale in enumerate((0.1, 1.0, 10.0), 1):  # so that clamps, gates and comparisons take every side
        x, state, (got_y, got) = _away_from_ties(program, form, seed, scale)
        with torch.no_grad():
            y, following = form(x.clone(), {name: tensor.clone() for name, tensor in state.items()})
        pairs = {"the answer": (y, got_y), **{f"state {name!r}": (following[name], got[name]) for name in following}}
        for what, (expected, found) in pairs.items():
            reference = expected.numpy()
            error = np.abs(found - reference).max() / max(1.0, np.abs(reference).max())
            if not error <= CHECK_TOLERANCE:
                raise GateFailed(f"capture: {what} of the step program is {error:.1e} from the module's")


def _away_from_ties(
    program: Program, form: StepForm, seed: int, scale: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[Array, dict[str, Array]]]:
    """An example and what the program makes of it: one, if it can be found, in which no value lies beside a tie.

    There a last digit decides whether a neuron spikes, and two right answers differ.
    """
    ties = Ties()
    step = interpret(program, ties.watch)
    for attempt in range(ATTEMPTS):
        x, state = _example(form, seed + 3 * attempt, scale)
        ties.clear()
        found = step(x.numpy(), {name: tensor.numpy() for name, tensor in state.items()})
        if not ties.near:
            break
    return x, state, found
