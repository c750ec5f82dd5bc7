"""Distillation: a small student learns the answers of a teacher, softened, besides the labels.

    L = soft · T² · KL(p_T ‖ q_T) + hard · CE(q, y),    p_T = mean over teachers of softmax(z / T)

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015; the weights 0.7 and 0.3 and T = 2 are those
of Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018. Here the KL is summed
over the classes of a frame and averaged over frames ("batchmean"). Their code averages over the classes too, so that
its teacher counts less, by the number of classes.

Of segments the answers at the end are compared; what is said of frames below is said of those then.

Shape letters: B batch, T frames, C channels, K labels, H units of the hidden layer, L frames of look-ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from edgeseq.data import Dataset
from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import State, StreamingModel
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch
from edgeseq.training.loop import CrossEntropy, Objective
from edgeseq.training.settings import NotNegative, Settings

LEVELS = ("frame", "sequence")
PREFIX = "distillation."  # of the settings that are not those of plain training
_TINY = 1e-12  # in place of a sum over no frames


class Distillation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of what a student learns.

    temperature: by which logits are divided before they are compared; the higher, the more the unlikely labels count.
    soft, hard: weights of the teacher's answers and of the labels.
    level: whether the answers are compared frame by frame, or their mean over the scored frames of a crop.
    hidden: weight of the squared difference between the inputs of both read-outs, each scaled to unit variance; one
    teacher of the student's size only, and no segments.
    early: seconds in which the weight of what the teacher says rises after a crop's start or a seam, as
    1 - exp(-t / early): what the student cannot know yet counts less. 0: at once. Without it, by how much more the
    teachers look ahead than the student.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0, le=100)] = 2.0
    soft: NotNegative = 0.7
    hard: NotNegative = 0.3
    level: Literal["frame", "sequence"] = "frame"
    hidden: NotNegative = 0.0
    early: NotNegative | None = None


def split_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name, as a user gives them: those of distillation without their prefix, and those of training."""
    ours = {name.removeprefix(PREFIX): value for name, value in changes.items() if name.startswith(PREFIX)}
    return ours, {name: value for name, value in changes.items() if not name.startswith(PREFIX)}


def check_taught(changes: Mapping[str, Any], teachers: Sequence[object]) -> None:
    """Refuse settings of distillation where there is no teacher."""
    loss, _ = split_changes(changes)
    if loss and not teachers:
        raise InputError(f"distillation.{next(iter(loss))} is about learning from a teacher: name one with --teacher")


def distillation(changes: Mapping[str, Any]) -> Distillation:
    """The defaults with some values changed.

    Raises:
        InputError: an unknown name (with the closest), a value of the wrong kind, or weights that are all 0.
    """
    names = Distillation.__struct_fields__
    for name in changes:
        if name not in names:
            raise unknown("distillation setting", name, names)
    if changes.get("level", LEVELS[0]) not in LEVELS:
        raise unknown("level", str(changes["level"]), LEVELS)
    try:
        found = msgspec.convert(dict(changes), Distillation)
    except msgspec.ValidationError as error:
        raise InputError(f"distillation settings {dict(changes)}: {error}") from None
    if not (found.soft or found.hard or found.hidden):
        raise InputError("soft, hard and hidden are all 0, which leaves nothing to learn: raise one of them")
    return found


@contextmanager
def distilling(
    student: StreamingModel,
    teachers: Sequence[StreamingModel],
    learned: Dataset,
    settings: Settings,
    how: Distillation,
) -> Iterator[Objective]:
    """The objective of distillation, for :func:`edgeseq.training.loop.fit` on ``student`` inside the block.

    ``student`` may be of any family and in any precision; ``learned`` are the training subjects, whose class
    frequencies weigh the frames of both terms alike. The teachers are put into eval mode and never trained.

    Raises:
        InputError: no teacher, teachers of other channels or labels, hidden layers that cannot be compared.
    """
    if not teachers:
        raise InputError("a student needs at least one teacher")
    for teacher in teachers:
        theirs, ours = ((m.input_size, m.output_size) for m in (teacher, student))
        if theirs != ours:
            raise InputError(
                f"the teacher has (channels, labels) {theirs}, the student {ours}: take a teacher of the same data"
            )
        teacher.eval()
    with ExitStack() as stack:
        taps = None
        if how.hidden:
            if learned.task == "segment":
                raise InputError(f"hidden compares frame by frame, and {learned.name} has segments: set hidden to 0")
            _check_hidden(student, teachers)
            taps = (stack.enter_context(_tapped(student)), stack.enter_context(_tapped(teachers[0])))
        hard = CrossEntropy.of(learned, settings)
        yield _Distilling(teachers, hard, how, learned.rate, student.look_ahead, taps)


def _check_hidden(student: StreamingModel, teachers: Sequence[StreamingModel]) -> None:
    if len(teachers) > 1:
        raise InputError(
            f"hidden compares with the hidden layer of one teacher, and there are {len(teachers)}: name one, or set "
            "hidden to 0"
        )
    sizes = []
    for whose, model in (("student", student), ("teacher", teachers[0])):
        size = getattr(getattr(model, "readout", None), "in_features", None)
        if size is None:
            raise InputError(f"the {whose}, a {type(model).__name__}, has no linear readout: set hidden to 0")
        sizes.append(size)
    if sizes[0] != sizes[1]:
        raise InputError(
            f"the hidden layers differ: {sizes[0]} units into the student's read-out, {sizes[1]} into the teacher's. "
            "Set hidden to 0, or give both one size"
        )


Tap = Callable[[], Tensor]


@contextmanager
def _tapped(model: StreamingModel) -> Iterator[Tap]:
    """What went last into the model's read-out, ``(B, T, H)``."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = inputs[:1]

    handle = model.get_submodule("readout").register_forward_pre_hook(keep)
    try:
        yield lambda: seen[0]
    finally:
        handle.remove()


class _Distilling:
    """The loss, and the states that the teachers carry from batch to batch as the student carries its own."""

    def __init__(
        self,
        teachers: Sequence[StreamingModel],
        hard: CrossEntropy,
        how: Distillation,
        rate: float,
        student_late: int,
        taps: tuple[Tap, Tap] | None,
    ) -> None:
        self.teachers, self.hard, self.how, self.taps = teachers, hard, how, taps
        self.late = max(teacher.look_ahead for teacher in teachers)
        self.student_late = student_late
        self.early = max(0, self.late - student_late) if how.early is None else how.early * rate  # frames
        self.last: list[State] = []

    def __call__(self, answers: Tensor, batch: Batch) -> Tensor:
        how = self.how
        loss = how.hard * self.hard(answers, batch) if how.hard else answers.new_zeros(())
        if not (how.soft or how.hidden):
            return loss
        frames = answers.shape[1]
        if batch.lengths is None:  # the last ones have no teacher: nobody has looked ahead of them yet
            frames = min(frames, batch.x.shape[1] - self.late)
        if frames < 1:
            raise InputError(
                f"a teacher that looks {self.late} frames ahead says nothing in a crop of {batch.x.shape[1]}: "
                "make crop longer"
            )
        taught = self._answers(batch, frames)
        weights = self.hard.frame_weights(batch.y)[:, :frames]
        trust = _rise(batch.age[:, :frames], self.early)
        if how.soft:
            compare = by_frame if how.level == "frame" else by_sequence
            loss = loss + how.soft * compare(answers[:, :frames], taught, weights, trust, how.temperature)
        if self.taps:
            student, teacher = (tap() for tap in self.taps)
            student, teacher = student[:, self.student_late :][:, :frames], teacher[:, self.late :][:, :frames]
            loss = loss + how.hidden * hidden_difference(student, teacher, weights, trust)
        return loss

    @torch.no_grad()
    def _answers(self, batch: Batch, frames: int) -> list[Tensor]:
        """What each teacher says of the first ``frames`` frames, or at the end of segments, (B, frames, K)."""
        found, ended = [], []
        for i, teacher in enumerate(self.teachers):
            starts = batch.carry.starts(teacher, self.last[i]) if batch.carry and self.last else None
            y, state = respond(teacher, batch, starts)
            found.append(y[:, :frames])
            ended.append(state)
        self.last = ended
        return found


def _rise(age: Tensor, frames: float) -> Tensor:
    """Weights ``(B, T)`` that rise with the time constant ``frames`` after a start or a seam."""
    return -torch.expm1(-age / max(frames, _TINY)) if frames else torch.ones(age.shape)


def by_frame(answers: Tensor, taught: Sequence[Tensor], weights: Tensor, trust: Tensor, temperature: float) -> Tensor:
    """T² KL between the teachers' mean probabilities and the student's, averaged over frames.

    ``answers (B, T, K)``; ``taught``, the same of each teacher; ``weights (B, T)`` of the average, 0 for frames that
    are not scored; ``trust (B, T)``, how much of each frame's difference counts.
    """
    return _mean(_divergence(answers, taught, temperature), weights, trust)


def by_sequence(
    answers: Tensor, taught: Sequence[Tensor], weights: Tensor, trust: Tensor, temperature: float
) -> Tensor:
    """As :func:`by_frame`, between the means of the logits over the scored frames of each crop."""
    counted = (weights > 0) * trust  # (B, T)
    share = (counted / counted.sum(1, keepdim=True).clamp(min=_TINY))[..., None]  # (B, T, 1)
    means = [(share * y).sum(1, keepdim=True) for y in (answers, *taught)]  # (B, 1, K) each
    trusted = (weights * trust).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=_TINY)
    return _mean(_divergence(means[0], means[1:], temperature), weights.sum(1, keepdim=True), trusted)


def hidden_difference(student: Tensor, teacher: Tensor, weights: Tensor, trust: Tensor) -> Tensor:
    """Mean squared difference of ``(B, T, H)``, each scaled to unit variance over all scored frames and units."""
    scored = weights > 0

    def scaled(h: Tensor) -> Tensor:
        return h / h[scored].std().clamp(min=math.sqrt(_TINY)) if scored.any() else h

    return _mean((scaled(student) - scaled(teacher)).square().mean(-1), weights, trust)


def _divergence(answers: Tensor, taught: Sequence[Tensor], temperature: float) -> Tensor:
    """T² KL(p ‖ q) of each frame, (B, T)."""
    each = torch.stack([log_softmax(y / temperature, -1) for y in taught])
    log_p = torch.logsumexp(each, 0) - math.log(len(taught))
    log_q = log_softmax(answers / temperature, -1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


def _mean(values: Tensor, weights: Tensor, trust: Tensor) -> Tensor:
    return (values * weights * trust).sum() / weights.sum().clamp(min=_TINY)
