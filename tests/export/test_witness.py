"""Independent witnesses: the same step forms converted by torch.onnx and by litert-torch answer as our files do.

The converters live in a venv of their own (``make test-witness``): they bring some ninety packages that nothing else
here needs. Each converted file takes ``x`` and every state apart; ours takes one packed state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq.export.lower import StepForm, lower
from edgeseq.export.pack import layout
from edgeseq.models.neurons import Neurons

FRAMES = 200
TOLERANCE = 1e-5
Step = Callable[[list[np.ndarray]], list[np.ndarray]]  # x and every state to y and every next state

pytestmark = pytest.mark.witness


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: run make test-witness")


class Flat(nn.Module):
    """``x, state, state, ... -> y, next state, next state, ...``: converters take and return tensors, not dicts."""

    def __init__(self, form: StepForm) -> None:
        super().__init__()
        self.form, self.names = form, list(form.initial_state())

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, following = self.form(x, dict(zip(self.names, states, strict=True)))
        return (y, *(following[name] for name in self.names))


def plain_leaky(current, membrane, beta, threshold, *, reset, delay, inclusive, surrogate):
    """The neurons of :mod:`edgeseq.models.neurons` in operators of torch, which converters know."""
    fires = torch.ge if inclusive else torch.gt

    def relaxed(v: Tensor, spikes: Tensor) -> Tensor:
        return {"none": v, "zero": v * (1 - spikes)}.get(reset, v - spikes * threshold)

    if not delay:
        charged = beta * membrane + current
        spikes = fires(charged, threshold).to(torch.float32)
        return spikes, relaxed(charged, spikes)
    fired = fires(membrane, threshold).to(torch.float32)
    late = reset == "subtract"  # what is subtracted does not decay with the rest
    after = beta * (membrane if late else relaxed(membrane, fired)) + current - (fired * threshold if late else 0)
    return fires(after, threshold).to(torch.float32), after


def with_plain_neurons(form: StepForm) -> StepForm:
    for module in form.modules():
        if isinstance(module, Neurons):
            assert module.alpha is None
            module.equation = plain_leaky
    return form


def by_torch_onnx(flat: Flat, example: tuple[Tensor, ...], folder: Path) -> Step:
    import onnxruntime

    inputs = ["x", *(f"before_{i}" for i in range(len(flat.names)))]
    outputs = ["y", *(f"after_{i}" for i in range(len(flat.names)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, which is why it is a witness and not a tool
        torch.onnx.export(
            flat, example, str(folder / "witness.onnx"), dynamo=False, opset_version=17,
            input_names=inputs, output_names=outputs,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(folder / "witness.onnx"), providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(outputs, dict(zip(inputs, arrays, strict=True)))


def by_litert_torch(flat: Flat, example: tuple[Tensor, ...], folder: Path) -> Step:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    litert_torch.convert(flat, example).export(str(folder / "witness.tflite"))
    interpreter = Interpreter(str(folder / "witness.tflite"), num_threads=1)
    runner = interpreter.get_signature_runner()

    def step(arrays: list[np.ndarray]) -> list[np.ndarray]:
        found = runner(**{f"args_{i}": array for i, array in enumerate(arrays)})
        return [found[f"output_{i}"] for i in range(len(arrays))]

    return step


WITNESSES = {
    "torch.onnx": (by_torch_onnx, needs("onnx", "onnxscript", "onnxruntime")),
    "litert-torch": (by_litert_torch, needs("litert_torch", "ai_edge_litert")),
}


@pytest.mark.parametrize("convert", [pytest.param(c, marks=mark, id=name) for name, (c, mark) in WITNESSES.items()])
def test_another_converter_of_the_same_step_answers_as_our_file(
    convert, file_engine, model, program, frames, open_written, tmp_path
):
    flat = Flat(with_plain_neurons(lower(model))).eval()
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(tensor.shape, generator=generator) for tensor in flat.form.initial_state().values()]
    witness = convert(flat, (torch.randn(1, program.x.shape[1], generator=generator), *states), tmp_path)
    ours = open_written(program, file_engine)
    packed = np.zeros((1, program.state_size), np.float32)
    apart = [np.zeros(entry.shape, np.float32) for entry in layout(program)]
    largest = 1.0
    for x in frames(FRAMES, program)[:, None]:
        y, packed = ours(x, packed)
        expected, *apart = witness([x, *apart])
        largest = max(largest, float(np.abs(expected).max()), float(np.abs(packed).max()))
        assert np.abs(y - expected).max() <= TOLERANCE * largest
        together = np.concatenate([state.ravel() for state in apart])
        assert np.abs(packed[0] - together).max() <= TOLERANCE * largest
    assert np.abs(packed).max() > 0.01
