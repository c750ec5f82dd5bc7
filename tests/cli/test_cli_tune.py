"""``edgeseq tune`` and ``stream`` on bounded segments: a rule is chosen, judged, written, and does as it was judged."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from edgeseq import save_model
from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import CARD_NAME, MANIFEST_NAME, open_folder
from edgeseq.manifest import Early
from edgeseq.models.registry import build
from edgeseq.training.early import tune

CODE = """
import torch

from edgeseq.models.contract import LookAheadModel, Masks


class Late(LookAheadModel):
    \"\"\"Adds up the frames as they are, three calls late.\"\"\"

    tasks = ("segment",)

    def __init__(self, input_size, output_size):
        super().__init__(input_size, output_size)
        self.look_ahead = 3
        self.out = torch.nn.Linear(input_size, output_size)

    def initial_state(self, batch):
        zeros = self.input_mean.new_zeros
        return {"live": zeros(batch, 3), "past": zeros(batch, 3, self.input_size), "sum": zeros(batch, self.input_size)}

    def counts(self):
        return ("live", "sum")

    def step(self, x, state, live=None):
        masks = Masks(3, state, x, live)
        total = state["sum"] + masks.apply(state["past"][:, 0], 3)
        past = torch.cat([state["past"][:, 1:], masks.apply(x, 0)[:, None]], 1)
        return self.out(total), {**masks.following(), "past": past, "sum": total}

    def forward(self, x, state=None, live=None):
        return self.run_steps(x, state, live)
"""
FRAMES = 250  # as few_frames_do allows
SUBJECTS = tuple(f"p{k}" for k in range(6))
SPLIT = {"train": SUBJECTS[:2], "validation": SUBJECTS[2:4], "test": SUBJECTS[4:]}
EACH = 40  # segments of a subject

pytestmark = pytest.mark.usefixtures("few_frames_do")


def segments_of_people() -> Dataset:
    """Noise around one of three places, more or less far out, so that some segments are told apart earlier."""
    rng, recordings = np.random.default_rng(0), []
    places = np.array([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])
    for subject in SUBJECTS:
        for number in range(EACH):
            label, frames = number % 3, int(rng.integers(20, 40))
            x = rng.normal(rng.uniform(0.5, 2) * places[label], 1.0, (frames, 2)).astype(np.float32)
            recordings.append(Recording(x, np.full(frames, label, np.int16), subject, f"{subject}.{number}"))
    return Dataset("made", tuple(recordings), ("a", "b"), ("g", "g"), 50.0, ("x", "y", "z"), task="segment")


def of_test_subjects() -> list[Recording]:
    """The test subjects' segments."""
    return [recording for recording in segments_of_people().recordings if recording.subject in SPLIT["test"]]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    file = tmp_path_factory.mktemp("segments") / "made.npz"
    write_npz(segments_of_people(), file)
    return file


@pytest.fixture(scope="module")
def model(source):
    """A small GRU that learned from the training subjects."""
    torch.manual_seed(0)
    made, rng = build("rnn", 2, 3, {"hidden": 8}), np.random.default_rng(1)
    known = [r for r in segments_of_people().recordings if r.subject in SPLIT["train"]]
    optimizer = torch.optim.Adam(made.parameters(), 2e-2)
    for _ in range(60):
        batch = [known[i] for i in rng.integers(0, len(known), 24)]
        y, _ = made(torch.stack([torch.from_numpy(r.x[:20]) for r in batch]))
        optimizer.zero_grad()
        cross_entropy(y[:, -1], torch.tensor([int(r.y[0]) for r in batch])).backward()
        optimizer.step()
    return save_model(made, source.with_name("m"), arguments={"hidden": 8}, data=str(source), split=SPLIT).path


@pytest.fixture(scope="module")
def tuned(edgeseq, model):
    out = model.with_name("m-early")
    done = edgeseq("tune", model, "--out", out, "--drop", 2, "--level", 0.5)
    assert done.code == 0, done.err
    return out, done


@pytest.fixture(scope="module")
def exported(edgeseq, tuned):
    out = tuned[0].with_name("m-early-export")
    done = edgeseq("export", tuned[0], "--out", out, "--frames", FRAMES)
    assert done.code == 0, done.err
    return out


def test_a_rule_is_chosen_that_answers_before_the_end_and_loses_no_more_than_was_allowed(edgeseq, model):
    done = edgeseq("tune", model, "--out", model.with_name("m-json"), "--drop", 2, "--level", 0.5, "--json")
    found = done.document
    assert (found["validation_segments"], found["test_segments"]) == (80, 80)
    end, sure, *fixed = found["rules"]
    assert [rule["kind"] for rule in found["rules"]] == ["end", "confidence", "frame", "frame"]
    assert end["validation"]["share"] == end["test"]["share_p90"] == 1
    assert end["test"]["accuracy"] > 0.8  # or there is nothing to lose
    for rule in (sure, *fixed):
        assert rule["validation"]["accuracy"] >= end["validation"]["accuracy"] - 0.02 - 1e-9
        assert rule["test"]["share"] < 0.95
    assert 1 / 3 <= found["rule"]["confidence"] == sure["setting"] < 1
    assert found["next"].endswith(f"export {model.with_name('m-json')} --out {model.with_name('m-json-export')}")


def test_it_keeps_the_weights_and_writes_the_rule_its_scores_and_where_it_comes_from(model, tuned):
    before, after = open_folder(model), open_folder(tuned[0])
    assert before.manifest.files == after.manifest.files
    assert before.manifest.decision.early is None
    rule = after.manifest.decision.early
    assert isinstance(rule, Early)
    assert 1 / 3 < rule.confidence < 1
    assert 0 < after.manifest.metrics["test_share_early"] < 1
    assert 0 < after.manifest.metrics["test_accuracy_early"] <= 1
    *_, stage = after.manifest.lineage
    assert (stage.verb, stage.parent) == ("tune", before.hash)
    assert stage.arguments["drop"] == 0.02
    assert after.manifest.data_stage == stage
    assert after.manifest.split == before.manifest.split


def test_it_prints_a_table_that_lines_up_and_the_next_command(tuned):
    out, done = tuned
    lines = done.out.splitlines()
    assert lines[0].split() == ["answer", "from", "validation", "frames", "test", "frames", "p90"]
    starts = ["at the end", "when sure enough", "one frame for all", "frame off the curve"]
    for start, line in zip(starts, lines[2:6], strict=True):
        assert line.startswith(start)
        assert len(line.rstrip()) == len(lines[0].rstrip())
    assert "a loss of 2 points or less, as counted there" in " ".join(done.out.split())
    assert lines[-1].endswith(f"export {out} --out {out}-export")


def test_few_validation_segments_make_it_careful_and_it_says_so(edgeseq, model, tuned):
    out = model.with_name("m-careful")
    done = edgeseq("tune", model, "--out", out)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "80 validation segments; too few to show a loss below 0.5 points at 95 % confidence" in said
    careful, bold = (open_folder(path).manifest for path in (out, tuned[0]))
    assert careful.decision.early.confidence > bold.decision.early.confidence
    assert careful.metrics["validation_share_early"] > bold.metrics["validation_share_early"]
    assert careful.decision.early.temperature == bold.decision.early.temperature


def test_streamed_segments_are_answered_as_the_table_says(edgeseq, tuned, exported):
    metrics = open_folder(tuned[0]).manifest.metrics
    done = edgeseq("stream", exported, "--speed", 0, "--json")
    assert done.code == 0, done.err
    summary, answers = done.document["summary"], done.document["answers"]
    assert len(answers) == summary["segments"] == 80
    assert summary["accuracy"] == pytest.approx(metrics["test_accuracy_early"], abs=1e-6)
    assert summary["share"] == pytest.approx(metrics["test_share_early"], abs=1e-6)
    assert summary["steps"] == sum(answer["used"] for answer in answers) < summary["frames"]
    assert {answer["verdict"].split(",")[0] for answer in answers} == {"right", "wrong"}


def test_a_stream_of_segments_shows_each_answer_with_its_frame_and_share(edgeseq, exported):
    done = edgeseq("stream", exported, "--speed", 0, "--subject", "p4")
    assert done.code == 0, done.err
    first, *rest = [line for line in done.out.splitlines() if " after " in line]
    assert len(rest) == EACH - 1
    one = edgeseq("stream", exported, "--speed", 0, "--subject", "p4", "--recording", 0, "--json").document
    (answer,) = one["answers"]
    shown = f"0  {answer['label']}  {100 * answer['probability']:3.0f} %  after {answer['used']:2} of "
    assert f"{shown}{answer['frames']:2} frames ({100 * answer['share']:3.0f} %)  {answer['verdict']}" in first
    assert "of a segment to its answer on average" in done.out
    assert "of the labelled segments" in done.out


def test_a_stream_of_segments_refuses_what_it_cannot_play(edgeseq, exported, people):
    done = edgeseq("stream", exported, "--subject", "p4", "--recording", 40)
    assert done.code == 2
    assert "no recording 40: 0 to 39" in done.err
    done = edgeseq("stream", exported, "--data", people)
    assert done.code == 2


def test_frames_from_a_file_are_one_segment(edgeseq, exported, tmp_path):
    segment = of_test_subjects()[0]
    file = tmp_path / "one.csv"
    file.write_text("\n".join(f"{float(a)!r},{float(b)!r}" for a, b in segment.x), encoding="utf-8")
    done = edgeseq("stream", exported, "--input", file, "--speed", 0, "--json")
    (expected,) = edgeseq("stream", exported, "--subject", "p4", "--recording", 0, "--speed", 0, "--json").document[
        "answers"
    ]
    last = done.document["answers"][-1]
    assert (last["label"], last["probability"]) == (expected["label"], expected["probability"])
    assert round(50 * last["seconds"]) == expected["used"] - 1


def test_an_exported_folder_stays_exported_and_its_proof_holds(edgeseq, exported):
    out = exported.with_name("m-again")
    done = edgeseq("tune", exported, "--out", out, "--hold", 0.1, "--earliest", 0.1)
    assert done.code == 0, done.err
    assert done.out.rstrip().endswith(f"stream {out}")
    before, after = open_folder(exported), open_folder(out)
    assert before.manifest.files == after.manifest.files
    assert after.manifest.proof == before.manifest.proof
    assert (after.manifest.decision.early.hold, after.manifest.decision.early.earliest) == (0.1, 0.1)
    for name in {file.name for file in exported.iterdir()} - {MANIFEST_NAME, CARD_NAME}:
        assert (out / name).read_bytes() == (exported / name).read_bytes()
    assert edgeseq("verify", out).code == 0
    answers = edgeseq("stream", out, "--speed", 0, "--json").document["answers"]
    assert min(answer["used"] for answer in answers) >= 5


def test_what_comes_late_counts_as_heard_and_what_is_still_unsaid_at_the_end_is_said_then(
    edgeseq, source, tmp_path, monkeypatch
):
    (tmp_path / "late_model.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    late, weight = importlib.import_module("late_model").Late(2, 3), np.float32([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])
    late.out.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.zeros(3)})
    folder, out = save_model(late, tmp_path / "m", data=str(source), split=SPLIT).path, tmp_path / "tuned"
    done = edgeseq("tune", folder, "--out", out, "--level", 0.5, "--trust", "--json")
    assert done.code == 0, done.err
    end, sure, *_ = done.document["rules"]
    summed = [(r.x.sum(0) @ weight.T).argmax() == r.y[0] for r in of_test_subjects()]  # all of the frames
    assert end["test"]["accuracy"] == pytest.approx(np.mean(summed))
    exported = tmp_path / "exported"
    done = edgeseq("export", out, "--out", exported, "--frames", FRAMES, "--trust")
    assert done.code == 0, done.err
    document = edgeseq("stream", exported, "--speed", 0, "--json").document
    assert document["summary"]["accuracy"] == pytest.approx(sure["test"]["accuracy"])
    assert document["summary"]["share"] == pytest.approx(sure["test"]["share"])
    used = [answer["used"] for answer in document["answers"]]
    assert 4 <= min(used) < 20
    assert any(answer["used"] == answer["frames"] for answer in document["answers"])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_it_draws_both_kinds_of_rules(edgeseq, model, tmp_path, suffix):
    file = tmp_path / f"plot{suffix}"
    done = edgeseq("tune", model, "--out", tmp_path / "m", "--plot", file)
    assert done.code == 0, done.err
    assert f"drew {file}" in done.out
    assert file.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--drop", -1), 2, "0 to less than 100 may be lost"),
        (("--drop", 100), 2, "0 to less than 100 may be lost"),
        (("--drop", "nan"), 2, "0 to less than 100 may be lost"),
        (("--level", 1), 2, "level 1: 0.5 (the plain estimate) to less than 1 is needed"),
        (("--level", 0.4), 2, "level 0.4"),
        (("--hold", -0.1), 2, "0 or more"),
        (("--earliest", "inf"), 2, "0 or more"),
        (("--max-delay", 1), 2, "its options are --drop, --level, --earliest, --hold"),
        (("--plot", "p.txt"), 2, "a plot is one of .png, .svg, .pdf"),
        (("--plot", "nowhere/p.png"), 2, "nowhere is not a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(edgeseq, model, tmp_path, options, code, said):
    done = edgeseq("tune", model, "--out", tmp_path / "m", *options)
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "m").exists()


def test_data_of_frames_is_refused(edgeseq, model, people, tmp_path):
    done = edgeseq("tune", model, "--out", tmp_path / "m", "--data", people)
    assert done.code == 2
    assert not (tmp_path / "m").exists()


def test_a_model_of_frames_has_no_early_answers(trained, tmp_path):
    with pytest.raises(Unsupported, match="answers at every frame of an endless stream"):
        tune(trained, tmp_path / "m")


def test_without_a_split_nothing_is_chosen_on_people_that_may_have_been_trained_on(edgeseq, source, tmp_path):
    folder = save_model(build("rnn", 2, 3, {}), tmp_path / "own", data=str(source)).path
    done = edgeseq("tune", folder, "--out", tmp_path / "m")
    assert done.code == 2
    assert "does not say who its test and validation subjects are" in " ".join(done.err.split())


def test_a_saved_model_has_the_task_of_its_data_or_the_one_named(source, tmp_path):
    model, given = build("rnn", 2, 3, {}), {"labels": "xyz", "channels": "ab", "rate": 50}
    for number, (options, task) in enumerate(
        (({"data": str(source)}, "segment"), (given, "frame"), ({**given, "task": "segment"}, "segment"))
    ):
        assert save_model(model, tmp_path / f"m{number}", **options).manifest.task == task
    with pytest.raises(InputError, match="task 'segments': this model's task is frame or segment"):
        save_model(model, tmp_path / "no", **given, task="segments")
    arguments = {"readout": "mean", "hidden": 4, "layers": 1}
    with pytest.raises(InputError, match="task 'frame': this model's task is segment"):
        save_model(build("s4d", 2, 3, arguments), tmp_path / "no", arguments=arguments, **given, task="frame")
