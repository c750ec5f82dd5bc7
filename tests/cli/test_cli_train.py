"""``edgeseq train``: settings, a user's own data, and a run that is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from edgeseq.cli.output import Show
from edgeseq.cli.train import _Log, parse_settings, read_config
from edgeseq.errors import InputError
from edgeseq.folder import WEIGHTS_NAME, open_folder
from edgeseq.lineage import trained_on
from edgeseq.models.registry import build
from edgeseq.training import stage

TINY = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "crop=2", "--set", "model.hidden=4")


def test_it_says_what_goes_in_and_what_comes_next(edgeseq, people, tmp_path):
    done = edgeseq("train", people, "--out", tmp_path / "a model", *TINY)
    assert done.code == 0, done.err
    for said in ("5 subjects, 3.7 minutes at 50 Hz", "2 labels (fast, slow), the most frequent 50.0 %", "subjects p1"):
        assert said in " ".join(done.out.split())
    assert f"wrote {tmp_path / 'a model'} (" in done.out
    assert f"next: edgeseq export '{tmp_path / 'a model'}' --out '{tmp_path / 'a model-export'}'" in done.out
    assert "round 1/1" in done.err


def test_json_has_split_rounds_metrics_and_hashes(edgeseq, people, tmp_path):
    out = tmp_path / "gru"
    done = edgeseq("train", people, "--out", out, "--test", "p1,p2", "--validation", "p5", "--json", *TINY)
    document = done.document
    assert document["split"] == {"train": ["p3", "p4"], "validation": ["p5"], "test": ["p1", "p2"]}
    assert [entry["number"] for entry in document["rounds"]] == [0]
    assert 0 <= document["metrics"]["test_accuracy"] <= 1
    assert document["files"] == open_folder(out).manifest.files
    assert document["parameters"] > 0
    assert document["next"].startswith("edgeseq export ")


def test_it_trains_on_from_a_folder(edgeseq, people, trained, tmp_path):
    done = edgeseq("train", people, "--from", trained, "--out", tmp_path / "on", *TINY[:8])
    assert done.code == 0, done.err
    lineage = open_folder(tmp_path / "on").manifest.lineage
    assert [stage.verb for stage in lineage] == ["train", "train"]
    assert lineage[-1].parent == open_folder(trained).hash


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--model", "gru"], "leave --model gru out"), (["--set", "model.hidden=4"], "model.hidden")],
)
def test_the_model_of_a_folder_to_start_from_cannot_be_chosen(edgeseq, people, trained, tmp_path, arguments, said):
    done = edgeseq("train", people, "--from", trained, "--out", tmp_path / "on", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "on").exists()


def test_code_from_outside_is_imported_only_when_trusted(edgeseq, monkeypatch, people, tmp_path):
    seen = []
    monkeypatch.setattr(stage, "build", lambda *_, trust, **__: seen.append(trust) or build("rnn", 2, 2, {}))
    for trust in ([], ["--trust"]):
        edgeseq("train", people, "--out", tmp_path / "m", "--overwrite", *TINY[:8], *trust)
    assert seen == [False, True]


def test_an_existing_folder_is_left_alone_without_overwrite(edgeseq, people, trained):
    before = open_folder(trained).hash
    done = edgeseq("train", people, "--out", trained, *TINY)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert open_folder(trained).hash == before


def test_columns_of_other_names_are_mapped(edgeseq, tmp_path):
    data = tmp_path / "mine"
    data.mkdir()
    for person in "abc":
        rows = [f"{20 * i},{i % 7},{i % 3},{'on' if i < 150 else 'off'}" for i in range(300)]
        (data / f"{person}.csv").write_text("\n".join(["ms,acc,other,state", *rows]) + "\n", encoding="utf-8")
    done = edgeseq(
        *("train", data, "--out", tmp_path / "m", "--time", "ms", "--time-unit", "ms", "--label", "state"),
        *("--subject-from", "file", "--channels", "acc", "--units", "m/s^2", "--rate", "50"),
        *("--test", "a", "--validation", "b", *TINY),
    )
    assert done.code == 0, done.err
    manifest = open_folder(tmp_path / "m").manifest
    assert [(channel.name, channel.unit) for channel in manifest.input.channels] == [("acc", "m/s^2")]
    assert manifest.lineage[0].arguments["mapping"]["time"] == "ms"


def test_bad_data_is_refused_with_file_and_row(edgeseq, people, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in people.iterdir():
        lines = file.read_text(encoding="utf-8").splitlines()
        if file.name == "p3.csv":
            cells = lines[6].split(",")
            lines[6] = ",".join([cells[0], "nan", *cells[2:]])
        (bad / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = edgeseq("train", bad, "--out", tmp_path / "m", *TINY)
    assert done.code == 2
    assert f"{bad / 'p3.csv'}, line 7, column 'ax': 'nan' is not a finite number" in done.err
    assert "Traceback" not in done.err


def test_what_is_odd_about_the_data_is_one_line_of_warning(edgeseq, people, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in people.iterdir():
        (odd / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    with (odd / "p1.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"{500 + 0.02 * i:.2f},0.1,0.2,slow,p1,9\n" for i in range(10))
    done = edgeseq("train", odd, "--out", tmp_path / "m", "--json", *TINY)
    assert done.code == 0, done.err
    warned = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert "shorter than 1 s" in warned[0]
    assert done.document["folder"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "rounds"], "is not KEY=VALUE"),
        (["--set", "roundz=3"], "Did you mean 'rounds'?"),
        (["--set", "rounds=many"], "rounds"),
        (["--set", "model.hiden=3"], "Did you mean 'hidden'?"),
        (["--test", "p1"], "--validation"),
        (["--fold", "0", "--test", "p1", "--validation", "p2"], "--fold"),
        (["--test", "p1,,p2", "--validation", "p3"], "empty entry"),
        (["--test", "p9", "--validation", "p3"], "p9"),
        (["--fold", "7"], "7"),
        (["--fold", "-1"], "0 or more"),
        (["--seed", "-1"], "0 or more"),
        (["--seed", str(2**64)], "below 2**63"),
        (["--rate", "nan"], "above 0"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--time-unit", "h"], "time_unit"),
    ],
)
def test_wrong_settings_are_refused_by_name(edgeseq, people, tmp_path, arguments, said):
    done = edgeseq("train", people, "--out", tmp_path / "m", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "m").exists()


def test_set_reads_numbers_lists_booleans_and_text():
    pairs = ["a=3", "b=4e-3", "c=[1, 2]", "d=true", "e=relu", 'f="1"', "g=", "model.h=x=y"]
    expected = {"a": 3, "b": 0.004, "c": [1, 2], "d": True, "e": "relu", "f": "1", "g": "", "model.h": "x=y"}
    assert parse_settings(pairs) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(
            "c.toml",
            "rounds = 3\n[model]\nhidden = 8\n",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11"),
        ),
        ("c.json", '{"rounds": 3, "model": {"hidden": 8}}'),
    ],
)
def test_config_tables_become_dotted_names(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert read_config(file) == {"rounds": 3, "model.hidden": 8}


@pytest.mark.parametrize("name", ["c.toml", "c.json"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, name):
    file = tmp_path / name
    file.write_text("rounds: 3", encoding="utf-8")
    with pytest.raises(InputError, match=name):
        read_config(file)


def test_set_comes_after_config(edgeseq, people, tmp_path):
    (tmp_path / "c.json").write_text('{"rounds": 5, "steps": 1, "batch": 2, "crop": 2, "model": {"hidden": 4}}')
    done = edgeseq("train", people, "--out", tmp_path / "m", "--config", tmp_path / "c.json", "--set", "rounds=1")
    assert done.code == 0, done.err
    assert open_folder(tmp_path / "m").manifest.lineage[0].arguments["settings"]["rounds"] == 1
    assert open_folder(tmp_path / "m").manifest.arguments["hidden"] == 4


def test_an_interrupted_run_goes_on_and_ends_in_the_same_weights(edgeseq, people, tmp_path, in_background):
    arguments = ["train", people, "--set", "rounds=12", "--set", "steps=4", "--set", "batch=4", "--set", "crop=4"]
    interrupted = in_background(*arguments, "--out", tmp_path / "one")
    assert interrupted.stderr is not None
    for line in interrupted.stderr:
        if line.startswith("round 2/"):
            interrupted.send_signal(signal.SIGINT)
            break
    rest = interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == 130
    assert rest.splitlines()[-1] == "interrupted; the same command goes on after the last finished round"
    assert "Traceback" not in rest
    assert not (tmp_path / "one").exists()

    resumed = edgeseq(*arguments, "--out", tmp_path / "one")
    assert resumed.code == 0, resumed.err
    assert "going on after round" in resumed.err
    assert "round 1/12" not in resumed.err
    whole = edgeseq(*arguments, "--out", tmp_path / "two")
    assert "going on" not in whole.err
    hashes = [open_folder(tmp_path / name).manifest.files[WEIGHTS_NAME] for name in ("one", "two")]
    assert hashes[0] == hashes[1]


def test_interrupt_in_json_mode_is_a_document(people, tmp_path, in_background):
    process: subprocess.Popen[str] = in_background(
        *("train", people, "--out", tmp_path / "m", "--json", "--set", "rounds=50", "--set", "steps=2")
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 1/"):
            process.send_signal(signal.SIGINT)
            break
    out = process.communicate(timeout=60)[0]
    assert '"exit_code":130' in out
    assert process.returncode == 130


def braille(folder):
    """A small file of the format of braille7: in each letter another taxel spikes."""
    rng = np.random.default_rng(0)
    y = np.arange(80, dtype=np.uint8) % 2
    spikes = rng.random((80, 16, 3)) < np.where(np.arange(3) == y[:, None], 0.8, 0.1)[:, None]
    bits = np.packbits(spikes.reshape(80, -1), axis=1)
    folder.mkdir()
    np.savez(folder / "braille7.npz", bits=bits, shape=np.array(spikes.shape), y=y, labels=np.array(["A", "E"]))
    return folder


SEGMENTS = ("--set", "rounds=2", "--set", "steps=4", "--set", "batch=8", "--set", "model.hidden=6")


def test_data_that_is_not_shipped_is_trained_on_where_it_lies(edgeseq, monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)
    data = braille(tmp_path / "braille7")
    done = edgeseq("train", "braille7", "--data", data, "--out", tmp_path / "m", *SEGMENTS)
    assert done.code == 0, done.err
    for said in ("80 recordings", "random split by recording: no subjects are known", "56 recordings"):
        assert said in " ".join((done.out + done.err).split())
    assert "smoothed" not in done.out
    again = edgeseq(
        "train", "braille7", "--data", data, "--from", tmp_path / "m", "--out", tmp_path / "n", *SEGMENTS[:6]
    )
    assert again.code == 0, again.err
    lineage = open_folder(tmp_path / "n").manifest.lineage
    assert {entry.data for entry in lineage} == {f"braille7={data / 'braille7.npz'}"}


def test_a_folder_that_names_the_file_alone_still_finds_its_data(edgeseq, monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)
    path = braille(tmp_path / "braille7") / "braille7.npz"
    done = edgeseq("train", path, "--out", tmp_path / "m", *SEGMENTS)
    assert done.code == 0, done.err
    folder = open_folder(tmp_path / "m")
    assert folder.manifest.data_stage.data == str(path)
    again = trained_on(folder)
    assert (again.name, again.fingerprint()) == ("braille7", folder.manifest.data_stage.data_fingerprint)


def test_data_that_is_not_shipped_is_refused_with_what_to_type(edgeseq, monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)
    done = edgeseq("train", "braille7", "--out", tmp_path / "m", *SEGMENTS)
    assert done.code == 2
    for said in ("L2MU-Braille", "licence", "--data PATH", "EDGESEQ_DATA=FOLDER"):
        assert said in done.err
    said = " ".join(edgeseq("datasets", "braille7").out.split())
    assert "shipped no; with its files: edgeseq train braille7" in said


@pytest.mark.parametrize("how", [("fsddd", "--data", "."), ("fsddd",), ("mnist", "--data", ".")])
def test_an_unknown_set_is_refused_with_what_may_be_meant(edgeseq, how, tmp_path):
    done = edgeseq("train", *how, "--out", tmp_path / "m")
    assert done.code == 2
    said = "Did you mean 'psmnist' or 'smnist'?" if how[0] == "mnist" else "Did you mean 'fsdd'?"
    assert f"unknown data set '{how[0]}'. {said}" in done.err


def test_a_path_of_other_verbs_is_taken_for_the_set_that_was_trained_on(edgeseq, monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)
    data = braille(tmp_path / "braille7")
    done = edgeseq("train", "braille7", "--data", data, "--out", tmp_path / "m", *SEGMENTS)
    assert done.code == 0, done.err
    moved = data.rename(tmp_path / "elsewhere")
    gone = edgeseq("quantize", tmp_path / "m", "--out", tmp_path / "q")
    assert gone.code == 2
    assert "--data braille7=PATH" in gone.err
    folder = open_folder(tmp_path / "m")
    assert trained_on(folder, str(moved)).fingerprint() == folder.manifest.data_stage.data_fingerprint
    with pytest.raises(InputError, match="pass --data"):
        trained_on(folder)


def test_a_model_that_is_worse_than_one_answer_for_all_is_said_to_be_so(edgeseq, people, tmp_path):
    tiny = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "model.hidden=2")
    done = edgeseq("train", people, "--out", tmp_path / "m", *tiny)
    assert done.code == 0, done.err
    metrics = open_folder(tmp_path / "m").manifest.metrics
    worse = metrics["test_accuracy"] < metrics["test_majority_share"]
    said = " ".join((done.out + done.err).split())
    assert ("worse than always answering" in said) == worse


@pytest.mark.parametrize(("accuracy", "weighted"), [(0.4, True), (0.4, False), (0.5, True), (0.7, True)])
def test_what_is_said_of_a_model_hangs_on_the_majority(accuracy, weighted):
    log = _Log(Show(True))
    log._common, log._weighted = "walk", weighted
    said = log.beaten({"test_accuracy": accuracy, "test_majority_share": 0.5})
    assert said.startswith("worse than always answering walk (50.0 %): train longer") == (accuracy < 0.5)
    assert ("class_weights=false" in said) == (accuracy < 0.5 and weighted)


def test_recordings_of_tables_are_segments_where_asked(edgeseq, people, tmp_path):
    done = edgeseq("train", people, "--task", "segment", "--out", tmp_path / "m", *SEGMENTS)
    assert done.code == 0, done.err
    manifest = open_folder(tmp_path / "m").manifest
    assert (manifest.task, "test_accuracy_smoothed" in manifest.metrics) == ("segment", False)
    assert "rule" not in manifest.split
    wrong = edgeseq("train", people, "--task", "word", "--out", tmp_path / "n", *SEGMENTS)
    assert wrong.code == 2
    assert "unknown task 'word'" in wrong.err
