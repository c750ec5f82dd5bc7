"""A model's weights on disk: safetensors, never a pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgeseq.errors import InputError
from edgeseq.folder import WEIGHTS_NAME, Folder
from edgeseq.manifest import StateEntry, state_table
from edgeseq.models.contract import State, StreamingModel
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import build


def save_weights(model: StreamingModel, folder: Path) -> None:
    """Write the model's parameters and buffers as weights.safetensors."""
    # Copies: a quantizer that two layers share stands under both names, and a file has no two names for one tensor.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    (folder / WEIGHTS_NAME).write_bytes(save(tensors))  # safetensors' own save_file makes files that only we may read


def load_model(folder: Folder, *, trust: bool = False) -> StreamingModel:
    """The trained model of a folder, in eval mode.

    Raises:
        InputError: the weights are missing or do not fit the family's arguments.
    """
    manifest = folder.manifest
    path = folder.file(WEIGHTS_NAME)
    model = build(
        manifest.family, len(manifest.input.channels), len(manifest.labels), dict(manifest.arguments), trust=trust
    )
    with_precision(model, manifest.precision)
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} does not hold the weights of a {manifest.family} as the manifest has it: {error}"
        ) from error
    model.eval()
    return model


def initial_values(states: State) -> dict[str, float]:
    """The value that all elements of each state start from.

    Raises:
        InputError: a state starts from different values in its elements.
    """
    values = {}
    for name, tensor in states.items():
        values[name] = float(tensor.flatten()[0])
        if not bool((tensor == values[name]).all()):
            raise InputError(f"state {name!r} starts from different values in its elements; it must start from one")
    return values


def state_entries(model: StreamingModel) -> tuple[StateEntry, ...]:
    """The model's states in the packed layout, with the value that each starts from."""
    states = model.initial_state(1)
    initial = initial_values(states)
    return state_table((name, tuple(tensor.shape), initial[name]) for name, tensor in states.items())
