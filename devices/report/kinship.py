"""Which of a report's models was made from which, by the hashes in their lineage, and what can be set side by side."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from edgeseq.card import few_bits
from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.manifest import Precision, Stage, last_on_data

T = TypeVar("T")
FLOAT = "float32"
TEACHER = "teacher_test_accuracy"  # the metric that a distillation leaves


def is_float(model: Model) -> bool:
    """Whether nothing of a model is quantized."""
    return model.precision == Precision(FLOAT, FLOAT, FLOAT) and few_bits(model.lineage) is None


def float_of(report: Report, model: Model) -> Model | None:
    """The float model that ``model`` was quantized from, if it is in the report."""
    if is_float(model):
        return None
    sources = {stage.parent for stage in model.lineage if stage.verb == "quantize" and stage.parent}
    return _only([other for other in report.models if is_float(other) and sources & identities(other)])


def teacher_of(report: Report, model: Model) -> Model | None:
    """The model that ``model`` was distilled from; None also where there were several, or it is not in the report."""
    hashes = teacher_hashes(model)
    if len(hashes) != 1:
        return None
    return _only([other for other in report.models if other is not model and hashes & identities(other)])


def teacher_hashes(model: Model) -> frozenset[str]:
    """Whom ``model`` was distilled from. The float model that int8 was tuned to answer as is its source, no teacher."""
    named = ((stage, entry["hash"]) for stage in model.lineage for entry in teachers(stage))
    return frozenset(name for stage, name in named if stage.verb != "quantize" or name != stage.parent)


def taught_in_torch(report: Report, model: Model) -> float | None:
    """The accuracy of its teachers as torch measured it for the distillation.

    What was made from a distilled model afterwards does not say it: then what that one says, if it is in the report.
    """
    source = float_of(report, model)
    same = [source] if source is not None and teacher_hashes(source) == teacher_hashes(model) else []
    same = [model, *(other for other in same if same_test(model, other))]
    return next((other.metrics[TEACHER] for other in same if TEACHER in other.metrics), None)


def plain_of(report: Report, model: Model) -> list[Model]:
    """Of a distilled ``model``'s family and number format those that nobody taught, with the same test.

    Those of the same arguments, if there are any: they differ by the teacher, and by chance.
    """
    if not is_distilled(model):
        return []
    plain = [
        other
        for other in report.models
        if (other.family, other.precision) == (model.family, model.precision)
        and not is_distilled(other)
        and same_test(model, other)
    ]
    return [other for other in plain if other.arguments == model.arguments] or plain


def is_distilled(model: Model) -> bool:
    """Whether it learned from a teacher; int8 that was tuned to answer as its own float model did not."""
    return bool(teacher_hashes(model))


def teachers(stage: Stage) -> Iterator[Mapping[str, Any]]:
    """The teachers that a stage names, each with its ``hash``."""
    named = stage.arguments.get("teachers")
    for entry in named if isinstance(named, (list, tuple)) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("hash"), str):
            yield entry


def identities(model: Model) -> set[str]:
    """The hashes under which others know a model: that of its folder, and of the folder it was exported from."""
    last = model.lineage[-1] if model.lineage else None
    return {model.folder_hash, *([last.parent] if last and last.verb == "export" and last.parent else [])}


def data_stage(model: Model) -> Stage | None:
    """The last stage that names its data."""
    return last_on_data(model.lineage)


def grouped(entries: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """The entries with one key together, in the order in which they come."""
    groups: dict[Hashable, list[T]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return list(groups.values())


def test_key(model: Model) -> tuple[Any, ...]:
    """What two models must share for their scores to be set side by side: data, test subjects, labels."""
    stage = data_stage(model)
    return (stage and (stage.data_fingerprint or stage.data), tuple(sorted(model.split.get("test", ()))), model.labels)


def split_key(model: Model) -> tuple[Any, ...]:
    """What two models must share to have learned from, and been tested on, the same people."""
    return (*test_key(model), tuple(sorted(model.split.items())))


def same_test(one: Model, other: Model) -> bool:
    """Whether both were tested on the same people of the same data."""
    return bool(one.split.get("test")) and test_key(one) == test_key(other)


def shared_rows(one: Model, other: Model) -> Iterator[tuple[EngineRow, EngineRow]]:
    """The engines that ran both, in the order of the first."""
    theirs = {row.engine: row for row in other.engines}
    return ((row, theirs[row.engine]) for row in one.engines if row.engine in theirs)


def accuracy_difference(one: Model, other: Model, engine: str | None = None) -> float | None:
    """How much more often ``one`` is right than ``other``, in points: in ``engine``, or in the first that scored both.

    None where they were tested on others, or one of them was not scored.
    """
    if not same_test(one, other):
        return None
    for row, theirs in shared_rows(one, other):
        if row.scores and theirs.scores and engine in (None, row.engine) and row.scores.frames == theirs.scores.frames:
            return 100 * (row.scores.accuracy - theirs.scores.accuracy)
    return None


def _only(found: Sequence[Model]) -> Model | None:
    return found[0] if len(found) == 1 else None
