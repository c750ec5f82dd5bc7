"""The same model in torch: its own step, the step compiled, and torch's recurrent layers, in torch and as torch.onnx
writes them for ONNX Runtime."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from step_contestants import Contestant, Frames, local
from turns import Step

from edgeseq.devices.engines.ort import session_options
from edgeseq.errors import Unsupported
from edgeseq.folder import Folder


def torch_steps(folder: Folder, frames: Frames) -> list[Contestant]:
    """The trained model's own ``step`` in torch: as it is, and compiled."""
    import torch

    from edgeseq.models.store import load_model

    model = load_model(folder)
    compiled: Any = torch.compile(model.step, fullgraph=True, dynamic=False)
    both = {"torch-eager": model.step, "torch-compile": compiled}
    return [
        local(
            *(name, "fp32", f"torch {torch.__version__}", torch_step(call, model.initial_state(1)), frames),
            around=torch.inference_mode,
        )
        for name, call in both.items()
    ]


def torch_step(call: Callable[[Any, Any], Any], state: Any) -> Step:
    import torch

    def step(frame: Any) -> Any:
        nonlocal state
        y, state = call(torch.from_numpy(frame)[None], state)
        return y.numpy()

    return step


def fused_layers(folder: Folder, frames: Frames) -> list[Contestant]:
    """A GRU or LSTM once more as torch's own layer, one frame a call: in torch, and from torch.onnx in ONNX Runtime.

    Nothing for a family that torch has no layer of.
    """
    if folder.manifest.arguments.get("cell") not in ("gru", "lstm"):
        return []
    import onnxruntime
    import torch

    layer, states = torch_layer(folder)
    said, ort = f"torch {torch.__version__}", f"onnxruntime {onnxruntime.__version__}"
    session = onnx_session(layer, states, frames[0])

    def eager(frame: Any, state: Any) -> Any:
        y, *after = layer(frame, *state)
        return y, after

    return [
        local("torch-layer", "fp32", said, torch_step(eager, states), frames, around=torch.inference_mode),
        local("torch-layer-onnxruntime", "fp32", ort, run_step(session, states), frames),
        local("torch-layer-onnxruntime-bound", "fp32", ort, bound_step(session, states), frames),
    ]


def torch_layer(folder: Folder) -> tuple[Any, list[Any]]:
    """Normalization, nn.GRU or nn.LSTM, and the read-out, with the folder's weights; and its states, zeros."""
    import torch
    from torch import nn

    from edgeseq.models.store import load_model

    model: Any = load_model(folder)
    kind = {"gru": nn.GRU, "lstm": nn.LSTM}[folder.manifest.arguments["cell"]]
    sizes = [cell.hidden_size for cell in model.layers]
    if len(set(sizes)) > 1:
        raise Unsupported(f"{folder.path} has layers of {sizes} units: torch's own have one width")

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = kind(model.input_size, sizes[0], len(sizes), batch_first=True)
            self.readout = model.readout
            self.register_buffer("mean", model.input_mean)
            self.register_buffer("scale", model.input_scale)

        def forward(self, x: Any, *state: Any) -> Any:
            h = ((x - self.mean) * self.scale)[:, None]  # (1, 1, C)
            y, after = self.recurrent(h, state if len(state) > 1 else state[0])
            return (self.readout(y[:, 0]), *(after if len(state) > 1 else (after,)))

    layer = Layer().eval().requires_grad_(False)
    for i, cell in enumerate(model.layers):
        for ours, theirs in ((cell.from_input, "ih"), (cell.from_hidden, "hh")):
            getattr(layer.recurrent, f"weight_{theirs}_l{i}").copy_(ours.weight)
            getattr(layer.recurrent, f"bias_{theirs}_l{i}").copy_(ours.bias)
    return layer, [torch.zeros(len(sizes), 1, sizes[0]) for _ in model.layers[0].states]


def onnx_session(layer: Any, states: Sequence[Any], frame: Any) -> Any:
    """The layer as torch.onnx writes it, one GRU or LSTM operator, with inputs x, s0, ... and outputs y, n0, ..."""
    import onnxruntime
    import torch

    file, numbers = io.BytesIO(), range(len(states))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is the one that keeps the operator whole
        torch.onnx.export(
            layer,
            (torch.from_numpy(frame)[None], *states),
            file,
            input_names=["x", *(f"s{i}" for i in numbers)],
            output_names=["y", *(f"n{i}" for i in numbers)],
            dynamo=False,
        )
    return onnxruntime.InferenceSession(
        file.getvalue(), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )


def run_step(session: Any, states: Sequence[Any]) -> Step:
    """As most write it: arrays in, arrays out."""
    kept = [state.numpy().copy() for state in states]
    wanted = ["y", *(f"n{i}" for i in range(len(kept)))]

    def step(frame: Any) -> Any:
        nonlocal kept
        y, *kept = session.run(wanted, {"x": frame[None], **{f"s{i}": state for i, state in enumerate(kept)}})
        return y

    return step


def bound_step(session: Any, states: Sequence[Any]) -> Step:
    """With every buffer bound once, and two of each state that take turns, as edgeseq's engine does it."""
    x, y = (np.zeros(t.shape, np.float32) for t in (session.get_inputs()[0], session.get_outputs()[0]))
    one, other = ([np.zeros(tuple(state.shape), np.float32) for state in states] for _ in range(2))

    def bind(before: Sequence[Any], after: Sequence[Any]) -> Any:
        bound = session.io_binding()
        for name, array in (("x", x), *((f"s{i}", array) for i, array in enumerate(before))):
            bound.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in (("y", y), *((f"n{i}", array) for i, array in enumerate(after))):
            bound.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return bound

    now, then = bind(one, other), bind(other, one)

    def step(frame: Any) -> Any:
        nonlocal now, then
        x[0] = frame
        session.run_with_iobinding(now)
        now, then = then, now
        return y

    vars(step)["buffers"] = x, y, one, other  # a binding does not keep what it points to
    return step
