"""``prune`` as a stage: what is written down, what survives the stages behind it, and what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices import check
from edgeseq.devices.check import check_folder
from edgeseq.errors import GateFailed, InputError, Unsupported
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.folder import WEIGHTS_NAME, open_folder
from edgeseq.lineage import trained_on
from edgeseq.models.contract import parameter_count, weight_of
from edgeseq.models.registry import presets
from edgeseq.models.store import load_model
from edgeseq.program import Program
from edgeseq.program.cost import cost
from edgeseq.quant.prune_stage import RATE, ROUNDS, Cut, prune, rounds_after
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.evaluate import evaluate
from edgeseq.training.retime_stage import retime
from edgeseq.training.stage import train

SHORT = {"rounds": 2, "steps": 3, "batch": 4, "crop": 1.0, "settle": 0.1}
LMU = {"model.channels": [2, 2], "model.orders": [3, 4], "model.thetas": [10.0, 20.0], "model.hidden": [5, 4]}
LMU |= {"model.products": 2, "model.dropout": 0.0}
S4D = {"model.hidden": 6, "model.layers": 2, "model.state": 8}
SIZES = {"lmu": LMU, "gru": {"model.hidden": 8}, "s4d": S4D}
FRAMES = 200  # of a proof, which is not what these tests are about
RATE_HZ = 25.0


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Two recordings of 4 s of each of five subjects."""
    t, recordings = np.arange(int(4 * RATE_HZ)) / RATE_HZ, []
    for subject in "12345":
        rng = np.random.default_rng(int(subject))
        for label in range(2):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2)) + rng.normal(0, 0.1)
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE_HZ, ("slow", "fast")), path)
    return str(path)


@pytest.fixture(scope="module")
def dense(waves, tmp_path_factory):
    """A folder of each family as it was trained, tested on subject 3 and chosen on 5."""
    root = tmp_path_factory.mktemp("dense")
    return {
        name: train(waves, root / name, preset=name, changes={**SHORT, **size}, test=["3"], validation=["5"])
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def narrow(dense, tmp_path_factory):
    """The GRU without half of its parameters, trained on."""
    return prune(dense["gru"].path, tmp_path_factory.mktemp("n") / "gru-half", structured=0.5, seed=4, changes=SHORT)


@pytest.fixture(scope="module")
def sparse(dense, tmp_path_factory):
    """The LMU without seven of ten of its weights, which went on the way."""
    out = tmp_path_factory.mktemp("s") / "lmu-zeros"
    return prune(dense["lmu"].path, out, weights=0.7, criterion="taylor", seed=4, changes=SHORT)


@pytest.fixture
def few_frames(monkeypatch):
    monkeypatch.setattr(check, "MIN_FRAMES", FRAMES)
    monkeypatch.setattr(stage, "MIN_FRAMES", FRAMES)


def zeros(folder):
    """By linear map, which of the weights of the folder's file are 0."""
    stored = load_file(folder.file(WEIGHTS_NAME))
    names = folder.manifest.pruned or load_model(folder).projections()
    keys = {name: f"{name}.weight" if f"{name}.weight" in stored else f"{name}.linear.weight" for name in names}
    return {name: stored[key] == 0 for name, key in keys.items()}


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def same(one, other):
    first, second = (load_file(folder.file(WEIGHTS_NAME)) for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# -- what is written ------------------------------------------------------------------------------------------------


def test_a_narrower_model_is_a_plain_folder_of_its_family(dense, narrow, waves):
    manifest, before = narrow.manifest, dense["gru"].manifest
    assert (manifest.family, manifest.split, manifest.input) == (before.family, before.split, before.input)
    hidden = manifest.arguments["hidden"]
    assert manifest.arguments == {**before.arguments, "hidden": hidden}
    assert manifest.parameters == parameter_count(load_model(narrow)) <= before.parameters / 2
    assert [entry.shape for entry in manifest.states] == [(1, hidden)]
    assert manifest.pruned == ()
    entry = manifest.lineage[-1]
    assert (entry.verb, entry.seed, entry.parent) == ("prune", 4, dense["gru"].hash)
    assert (entry.data, entry.data_fingerprint) == (waves, trained_on(dense["gru"]).fingerprint())
    said = entry.arguments
    assert (said["structured"], said["weights"], said["modes"]) == (0.5, 0.0, 0.0)
    assert (said["criterion"], said["chosen_by"]) == (None, {"structured": "magnitude"})
    assert said["widths"] == {"layers.0.hidden": [8, hidden]}
    assert said["parameters"] == [before.parameters, manifest.parameters]
    assert (said["settings"]["rounds"], said["teachers"], said["distillation"]) == (2, [], None)


def test_zeros_are_counted_and_are_no_parameters(dense, sparse):
    lost, total = zeros(sparse), sum(mask.numel() for mask in zeros(dense["lmu"]).values())
    assert count(lost) == round(0.7 * total)
    manifest = sparse.manifest
    assert manifest.arguments == dense["lmu"].manifest.arguments
    assert manifest.parameters == dense["lmu"].manifest.parameters - count(lost)
    assert manifest.metrics["zeros"] == pytest.approx(count(lost) / total, abs=1e-6)
    for name, mask in lost.items():
        assert manifest.metrics[f"zeros_{name}"] == pytest.approx(float(mask.float().mean()), abs=1e-6)
    assert set(manifest.pruned) == set(lost)


@pytest.mark.parametrize("name", ["narrow", "sparse"])
def test_the_weights_are_loaded_again_as_they_were_scored(request, name):
    folder = request.getfixturevalue(name)
    model = load_model(open_folder(folder.path))
    for part, subject in (("test", "3"), ("validation", "5")):
        scores = evaluate(model, trained_on(folder).only([subject]))
        assert scores.macro_f1 == pytest.approx(folder.manifest.metrics[f"{part}_macro_f1"], abs=1e-6)


@pytest.mark.parametrize(
    ("shares", "rounds"),
    [
        ((0.1, 0, 0), 1),
        ((0.5, 0, 0), 1),
        ((0.75, 0, 0), 2),
        ((0, 0.75, 0), 2),
        ((0.5, 0.5, 0.5), 3),
        ((0, 0.9, 0), 3.32),
    ],
)
def test_it_retrains_as_many_rounds_again_for_each_time_that_what_remains_is_halved(shares, rounds):
    cut = Cut(*shares, scope="global", block=(1, 1), criterion="magnitude", gradual=True, retrain=True)
    assert rounds_after(cut) == round(ROUNDS * rounds)


def test_it_retrains_gently_unless_told_otherwise(dense, tmp_path):
    few = {name: value for name, value in SHORT.items() if name != "rounds"}
    made = prune(dense["gru"].path, tmp_path / "p", structured=0.2, changes={**few, "steps": 1})
    settings = made.manifest.lineage[-1].arguments["settings"]
    usual = presets()["gru"].training.get("learning_rate", 4e-3)
    assert (settings["rounds"], settings["learning_rate"]) == (ROUNDS, RATE * usual)
    told = prune(dense["gru"].path, tmp_path / "q", structured=0.2, changes={**SHORT, "learning_rate": 0.01})
    assert told.manifest.lineage[-1].arguments["settings"]["learning_rate"] == 0.01


def test_without_retraining_what_remains_is_as_it_was(dense, tmp_path):
    made = prune(dense["lmu"].path, tmp_path / "p", weights=0.5, scope="layer", criterion="magnitude", retrain=False)
    before, after = load_file(dense["lmu"].file(WEIGHTS_NAME)), load_file(made.file(WEIGHTS_NAME))
    for name, mask in zeros(made).items():
        old = before[f"{name}.weight"]
        assert int(mask.sum()) == round(0.5 * mask.numel())
        assert torch.equal(after[f"{name}.weight"], torch.where(mask, 0, old))
        assert float(old[mask].abs().max()) <= float(old[~mask].abs().min())
    assert made.manifest.lineage[-1].arguments["settings"] is None


def test_modes_go_alone(dense, tmp_path):
    made = prune(dense["s4d"].path, tmp_path / "p", modes=0.5, retrain=False)
    widths = made.manifest.lineage[-1].arguments["widths"]
    assert widths["hidden"] == [6, 6]
    modes = [pair for name, pair in widths.items() if name.endswith("modes")]
    assert [pair[0] for pair in modes] == [4, 4]
    assert sum(pair[1] for pair in modes) == 4
    assert sum(entry.size for entry in made.manifest.states) < sum(entry.size for entry in dense["s4d"].manifest.states)


def test_units_go_by_taylor_where_a_batch_norm_undoes_the_scale_of_weights_and_weights_by_magnitude(dense, tmp_path):
    options = {"structured": 0.4, "seed": 4, "retrain": False, "changes": {}}
    chosen = prune(dense["s4d"].path, tmp_path / "chosen", **options)
    asked, other = (
        prune(dense["s4d"].path, tmp_path / name, **options, criterion=name) for name in ("taylor", "magnitude")
    )
    assert same(chosen, asked)
    assert not same(chosen, other)
    assert chosen.manifest.lineage[-1].arguments["chosen_by"] == {"structured": "taylor"}
    zeros_too = prune(dense["s4d"].path, tmp_path / "zeros", **options, weights=0.2)
    said = zeros_too.manifest.lineage[-1].arguments["chosen_by"]
    assert said == {"structured": "taylor", "weights": "magnitude"}


def test_whole_blocks_go(dense, tmp_path):
    made = prune(dense["gru"].path, tmp_path / "p", weights=0.5, block=(4, 2), gradual=False, changes=SHORT)
    for mask in zeros(made).values():
        blocks = (block for some in mask.split(4, 0) for block in some.split(2, 1))
        assert all(bool(block.all()) or not bool(block.any()) for block in blocks)
    total = sum(mask.numel() for mask in zeros(made).values())
    assert abs(made.manifest.metrics["zeros"] - 0.5) * total <= 4 + 1e-3  # half a block


def test_the_same_call_gives_the_same_files_and_another_seed_others(dense, narrow, tmp_path):
    again = prune(dense["gru"].path, tmp_path / "again", structured=0.5, seed=4, changes=SHORT)
    other = prune(dense["gru"].path, tmp_path / "other", structured=0.5, seed=5, changes=SHORT)
    assert same(again, narrow)
    assert not same(other, narrow)


def test_what_remains_learns_from_a_teacher(dense, narrow, tmp_path):
    teacher = dense["gru"]
    made = prune(teacher.path, tmp_path / "p", structured=0.5, seed=4, teachers=[teacher.path], changes=SHORT)
    said = made.manifest.lineage[-1].arguments
    assert said["teachers"] == [{"name": "gru", "hash": teacher.hash}]
    assert said["distillation"]["temperature"] == 2.0
    assert not same(made, narrow)


# -- one stage after another ----------------------------------------------------------------------------------------


def test_zeros_stay_in_whatever_comes_next(sparse, waves, tmp_path):
    there = zeros(sparse)
    longer = train(waves, tmp_path / "on", start=sparse.path, changes=SHORT)
    small = quantize(sparse.path, tmp_path / "int8", changes=SHORT)
    for folder in (longer, small):
        now = zeros(folder)
        assert all(bool(now[name][mask].all()) for name, mask in there.items())
        assert set(folder.manifest.pruned) == set(sparse.manifest.pruned)
    assert longer.manifest.parameters == sparse.manifest.parameters
    assert not same(longer, sparse)


@pytest.mark.parametrize(("method", "bits"), [("ptq", 8), ("ptq", 4), ("qd", 2)])
def test_weights_that_a_rounding_made_0_are_no_parameters(dense, tmp_path, method, bits):
    pruned = prune(dense["gru"].path, tmp_path / "p", weights=0.02, retrain=False)
    changes = {} if method == "ptq" else {"changes": SHORT}
    made = quantize(pruned.path, tmp_path / "q", method=method, bits=bits, **changes)
    assert made.manifest.parameters == parameter_count(load_model(made)) <= pruned.manifest.parameters
    if bits == 4:  # a weight below a fourteenth of its row's largest
        assert made.manifest.parameters < pruned.manifest.parameters


def test_zeros_stay_at_another_rate_and_in_int8_behind_that(sparse, tmp_path):
    slow = retime(sparse.path, tmp_path / "slow", rate=RATE_HZ / 2)
    small = quantize(slow.path, tmp_path / "int8", method="ptq")
    for folder in (slow, small):
        assert folder.manifest.pruned == sparse.manifest.pruned
        assert folder.manifest.parameters == parameter_count(load_model(folder)) <= sparse.manifest.parameters
    assert slow.manifest.parameters == sparse.manifest.parameters


def test_few_bits_are_of_one_rate_and_not_pruned_until_trained_as_floats_again(dense, waves, tmp_path):
    small = quantize(dense["lmu"].path, tmp_path / "qd", method="qd", bits=4, changes=SHORT)
    with pytest.raises(Unsupported, match="retime first, then quantize"):
        retime(small.path, tmp_path / "slow", rate=RATE_HZ / 2)
    with pytest.raises(InputError, match="is quantized already"):
        prune(small.path, tmp_path / "p", weights=0.5, retrain=False)
    wide = train(waves, tmp_path / "on", start=small.path, changes=SHORT)
    made = prune(wide.path, tmp_path / "p", weights=0.5, retrain=False)
    assert [entry.verb for entry in made.manifest.lineage] == ["train", "quantize", "train", "prune"]
    assert retime(wide.path, tmp_path / "slow", rate=RATE_HZ / 2).manifest.input.rate == RATE_HZ / 2


def test_modes_go_ahead_of_units_each_a_share_of_what_is_there(dense, tmp_path):
    made = prune(dense["s4d"].path, tmp_path / "both", modes=0.5, structured=0.3, retrain=False)
    alone = prune(dense["s4d"].path, tmp_path / "modes", modes=0.5, retrain=False)
    assert made.manifest.parameters <= 0.7 * alone.manifest.parameters
    assert made.manifest.parameters > 0.3 * alone.manifest.parameters


def test_pruning_again_takes_of_what_is_left(sparse, tmp_path):
    again = prune(sparse.path, tmp_path / "p", weights=0.5, changes=SHORT)
    before, after = zeros(sparse), zeros(again)
    left = sum(int((~mask).sum()) for mask in before.values())
    assert count(after) == count(before) + round(0.5 * left)
    assert all(bool(after[name][mask].all()) for name, mask in before.items())


def test_units_and_weights_go_in_one_call_or_two(dense, narrow, tmp_path):
    then = prune(narrow.path, tmp_path / "two", weights=0.5, retrain=False)
    both = prune(dense["gru"].path, tmp_path / "one", structured=0.5, weights=0.5, retrain=False)
    for folder in (then, both):
        lost = zeros(folder)
        assert folder.manifest.arguments["hidden"] == narrow.manifest.arguments["hidden"]
        assert count(lost) == round(0.5 * sum(mask.numel() for mask in lost.values()))


def test_units_of_a_model_with_zeros_go_and_its_zeros_stay(sparse, tmp_path):
    made = prune(sparse.path, tmp_path / "p", structured=0.3, criterion="taylor", changes=SHORT)
    assert made.manifest.parameters <= 0.7 * sparse.manifest.parameters
    assert set(made.manifest.pruned) == set(sparse.manifest.pruned)
    model = load_model(made)
    assert count(zeros(made)) == sum(int((~mask).sum()) for mask in model.masks().values()) > 0
    assert all(not bool(weight_of(model.get_submodule(name))[~mask].any()) for name, mask in model.masks().items())


@pytest.mark.usefixtures("few_frames")
@pytest.mark.parametrize("family", ["gru", "s4d"])
def test_the_files_of_a_narrower_model_are_proven_and_have_fewer_products(dense, narrow, tmp_path, family):
    made = narrow if family == "gru" else prune(dense[family].path, tmp_path / "p", structured=0.5, retrain=False)
    macs = {}
    for name, folder in (("dense", dense[family]), ("narrow", made)):
        exported = export(folder.path, tmp_path / name, frames=FRAMES)
        assert all(link.passed for link in exported.manifest.proof)
        assert not [link for link in check_folder(exported, ["numpy"], frames=100) if not link.passed]
        macs[name] = cost(Program.read(exported.path)).macs
    assert macs["narrow"] < 0.75 * macs["dense"]


@pytest.mark.usefixtures("few_frames")
def test_a_model_with_zeros_is_proven_and_has_as_many_products(dense, sparse, tmp_path):
    folders = (export(folder.path, tmp_path / folder.path.name, frames=FRAMES) for folder in (dense["lmu"], sparse))
    costs = [cost(Program.read(folder.path)).macs for folder in folders]
    assert costs[0] == costs[1]


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to prune"),
        ({"structured": 1.0}, "structured 1: the share that goes is needed, from 0 to less than 1"),
        ({"weights": -0.1}, "weights -0.1: the share"),
        ({"modes": float("nan")}, "modes nan: the share"),
        ({"structured": 0.99}, r"still has \d+ of its \d+ parameters"),
        ({"weights": 0.5, "scope": "layr"}, "Did you mean 'layer'"),
        ({"weights": 0.5, "criterion": "tailor"}, "Did you mean 'taylor'"),
        ({"weights": 0.5, "block": (0, 4)}, "1 or more"),
        ({"weights": 0.5, "block": (32, 32)}, r"block 32x32 holds all of \S+ \(\d+x\d+\)"),
        ({"weights": 0.999}, "a linear map keeps one weight"),
        ({"structured": 0.5, "block": (8, 4)}, "block says which weights go, and none are to"),
        ({"structured": 0.5, "scope": "layer"}, "scope says which weights go, and none are to"),
        ({"structured": 0.5, "retrain": False, "changes": {"rounds": 2}}, "rounds is a setting for training"),
        ({"structured": 0.5, "retrain": False, "teachers": ["self"]}, "a teacher is there for training"),
        ({"structured": 0.5, "changes": {"distillation.soft": 1}}, "name one with --teacher"),
        ({"structured": 0.5, "changes": {"roundz": 1}}, "Did you mean 'rounds'"),
        ({"structured": 0.5, "max_drop": -1.0}, "max_drop -1"),
        ({"structured": 0.5, "seed": -1}, "seed -1"),
        ({"structured": 0.5, "data": "nowhere.npz"}, "nowhere.npz"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(dense, tmp_path, options, message):
    source = dense["gru"].path
    if "teachers" in options:
        options = {**options, "teachers": [source]}
    with pytest.raises(InputError, match=message):
        prune(source, tmp_path / "p", **{"changes": SHORT, **options} if options.get("retrain", True) else options)
    assert not list(tmp_path.iterdir())


def test_modes_are_asked_of_models_that_have_them(dense, tmp_path):
    with pytest.raises(Unsupported, match="modes: Rnn has none; those that do are of the family s4d"):
        prune(dense["gru"].path, tmp_path / "p", modes=0.5)
    assert not list(tmp_path.iterdir())


def test_a_quantized_model_is_not_pruned(dense, tmp_path):
    small = quantize(dense["gru"].path, tmp_path / "q", method="ptq")
    with pytest.raises(InputError, match="is quantized already: prune the float model that it came from"):
        prune(small.path, tmp_path / "p", structured=0.5)


def test_what_loses_too_much_is_not_written(waves, tmp_path):
    good = {**SHORT, **SIZES["gru"], "rounds": 1, "steps": 60, "batch": 16, "learning_rate": 0.02}
    source = train(waves, tmp_path / "good", changes=good, test=["3"], validation=["5"])
    assert source.manifest.metrics["validation_macro_f1"] > 0.6
    with pytest.raises(GateFailed, match="macro-F1 on the validation subjects falls by"):
        prune(source.path, tmp_path / "p", weights=0.99, retrain=False, max_drop=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    made = prune(source.path, tmp_path / "p", weights=0.99, retrain=False, max_drop=100.0)
    assert made.manifest.metrics["zeros"] == pytest.approx(0.99, abs=0.01)


# -- interruptions --------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop(ended, steps):
    if ended is not None:
        raise Stop


@pytest.mark.parametrize("name", ["narrow", "sparse"])
def test_an_interrupted_run_ends_in_the_same_weights(request, dense, tmp_path, name):
    whole = request.getfixturevalue(name)
    zeros = {"weights": 0.7, "criterion": "taylor"}
    source, options = (dense["gru"], {"structured": 0.5}) if name == "narrow" else (dense["lmu"], zeros)
    out, steps = tmp_path / whole.path.name, []
    with pytest.raises(Stop):
        prune(source.path, out, seed=4, changes=SHORT, report=stop, **options)
    assert not out.exists()
    made = prune(source.path, out, seed=4, changes=SHORT, report=lambda _, count: steps.append(count), **options)
    assert steps[0] == SHORT["steps"] + 1
    assert same(made, whole)
    assert msgspec.to_builtins(made.manifest.metrics) == whole.manifest.metrics
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
