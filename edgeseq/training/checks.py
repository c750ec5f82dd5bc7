"""What cannot be trained together: a model, data, and who is in which part of it. All raise InputError if not said."""

from __future__ import annotations

from edgeseq.data import Dataset, Split
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import Folder
from edgeseq.models.contract import StreamingModel
from edgeseq.training.settings import Settings


def check_task(model: StreamingModel, family: str, dataset: Dataset) -> None:
    """Refuse, as Unsupported, a model of ``family`` that does not answer what the data asks."""
    if dataset.task in model.tasks:
        return
    if dataset.task == "segment":
        raise Unsupported(f"this {family} answers at every frame, and {dataset.name} wants an answer for a segment")
    raise Unsupported(
        f"this {family} answers at the end of bounded segments, and {dataset.name} wants an answer at every frame: "
        "choose a read-out that forgets, such as --set model.readout=last or average of s4d"
    )


def check_lengths(split: Split, settings: Settings, look_ahead: int) -> None:
    """Refuse recordings that all end before anything of them is learned from, or scored; and crops that do."""
    least = settings.settle + look_ahead / split.train.rate
    if look_ahead and settings.crop <= least:
        raise InputError(
            f"crop {settings.crop:g} s: the model answers {look_ahead} frames later, and the first "
            f"{settings.settle:g} s are not scored, so nothing is learned from {least:g} s or less: make crop longer"
        )
    scored = ((name, part, part.unscored) for name, part in (("validation", split.validation), ("test", split.test)))
    for name, part, unscored in (("training", split.train, settings.settle), *scored):
        longest = max(len(recording.x) for recording in part.recordings) / part.rate
        if longest <= unscored:
            raise InputError(
                f"the recordings of the {name} subjects last {longest:g} s at most, and the first {unscored:g} s of "
                "each are not scored: record longer stretches, or join repetitions into one recording"
            )


def check_apart(folder: Folder, what: str, split: Split, mend: str) -> None:
    """Refuse to test, or to choose, on people whom the model of ``folder`` (``what``) was trained, or chosen, on."""
    seen = {part: set(folder.manifest.split.get(part, ())) for part in ("train", "validation")}
    for part, forbidden in (("test", seen["train"] | seen["validation"]), ("validation", seen["train"])):
        both = [subject for subject in split.subjects()[part] if subject in forbidden]
        if both:
            raise InputError(f"subject {both[0]!r} cannot be of the {part} subjects: {what} has seen that one. {mend}")


def check_fits(folder: Folder, what: str, dataset: Dataset) -> None:
    """Refuse data of other channels, labels, rate or task than the model of ``folder`` (``what``) reads, and such as
    :func:`check_same_recordings` does.
    """
    manifest = folder.manifest
    channels = tuple(channel.name for channel in manifest.input.channels)
    have = (channels, manifest.labels, manifest.input.step_rate, manifest.task)
    wanted = (dataset.channels, dataset.labels, dataset.rate, dataset.task)
    for name, model_has, data_has in zip(("channels", "labels", "rate", "task"), have, wanted, strict=True):
        if model_has != data_has:
            raise InputError(f"{dataset.name} has {name} {data_has}, but {what} has {model_has}")
    check_same_recordings(folder, what, dataset)


def check_same_recordings(folder: Folder, what: str, dataset: Dataset) -> None:
    """Refuse other data than the model of ``folder`` (``what``) was trained on where the split is at random.

    Groups of recordings have the same names in all data.
    """
    stage = folder.manifest.data_stage
    if dataset.dealt and (stage is None or stage.data_fingerprint != dataset.origin_fingerprint):
        raise InputError(
            f"nobody knows who was recorded in {dataset.name}, and {what} was trained on other recordings: which of "
            "these it has seen cannot be told. Take the data that it was trained on"
        )
