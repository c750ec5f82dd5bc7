"""``quantize`` as a stage: what is written down, what the files of it hold, and what is refused."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from safetensors.torch import load_file

from edgeseq.data import Dataset, Mapping, Recording, write_npz
from edgeseq.devices import check
from edgeseq.devices.check import check_folder
from edgeseq.errors import GateFailed, InputError
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.folder import WEIGHTS_NAME, new_folder, open_folder, seal, shipped_bytes
from edgeseq.lineage import trained_on
from edgeseq.manifest import Precision
from edgeseq.models.contract import weight_of
from edgeseq.models.memories import memories
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.store import load_model, save_weights
from edgeseq.quant import quantize_stage
from edgeseq.quant.prune_stage import prune
from edgeseq.quant.quantize_stage import TUNING, quantize
from edgeseq.training.evaluate import evaluate
from edgeseq.training.stage import train

RATE = 25.0
SHORT = {"rounds": 2, "steps": 3, "batch": 4, "crop": 1.0, "settle": 0.1}
LMU = {"model.channels": [2, 2], "model.orders": [3, 4], "model.thetas": [10.0, 20.0], "model.hidden": [5, 4]}
LMU |= {"model.products": 2, "model.dropout": 0.0}
UNTRAINED = {"method": "ptq"}
SIZES = {"lmu": LMU, "gru": {"model.hidden": 6}}
INTEGER_LAYERS = {"lmu": 7, "gru": 3}
FRAMES = 200  # of a proof, which is not what these tests are about


def write_waves(path, *, subjects="12345", labels=("slow", "fast")):
    """Two recordings of 4 s of each subject; a subject's waves are the same in every file."""
    t, recordings = np.arange(int(4 * RATE)) / RATE, []
    for subject in subjects:
        rng = np.random.default_rng(int(subject))
        for label in range(len(labels)):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2)) + rng.normal(0, 0.1)
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, labels), path)
    return str(path)


@pytest.fixture(scope="session")
def waves(tmp_path_factory):
    return write_waves(tmp_path_factory.mktemp("data") / "waves.npz")


@pytest.fixture(scope="session")
def floats(waves, tmp_path_factory):
    """A float folder of each family, tested on subject 3 and chosen on 5."""
    root = tmp_path_factory.mktemp("float")
    return {
        name: train(waves, root / name, preset=name, changes={**SHORT, **size}, test=["3"], validation=["5"])
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="session")
def tuned(floats, tmp_path_factory):
    """The GRU after quantization-aware training with an int8 state."""
    out = tmp_path_factory.mktemp("qat") / "gru-int8"
    return quantize(floats["gru"].path, out, state="int8", seed=4, changes={**SHORT, "learning_rate": 0.01})


@pytest.fixture(scope="session")
def calibrated(floats, tmp_path_factory):
    """The LMU after calibration, its state wide."""
    return quantize(floats["lmu"].path, tmp_path_factory.mktemp("ptq") / "lmu-int8", method="ptq")


@pytest.fixture(scope="session")
def exported(tuned, calibrated, tmp_path_factory):
    """Both, exported and proven."""
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", FRAMES)
        patch.setattr(stage, "MIN_FRAMES", FRAMES)
        made = {"lmu": calibrated, "gru": tuned}
        return {name: export(folder.path, root / name, frames=FRAMES) for name, folder in made.items()}


def weights(folder):
    return load_file(folder.file(WEIGHTS_NAME))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# -- what is written ------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_was_quantized_and_how(floats, tuned, waves):
    manifest, parent = tuned.manifest, floats["gru"]
    assert manifest.precision == Precision("int8", "int8", "int8")
    assert manifest.name == "gru-int8"
    assert (manifest.family, manifest.arguments) == (parent.manifest.family, parent.manifest.arguments)
    assert manifest.split == parent.manifest.split == {"train": ("1", "2", "4"), "validation": ("5",), "test": ("3",)}
    assert (manifest.input, manifest.states) == (parent.manifest.input, parent.manifest.states)
    train_entry, entry = manifest.lineage
    assert (train_entry, entry.verb) == (parent.manifest.lineage[0], "quantize")
    assert (entry.seed, entry.parent, entry.data) == (4, parent.hash, waves)
    assert entry.data_fingerprint == trained_on(parent).fingerprint()
    said = entry.arguments
    assert said["method"] == "qat"
    assert said["precision"] == {"weights": "int8", "activations": "int8", "state": "int8", "memory": "float32"}
    assert (said["settings"]["rounds"], said["settings"]["learning_rate"]) == (2, 0.01)
    assert (said["teachers"], said["distillation"]) == ([], None)


def test_calibration_alone_has_no_settings_and_only_rounds_the_weights(floats, calibrated):
    entry = calibrated.manifest.lineage[-1]
    assert (entry.verb, entry.arguments["method"], entry.arguments["settings"]) == ("quantize", "ptq", None)
    before, after = weights(floats["lmu"]), weights(calibrated)
    for name, layer in quantized_linears(load_model(calibrated)).items():
        half = 0.5001 * layer.integers()[2][:, None]  # a step: they are written where they are computed with
        assert bool(((layer.linear.weight - before[f"{name}.weight"]).abs() <= half).all())
        assert torch.equal(layer.linear.bias, before[f"{name}.bias"])
        assert float(after[f"{name}.input.scale"]) != 1.0
    assert torch.equal(after["input_mean"], before["input_mean"])


def test_training_on_changes_the_weights_and_leaves_the_ranges(floats, tuned, tmp_path):
    untrained = weights(quantize(floats["gru"].path, tmp_path / "ptq", method="ptq", state="int8"))
    trained = weights(tuned)
    assert untrained.keys() == trained.keys()
    for name, tensor in trained.items():
        trains = name.endswith(("weight", "bias"))
        assert torch.equal(tensor, untrained[name]) != trains, name


def test_it_tunes_gently_unless_told_otherwise(floats, tmp_path):
    changes = {name: value for name, value in SHORT.items() if name != "rounds"}
    made = quantize(floats["gru"].path, tmp_path / "q", changes=changes)
    settings = made.manifest.lineage[-1].arguments["settings"]
    assert {name: settings[name] for name in TUNING} == TUNING
    assert settings["steps"] == SHORT["steps"]


@pytest.mark.parametrize("name", ["tuned", "calibrated"])
def test_the_weights_are_loaded_again_as_they_were_scored(request, name):
    folder = request.getfixturevalue(name)
    model = load_model(open_folder(folder.path))
    assert len(quantized_linears(model)) == INTEGER_LAYERS["gru" if name == "tuned" else "lmu"]
    assert len(state_grids(model)) == (1 if name == "tuned" else 0)
    metrics = folder.manifest.metrics
    for part, subject in (("test", "3"), ("validation", "5")):
        scores = evaluate(model, trained_on(folder).only([subject]))
        assert scores.accuracy == pytest.approx(metrics[f"{part}_accuracy"], abs=1e-6)
        assert scores.macro_f1 == pytest.approx(metrics[f"{part}_macro_f1"], abs=1e-6)


@pytest.mark.parametrize("state", ["float32", "int16"])
def test_the_states_precision_is_its_own_choice(floats, tmp_path, state):
    made = quantize(floats["gru"].path, tmp_path / "q", method="ptq", state=state)
    assert made.manifest.precision == Precision("int8", "int8", state)
    assert [grid.limit for grid in state_grids(load_model(made)).values()] == ([32767.0] if state == "int16" else [])


def test_ranges_come_from_the_training_subjects_alone(floats, waves, tmp_path, monkeypatch):
    seen = []
    real = quantize_stage.calibrate

    def spy(model, recordings, tick):
        seen.extend(recording.subject for recording in recordings)
        return real(model, recordings, tick)

    monkeypatch.setattr(quantize_stage, "calibrate", spy)
    ticks = []
    quantize(floats["gru"].path, tmp_path / "q", method="ptq", tick=lambda: ticks.append(1))
    assert set(seen) == {"1", "2", "4"}
    assert len(ticks) == 4 * RATE


def test_the_same_call_gives_the_same_files_and_another_seed_others(floats, tuned, tmp_path):
    options = {"state": "int8", "changes": {**SHORT, "learning_rate": 0.01}}
    again = quantize(floats["gru"].path, tmp_path / "again", seed=4, **options)
    other = quantize(floats["gru"].path, tmp_path / "other", seed=5, **options)
    assert again.manifest.files == tuned.manifest.files != other.manifest.files


def test_other_data_is_named_and_read_as_the_models_own(tmp_path):
    def write(folder, people):
        folder.mkdir()
        for person in people:
            rows = [f"{40 * i},{np.sin(i * (0.2 + (i > 80))):.3f},{'on' if i < 80 else 'off'}" for i in range(160)]
            (folder / f"{person}.csv").write_text("\n".join(["ms,acc,state", *rows]) + "\n", encoding="utf-8")
        return str(folder)

    mapping = Mapping(time="ms", time_unit="ms", label="state", subject_from="file", channels=("acc",))
    own, other = write(tmp_path / "own", "abcd"), write(tmp_path / "other", "abc")
    made = train(
        *(own, tmp_path / "t"),
        preset="gru",
        mapping=mapping,
        changes={**SHORT, "model.hidden": 4},
        test=["a"],
        validation=["b"],
    )
    small = quantize(made.path, tmp_path / "q", method="ptq", data=other)
    assert small.manifest.lineage[-1].data == other
    assert trained_on(small).subjects == ("a", "b", "c")
    assert small.manifest.lineage[-1].data_fingerprint == trained_on(small).fingerprint()
    assert small.manifest.split["train"] == ("c", "d")  # who was seen before stays seen


def test_the_data_of_a_lineage_is_that_of_the_last_stage_that_names_it(floats, tuned, exported):
    assert exported["gru"].manifest.lineage[-1].data is None
    assert exported["gru"].manifest.data_stage == tuned.manifest.lineage[-1] == tuned.manifest.data_stage
    assert floats["gru"].manifest.data_stage == floats["gru"].manifest.lineage[0]


def test_every_file_can_be_read_by_the_same_people(tuned, exported):
    for folder in (tuned, exported["gru"]):
        assert len({file.stat().st_mode for file in folder.path.iterdir()}) == 1


# -- fewer bits, coarser memories -----------------------------------------------------------------------------------


def test_4_bits_and_a_coarser_memory_are_said_and_loaded_as_they_were_scored(floats, tmp_path):
    warned = []
    made = quantize(
        floats["lmu"].path, tmp_path / "q", method="ptq", bits=4, memory="int16", state="int8", warn=warned.append
    )
    assert made.manifest.precision == Precision("int4", "int8", "int8", "int16")
    assert made.manifest.lineage[-1].arguments["precision"]["memory"] == "int16"
    assert made.manifest.lineage[-1].arguments["warnings"] == warned
    model = load_model(made)
    for layer in quantized_linears(model).values():
        assert int(layer.integers()[0].abs().max()) == 7
    assert {memory.limit for memory in memories(model).values()} == {32767}
    scores = evaluate(model, trained_on(made).only(["3"]))
    assert scores.macro_f1 == pytest.approx(made.manifest.metrics["test_macro_f1"], abs=1e-6)


def test_training_on_with_4_bits_moves_the_weights_and_leaves_the_memory(floats, tmp_path):
    options = {"bits": 4, "memory": "int8", "changes": {**SHORT, "learning_rate": 0.01}}
    made = quantize(floats["lmu"].path, tmp_path / "q", **options)
    tuned, untrained = load_model(made), load_model(quantize(floats["lmu"].path, tmp_path / "p", **UNTRAINED, bits=4))
    before, after = (quantized_linears(model) for model in (untrained, tuned))
    assert any(not torch.equal(before[name].linear.weight, layer.linear.weight) for name, layer in after.items())
    plain = load_model(floats["lmu"])
    for name, memory in memories(tuned).items():
        original = memories(plain)[name]
        assert not torch.equal(memory.A, original.A)
        assert (memory.A - original.A).abs().max() <= original.A.abs().max() / 250


def test_what_the_formats_can_hardly_say_is_warned_of_and_kept_in_the_lineage(floats, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_stage, "coarse", lambda model, ranges: ["one", "two"])
    warned = []
    made = quantize(floats["gru"].path, tmp_path / "q", method="ptq", warn=warned.append)
    assert warned == made.manifest.lineage[-1].arguments["warnings"] == ["one", "two"]


@pytest.mark.parametrize("method", ["ptq", "qat"])
@pytest.mark.parametrize("family", ["lmu", "gru"])
def test_weights_that_were_pruned_stay_zero_and_are_named(floats, tmp_path, family, method):
    sparse = prune(floats[family].path, tmp_path / "sparse", weights=0.5, criterion="magnitude", retrain=False)
    assert sparse.manifest.pruned
    options = UNTRAINED if method == "ptq" else {"changes": {**SHORT, "learning_rate": 0.05}}
    made = quantize(sparse.path, tmp_path / "q", bits=4, **options)
    assert made.manifest.pruned == sparse.manifest.pruned
    held, model = load_model(sparse), load_model(made)
    for name in made.manifest.pruned:
        weight, layer = held.get_submodule(name).weight, quantized_linears(model)[name]
        assert name in model.masks()
        assert not layer.linear.weight[weight == 0].any()
        assert not layer.integers()[0][weight == 0].any()
        off = (layer.linear.weight - weight).abs() / layer.integers()[2][:, None]
        assert method == "qat" or bool((off <= 0.501).all())


@pytest.mark.parametrize("method", ["qd", "dq"])
def test_few_levels_of_floats_are_a_stage_that_integers_may_follow(floats, tmp_path, method):
    few = quantize(floats["gru"].path, tmp_path / "few", method=method, bits=3, changes=SHORT)
    said = few.manifest.lineage[-1].arguments
    assert (few.manifest.precision, said["method"], said["bits"]) == (Precision(), method, 3)
    made = quantize(few.path, tmp_path / "q", **UNTRAINED)
    assert made.manifest.precision == Precision("int8", "int8")
    assert [entry.verb for entry in made.manifest.lineage] == ["train", "quantize", "quantize"]


def test_bits_that_are_not_said_are_8_of_integers_and_4_of_floats(floats, calibrated, tmp_path):
    assert calibrated.manifest.precision.weights == "int8"
    few = quantize(floats["gru"].path, tmp_path / "few", method="qd", changes=SHORT)
    assert few.manifest.lineage[-1].arguments["bits"] == 4


def test_what_integers_make_larger_is_warned_of(floats, tmp_path):
    few = quantize(floats["gru"].path, tmp_path / "few", method="qd", bits=2, changes=SHORT)
    for method, options in (("ptq", UNTRAINED), ("qat", {"changes": SHORT})):
        warned = []
        made = quantize(few.path, tmp_path / method, warn=warned.append, **options)
        (said,) = [each for each in warned if "2 bits (qd)" in each]
        assert f"{shipped_bytes(few):,} bytes; as int8 they ship in {shipped_bytes(made):,}" in said


@pytest.fixture(scope="module")
def normed(waves, tmp_path_factory):
    """A pruned model with batch norms, one channel of which lets nothing through."""
    sizes = {"dim": 6, "stages": 1, "blocks": 1, "channels": 2, "order": 3, "theta": 10.0, "ratio": 2, "dropout": 0.0}
    changes = {**SHORT, **{f"model.{name}": value for name, value in sizes.items()}}

    root = tmp_path_factory.mktemp("normed")
    whole = train(waves, root / "whole", preset="lmuformer-causal", changes=changes, test=["3"], validation=["5"])
    sparse = prune(whole.path, root / "sparse", weights=0.5, criterion="magnitude", retrain=False)
    model = load_model(sparse)
    model.blocks[0].norm.weight.data[0] = 0
    with new_folder(root / "closed") as staging:
        save_weights(model, staging)
        seal(staging, sparse.manifest)
    return open_folder(root / "closed")


@pytest.mark.parametrize("method", ["ptq", "qat", "qd", "dq"])
def test_norms_are_folded_and_what_was_pruned_or_comes_out_as_zero_stays_so(normed, tmp_path, method):
    options = {} if method == "ptq" else {"changes": {**SHORT, "learning_rate": 0.01}}
    made = quantize(normed.path, tmp_path / "q", method=method, **options)
    assert made.manifest.arguments == {**normed.manifest.arguments, "folded": True}
    assert not any("running_mean" in name for name in weights(made))
    held, model = load_model(normed), load_model(made)
    held.fold()
    assert made.manifest.pruned == normed.manifest.pruned
    for name in made.manifest.pruned:
        absent = weight_of(held.get_submodule(name)) == 0
        assert absent.any()
        assert not weight_of(model.get_submodule(name))[absent].any(), name
    closed = weight_of(model.get_submodule("blocks.0.projection"))[0]
    assert not closed.any()
    assert not model.masks()["blocks.0.projection"][0].any()


# -- gates ----------------------------------------------------------------------------------------------------------


def reported(folder, out, **metrics):
    """A copy of a folder that reports other scores."""
    with new_folder(out) as staging:
        for name in folder.manifest.files:
            shutil.copyfile(folder.file(name), staging / name)
        seal(staging, msgspec.structs.replace(folder.manifest, metrics={**folder.manifest.metrics, **metrics}))
    return open_folder(out)


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_a_score_that_falls_too_far_fails_with_nothing_written(floats, tmp_path, method):
    source = reported(floats["gru"], tmp_path / "gru", validation_macro_f1=1.0)
    options = UNTRAINED if method == "ptq" else {"changes": SHORT}
    with pytest.raises(GateFailed, match=r"falls by .* and at most 0\.5 are allowed"):
        quantize(source.path, tmp_path / "q", max_drop=0.5, **options)
    assert not (tmp_path / "q").exists()
    assert quantize(source.path, tmp_path / "q", max_drop=100.0, **options).manifest.metrics


@pytest.mark.parametrize("method", ["qd", "ptq"])
def test_a_limit_is_refused_where_the_source_has_no_score(floats, tmp_path, method):
    source = floats["gru"]
    without = {name: value for name, value in source.manifest.metrics.items() if name != "validation_macro_f1"}
    with new_folder(tmp_path / "gru") as staging:
        for name in source.manifest.files:
            shutil.copyfile(source.file(name), staging / name)
        seal(staging, msgspec.structs.replace(source.manifest, metrics=without))
    with pytest.raises(InputError, match="leave out --max-drop"):
        quantize(tmp_path / "gru", tmp_path / "q", method=method, max_drop=1.0)


def test_a_memory_that_would_grow_is_refused_before_anything_is_trained(waves, tmp_path):
    sizes = {"model.channels": [1], "model.orders": [24], "model.thetas": [640.0], "model.hidden": [4]}
    source = train(waves, tmp_path / "lmu", preset="lmu", changes={**SHORT, **sizes}, test=["3"], validation=["5"])
    steps = []
    with pytest.raises(GateFailed, match=r"blocks\.0\.memory: the spectral radius .* is 1\.0.*--memory int16"):
        quantize(source.path, tmp_path / "q", memory="int8", report=lambda ended, count: steps.append(count))
    assert (steps, (tmp_path / "q").exists()) == ([], False)
    assert quantize(source.path, tmp_path / "q", **UNTRAINED, memory="int16").manifest.precision.memory == "int16"


def test_a_memory_that_training_makes_grow_is_refused_with_nothing_written(waves, tmp_path):
    sizes = {"model.hidden": 4, "model.layers": 1, "model.state": 4}
    source = train(waves, tmp_path / "s4d", preset="s4d", changes={**SHORT, **sizes}, test=["3"], validation=["5"])

    def grow(model, split, settings):
        next(iter(memories(model).values())).log_decay.data.fill_(-40.0)

    with pytest.raises(GateFailed, match="spectral radius"):
        quantize(source.path, tmp_path / "q", changes=SHORT, announce=grow)
    assert not (tmp_path / "q").exists()


# -- learning from a teacher ----------------------------------------------------------------------------------------


def test_a_model_learns_from_a_teacher_while_it_is_quantized(floats, tuned, tmp_path):
    teacher = floats["lmu"]
    changes = {**SHORT, "learning_rate": 0.01, "distillation.temperature": 3}
    taught = quantize(
        floats["gru"].path, tmp_path / "q", state="int8", seed=4, teachers=[teacher.path], changes=changes
    )
    said = taught.manifest.lineage[-1].arguments
    assert said["teachers"] == [{"name": "lmu", "hash": teacher.hash}]
    assert (said["distillation"]["temperature"], said["distillation"]["soft"]) == (3.0, 0.7)
    assert said["settings"]["rounds"] == 2
    assert taught.manifest.split == tuned.manifest.split
    assert not same(weights(taught), weights(tuned))


def test_a_teacher_that_has_seen_the_tested_people_is_refused(floats, waves, tmp_path):
    changes = {**SHORT, "model.hidden": 4}
    leaky = train(waves, tmp_path / "leaky", changes=changes, test=["1"], validation=["5"])
    with pytest.raises(InputError, match=r"subject '3' cannot be of the test subjects: the teacher .*leaky has seen"):
        quantize(floats["gru"].path, tmp_path / "q", teachers=[leaky.path], changes=SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["leaky"]


# -- what the files hold --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["lmu", "gru"])
def test_every_file_is_proven_with_its_integer_layers_counted(exported, family):
    folder = exported[family]
    links = {link.name: link for link in folder.manifest.proof}
    assert all(link.passed for link in links.values())
    count = INTEGER_LAYERS[family]
    for engine in ("litert", "onnxruntime"):
        assert links[f"{engine} integer layers"].note == f"{count} of {count} int8 layers"
        assert links[f"{engine} teacher-forced"].error <= 1e-5
    assert not [link for link in check_folder(folder, ["numpy"], frames=100) if not link.passed]
    assert [entry.verb for entry in folder.manifest.lineage] == ["train", "quantize", "export"]
    assert folder.manifest.precision.weights == "int8"


def test_a_wide_state_is_plain_float_in_the_tflite_file(exported):
    interpreter = Interpreter(str(exported["lmu"].file("model.tflite")))
    runner = interpreter.get_signature_runner("step")
    details = {**runner.get_input_details(), **runner.get_output_details()}
    assert sorted(details) == ["next_state", "state", "x", "y"]
    for detail in details.values():
        assert detail["dtype"] == np.float32
        assert detail["quantization_parameters"]["scales"].size == 0
        assert detail["quantization"] == (0.0, 0)


def test_a_wide_state_never_passes_a_quantizer_in_the_onnx_file(exported):
    graph = onnx.load(exported["lmu"].file("model.onnx")).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    made = {node.output[0]: node for node in graph.node}
    weights_of = {each.name for each in graph.initializer}

    def leads_to_state(name):
        """Whether a value comes from the state in without passing a quantizer; sums and products go through."""
        if name == "state":
            return True
        node = made.get(name)
        if node is None or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return False
        return any(leads_to_state(source) for source in node.input if source not in weights_of)

    assert leads_to_state("next_state")
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qta"}, r"unknown method 'qta'\. Did you mean 'qat'"),
        ({"state": "int32"}, r"unknown state precision 'int32'\. Did you mean 'int"),
        ({"memory": "int32"}, r"unknown memory precision 'int32'\. Did you mean 'int"),
        ({"method": 8}, r"unknown method '8'"),
        ({"memory": None}, r"unknown memory precision 'None'"),
        ({"state": ["int8"]}, "unknown state precision"),
        ({"bits": "4"}, "bits '4' is of type str: a whole number is needed"),
        ({"bits": 4.0}, "bits 4.0 is of type float"),
        ({"bits": True}, "bits True is of type bool"),
        ({"method": "qd", "bits": 2.5}, "bits 2.5 is of type float"),
        ({"bits": 6}, "qat makes weights of 8 or 4 bits, not 6: for others use --method qd or dq"),
        ({"method": "qd", "bits": 4, "memory": "int16"}, "qd leaves the memory in float32: leave --memory int16 out"),
        ({"method": "dq", "bits": 4, "state": "int8"}, "dq leaves the state in float32"),
        ({"max_drop": -1.0}, "max_drop -1"),
        ({"method": "ptq", "changes": {"rounds": 2}}, "rounds is a setting for training, and ptq does not train"),
        ({"method": "ptq", "teachers": ["self"]}, "a teacher is there for training, and ptq does not train"),
        ({"changes": {"distillation.soft": 1}}, r"distillation\.soft is about learning from a teacher: name one"),
        ({"changes": {"distillation.sotf": 1}, "teachers": ["self"]}, "Did you mean 'soft'"),
        ({"changes": {"roundz": 1}}, "Did you mean 'rounds'"),
        ({"changes": {"model.hidden": 9}}, r"model\.hidden cannot be set"),
        ({"seed": -1}, "seed -1"),
        ({"data": "nowhere.npz"}, "nowhere.npz"),
        ({"teachers": ["nowhere"]}, "nowhere is not a folder"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(floats, tmp_path, options, message):
    source = floats["gru"].path
    if "teachers" in options:
        options = {**options, "teachers": [source if name == "self" else name for name in options["teachers"]]}
    with pytest.raises(InputError, match=message):
        quantize(source, tmp_path / "q", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["qat", "ptq"])
def test_a_model_is_not_quantized_twice(calibrated, exported, tmp_path, method):
    for folder in (calibrated, exported["gru"]):
        with pytest.raises(InputError, match="has int8 weights already: start from the float model"):
            quantize(folder.path, tmp_path / "q", method=method)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_it_is_to_be_replaced(floats, tmp_path):
    out = tmp_path / "q"
    first = quantize(floats["gru"].path, out, method="ptq").hash
    with pytest.raises(InputError, match="--overwrite"):
        quantize(floats["gru"].path, out, method="ptq", state="int8")
    assert open_folder(out).hash == first
    quantize(floats["gru"].path, out, method="ptq", state="int8", overwrite=True)
    assert open_folder(out).manifest.precision.state == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["q"]


def test_what_it_is_made_from_is_never_replaced_by_it(floats, tmp_path):
    source, teacher = tmp_path / "gru", tmp_path / "teacher"
    shutil.copytree(floats["gru"].path, source)
    shutil.copytree(floats["lmu"].path, teacher)
    for out in (source, teacher):
        before = open_folder(out).hash
        with pytest.raises(InputError, match=f"{out.name} is what the model is made from: name another folder"):
            quantize(source, out, teachers=[teacher], changes=SHORT, overwrite=True)
        assert open_folder(out).hash == before


# -- interruptions --------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop(ended, steps):
    if ended is not None:
        raise Stop


def test_an_interrupted_run_is_taken_up_by_the_same_call_only(floats, tuned, tmp_path):
    source, changes = floats["gru"].path, {**SHORT, "learning_rate": 0.01}
    steps, made = {}, {}
    for name, state in (("same", "int8"), ("other", "int16")):
        with pytest.raises(Stop):
            quantize(source, tmp_path / name, state="int8", seed=4, changes=changes, report=stop)
        assert not (tmp_path / name).exists()
        done = steps[name] = []
        report = lambda _, count, done=done: done.append(count)  # noqa: E731
        made[name] = quantize(source, tmp_path / name, state=state, seed=4, changes=changes, report=report)
    assert steps["same"][0] == SHORT["steps"] + 1
    assert steps["other"][0] == 1
    assert made["same"].manifest.files == tuned.manifest.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same"]


@pytest.mark.parametrize("method", ["qat", "ptq"])
@pytest.mark.parametrize("exists", [False, True])
def test_what_fails_on_the_way_leaves_nothing_half_written(floats, tmp_path, monkeypatch, method, exists):
    out, options = tmp_path / "q", {"changes": {**SHORT, "rounds": 1}} if method == "qat" else {}
    before = quantize(floats["gru"].path, out, method="ptq").hash if exists else None

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("edgeseq.training.stage.seal", full)
    with pytest.raises(OSError, match="no space left"):
        quantize(floats["gru"].path, out, method=method, state="int8", overwrite=exists, **options)
    left = {path.name for path in tmp_path.iterdir()} - {".q.training.safetensors"}  # so that the same call goes on
    assert left == ({"q"} if exists else set())
    if before:
        assert open_folder(out).hash == before
