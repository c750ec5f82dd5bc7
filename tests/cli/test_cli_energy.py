"""``edgeseq inspect --energy``: what is counted, on which frames, beside which model, and how it is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgeseq.cli import energy as energy_table
from edgeseq.cli.captured import Captured
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.folder import MANIFEST_NAME, open_folder, seal
from edgeseq.models.registry import build
from edgeseq.program import Builder, Program, Value, cost
from edgeseq.program.activity import measure


def neurons(channels, labels, *, live=False):
    """Spikes of x, and from them an answer; of a model that looks ahead, from whether there is a frame alone."""
    width = channels + live
    b = Builder(Value("x", (1, width)), [Value("u.membrane", (1, 4))])
    x = b.add("slice", "x", axis=1, start=channels if live else 0, stop=width)
    rng = np.random.default_rng(0)
    into = b.constant("in.weight", rng.normal(0, 3, (4, b.values[x].shape[1])).astype(np.float32))
    constants = [b.constant(name, np.full((), value, np.float32)) for name, value in (("beta", 0.5), ("threshold", 1))]
    current = b.add("linear", x, into)
    spikes, after = b.add_all("leaky", current, "u.membrane", *constants, reset="subtract", delay=True, inclusive=False)
    y = b.add("linear", spikes, b.constant("out.weight", np.ones((labels, 4), np.float32)))
    return b.finish(y, {"u.membrane": after})


def with_program(folder, out, program, **changes):
    """A copy of the exported ``folder`` with another step program."""
    found = open_folder(folder)
    shutil.copytree(found.path, out)
    program.write(out)
    (out / MANIFEST_NAME).unlink()
    seal(out, replace(found.manifest, **changes))
    return out


def test_inspect_energy_counts_on_golden_frames_and_prices_each_convention(edgeseq, exported):
    document = edgeseq("inspect", exported, "--energy", "--json").document
    assert document["frames"] == 2000
    (model,), program = document["models"], Program.read(exported)
    assert model["dense_synops"] + model["activity"]["memory_macs"] == cost(program).macs
    assert 0 < model["effective_macs"] <= model["dense_synops"]
    assert (model["spiking"], model["membrane_updates"]) == (False, 0)
    (priced,) = model["energy"]
    assert priced["synapses"] == pytest.approx(4.6 * model["effective_macs"] + 0.9 * model["effective_acs"])
    assert priced["low"] <= priced["step"] <= priced["high"]
    assert {priced["provenance"], model["traffic"]["provenance"]} == {"estimated"}


def test_inspect_energy_has_a_row_for_each_convention_and_for_a_dense_kernel_within_120_columns(edgeseq, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    done = edgeseq("inspect", "har_watch", "--energy", "--beside", "har_watch_fp32", "--frames", 50)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 120
    cells = [line.split() for line in lines]
    rows = [row for row in cells if any(name in row[:2] for name in ("fp32", "int8", "all")) and "nJ" not in row]
    assert [row[:2] if row[0].startswith("har") else row[:1] for row in rows] == [
        ["har_watch", "fp32"], ["int8"], ["all"], ["har_watch_fp32", "fp32"], ["all"],
    ]  # fmt: skip
    said = " ".join(done.out.split())
    assert "estimated, not measured" in said
    assert "A CPU skips no zeros" in said
    dense = edgeseq("inspect", "har_watch", "--energy", "--json", "--frames", 50).document["models"][0]["dense_synops"]
    assert [row[1] for row in rows if row[0] == "all"] == [f"{dense:,}"] * 2


@pytest.mark.parametrize("width", [50, 80, 110])
def test_a_narrow_terminal_gets_more_tables_and_loses_no_digit(edgeseq, monkeypatch, width):
    shown = {}
    for columns in (120, width):
        monkeypatch.setenv("COLUMNS", str(columns))
        table = edgeseq("inspect", "har_watch", "--energy", "--frames", 20).out.split("\n\nEnergy is")[0]
        shown[columns] = {cell for line in table.splitlines()[1:] for cell in line.split() if cell[0] != "─"}
        assert max(map(len, table.splitlines()[1:])) <= columns
    assert shown[width] == shown[120]


def test_a_spiking_model_stands_beside_the_int8_one_of_its_labels_and_channels(edgeseq, tmp_path):
    channels, labels = 6, 7
    folder = with_program("har_watch_fp32", tmp_path / "spikes", neurons(channels, labels), name="spikes")
    done = edgeseq("inspect", folder, "--energy", "--frames", 60)
    assert done.code == 0, done.err
    assert "Accuracy: spikes is 0.5 points above har_watch, which is equal." in " ".join(done.out.split())
    document = edgeseq("inspect", folder, "--energy", "--frames", 60, "--json").document
    spikes, other = document["models"]
    assert (spikes["model"], other["model"], other["spiking"]) == ("spikes", "har_watch", False)
    assert [priced["convention"] for priced in other["energy"]] == ["fp32", "int8"]
    assert spikes["membrane_updates"] > 3
    active = spikes["activity"]["activations"][0]["active"]
    assert spikes["effective_acs"] == active * labels / 60  # each spike meets a weight of every label
    assert 0 < active < 240


def test_a_model_that_does_not_spike_stands_alone_unless_another_is_named(edgeseq):
    document = edgeseq("inspect", "har_watch_fp32", "--energy", "--frames", 10, "--json").document
    assert [model["model"] for model in document["models"]] == ["har_watch_fp32"]
    assert document["notes"] == []


def test_accuracies_that_are_apart_are_called_so(edgeseq, tmp_path):
    folder = with_program("har_watch_fp32", tmp_path / "s", neurons(6, 7), name="s", metrics={"test_accuracy": 0.6})
    said = " ".join(edgeseq("inspect", folder, "--energy", "--frames", 10).out.split())
    assert "s is 20.6 points below har_watch, which is not equal" in said


def test_a_spiking_model_without_a_partner_says_what_to_name(edgeseq, exported, tmp_path):
    folder = with_program(exported, tmp_path / "spikes", neurons(2, 2), name="spikes")
    document = edgeseq("inspect", folder, "--energy", "--frames", 20, "--json").document
    assert len(document["models"]) == 1
    assert "name its folder with --beside" in document["notes"][0]
    document = edgeseq("inspect", folder, "--energy", "--frames", 20, "--beside", exported, "--json").document
    assert [model["model"] for model in document["models"]] == ["spikes", open_folder(exported).manifest.name]
    assert not any("--beside" in note for note in document["notes"])


def test_models_on_other_channels_are_not_compared(edgeseq, exported):
    done = edgeseq("inspect", "har_watch", "--energy", "--beside", exported)
    assert done.code == 2
    assert "reads ax, ay at 50 steps/s" in done.err
    assert "on the same frames" in done.err


def test_inspect_energy_takes_recordings_in_place_of_golden_frames(edgeseq, trained, exported, people):
    done = edgeseq("inspect", trained, "--energy")
    assert done.code == 2
    assert "no golden frames: pass --data, or run edgeseq export" in done.err
    documents = [
        edgeseq("inspect", folder, "--energy", "--data", people, "--frames", 1300, "--json").document
        for folder in (trained, exported)
    ]
    assert documents[0]["source"] == f"test recordings of {people.name}, 2 of 2"
    activities = [document["models"][0]["activity"] for document in documents]
    assert (activities[0]["frames"], activities[0]["streams"]) == (1300, 2)
    assert activities[0] == activities[1]
    assert edgeseq("inspect", trained, "--energy", "--data", people, "--frames", 0).code == 2


def test_a_model_that_looks_ahead_is_told_that_recordings_are_there(edgeseq, exported, people, tmp_path):
    ahead = replace(open_folder(exported).manifest.input, look_ahead=2)
    folder = with_program(exported, tmp_path / "ahead", neurons(2, 2, live=True), input=ahead)
    model = edgeseq("inspect", folder, "--energy", "--data", people, "--frames", 30, "--json").document["models"][0]
    assert model["activity"]["layers"][0]["effective_acs"] == 30 * 4


def test_what_energy_is_counted_on_is_refused_without_it(edgeseq, exported):
    for options in (("--beside", exported), ("--data", "spar_watch"), ("--frames", 5)):
        done = edgeseq("inspect", exported, *options)
        assert done.code == 2
        assert "pass --energy too" in done.err
    done = edgeseq("inspect", exported, "--energy", "--program")
    assert done.code == 2
    assert "one or the other" in done.err


@pytest.mark.parametrize(
    ("lengths", "frames", "whole", "taken"),
    [
        ([1000] * 6, 1000, False, {0: 500, 3: 500}),
        ([1000] * 2, 1600, False, {0: 800, 1: 800}),
        ([256] * 8, 600, True, {0: 256, 2: 256, 5: 88}),
        ([1000] * 4, 1000, True, {0: 1000}),
        ([1000, 10], 5000, False, {0: 1000, 1: 10}),
        ([10], 0, False, {}),
        ([], 10, False, {}),
    ],
)
def test_frames_are_spread_over_the_recordings(lengths, frames, whole, taken):
    recordings = [np.full((length, 2), number, np.float32) for number, length in enumerate(lengths)]
    spread = energy_table._spread(recordings, frames, whole=whole)
    assert {int(stream[0, 0]): len(stream) for stream in spread} == taken


def test_taps_of_an_lmu_are_its_memory_and_no_synapses():
    sizes = {"channels": [1], "orders": [6], "thetas": [4.0], "hidden": [5]}
    form = lower(build("lmu", 3, 2, sizes).eval(), "taps")
    program, told = capture(form), form.memories["blocks.0"]
    found = measure(
        program, [np.ones((3, 3), np.float32)], folded=energy_table._folded(Captured(program, form.memories))
    )
    assert found.memory_macs == told.taps_macs
    assert found.dense == 3 + 5 * 3 + 2 * 5  # encoder, what the mixer reads beside the memory, read-out


@pytest.mark.parametrize("value", [0, 3, 999.6, 9_999, 12_345, 99_999.6, 123_456, 999_960, 1_234_567, 98_765_432])
def test_counts_and_energies_keep_within_their_columns(value):
    assert len(energy_table._number(value)) <= 6
    energy = energy_table._nanojoules(value)
    assert len(energy) <= 6
    assert "e" not in energy
    assert float(energy.replace(",", "")) == pytest.approx(value / 1e3, rel=6e-3)


def test_the_example_in_the_documentation_is_what_its_command_prints(edgeseq, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")
    command = page.split("`COLUMNS=120 edgeseq ")[1].split("`")[0].split()
    monkeypatch.setenv("COLUMNS", "120")
    printed = "\n".join(line.rstrip() for line in edgeseq(*command).out.splitlines()).strip()
    assert page.split("```\n")[1].strip() == printed
