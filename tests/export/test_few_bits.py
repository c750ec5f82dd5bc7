"""Families with few bits, or pruned: their files are proven, and a memory that would grow is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgeseq.data import load, write_npz
from edgeseq.devices import check
from edgeseq.devices.check import check_folder
from edgeseq.errors import GateFailed
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.manifest import Precision
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.memories import memories
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_model
from edgeseq.program import Program, cost
from edgeseq.quant.prune_stage import prune
from edgeseq.quant.quantize_stage import quantize

FRAMES = 200
SPLIT = {"train": ["4"], "validation": ["3"], "test": ["1"]}  # people of spar_watch


@pytest.fixture(autouse=True)
def few_frames_do(monkeypatch):
    monkeypatch.setattr(check, "MIN_FRAMES", FRAMES)
    monkeypatch.setattr(stage, "MIN_FRAMES", FRAMES)


@pytest.fixture(scope="session")
def some_frames(tmp_path_factory):
    """The start of a recording of each exercise of three people of spar_watch."""
    watch = load("spar_watch")
    kept = {(r.subject, int(r.y[0])): r for r in watch.only(("4", "3", "1")).recordings}
    cut = tuple(dataclasses.replace(r, x=r.x[:150], y=r.y[:150]) for r in kept.values())
    path = tmp_path_factory.mktemp("data") / "frames.npz"
    write_npz(dataclasses.replace(watch, recordings=cut), path)
    return str(path)


@pytest.fixture(scope="session")
def made(families, some_frames, tmp_path_factory):
    """``made(family)``: a folder of it, with random weights whose answers differ from frame to frame."""
    root, watch, written = tmp_path_factory.mktemp("float"), load(some_frames), {}

    def write(name):
        family, arguments = families[name]
        torch.manual_seed(0)
        model = build(family, len(watch.channels), len(watch.labels), arguments)
        x = np.concatenate([recording.x for recording in watch.recordings])
        model.set_normalization(x.mean(0), x.std(0))
        torch.nn.init.normal_(model.readout.weight)
        for part, module in model.named_modules():
            if family == "lmuformer" and part.endswith("encoder"):
                torch.nn.init.constant_(module.bias, 0.5)  # a ReLU behind it lets something through
        return save_model(model.eval(), root / name, family=family, arguments=arguments, data=some_frames, split=SPLIT)

    def given(name):
        if name not in written:
            written[name] = write(name)
        return written[name]

    return given


def precision(name, families):
    remembers = bool(memories(build(families[name][0], 6, 4, families[name][1])))
    return Precision("int4", "int8", "int16", "int16" if remembers else "float32")


def prove_few_bits(name, families, made, tmp_path):
    wanted = precision(name, families)
    small = quantize(
        made(name).path, tmp_path / "small", method="ptq", bits=4, state=wanted.state, memory=wanted.memory
    )
    assert small.manifest.precision == wanted
    folder = export(small.path, tmp_path / "export", frames=FRAMES)
    links = {link.name: link for link in folder.manifest.proof}
    program = Program.read(folder.path)
    count = sum(node.operator == "qlinear" for node in program.nodes)
    for engine in ("litert", "onnxruntime"):
        assert links[f"{engine} integer layers"].note == f"{count} of {count} int8 layers"
    integers = [value for value in program.constants.values() if value.dtype == np.int8]
    assert len(integers) == count
    assert all(abs(value).max() == 7 for value in integers)
    assert not [link for link in check_folder(folder, ["numpy", "litert", "onnxruntime"], FRAMES) if not link.passed]
    assert load_model(folder).eval()


@pytest.mark.parametrize("name", ["lmu", "gru", "s4d"])
def test_files_of_4_bits_compute_the_model(name, families, made, tmp_path):
    prove_few_bits(name, families, made, tmp_path)


@pytest.mark.slow
def test_files_of_4_bits_compute_the_model_of_every_family(families, made, tmp_path):
    for name in families:
        (tmp_path / name).mkdir()
        prove_few_bits(name, families, made, tmp_path / name)


def prove_pruned(name, made, tmp_path):
    """Half of the parameters gone with their units; then most of the weights, and int8: proven in both formats."""
    whole = export(made(name).path, tmp_path / "whole", frames=FRAMES)
    half = prune(made(name).path, tmp_path / "half", structured=0.5, retrain=False)
    before, after = (folder.manifest.parameters for folder in (made(name), half))
    assert after <= before / 2
    narrow = export(half.path, tmp_path / "half-export", frames=FRAMES)
    assert cost(Program.read(narrow.path)).macs < cost(Program.read(whole.path)).macs
    share = 0.2 if "spiking" in name or "l2mu" in name else 0.5  # a state that nothing drives is refused
    zeros = prune(half.path, tmp_path / "zeros", weights=share, retrain=False)
    small = quantize(zeros.path, tmp_path / "int8", method="ptq")
    assert small.manifest.pruned == zeros.manifest.pruned
    folder = export(small.path, tmp_path / "int8-export", frames=FRAMES)
    integers = [value for value in Program.read(folder.path).constants.values() if value.dtype == np.int8]
    assert sum(int((value == 0).sum()) for value in integers) >= 0.95 * share * sum(value.size for value in integers)
    for exported in (narrow, folder):
        links = check_folder(exported, ["numpy", "litert", "onnxruntime"], FRAMES)
        assert {link.name.split()[0] for link in links} >= {"numpy", "litert", "onnxruntime"}
        assert all(link.passed for link in links)


@pytest.mark.parametrize("name", ["gru", "sparse-rnn"])
def test_files_of_pruned_models_compute_them(name, made, tmp_path):
    prove_pruned(name, made, tmp_path)


@pytest.mark.slow
def test_files_of_pruned_models_of_every_family_compute_them(families, made, tmp_path):
    for name in families:
        (tmp_path / name).mkdir()
        prove_pruned(name, made, tmp_path / name)


def test_a_memory_on_a_grid_stays_a_recurrence_and_its_grid_is_in_the_file(families, made, tmp_path):
    small = quantize(made("lmuformer-causal").path, tmp_path / "small", method="ptq", memory="int8")
    folder = export(small.path, tmp_path / "export", frames=FRAMES)
    assert {form.form for form in folder.manifest.memories.values()} == {"recurrence"}
    wanted = next(iter(memories(load_model(small)).values())).A.numpy()
    constants = Program.read(folder.path).constants.values()
    assert any(value.shape == wanted.shape and np.array_equal(value, wanted) for value in constants)
    assert len(np.unique(np.abs(wanted))) <= 128


def test_a_model_whose_memory_does_not_forget_is_not_exported(made, some_frames, families, tmp_path):
    folder = made("s4d")
    model = load_model(folder)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DiagonalSsm):
                module.log_decay.fill_(-40.0)
    family, arguments = families["s4d"]
    save_model(model, tmp_path / "s4d", family=family, arguments=arguments, data=some_frames, split=SPLIT)
    with pytest.raises(GateFailed, match="spectral radius") as raised:
        export(tmp_path / "s4d", tmp_path / "out", frames=FRAMES)
    assert raised.value.exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["s4d"]
