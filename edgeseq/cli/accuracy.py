"""How often an engine is right on the test subjects: measured in the engine itself, where their recordings are at hand.

Elsewhere the number is that of torch at training, and is called "trained".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseq.cli.output import Document, Show, percent
from edgeseq.data import Dataset
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.engines.base import Floats
from edgeseq.devices.session import Session
from edgeseq.errors import EdgeseqError, MissingDependency, Unsupported
from edgeseq.folder import MODEL_FILES, Folder
from edgeseq.lineage import trained_on
from edgeseq.metrics import Scores, score

MEASURED, TRAINED = "measured", "trained"


def accuracies(show: Show, folder: Folder, engines: Sequence[str]) -> dict[str, Document]:
    """For each engine the ``accuracy``, its ``accuracy_source``, and how much of how many people was counted.

    Counted are frames, or segments where those are what is answered; people, or 0 where nobody knows them.

    The numpy engine runs no file and takes long: its accuracy is the training's.
    """
    trained = folder.manifest.metrics.get("test_accuracy")
    found, unit = engine_scores(show, folder, engines), f"{folder.manifest.task}s"
    return {
        engine: _entry(round(scores.accuracy, 6), MEASURED, unit, scores.frames, found.people)
        if (scores := found.scores.get(engine))
        else _entry(trained, TRAINED, unit)
        for engine in engines
    }


@dataclass(frozen=True)
class EngineScores:
    """Scores by engine, of those that could be scored here, on so many people; without any, ``missing`` says why."""

    scores: dict[str, Scores]
    people: int = 0
    missing: str = ""


def engine_scores(show: Show, folder: Folder, engines: Sequence[str]) -> EngineScores:
    """Scores of the engines that run a file, on the test subjects."""
    running = [engine for engine in engines if ENGINES[engine].file in MODEL_FILES.values()]
    if not running:
        return EngineScores({}, missing="only an engine that runs a file is scored")
    try:
        data = tested_on(folder)
    except EdgeseqError as error:
        show.note(f"accuracy is that of the training: {error}")
        return EngineScores({}, missing=str(error))
    if data is None:
        why = "its test subjects are not in the data at hand, or cannot be scored frame by frame"
        return EngineScores({}, missing=why)
    found: dict[str, Scores] = {}
    missing = "its test subjects have no labelled frame after the first seconds"
    for engine in running:
        try:
            scores = evaluate(Session(folder, engine), data)
        except (MissingDependency, Unsupported) as error:  # it was measured on another machine
            missing = str(error)
            continue
        if scores.frames:
            found[engine] = scores
    return EngineScores(found, 0 if data.dealt else len(data.subjects), "" if found else missing)


def tested_on(folder: Folder) -> Dataset | None:
    """The recordings of the subjects that the folder's model was tested on; None where that cannot be scored by frame.

    Raises:
        EdgeseqError: the data of the training is not at hand, or not as it was.
    """
    manifest = folder.manifest
    data = trained_on(folder)
    subjects = [name for name in data.subjects if name in manifest.split.get("test", ())]
    if not subjects or data.labels != manifest.labels:
        return None
    return data.only(subjects)


def evaluate(session: Session, data: Dataset) -> Scores:
    """Scores of the largest logit, counted as in training: of frames after the first seconds, or of segments."""
    first = round(data.unscored * data.rate)
    pairs = []
    for recording in data.recordings:
        answers = logits_of(session, recording.x).argmax(-1)
        if data.task == "segment":
            pairs.append((recording.y[-1:], answers[-1:].astype(np.int64)))
        else:
            pairs.append((recording.y[: len(answers)][first:], answers[first:].astype(np.int64)))
    return score(pairs, len(data.labels))


def logits_of(session: Session, x: Floats) -> Floats:
    """What a session says of each of the frames of a whole recording (T, C): (T, K).

    One that looks ahead is flushed at the end, so that all frames have an answer.
    """
    session.reset()
    said, late = session.run(x), session.manifest.input.look_ahead
    if not late:
        return said
    return np.concatenate([said, session.flush()])[late:]  # the answer of step t belongs to frame t - look-ahead


def accuracy_cell(row: Document) -> str:
    """The accuracy in percent; in brackets where it was not measured here."""
    text = percent(row["accuracy"]).removesuffix(" %")
    return text if row["accuracy_source"] == MEASURED or row["accuracy"] is None else f"({text})"


def accuracy_notes(rows: Sequence[Document]) -> list[str]:
    """What the accuracies of a table are."""
    measured = [row for row in rows if row["accuracy_source"] == MEASURED]
    said = []
    if measured:
        frames, people = measured[0]["accuracy_frames"], measured[0]["accuracy_subjects"]
        many = "" if all(row["accuracy_frames"] == frames for row in measured) else " of the first model"
        who = "1 person" if people == 1 else f"{people} people"
        what = f"{frames:,} {measured[0]['accuracy_unit']}"
        counted = f"{what} of {who}" if people else f"{what} split at random"
        said.append(f"Accuracy: measured in the engine on {counted}{many}, never seen in training.")
    if any(row["accuracy_source"] == TRAINED and row["accuracy"] is not None for row in rows):
        said.append("Accuracy in brackets: trained, that is what torch found at training.")
    return said


def _entry(accuracy: float | None, source: str, unit: str, frames: int = 0, subjects: int = 0) -> Document:
    return {
        "accuracy": accuracy,
        "accuracy_source": source,
        "accuracy_unit": unit,
        "accuracy_frames": frames,
        "accuracy_subjects": subjects,
    }
