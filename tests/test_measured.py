"""docs/measured.md is what the committed results say, and what is claimed beside its tables holds in them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from edgeseq.folder import open_folder
from edgeseq.models.registry import presets

ROOT = Path(__file__).parents[1]
MAKE = runpy.run_path(str(ROOT / "docs" / "make_measured.py"))
ACCURACY = runpy.run_path(str(ROOT / "docs" / "make_accuracy.py"))
COMPRESSION = runpy.run_path(str(ROOT / "docs" / "make_compression.py"))
SPIKING = runpy.run_path(str(ROOT / "docs" / "make_spiking.py"))
WATCH = runpy.run_path(str(ROOT / "docs" / "make_watch.py"))


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_results():
    written = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert written == MAKE["document"](), "run python docs/make_measured.py"


def test_the_page_on_spiking_models_is_made_from_the_results():
    written = (ROOT / "docs" / "spiking.md").read_text(encoding="utf-8")
    assert written == SPIKING["document"](), "run python docs/make_spiking.py"


def test_the_page_on_the_watch_models_is_made_from_the_results():
    written = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")
    assert written == WATCH["document"](), "run python docs/make_watch.py"


def test_the_watch_model_without_gyroscope_is_the_seed_that_validation_chose():
    rows = [row for row in results("watch")["rows"] if (row["data"], row["kind"]) == ("spar_watch_acc", "int8")]
    best = max(rows, key=lambda row: row["validation_macro_f1"])
    shipped = open_folder("har_watch_acc").manifest
    assert shipped.lineage[0].seed == best["seed"]
    assert shipped.metrics["test_accuracy"] == best["test_accuracy"]


def test_the_page_on_accuracy_is_made_from_the_results():
    written = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert written == ACCURACY["document"](), "run python docs/make_accuracy.py"


def test_the_page_on_compression_is_made_from_the_results():
    written = (ROOT / "docs" / "compression.md").read_text(encoding="utf-8")
    assert written == COMPRESSION["document"](), "run python docs/make_compression.py"


def test_accuracies_of_a_model_on_a_data_set_are_all_of_one_recipe():
    recipes = {}
    for row in results("accuracy"):
        recipes.setdefault((row["data"], row["model"]), set()).add(row["recipe"])
    assert [kind for kind, found in recipes.items() if len(found) > 1] == []


def test_every_spiking_preset_for_a_watch_was_measured_on_all_folds_beside_a_plain_model():
    rows = [row for row in results("spiking") if row["data"] == "spar_watch"]
    for name in ("l2mu", "lmuformer", "lmuformer-causal", "spiking_lmuformer", "spiking_lmuformer-causal", "lmu"):
        assert sorted(row["fold"] for row in rows if row["model"] == name) == [0, 1, 2, 3, 4], name


def test_spiking_neurons_train_faster_fused_than_in_a_loop():
    for row in results("spiking_speed")["rows"]:
        assert row["fused_s"] < row["loop_s"], row


def test_every_preset_was_measured_at_its_training_batch_or_as_many_as_fit():
    rows = [row for row in results("training_speed")["rows"] if "parameters" in row]
    assert {row["what"] for row in rows} == set(presets())
    for name in presets():
        assert {row["batch"] for row in rows if row["what"] == name} - {1}, name


def test_no_preset_trains_slower_than_the_loop_of_its_steps():
    for row in results("training_speed")["rows"]:
        if "parameters" in row:
            assert row["forward_speedup"] >= 0.95, row  # what two runs of the same thing may differ by


def test_the_form_of_a_memory_that_is_taken_is_about_the_fastest():
    for row in results("training_speed")["rows"]:
        if "chosen" in row:
            forms = {key.removesuffix("_speedup"): row[key] for key in row if key.endswith("_speedup")}
            forms["one by one"] = 1.0
            forms.pop("last")
            assert forms[row["chosen"]] >= 0.65 * max(forms.values()), row
            assert forms[row["chosen"]] >= 1.0, row


def test_the_aim_for_a_single_stream_is_reached():
    (row,) = [
        row for row in results("training_speed")["rows"] if (row["what"], row["batch"]) == ("memory of order 32", 1)
    ]
    assert row[f"{row['chosen']}_speedup"] >= 20


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_the_form_that_export_takes_is_not_slower(engine):
    for row in results("memory_forms")["rows"]:
        ratio = row[f"{engine}_taps_ratio"]
        assert ratio <= 1.1 if row["chosen"] == "taps" else ratio >= 0.9, row


def test_blocks_win_where_the_dense_product_is_large_and_not_where_it_is_small():
    rows = [row for row in results("sparse_blocks")["rows"] if row["block"]]
    for row in rows:
        assert (row["litert_ratio"] > 1) == (row["hidden"] == 96), row
        assert (row["onnxruntime_ratio"] < 1) == (row["hidden"] == 512), row


def test_models_trained_with_carried_state_hold_over_an_hour():
    late = {}  # points against the answers from the initial state, in minutes 31 to 60
    for row in results("long_stream"):
        late.setdefault((row["training"], row["model"]), []).append(row["against_reset"]["spans"]["31-60"])
    carried = {model: found for (training, model), found in late.items() if training == "carried"}
    assert set(carried) >= {"lmu", "lmu_cell", "s4d", "gru", "lstm"}
    for model, found in carried.items():
        assert min(found) > -1.0, model
    assert max(late["fresh", "s4d"]) < -10
    assert min(late["fresh", "gru"] + late["fresh", "lmu_cell"]) > -4
    assert min(late["fresh", "lmu"]) > -0.5


def test_retimed_models_lose_less_than_a_point_and_less_than_those_fed_as_they_are():
    rows = results("retime")["rows"]
    for model in {row["model"] for row in rows}:
        mine = [row for row in rows if row["model"] == model]
        lost = sum(row["accuracy"] - row["retimed"] for row in mine) / len(mine)
        raw = sum(row["accuracy"] - row["as_it_is"] for row in mine) / len(mine)
        assert lost < 0.01 < raw
