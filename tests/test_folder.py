"""The model folder: complete or not there, and refused when anything in it was touched."""

from __future__ import annotations

import runpy
from pathlib import Path

import msgspec
import pytest

from edgeseq.errors import InputError
from edgeseq.folder import MANIFEST_NAME, new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization, state_table


def manifest(**changes):
    made = Manifest(
        name="m",
        family="rnn",
        arguments={"hidden": 4},
        task="frame",
        labels=("rest", "move"),
        input=Input((Channel("ax", "g"),), 50.0, Normalization((0.0,), (1.0,))),
        states=state_table([("layers.0.hidden", (1, 4), 0.0), ("blocks.1.memory", (1, 2, 3), 1.0)]),
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def folder(tmp_path):
    with new_folder(tmp_path / "m") as staging:
        (staging / "weights.safetensors").write_bytes(b"weights")
        seal(staging, manifest())
    return tmp_path / "m"


def test_a_sealed_folder_opens_with_what_was_written(folder):
    opened = open_folder(folder)
    assert msgspec.structs.replace(opened.manifest, files={}, digest="") == manifest()
    assert list(opened.manifest.files) == ["weights.safetensors"]
    assert opened.formats == ()


def test_states_lie_one_behind_the_other(folder):
    states = open_folder(folder).manifest.states
    assert [(state.name, state.offset, state.size, state.initial) for state in states] == [
        ("layers.0.hidden", 0, 4, 0.0),
        ("blocks.1.memory", 4, 6, 1.0),
    ]


def test_a_changed_file_is_refused_by_name(folder):
    (folder / "weights.safetensors").write_bytes(b"weighty")
    with pytest.raises(InputError, match=r"weights\.safetensors was changed"):
        open_folder(folder)


def test_a_missing_file_is_refused_by_name(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"incomplete: weights\.safetensors is missing"):
        open_folder(folder)


def test_the_card_may_be_edited(folder):
    (folder / "README.md").write_text("notes of mine")
    assert open_folder(folder).manifest.name == "m"


def test_a_newer_format_asks_for_an_upgrade_even_if_it_looks_different(folder):
    (folder / MANIFEST_NAME).write_text('{"format": 2, "shape": "unknown"}')
    with pytest.raises(InputError, match=r"has format 2.*upgrade edgeseq"):
        open_folder(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', '{"format": "one"}'])
def test_a_damaged_manifest_is_refused(folder, text):
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        open_folder(folder)


def test_a_manifest_cannot_name_files_outside_its_folder(folder, tmp_path):
    (tmp_path / "secret").write_text("s")
    raw = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes())
    raw["files"] = {"../secret": "0" * 64}
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(raw))
    with pytest.raises(InputError, match="not in the folder"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"rest"', b'"stir"'), (b'"rate": 50.0', b'"rate": 25.0'), (b'"std"', b'"sdt"')]
)
def test_a_changed_manifest_is_refused(folder, old, new):
    raw = (folder / MANIFEST_NAME).read_bytes()
    assert old in raw
    (folder / MANIFEST_NAME).write_bytes(raw.replace(old, new, 1))
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_folder(folder)


def test_a_manifest_may_be_laid_out_anew(folder):
    compact = msgspec.json.encode(msgspec.json.decode((folder / MANIFEST_NAME).read_bytes()))
    (folder / MANIFEST_NAME).write_bytes(compact)
    assert open_folder(folder).manifest.name == "m"


def test_what_appeared_meanwhile_is_not_removed(tmp_path):
    def stage():
        with new_folder(tmp_path / "m") as staging:
            seal(staging, manifest())
            (tmp_path / "m").mkdir()
            (tmp_path / "m" / "precious").write_text("p")

    with pytest.raises(InputError, match="exists"):
        stage()
    assert (tmp_path / "m" / "precious").read_text() == "p"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_stage_leaves_the_folder_that_it_was_to_replace(folder):
    def stage():
        with new_folder(folder, overwrite=True) as staging:
            seal(staging, manifest(name="other"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    assert open_folder(folder).manifest.name == "m"
    assert [entry.name for entry in folder.parent.iterdir()] == ["m"]


def test_overwriting_a_link_replaces_what_it_points_to(folder):
    link = folder.with_name("link")
    link.symlink_to(folder)
    with new_folder(link, overwrite=True) as staging:
        seal(staging, manifest(name="other"))
    assert link.is_symlink()
    assert open_folder(link).manifest.name == "other"


@pytest.mark.parametrize("target", [".", "/proc/nope/m", "file/m"])
def test_a_target_that_cannot_be_made_is_refused_before_any_work(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be"), new_folder(target):
        pytest.fail("entered")


def test_what_is_not_a_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        open_folder(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        open_folder(tmp_path)


def test_an_interrupted_stage_leaves_nothing_behind(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "m") as staging:
            (staging / "weights.safetensors").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_overwrite_is_said(folder):
    with pytest.raises(InputError, match="--overwrite"), new_folder(folder):
        pytest.fail("entered")
    with new_folder(folder, overwrite=True) as staging:
        seal(staging, manifest(name="other"))
    assert open_folder(folder).manifest.name == "other"


def test_overwrite_never_removes_what_is_not_a_model_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="not a model folder"), new_folder(tmp_path / "photos", overwrite=True):
        pytest.fail("entered")
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_equal_manifests_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with new_folder(tmp_path / name) as staging:
            seal(staging, manifest())
    assert (tmp_path / "a" / MANIFEST_NAME).read_bytes() == (tmp_path / "b" / MANIFEST_NAME).read_bytes()


def test_the_documented_schema_is_that_of_the_code():
    docs = Path(__file__).resolve().parents[1] / "docs"
    code = runpy.run_path(str(docs / "make_schema.py"))
    assert (docs / "manifest.schema.json").read_bytes() == code["schema"](), "run python docs/make_schema.py"
