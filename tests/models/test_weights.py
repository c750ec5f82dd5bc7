"""Weights on disk: they come back as they were, and what does not fit is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeseq.errors import InputError
from edgeseq.folder import MANIFEST_NAME, WEIGHTS_NAME, new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization
from edgeseq.models.store import load_model, save_weights, state_entries


@pytest.fixture
def saved(size, make_model, argument_sets, tmp_path):
    """A sealed folder, and the model that is in it."""
    model = make_model(size, torch.float32, seed=5)
    family, arguments = argument_sets[size]
    manifest = Manifest(
        name="saved",
        family=family,
        arguments=arguments,
        task="frame",
        labels=("a", "b", "c", "d"),
        input=Input(
            tuple(Channel(name, "g") for name in "xyz"), 50.0, Normalization((0.5, -1.0, 2.0), (2.0, 0.5, 1.5))
        ),
        states=state_entries(model),
    )
    with new_folder(tmp_path / "saved") as staging:
        save_weights(model, staging)
        seal(staging, manifest)
    return tmp_path / "saved", model


def reseal(path):
    """Hashes that are right again, as after a careless repair by hand."""
    seal(path, msgspec.json.decode((path / MANIFEST_NAME).read_bytes(), type=Manifest))


def test_a_loaded_model_is_the_saved_one(saved):
    path, model = saved
    loaded = load_model(open_folder(path))
    assert not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    x = torch.randn(1, 40, 3)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], model(x)[0])


def test_equal_weights_are_written_as_equal_bytes(saved, tmp_path):
    path, model = saved
    save_weights(model, tmp_path)
    assert (tmp_path / WEIGHTS_NAME).read_bytes() == (path / WEIGHTS_NAME).read_bytes()


def test_weights_that_were_changed_are_refused(saved):
    path, _ = saved
    raw = bytearray((path / WEIGHTS_NAME).read_bytes())
    raw[-1] ^= 1
    (path / WEIGHTS_NAME).write_bytes(raw)
    with pytest.raises(InputError, match="was changed after it was written"):
        open_folder(path)


@pytest.mark.parametrize("damage", ["truncated", "no weights", "one missing", "one of another shape", "one more"])
def test_weights_that_do_not_fit_are_refused_though_the_hash_is_right(saved, damage):
    path, _ = saved
    file = path / WEIGHTS_NAME
    weights = load_file(file)
    name = "readout.weight"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "no weights":
        file.write_bytes(b"not a safetensors file at all")
    elif damage == "one missing":
        save_file({key: t for key, t in weights.items() if key != name}, file)
    elif damage == "one more":
        save_file({**weights, "more": torch.zeros(1)}, file)
    else:
        save_file({**weights, name: torch.zeros(2, 2)}, file)
    reseal(path)
    with pytest.raises(InputError, match=r"weights\.safetensors does not hold the weights of a \w+"):
        load_model(open_folder(path))


def test_states_are_listed_in_the_models_order_without_gaps(saved):
    _, model = saved
    entries = state_entries(model)
    states = model.initial_state(1)
    assert [(e.name, e.shape, e.dtype, e.initial) for e in entries] == [
        (name, tuple(t.shape), "float32", 0.0) for name, t in states.items()
    ]
    ends = np.cumsum([e.size for e in entries])
    assert [e.offset for e in entries] == [0, *ends[:-1]]


def test_a_state_that_starts_from_different_values_is_refused(saved, monkeypatch):
    _, model = saved
    first = next(iter(model.initial_state(1)))
    monkeypatch.setattr(model, "initial_state", lambda batch: {first: torch.arange(3.0)[None]})
    with pytest.raises(InputError, match="starts from different values"):
        state_entries(model)
