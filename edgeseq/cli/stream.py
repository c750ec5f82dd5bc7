"""``edgeseq stream``: a folder at work on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseq.cli.output import Document, Json, Show, counted, not_negative, percent, typed
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.devices.decide import Answer
    from edgeseq.devices.session import Session

BAR = 20  # characters of a full probability bar
REFRESH = 0.5  # seconds between two looks of the progress bar, drawn between two frames


def stream(
    folder: Annotated[Path, typer.Argument(help="A model folder that edgeseq export wrote.")],
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="The engine; the first that works here.")] = None,
    subject: Annotated[str | None, typer.Option(help="Whose recording; a test subject's if not given.")] = None,
    recording: Annotated[int, typer.Option(help="Which of the subject's recordings, from 0.", callback=counted)] = 0,
    speed: Annotated[
        float | None,
        typer.Option(
            help="Times the sensor's rate; 0 does not wait. If not given: 1, and 0 for --input -, which paces itself.",
            callback=not_negative,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where recordings come from, if not the training's data.")] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="Frames from a CSV file, or - for standard input.")
    ] = None,
    json: Json = False,
) -> Document:
    """Stream a recording and show the answer as it changes.

    Example: edgeseq stream runs/gru-export --speed 3
    """
    from edgeseq.devices.session import Session
    from edgeseq.devices.stream import read_frames

    show = Show(json)
    session = Session(open_folder(folder), engine)
    if input_ is None:
        played = choose_recording(session.folder, data=data, subject=subject, number=recording)
    elif data is None and subject is None:
        played = Played("standard input" if input_ == "-" else input_, read_frames(input_, session.folder))
    else:
        raise InputError("--input gives the frames, and so do --data and --subject: give one or the other")
    if speed is None:
        speed = 0.0 if input_ == "-" else 1.0
    document = play(show, session, played, speed)
    following = ("bench", folder)
    show.next(*following)
    return {**document, "next": typed(*following)}


@dataclass(frozen=True)
class Played:
    """Frames to stream: where from, how many (None: nobody knows), and the label index of each if there are labels."""

    name: str
    frames: Iterable[Any]
    count: int | None = None
    targets: Sequence[int] | None = None


def play(show: Show, session: Session, played: Played, speed: float) -> Document:
    """Stream frames through a session, showing each answer as it comes and a summary.

    The document has the answers only where it will be printed: a stream may have no end, and memory has one.
    """
    from edgeseq.devices.stream import stream as stream_frames

    manifest = session.manifest
    pace = f"{speed:g} times {manifest.input.step_rate:g} Hz" if speed else "as fast as the frames come"
    duration = f", about {played.count / manifest.input.step_rate / speed:.0f} s" if speed and played.count else ""
    show.text(f"{played.name} through {manifest.name} on {session.engine}, {pace}{duration}")
    answers: list[Document] = []

    def on_answer(seconds: float, answer: Answer) -> None:
        verdict = _verdict(session, played.targets, seconds, answer)
        if show.json:
            answers.append(
                {"seconds": seconds, "label": answer.label, "probability": answer.probability, "verdict": verdict}
            )
        filled = round(BAR * answer.probability)
        show.line(
            f"{seconds:9.2f} s  {answer.label:<{width}}  {'━' * filled}{'╌' * (BAR - filled)} "
            f"{100 * answer.probability:3.0f} %  {verdict}"
        )

    width = max(len(label) for label in ("unknown", *manifest.labels))
    summary = stream_frames(session, _watched(show, played), speed=speed, on_answer=on_answer, targets=played.targets)
    rows = [
        ("streamed", f"{summary.frames:,} frames in {summary.seconds:.1f} s, {summary.missed_deadlines} answered late"),
        ("a frame", f"{summary.latency_p50_us:.0f} us (p50), {summary.latency_p99_us:.0f} us (p99)"),
    ]
    if summary.answer_accuracy is not None:
        shares = f"{percent(summary.answer_accuracy)} of the labelled frames, {percent(summary.accuracy)} unsmoothed"
        rows.append(("right", shares))
    show.line()
    show.facts(rows)
    return {"source": played.name, "engine": session.engine, "answers": answers, "summary": summary}


def choose_recording(folder: Folder, *, data: str | None = None, subject: str | None = None, number: int = 0) -> Played:
    """A recording of the data that a folder was trained on (or ``data``), of a test subject if none is named.

    Raises:
        InputError: the data is not to be had or has other channels, no such subject or recording.
    """
    from edgeseq.lineage import trained_on

    manifest = folder.manifest
    dataset = trained_on(folder, data)
    if subject is None:
        test = [name for name in dataset.subjects if name in manifest.split.get("test", ())]
        subject = (test or list(dataset.subjects))[0]
    recordings = dataset.only([subject]).recordings
    if not 0 <= number < len(recordings):
        raise InputError(f"subject {subject} of {dataset.name} has no recording {number}: 0 to {len(recordings) - 1}")
    chosen = recordings[number]
    targets = chosen.y.tolist() if dataset.labels == manifest.labels else None
    return Played(f"subject {subject} of {dataset.name}, recording {number}", list(chosen.x), len(chosen.x), targets)


def _verdict(session: Session, targets: Sequence[int] | None, seconds: float, answer: Answer) -> str:
    """Whether an answer is right, where that is known."""
    if targets is None:
        return ""
    source = session.manifest.input
    index = round(seconds * source.step_rate) - source.look_ahead
    if not 0 <= index < len(targets) or targets[index] < 0:
        return ""
    truth = session.labels[targets[index]]
    return "right" if answer.label == truth else f"wrong, it is {truth}"


def _watched(show: Show, played: Played) -> Iterator[Any]:
    """The frames, with a bar that is drawn between two of them: a thread that draws would delay the step."""
    bar = show.bar()
    if bar.disable or played.count is None:
        yield from played.frames
        return
    bar.live.auto_refresh = False
    seen, drawn = 0, time.monotonic()
    with bar:
        task = bar.add_task("streaming", total=played.count, news="")
        for frame in played.frames:
            yield frame
            seen += 1
            if time.monotonic() - drawn > REFRESH:
                drawn = time.monotonic()
                bar.update(task, completed=seen)
                bar.refresh()
