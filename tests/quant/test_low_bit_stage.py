"""Quantized distillation and differentiable quantization as stages: what is written, what it says, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices import check
from edgeseq.errors import GateFailed, InputError
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.folder import WEIGHTS_NAME
from edgeseq.lineage import trained_on
from edgeseq.manifest import Precision
from edgeseq.models.store import load_model
from edgeseq.packed import Bucketed
from edgeseq.packed_file import read_packed
from edgeseq.quant import low_bit_stage
from edgeseq.quant.low_bit_stage import TUNING, gradient_norms, quantize_weights
from edgeseq.quant.prune_stage import prune
from edgeseq.quant.quantize_stage import quantize
from edgeseq.quant.quantizer import nearest, quantized, scaled
from edgeseq.training.evaluate import evaluate
from edgeseq.training.settings import Settings
from edgeseq.training.stage import train

RATE = 25.0
SHORT = {"rounds": 2, "steps": 3, "batch": 4, "crop": 1.0, "settle": 0.1}
TAUGHT = {**SHORT, "learning_rate": 0.02}
BUCKET = 32
FRAMES = 200  # of a proof, which is not what these tests are about
MADE = {"qd": {"bits": 2}, "dq": {"bits": 3}}


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Two recordings of 4 s of each of five subjects."""
    t, recordings, rng = np.arange(int(4 * RATE)) / RATE, [], np.random.default_rng(0)
    for subject in "12345":
        for label in range(2):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2)) + rng.normal(0, 0.1)
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, ("slow", "fast")), path)
    return str(path)


@pytest.fixture(scope="module")
def source(waves, tmp_path_factory):
    """A float GRU, tested on subject 3 and chosen on 5."""
    changes = {**SHORT, "model.hidden": 8}
    return train(waves, tmp_path_factory.mktemp("float") / "gru", changes=changes, test=["3"], validation=["5"])


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """The folders of both methods."""
    root = tmp_path_factory.mktemp("small")
    return {
        method: quantize_weights(source.path, root / method, method=method, bucket=BUCKET, changes=TAUGHT, **options)
        for method, options in MADE.items()
    }


@pytest.fixture(params=MADE)
def method(request):
    """Each method."""
    return request.param


def weights(folder):
    return load_file(folder.file(WEIGHTS_NAME))


def packed(folder):
    return {
        name: each for name, each in read_packed(folder.file("weights.packed")).items() if isinstance(each, Bucketed)
    }


def values_per_bucket(tensor):
    return max(len(part.unique()) for part in tensor.flatten().split(BUCKET))


# -- what is written ------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_was_done_and_that_the_files_compute_with_floats(source, made, method):
    manifest, parent = made[method].manifest, source.manifest
    assert manifest.precision == Precision()
    assert (manifest.family, manifest.arguments, manifest.split) == (parent.family, parent.arguments, parent.split)
    assert manifest.parameters == parent.parameters
    first, entry = manifest.lineage
    assert (first, entry.verb, entry.parent, entry.seed) == (parent.lineage[0], "quantize", source.hash, 0)
    assert entry.data_fingerprint == trained_on(source).fingerprint()
    said = entry.arguments
    assert (said["method"], said["bits"], said["bucket"]) == (method, MADE[method]["bits"], BUCKET)
    assert said["teachers"] == [{"name": "gru", "hash": source.hash}]
    assert (said["settings"]["rounds"], said["distillation"]["soft"]) == (2, 0.7)
    small = {"input_mean", "input_scale", "readout.bias"}  # that of two labels is too short for α and β to be worth it
    assert said["tensors"].keys() == weights(source).keys() - small
    assert said["tensors"]["layers.0.from_input.bias"] == 8
    coded = packed(made[method])
    assert {name: each.bits for name, each in coded.items()} == said["tensors"]
    assert 0 < manifest.metrics["level_bits"] < 8


def test_few_bits_say_the_written_weights_exactly(made, method):
    stored = weights(made[method])
    for name, each in packed(made[method]).items():
        assert np.array_equal(each.decoded(), stored[name].numpy())
    small, full = (made[method].file(name).stat().st_size for name in ("weights.packed", WEIGHTS_NAME))
    assert small < full / 2


def test_distilled_weights_take_few_values_and_are_not_those_of_the_source_rounded(source, made):
    before, after = weights(source), weights(made["qd"])
    for name, bits in made["qd"].manifest.lineage[-1].arguments["tensors"].items():
        assert values_per_bucket(after[name]) <= 2**bits
        rounded = quantized(before[name].flatten(), bits, BUCKET).view_as(before[name])
        assert not torch.equal(after[name], rounded), name


def test_learned_points_are_shared_out_and_the_weights_stay_next_to_them(source, made):
    said = made["dq"].manifest.lineage[-1].arguments
    points, before, after = said["points"], weights(source), weights(made["dq"])
    maps = [name for name in before if name.endswith("weight")]
    assert list(points) == [name for name in said["tensors"] if name in maps]
    assert sum(points.values()) == 2**3 * len(maps)
    norms = gradient_norms(load_model(source), maps, trained_on(source).only(["1", "2", "4"]), Settings(**SHORT), 0)
    assert len(norms) == len(maps)
    assert min(norms) > 0
    for name, each in packed(made["dq"]).items():
        if name not in points:
            assert torch.equal(after[name].flatten(), quantized(before[name].flatten(), 8, BUCKET))
            continue
        learned = torch.from_numpy(each.points)
        assert len(learned) == points[name]
        buckets = scaled(before[name].flatten(), BUCKET)
        chosen = buckets.back(learned[nearest(buckets.unit, learned)])
        assert torch.equal(after[name].flatten(), chosen)
        at_first = torch.quantile(buckets.unit.flatten()[: buckets.length], torch.linspace(0, 1, len(learned)))
        assert not torch.allclose(learned, at_first, atol=1e-4)


def test_it_is_scored_as_it_is_written(made, method):
    model, metrics = load_model(made[method]), made[method].manifest.metrics
    for part, subject in (("test", "3"), ("validation", "5")):
        scores = evaluate(model, trained_on(made[method]).only([subject]))
        assert scores.macro_f1 == pytest.approx(metrics[f"{part}_macro_f1"], abs=1e-6)


def test_another_teacher_and_other_settings_give_other_weights(source, made, waves, tmp_path):
    teacher = train(waves, tmp_path / "t", changes={**SHORT, "model.hidden": 4}, test=["3"], validation=["5"], seed=1)
    changes = {**TAUGHT, "distillation.temperature": 4}
    other = quantize_weights(
        source.path, tmp_path / "q", bits=2, bucket=BUCKET, teachers=[teacher.path], changes=changes
    )
    said = other.manifest.lineage[-1].arguments
    assert said["teachers"] == [{"name": "t", "hash": teacher.hash}]
    assert said["distillation"]["temperature"] == 4
    assert not torch.equal(weights(other)["readout.weight"], weights(made["qd"])["readout.weight"])


def test_weights_that_were_pruned_stay_zero_and_take_no_room(source, tmp_path, method):
    pruned = prune(source.path, tmp_path / "p", weights=0.6, gradual=False, retrain=False)
    made = quantize_weights(pruned.path, tmp_path / "q", method=method, bits=2, bucket=BUCKET, changes=TAUGHT)
    before, after, coded = weights(pruned), weights(made), packed(made)
    assert made.manifest.pruned == pruned.manifest.pruned
    assert made.manifest.parameters == pruned.manifest.parameters
    assert made.manifest.pruned
    for name in (f"{layer}.weight" for layer in made.manifest.pruned):
        absent = before[name] == 0
        assert absent.any()
        assert not after[name][absent].any()
        assert coded[name].levels.size == (~absent).sum()
        assert not torch.equal(after[name], before[name])


def test_it_tunes_as_was_found_unless_told_otherwise(source, tmp_path, method):
    changes = {name: value for name, value in SHORT.items() if name != "rounds"}
    made = quantize_weights(source.path, tmp_path / "q", method=method, changes=changes)
    settings = made.manifest.lineage[-1].arguments["settings"]
    assert {name: settings[name] for name in TUNING[method]} == TUNING[method]


# -- interruptions --------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop(ended, steps):
    if ended is not None:
        raise Stop


def test_an_interrupted_run_is_taken_up_by_the_same_call(source, made, tmp_path, method):
    options = {"method": method, "bucket": BUCKET, "changes": TAUGHT, **MADE[method]}
    with pytest.raises(Stop):
        quantize_weights(source.path, tmp_path / method, report=stop, **options)
    assert not (tmp_path / method).exists()
    done = []
    again = quantize_weights(source.path, tmp_path / method, report=lambda _, steps: done.append(steps), **options)
    assert done[0] == SHORT["steps"] + 1
    assert again.manifest.files == made[method].manifest.files
    assert [path.name for path in tmp_path.iterdir()] == [method]


# -- what the files hold --------------------------------------------------------------------------------------------


def test_both_files_are_proven_and_run_without_torch(made, method, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MIN_FRAMES", FRAMES)
    monkeypatch.setattr(stage, "MIN_FRAMES", FRAMES)
    folder = export(made[method].path, tmp_path / "e", frames=FRAMES)
    assert folder.manifest.proof
    assert all(link.passed for link in folder.manifest.proof)
    assert {"model.onnx", "model.tflite"} <= folder.manifest.files.keys()
    run = (
        "import json, sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from edgeseq.devices.session import Session\n"
        f"for engine in ('onnxruntime', 'litert', 'numpy'):\n"
        f"    print(json.dumps(Session({str(folder.path)!r}, engine).step(np.ones(2, np.float32)).tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [np.array(json.loads(line)) for line in done.stdout.splitlines()]
    with torch.no_grad():
        model = load_model(made[method])
        expected = model.step(torch.ones(1, 2), model.initial_state(1))[0][0].numpy()
    assert len(found) == 3
    for answer in found:
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qat"}, r"unknown method 'qat'"),
        ({"bits": 1}, "bits 1: 2 to 8 are needed"),
        ({"bits": 9}, "bits 9: 2 to 8 are needed"),
        ({"bits": "4"}, "bits '4' is of type str: a whole number is needed"),
        ({"bucket": -1}, "bucket -1: numbers that share"),
        ({"bucket": 2.5}, "bucket 2.5 is of type float"),
        ({"max_drop": -1.0}, "max_drop -1"),
        ({"seed": -1}, "seed -1"),
        ({"changes": {"roundz": 1}}, "Did you mean 'rounds'"),
        ({"changes": {"distillation.sotf": 1}}, "Did you mean 'soft'"),
        ({"teachers": ["nowhere"]}, "nowhere is not a folder"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(source, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        quantize_weights(source.path, tmp_path / "q", **{"changes": SHORT, **options})
    assert not list(tmp_path.iterdir())


def test_a_model_in_integers_has_no_weights_to_give_fewer_bits(source, tmp_path):
    small = quantize(source.path, tmp_path / "int8", method="ptq")
    with pytest.raises(InputError, match=r"is quantized already \(weights int8.*start from the float model"):
        quantize_weights(small.path, tmp_path / "q", changes=SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_a_score_that_falls_too_far_writes_nothing(source, tmp_path, method, monkeypatch):
    asked = []

    def refuse(parent, metrics, max_drop):
        asked.append((parent.hash, "validation_macro_f1" in metrics, max_drop))
        raise GateFailed("too far")

    monkeypatch.setattr(low_bit_stage, "check_drop", refuse)
    with pytest.raises(GateFailed, match="too far"):
        quantize_weights(source.path, tmp_path / "q", method=method, changes=SHORT, max_drop=0.5)
    assert asked == [(source.hash, True, 0.5)]
    assert not (tmp_path / "q").exists()
