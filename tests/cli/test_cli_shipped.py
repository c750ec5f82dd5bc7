"""Shipped bytes: through the stages, and in what ``inspect`` and the model card say."""

from __future__ import annotations

import shutil

import pytest

from edgeseq.folder import PACKED_NAME, WEIGHTS_NAME, open_folder, shipped_bytes
from edgeseq.packed import Rows
from edgeseq.packed_file import read_packed

FRAMES = 250
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
