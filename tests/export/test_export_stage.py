"""The export stage on real smartwatch data: a folder that is proven, or none at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edgeseq.data import load
from edgeseq.errors import GateFailed, InputError, Unsupported
from edgeseq.export import stage
from edgeseq.export.lower import lower
from edgeseq.export.pack import layout
from edgeseq.export.proof import run_training_form
from edgeseq.export.stage import export, golden_frames, prove
from edgeseq.folder import Folder, new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization, Stage
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.program import Program
from edgeseq.training.retime_stage import retime

TEST_SUBJECTS = ("3", "4")
ARGUMENTS = {
    "lmu": ("lmu", {"channels": [3, 2], "orders": [6, 4], "thetas": [50.0, 100.0], "hidden": [12, 12], "products": 3}),
    "gru": ("rnn", {"hidden": 12, "layers": 2}),
    "taps": ("lmu", {"channels": [2, 3], "orders": [24, 4], "thetas": [8.0, 50.0], "hidden": [12, 10]}),
}
WriteTrained = Callable[..., Path]


@pytest.fixture(scope="session")
def watch():
    return load("spar_watch")


@pytest.fixture(scope="session")
def write_trained(watch) -> WriteTrained:
    """Writes what ``edgeseq train`` would: random weights, and a lineage that names the data."""

    def write(out: Path, family: str = "gru", **changes: object) -> Path:
        torch.manual_seed(0)
        kind, arguments = ARGUMENTS[family]
        model = build(kind, len(watch.channels), len(watch.labels), arguments).eval()
        x = watch.only(["1", "2"]).recordings[0].x
        mean, std = x.mean(0).tolist(), x.std(0).tolist()
        model.set_normalization(mean, std)
        lineage = (Stage("train", {"mapping": None}, {}, 0, "spar_watch", watch.fingerprint()),)
        fields = {
            "name": out.name,
            "family": kind,
            "arguments": arguments,
            "task": "frame",
            "labels": watch.labels,
            "input": Input(
                tuple(map(Channel, watch.channels, watch.units)), watch.rate, Normalization(tuple(mean), tuple(std))
            ),
            "states": state_entries(model),
            "split": {"train": ("1", "2"), "validation": ("5",), "test": TEST_SUBJECTS},
            "lineage": lineage,
        }
        with new_folder(out) as staging:
            save_weights(model, staging)
            seal(staging, Manifest(**{**fields, **changes}))
        return out

    return write


@pytest.fixture(scope="session")
def exported(write_trained: WriteTrained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """A trained folder of each family, exported."""
    root = tmp_path_factory.mktemp("export")
    return {name: export(write_trained(root / name, name), root / f"{name}-out", frames=2000) for name in ARGUMENTS}


@pytest.fixture(params=sorted(ARGUMENTS))
def folder(request: pytest.FixtureRequest, exported: dict[str, Folder]) -> Folder:
    """Each exported folder."""
    return exported[request.param]


def source_of(folder: Folder) -> Path:
    return folder.path.with_name(folder.path.name.removesuffix("-out"))


def test_an_exported_folder_holds_every_file_and_opens(folder):
    again = open_folder(folder.path)
    files = {"weights.safetensors", "step.json", "step.safetensors", "model.onnx", "model.tflite", "golden.npz"}
    assert set(again.manifest.files) == files
    assert {path.name for path in folder.path.iterdir()} == files | {"manifest.json", "README.md"}
    assert again.formats == ("tflite", "onnx")


def test_every_link_of_the_chain_holds_and_is_in_the_manifest(folder):
    links = {link.name: link for link in open_folder(folder.path).manifest.proof}
    assert all(link.passed and link.frames == 2000 for link in links.values())
    expected = {"training form ~ step form", "step form ~ program", "program ~ golden"}
    expected |= {
        f"{engine} {what}"
        for engine in ("litert", "onnxruntime")
        for what in ("teacher-forced", "free-running", "state moves")
    }
    assert expected <= set(links)
    for name, link in links.items():
        if "teacher-forced" in name:
            assert 0 < link.error <= 1e-5
        if "free-running" in name:
            assert link.agreement > 0.999


def test_the_source_and_its_weights_are_left_as_they_are(folder):
    source = open_folder(source_of(folder))
    assert set(source.manifest.files) == {"weights.safetensors"}
    assert source.manifest.files["weights.safetensors"] == folder.manifest.files["weights.safetensors"]


def test_the_lineage_grows_by_the_export_and_names_its_parent(folder):
    train, made = folder.manifest.lineage
    assert (train.verb, made.verb) == ("train", "export")
    assert made.parent == open_folder(source_of(folder)).hash
    assert made.versions["edgeseq"]
    assert folder.manifest.name == folder.path.name


def test_states_are_the_same_in_manifest_program_and_model(folder):
    assert folder.manifest.states == layout(Program.read(folder.path))
    model = load_model(folder)
    if lower(model).keeps_states:
        assert folder.manifest.states == state_entries(model)


def test_golden_frames_are_real_and_of_test_subjects_only(folder, watch):
    with np.load(folder.path / "golden.npz") as stored:
        x, y, state = stored["x"], stored["y"], stored["state"]
    assert x.shape == (2000, len(watch.channels))
    assert x.dtype == y.dtype == state.dtype == np.float32
    seen = {row.tobytes() for recording in watch.only(TEST_SUBJECTS).recordings for row in recording.x}
    assert all(row.tobytes() in seen for row in x)
    starts = {recording.x[0].tobytes() for recording in watch.only(TEST_SUBJECTS).recordings}
    assert len(starts & {row.tobytes() for row in x}) > 1  # more than one recording


def test_golden_answers_are_the_trained_models(folder):
    with np.load(folder.path / "golden.npz") as stored:
        y, states = run_training_form(load_model(open_folder(source_of(folder))), stored["x"])
        np.testing.assert_array_equal(stored["y"], y)
        packed = [stored["state"][e.offset : e.offset + e.size].reshape(e.shape) for e in folder.manifest.states]
    found = {entry.name: torch.from_numpy(part) for entry, part in zip(folder.manifest.states, packed, strict=True)}
    form = lower(load_model(folder))
    for name, tensor in form.trained_state(found).items():
        tolerance = 0 if form.keeps_states else 1e-5 * np.abs(states[name]).max()
        np.testing.assert_allclose(tensor.numpy(), states[name], rtol=0, atol=tolerance)


def test_two_exports_of_the_same_weights_write_the_same_files(folder, tmp_path):
    again = export(source_of(folder), tmp_path / "again", frames=2000)
    for name in ("step.json", "step.safetensors", "model.onnx", "model.tflite", "weights.safetensors"):
        assert again.manifest.files[name] == folder.manifest.files[name], name
        assert again.manifest.files[name] == hashlib.sha256((again.path / name).read_bytes()).hexdigest()


def test_one_format_alone_can_be_asked_for(exported, tmp_path):
    only = export(source_of(exported["gru"]), tmp_path / "only", formats=["onnx"], frames=2000)
    assert only.formats == ("onnx",)
    assert not (only.path / "model.tflite").exists()
    assert not any(link.name.startswith("litert") for link in only.manifest.proof)


def test_prove_again_gives_the_same_links(exported):
    folder = exported["gru"]
    heard = []
    links = prove(folder, progress=lambda what, frames: heard.append(frames))
    assert [link.name for link in links] == [link.name for link in folder.manifest.proof]
    assert all(link.passed for link in links)
    assert heard == [2000, 2000]


# -- refusals: nothing may be left behind ---------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path: Path):
    """``refused(error, message, source, **arguments)``: export raises it and leaves nothing behind."""

    def check(error: type[Exception], message: str, source: Path, **arguments: object) -> None:
        room = tmp_path / "room"
        room.mkdir()
        with pytest.raises(error, match=message):
            export(source, room / "out", **{"frames": 2000, **arguments})
        assert list(room.iterdir()) == []

    return check


def test_an_unknown_format_is_named_with_the_closest(exported, refused):
    source = source_of(exported["gru"])
    refused(InputError, r"unknown format 'onix'\. Did you mean 'onnx'", source, formats=["onix"])


def test_too_few_frames_are_refused(exported, refused):
    refused(InputError, "1999 frames are too few for the proof: at least 2000", source_of(exported["gru"]), frames=1999)


@pytest.mark.parametrize("which", ["capture", "training form", "onnx", "tflite"])
def test_a_gate_that_fails_leaves_no_folder_behind(exported, refused, monkeypatch, which):
    """The same program with one weight off by a thousandth, at one place of the chain."""

    def off(program: Program) -> Program:
        moved = program.constants["readout.weight"] + np.float32(1e-3)
        return Program(
            program.x, program.y, program.states, program.nodes, {**program.constants, "readout.weight": moved}
        )

    if which == "capture":
        real = stage.capture
        monkeypatch.setattr(stage, "capture", lambda *args: off(real(*args)))
        message = "step form ~ program does not hold"
    elif which == "training form":
        rnn = type(load_model(exported["gru"]))
        forward = rnn.forward

        def other(self, x, state=None):
            y, following = forward(self, x, state)
            return 1.01 * y, following

        monkeypatch.setattr(rnn, "forward", other)
        message = "training form ~ step form does not hold"
    else:
        writer = stage.WRITERS[which]
        monkeypatch.setitem(stage.WRITERS, which, lambda program, path, **more: writer(off(program), path, **more))
        message = ("onnxruntime" if which == "onnx" else "litert") + " teacher-forced does not hold"
    refused(GateFailed, message, source_of(exported["gru"]))


def test_a_step_outside_of_the_operator_set_leaves_no_folder_behind(exported, refused, monkeypatch):
    rnn = type(load_model(exported["gru"]))
    step = rnn.step
    monkeypatch.setattr(rnn, "step", lambda self, x, state: step(self, x.cumsum(-1), state))
    refused(Unsupported, "'cumsum'", source_of(exported["gru"]))


def test_a_failed_export_over_an_older_folder_leaves_that_one(exported, write_trained, tmp_path, monkeypatch):
    older = write_trained(tmp_path / "older")
    before = open_folder(older).hash
    with pytest.raises(InputError, match="exists"):
        export(source_of(exported["gru"]), older, frames=2000)
    monkeypatch.setattr(stage, "prove", lambda *args, **kwargs: (_ for _ in ()).throw(GateFailed("no")))
    with pytest.raises(GateFailed):
        export(source_of(exported["gru"]), older, frames=2000, overwrite=True)
    assert open_folder(older).hash == before
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


def test_data_that_changed_since_training_is_refused(write_trained, refused, tmp_path_factory, watch):
    lineage = (Stage("train", {"mapping": None}, {}, 0, "spar_watch", "0" * 64),)
    source = write_trained(tmp_path_factory.mktemp("other") / "gru", lineage=lineage)
    refused(InputError, "its contents changed", source)


def test_a_folder_that_does_not_name_its_data_asks_for_it(write_trained, refused, tmp_path_factory, watch):
    source = write_trained(tmp_path_factory.mktemp("other") / "gru", lineage=())
    refused(InputError, "does not say what it was trained on: pass --data", source)
    assert len(golden_frames(open_folder(source), "spar_watch", 2000)) == 2000


def test_data_with_other_channels_is_refused(write_trained, refused, tmp_path_factory, watch):
    described = tuple(Channel(f"c{i}", "") for i in range(len(watch.channels)))
    source = write_trained(
        tmp_path_factory.mktemp("other") / "gru",
        input=Input(described, watch.rate, Normalization((0.0,) * 6, (1.0,) * 6)),
    )
    refused(InputError, r"spar_watch has channels \[.*\], the model reads \['c0'", source)


def test_a_folder_that_was_changed_is_refused(write_trained, refused, tmp_path_factory):
    source = write_trained(tmp_path_factory.mktemp("other") / "gru")
    raw = bytearray((source / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (source / "weights.safetensors").write_bytes(raw)
    refused(InputError, "was changed after it was written", source)


def test_the_manifest_is_plain_json(folder):
    document = json.loads((folder.path / "manifest.json").read_bytes())
    assert [link["name"] for link in document["proof"]] == [link.name for link in folder.manifest.proof]
    assert msgspec.json.decode((folder.path / "manifest.json").read_bytes(), type=Manifest) == folder.manifest


def test_a_memory_exported_as_taps_is_proven_as_such(exported):
    folder = exported["taps"]
    memories = folder.manifest.memories
    assert {name: chosen.form for name, chosen in memories.items()} == {"blocks.0": "taps", "blocks.1": "recurrence"}
    assert [entry.shape for entry in folder.manifest.states] == [(1, 2, memories["blocks.0"].taps), (1, 3, 4)]
    assert all(link.passed for link in prove(folder))


def test_a_folder_that_names_another_form_than_its_program_has_is_refused(exported, tmp_path):
    folder = exported["taps"]
    changed = tmp_path / "changed"
    shutil.copytree(folder.path, changed)
    *before, last = folder.manifest.lineage
    memories = {
        **last.arguments["memories"],
        "blocks.0": {**last.arguments["memories"]["blocks.0"], "form": "recurrence"},
    }
    stage = msgspec.structs.replace(last, arguments={**last.arguments, "memories": memories})
    seal(changed, msgspec.structs.replace(folder.manifest, lineage=(*before, stage)))
    with pytest.raises(GateFailed, match=r"keeps the states .*blocks\.0\.memory.*export the model anew"):
        prove(open_folder(changed))


def test_a_folder_from_before_there_was_a_choice_is_proven_as_a_recurrence(exported, tmp_path):
    folder = exported["taps"]
    changed = tmp_path / "changed"
    shutil.copytree(folder.path, changed)
    *before, last = folder.manifest.lineage
    arguments = {name: value for name, value in last.arguments.items() if name != "memories"}
    stage = msgspec.structs.replace(last, arguments=arguments)
    seal(changed, msgspec.structs.replace(folder.manifest, lineage=(*before, stage)))
    with pytest.raises(GateFailed, match=r"the trained model's step .*\(1, 2, 24\)"):
        prove(open_folder(changed))


def test_what_is_made_of_an_exported_folder_says_nothing_of_its_memories(exported, tmp_path):
    folder = exported["taps"]
    assert folder.manifest.memories
    made = retime(folder.path, tmp_path / "made", rate=25.0)
    assert made.manifest.memories == {}
