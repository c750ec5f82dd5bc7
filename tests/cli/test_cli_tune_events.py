"""``edgeseq tune`` of a model that answers at every frame: what it writes, shows and refuses."""

from __future__ import annotations

import re

import pytest

from edgeseq.events import ORDERS
from edgeseq.folder import open_folder

pytestmark = pytest.mark.usefixtures("few_frames_do")


FRAMES = 250  # as few_frames_do allows
ABLE = ("rounds=6", "steps=20", "batch=8", "crop=2", "learning_rate=0.02", "model.hidden=8")


@pytest.fixture(scope="module")
def able(edgeseq, people, tmp_path_factory):
    """A model that tells the two labels apart, most of the time."""
    folder = tmp_path_factory.mktemp("able") / "gru"
    done = edgeseq("train", people, "--out", folder, *(part for pair in ABLE for part in ("--set", pair)))
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def exported(edgeseq, able):
    folder = able.with_name("gru-export")
    done = edgeseq("export", able, "--out", folder, "--frames", FRAMES)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def tuned(edgeseq, exported):
    folder = exported.with_name("tuned")
    done = edgeseq("tune", exported, "--out", folder, "--plot", folder.with_name("plot.svg"))
    assert done.code == 0, done.err
    return folder, done


def test_it_keeps_the_files_and_writes_the_rule_its_scores_and_where_it_comes_from(exported, tuned):
    before, after = open_folder(exported).manifest, open_folder(tuned[0]).manifest
    assert {name: after.files[name] for name in before.files} == before.files
    stage, metrics = after.lineage[-1], after.metrics
    assert (stage.verb, stage.parent) == ("tune", open_folder(exported).hash)
    assert stage.arguments["orders"] == ORDERS
    assert stage.arguments["max_delay"] is None
    assert stage.data == before.data_stage.data
    for part in ("validation", "test"):
        for name in ("delay_median", "delay_p90", "missed", "false_switches_per_hour", "event_f1", "accuracy_decided"):
            assert {f"{part}_{name}", f"{part}_{name}_before"} <= metrics.keys()
    for name in ("event_f1", "accuracy_decided"):
        assert metrics[f"validation_{name}"] >= metrics[f"validation_{name}_before"]
    assert metrics["test_majority_share"] == before.metrics["test_majority_share"]
    assert metrics["test_accuracy"] == before.metrics["test_accuracy"]
    assert not [name for name in metrics if name.endswith("_smoothed")]  # of a rule that is no more


def test_it_prints_both_rules_and_on_what_they_were_chosen(tuned):
    folder, done = tuned
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("before ", "after "))]
    assert [row[:2] for row in rows[:4]] == [
        [rule, part] for rule in ("before", "after") for part in ("validation", "test")
    ]
    text = " ".join(done.out.split())
    assert "for the highest F1 of changes, right no less of the time than before, of 1,710 rules" in text
    for part in ("validation", "test"):  # each recording once, of both parts
        assert re.search(rf"\d+ different changes in \d+\.\d minutes of \d .* in 5 orders\) of the {part} part", text)
    assert "different changes are too few to choose a rule on with any certainty" in " ".join(done.err.split())
    assert f"edgeseq stream {folder}" in text.replace("\n", "")
    assert folder.with_name("plot.svg").read_bytes().startswith(b"<?xml")


def test_a_tuned_folder_says_its_delay_wherever_it_is_shown(edgeseq, tuned):
    folder, _ = tuned
    manifest = open_folder(folder).manifest
    delay = f"a change is answered after {manifest.metrics['test_delay_median']:.2f} s (median)"
    for verb in (("inspect", folder), ("stream", folder, "--speed", 0)):
        done = edgeseq(*verb)
        assert done.code == 0, done.err
        shown = " ".join(done.out.split())
        assert delay in shown
        assert f"{100 * manifest.metrics['test_missed']:.1f} % are missed" in shown
    assert "of the labelled frames" in shown
    assert "% without the rule" in shown
    assert manifest.decision.shown() in " ".join(edgeseq("inspect", folder).out.split())


def test_a_greatest_delay_is_kept_or_refused(edgeseq, able, tmp_path):
    done = edgeseq("tune", able, "--out", tmp_path / "m", "--max-delay", 5, "--share", 50, "--seed", 3, "--json")
    assert done.code == 0, done.err
    document = done.document
    assert document["max_delay"] == 5
    assert document["share"] == 0.5
    assert document["after"]["times"][0] <= 5
    assert document["chosen_on"]["orders"] == ORDERS
    shown = " ".join(done.err.split())
    assert "50 % in" in shown
    for rule in ("before", "after"):
        for part, seconds in zip(("validation", "test"), document[rule]["times"], strict=True):
            assert f"{rule} {part} " + ("-" if seconds is None else f"{seconds:.2f} s") in shown
    assert open_folder(tmp_path / "m").manifest.lineage[-1].arguments["seed"] == 3
    done = edgeseq("tune", able, "--out", tmp_path / "no", "--max-delay", 0, "--share", 100)
    assert done.code == 7
    said = " ".join(done.err.split())
    assert "100 % of the changes of the validation subjects" in said
    assert re.search(r"lower --share|smaller --share", said)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--drop", 1), "--drop says nothing of"),
        (("--hold", 0), "its options are --max-delay, --share, --seed"),
        (("--max-delay", "inf"), "0 or more"),
        (("--max-delay", 1, "--share", 0), "a share of 0 % of the changes: more than 0, and at most 100"),
        (("--max-delay", 1, "--share", 101), "a share of 101 %"),
        (("--share", 95), "a share of 95 % of the changes says nothing without the seconds"),
        (("--seed", -1), "0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(edgeseq, able, tmp_path, options, said):
    done = edgeseq("tune", able, "--out", tmp_path / "m", *options)
    assert (done.code, done.out) == (2, "")
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "m").exists()


def test_tuning_again_leaves_nothing_of_the_rule_before(edgeseq, tuned, tmp_path):
    folder, _ = tuned
    first = open_folder(folder).manifest
    done = edgeseq("tune", folder, "--out", tmp_path / "again")
    assert done.code == 0, done.err
    again = open_folder(tmp_path / "again").manifest
    assert [stage.verb for stage in again.lineage[-2:]] == ["tune", "tune"]
    assert again.metrics["validation_event_f1_before"] == first.metrics["validation_event_f1"]
    assert again.metrics["validation_event_f1"] >= first.metrics["validation_event_f1"]


def test_what_is_made_of_a_tuned_model_says_that_its_rule_is_dropped(edgeseq, people, tuned, tmp_path):
    folder, _ = tuned
    short = ("--set", "rounds=1", "--set", "steps=2", "--set", "crop=2")
    for name, verb in (
        ("small", ("quantize", folder, "--method", "ptq")),
        ("more", ("train", people, "--from", folder, *short)),
    ):
        if verb[0] == "quantize":
            pytest.importorskip("brevitas")
        done = edgeseq(*verb, "--out", tmp_path / name)
        assert done.code == 0, done.err
        said = " ".join(done.err.split())
        assert "the rule that edgeseq tune chose was fitted to the answers of the model before, and is dropped" in said
        assert open_folder(tmp_path / name).manifest.decision.shown() in said
        assert f"tune {tmp_path / name} --out {tmp_path / name}-tuned" in done.out
    done = edgeseq("train", people, "--from", tmp_path / "more", "--out", tmp_path / "again", *short)
    assert done.code == 0, done.err
    assert "is dropped" not in done.err  # there was none to drop
    assert f"export {tmp_path / 'again'}" in done.out
