"""``edgeseq compress`` around its chains: what it refuses ahead of them, and how its end is said and written."""

from __future__ import annotations

import shutil
import subprocess
import sys

import msgspec
import pytest

from edgeseq.cli.compress import _missed, _models_of, _why, _write_front
from edgeseq.errors import BudgetMissed, InputError, Unsupported
from edgeseq.folder import MANIFEST_NAME, new_folder, open_folder, seal
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import Chain
from edgeseq.quant.search import Outcome, Tried
from edgeseq.quant.study import JOURNAL

SMALL = Outcome(
    chain=Chain(form="qd2"),
    drop=2.0,
    validation_macro_f1=0.88,
    test_macro_f1=0.87,
    test_accuracy=0.9,
    parameters=1000,
    bytes=400,
    file=5000,
    macs=900,
    p50=20.0,
    engine="onnxruntime",
)
LARGE = msgspec.structs.replace(SMALL, chain=Chain(form="int8-ptq"), drop=0.0, bytes=1200)
BEATEN = msgspec.structs.replace(SMALL, chain=Chain(), drop=0.5, bytes=4000)


@pytest.fixture(scope="module")
def quantized(trained):
    """The trained folder as if it had been quantized."""
    out = trained.with_name("quantized")
    folder = open_folder(trained)
    with new_folder(out) as staging:
        shutil.copyfile(folder.path / "weights.safetensors", staging / "weights.safetensors")
        entry = msgspec.structs.replace(
            folder.manifest.lineage[0], verb="quantize", arguments={"method": "qd", "bits": 4}
        )
        seal(staging, msgspec.structs.replace(folder.manifest, lineage=(*folder.manifest.lineage, entry)))
    return out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", ""), "names no limit"),
        (("--budget", "byte=3"), "Did you mean 'bytes'"),
        (("--trials", 0), "trials 0: at least 1"),
        (("--trials", -1), "0 or more is needed"),
        (("--form", "int9"), "unknown form 'int9'"),
        (("--student", "lmuu"), "unknown preset 'lmuu'. Did you mean 'lmu'"),
        (("--set", "round=3"), "Did you mean 'rounds'"),
        (("--set", "model.hidden=3"), "model.hidden cannot be set"),
        (("--set", "distillation.softt=3"), "Did you mean 'soft'"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_with_every_chain_is_refused_before_anything_is_written(
    edgeseq, trained, tmp_path, options, said
):
    done = edgeseq("compress", trained, "--out", tmp_path / "small", *options)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "small").exists()


def test_data_that_is_too_little_for_the_proof_is_refused(edgeseq, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeseq.devices.check.MIN_FRAMES", 10**6)
    done = edgeseq("compress", trained, "--out", tmp_path / "small")
    assert (done.code, (tmp_path / "small").exists()) == (2, False)
    assert "frames, the proof of every model needs 1000000" in done.err


def test_a_quantized_model_is_refused(edgeseq, quantized, tmp_path):
    done = edgeseq("compress", quantized, "--out", tmp_path / "small")
    assert (done.code, (tmp_path / "small").exists()) == (2, False)
    assert "is quantized already: compress the float model that it came from" in done.err


def test_a_folder_that_is_something_else_is_left_as_it_is(edgeseq, trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    for out, said in (
        (trained, "is a model folder"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "is a file"),
        (tmp_path / "full", f"is not empty and holds no study ({JOURNAL})"),
    ):
        done = edgeseq("compress", trained, "--out", out)
        assert done.code == 2
        assert said in done.err
    assert [each.name for each in (tmp_path / "full").iterdir()] == ["notes"]
    assert open_folder(trained).manifest.files


def test_what_else_lies_where_the_front_goes_is_not_removed(edgeseq, trained, tmp_path):
    (tmp_path / JOURNAL).write_text("")
    (tmp_path / "pareto").mkdir()
    (tmp_path / "pareto" / "thesis.txt").write_text("mine")
    done = edgeseq("compress", trained, "--out", tmp_path)
    assert done.code == 2
    assert "thesis.txt is not a model folder" in done.err
    assert (tmp_path / "pareto" / "thesis.txt").read_text() == "mine"


def test_options_are_looked_at_before_torch_is_loaded(trained, tmp_path):
    code = (
        "import sys; from edgeseq.cli.app import run\n"
        "code = run(sys.argv[1:]); assert 'torch' not in sys.modules and 'optuna' not in sys.modules; sys.exit(code)"
    )
    arguments = ["compress", str(trained), "--out", str(tmp_path / "small"), "--form", "int9"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, "unknown form 'int9'" in done.stderr) == (2, True), done.stderr


def test_an_interrupted_search_says_where_it_goes_on(edgeseq, trained, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeseq.quant.search.search", interrupted)
    done = edgeseq("compress", trained, "--out", tmp_path / "small")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "interrupted; the same command goes on after the last finished chain"


def test_a_missed_budget_names_the_nearest_chain_and_its_costs(tmp_path):
    missed = _missed(Tried((SMALL, LARGE), {}), Budget(bytes=300, drop=1.0), tmp_path)
    assert isinstance(missed, BudgetMissed)
    assert "none of 2 chains is within the budget; the nearest is qd2: bytes 400 (limit 300), drop 2" in str(missed)
    one = str(_missed(Tried((LARGE,), {}), Budget(bytes=300), tmp_path))
    assert one.startswith("the one chain that was run is not within the budget; the nearest is int8-ptq: bytes 1200")


def test_chains_of_which_none_is_possible_miss_no_budget(tmp_path):
    missed = _missed(Tried((), {"units90": "too small"}), Budget(bytes=300), tmp_path)
    assert isinstance(missed, Unsupported)
    assert "units90: too small" in str(missed)


def test_the_others_say_what_they_are_over_or_what_beats_them():
    best, limits = [LARGE], Budget(drop=1.0)
    assert _why(SMALL, best, limits) == "over drop"
    assert _why(BEATEN, best, limits) == "int8-ptq is better"


def test_the_front_is_copied_in_place_of_an_earlier_one(trained, tmp_path):
    made, place = tmp_path / "chains", tmp_path / "pareto"
    for name in ("qd2-export", "int8-ptq-export"):
        shutil.copytree(trained, made / name)
    _write_front(made, place, [SMALL, LARGE])
    assert {each.name for each in _models_of(place)} == {"qd2", "int8-ptq"}
    _write_front(made, place, [SMALL])
    assert [each.name for each in place.iterdir()] == ["qd2"]
    assert open_folder(place / "qd2").hash == open_folder(trained).hash
    (place / "qd2" / MANIFEST_NAME).unlink()
    with pytest.raises(InputError, match="qd2 is not a model folder"):
        _write_front(made, place, [LARGE])
    assert (place / "qd2").is_dir()
