"""Shipped bytes: through the stages, and in what ``inspect`` and the model card say."""

from __future__ import annotations

import shutil

import pytest

from edgeseq.cli.shipped import shrunk
from edgeseq.folder import PACKED_NAME, WEIGHTS_NAME, open_folder, shipped_bytes
from edgeseq.packed import Rows
from edgeseq.packed_file import read_packed

FRAMES = 250
TINY = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "crop=2")
pytestmark = pytest.mark.usefixtures("few_frames_do")


@pytest.fixture(scope="module")
def small(edgeseq, trained, tmp_path_factory):
    """An int8 folder, and what was exported of it."""
    out = tmp_path_factory.mktemp("small") / "int8"
    for words in (
        ("quantize", trained, "--out", out, "--method", "ptq"),
        ("export", out, "--out", f"{out}-export", "--frames", FRAMES),
    ):
        done = edgeseq(*words)
        assert done.code == 0, done.err
    return open_folder(out), open_folder(f"{out}-export")


def test_a_quantized_folder_ships_packed_weights_and_so_does_its_export(small):
    quantized, exported = small
    tensors = read_packed(quantized.file(PACKED_NAME))
    assert any(isinstance(coded, Rows) for coded in tensors.values())
    for name in (PACKED_NAME, WEIGHTS_NAME):
        assert exported.file(name).read_bytes() == quantized.file(name).read_bytes()
    assert shipped_bytes(exported) == exported.file(PACKED_NAME).stat().st_size


def test_a_float_folder_ships_its_numbers(edgeseq, trained):
    folder = open_folder(trained)
    assert PACKED_NAME not in folder.manifest.files
    numbers = folder.manifest.parameters + 2 * folder.manifest.input.width  # and the normalization
    assert shipped_bytes(folder) == 4 * numbers
    said = edgeseq("inspect", trained, "--json").document["shipped"]
    assert said == {
        "bytes": 4 * numbers,
        "bits_per_parameter": 32 * numbers / folder.manifest.parameters,
        "places": folder.manifest.parameters,
        "zeros": None,
        "loaded": {},
        "loaded_as": "float32",
        "tensors": [],
    }
    assert f"{4 * numbers:,} bytes of weights" in edgeseq("inspect", trained).out


def test_inspect_says_how_each_tensor_is_coded(edgeseq, small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    folder = small[1]
    said = edgeseq("inspect", folder.path, "--json").document["shipped"]
    assert said["bytes"] == shipped_bytes(folder)
    assert said["bits_per_parameter"] == 8 * said["bytes"] / folder.manifest.parameters
    assert {tensor["name"] for tensor in said["tensors"]} == set(read_packed(folder.file(PACKED_NAME)))
    assert sum(tensor["size"] for tensor in said["tensors"]) < said["bytes"]
    shown = edgeseq("inspect", folder.path).out
    coded = [tensor for tensor in said["tensors"] if tensor["coded"]]
    assert any(tensor["coding"].startswith("int8 a row") for tensor in coded)
    for tensor in coded:
        row = next(line for line in shown.splitlines() if line.startswith(tensor["name"]))
        assert f"{tensor['size']:,}" in row
    assert f"{len(said['tensors']) - len(coded)} others" in shown


def test_inspect_says_what_engines_load_beside_what_ships(edgeseq, small):
    quantized, exported = (edgeseq("inspect", folder.path, "--json").document["shipped"] for folder in small)
    assert (quantized["loaded"], quantized["loaded_as"]) == ({}, "int8")
    sizes = {name: small[1].file(name).stat().st_size for name in ("model.onnx", "model.tflite", "step.safetensors")}
    assert exported["loaded"] == sizes
    shown = " ".join(edgeseq("inspect", small[1].path).out.split())
    assert f"model.onnx ({sizes['model.onnx']:,} bytes)" in shown
    assert "the weights as int8" in shown


@pytest.fixture(scope="module")
def pruned(edgeseq, trained, tmp_path_factory):
    """Most weights gone, and then 2 bits."""
    out = tmp_path_factory.mktemp("pruned") / "zeros"
    for words in (
        ("prune", trained, "--out", out, "--weights", 0.8, "--no-retrain"),
        ("quantize", out, "--out", f"{out}-qd", "--method", "qd", "--bits", 2, *TINY),
    ):
        done = edgeseq(*words)
        assert done.code == 0, done.err
    return open_folder(out), open_folder(f"{out}-qd")


def test_pruned_weights_are_counted_as_places_and_said_to_be_zeros(edgeseq, trained, pruned):
    whole = open_folder(trained).manifest.parameters
    for folder in pruned:
        document = edgeseq("inspect", folder.path, "--json").document
        said, remain = document["shipped"], document["parameters"]
        assert remain < whole
        assert said["places"] == whole == remain + said["zeros"]["count"]
        assert said["bits_per_parameter"] == 8 * said["bytes"] / whole
        shown = " ".join(edgeseq("inspect", folder.path).out.split())
        assert f"for each of {whole:,} parameters ({remain:,} not 0)" in shown
        share = f"{100 * said['zeros']['count'] / said['zeros']['of']:.1f} % of the linear maps' weights"
        assert f"{share}: they save shipped bytes; engines multiply them" in shown
        card = (folder.path / "README.md").read_text(encoding="utf-8")
        assert f"for each of {whole:,} parameters, {remain:,} of them not 0" in card
        assert share in card
        assert "| zeros" not in card
    assert "zeros" in pruned[0].manifest.metrics


def test_few_bits_are_said_and_what_is_computed_with(edgeseq, pruned):
    shown = " ".join(edgeseq("inspect", pruned[1].path).out.split())
    card = (pruned[1].path / "README.md").read_text(encoding="utf-8")
    for text in (shown.lower(), card.lower()):
        assert "weights 2 bits (qd), computed with as float32; activations float32, state float32" in text
    assert "an engine loads them as float32" in card


def test_the_lineage_says_what_was_done_and_to_which_folder(edgeseq, pruned, small):
    shown = " ".join(edgeseq("inspect", pruned[1].path).out.split())
    card = (pruned[1].path / "README.md").read_text(encoding="utf-8")
    assert f"Made by: train gru → prune weights 0.8 → quantize qd 2 bits, of zeros {pruned[0].hash[:12]}." in card
    for text in ("train gru", "prune weights 0.8", "quantize qd 2 bits", f"zeros {pruned[0].hash[:12]}"):
        assert text in shown
    card = (small[1].path / "README.md").read_text(encoding="utf-8")
    assert f"Made by: train gru → quantize ptq int8 → export, of folder {small[0].hash[:12]}." in card


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (None, "weights ship in 2.0 kB"),
        (9000, "weights ship in 2.0 kB, were 9.0 kB (4.5 times smaller)"),
        (500, "weights ship in 2.0 kB, were 500 B (4.0 times larger)"),
    ],
)
def test_what_ships_is_said_beside_what_it_was(before, said):
    assert shrunk(before, 2000) == said


def test_the_card_says_what_ships(small):
    for folder in small:
        text = (folder.path / "README.md").read_text(encoding="utf-8")
        each = 8 * shipped_bytes(folder) / folder.manifest.parameters
        assert f"The weights ship in {shipped_bytes(folder):,} bytes: {each:.3g} bits" in text


def test_a_damaged_packed_file_is_refused_when_the_folder_is_opened(edgeseq, small, tmp_path):
    copied = shutil.copytree(small[0].path, tmp_path / "copied")
    raw = bytearray((copied / PACKED_NAME).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copied / PACKED_NAME).write_bytes(raw)
    done = edgeseq("inspect", copied)
    assert done.code == 2
    assert f"{PACKED_NAME} was changed after it was written" in done.err.replace("\n", " ")
