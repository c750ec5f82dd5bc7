"""``edgeseq stream``: a folder at work on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.live import PORT, Asked, Page, live
from edgeseq.cli.output import Document, Json, Show, counted, not_negative, percent, typed
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import how_it_follows

if TYPE_CHECKING:
    from edgeseq.data import Dataset
    from edgeseq.devices.decide import Answer
    from edgeseq.devices.session import Session
    from edgeseq.devices.stream import Segment, SegmentAnswer

SOUND_FILES = (".wav", ".mp3", ".flac", ".ogg", ".m4a")
BAR = 20  # characters of a full probability bar
REFRESH = 0.5  # seconds between two looks of the progress bar, drawn between two frames


LIVE = "Live"  # the options of streams as they come


def stream(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="A model folder that edgeseq export wrote; live, several.")
    ],
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="The engine; the one chosen for it here.")] = None,
    subject: Annotated[str | None, typer.Option(help="Whose recording; a test subject's if not given.")] = None,
    recording: Annotated[
        int | None,
        typer.Option(help="Which of the subject's recordings, from 0; the first, or all segments.", callback=counted),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            help="Times the sensor's rate; 0 does not wait. If not given: 1, and 0 for --input -, which paces itself.",
            callback=not_negative,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Recordings (a path, NAME or NAME=PATH), if not the training's data.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="Frames from a CSV file, or - for standard input.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="As it comes: replay:NAME, replay:NAME/SUBJECT, replay:FILE, stdin, http, mqtt://HOST/TOPIC, "
            "ws://PHONE:PORT, phyphox://PHONE, ble:WATCH. May be given again.",
            rich_help_panel=LIVE,
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Show it on a page, served here.", rich_help_panel=LIVE)] = False,
    host: Annotated[
        str, typer.Option(help="Where the page is served; other than on loopback it has a token.", rich_help_panel=LIVE)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.", rich_help_panel=LIVE)
    ] = PORT,
    token: Annotated[
        str | None, typer.Option(help="What the page asks for, instead of one that is made.", rich_help_panel=LIVE)
    ] = None,
    reorder: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How late a reading may come: 0.2, and 0 for a data set's replay, if not given.",
            callback=not_negative,
            rich_help_panel=LIVE,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep what comes, to be replayed to the same answers.", rich_help_panel=LIVE),
    ] = None,
    json: Json = False,
) -> Document:
    """Stream a recording and show the answer as it changes; or segments, and show the answer to each.

    With --source a stream is answered as it comes, and with --page it is shown in a browser.

    Example: edgeseq stream runs/gru-export --speed 3

    Example: edgeseq stream har_watch --source replay:spar_watch --page

    Example: edgeseq stream har_watch --source http --page --host 0.0.0.0
    """
    from edgeseq.devices.session import Session
    from edgeseq.devices.stream import read_frames

    show = Show(json)
    if source or page:
        if input_ is not None or data is not None or subject is not None or recording is not None:
            raise InputError("--source says where a live stream comes from: leave --input, --data, --subject out")
        served = Page(host, port, token) if page else None
        asked = Asked(source or ["http"], 1.0 if speed is None else speed, engine, reorder, record, served)
        return live(show, folders, asked)
    if len(folders) != 1 or record is not None or reorder is not None or token is not None:
        what = "--record, --reorder and --token are" if len(folders) == 1 else f"{len(folders)} folders are"
        raise InputError(f"{what} for live streams: say where from with --source, or pass --page")
    folder = folders[0]
    opened = open_folder(folder)
    if input_ is not None:
        _check_input(input_, opened)
    session = Session(opened, engine)
    if input_ is not None and (data is not None or subject is not None or recording is not None):
        raise InputError("--input gives the frames, and so do --data, --subject and --recording: give one or the other")
    if speed is None:
        speed = 0.0 if input_ == "-" else 1.0
    if input_ is not None:
        played = Played("standard input" if input_ == "-" else input_, read_frames(input_, session.folder))
        document = play(show, session, played, speed)
    elif session.manifest.task == "segment":
        name, segments = choose_segments(session.folder, data=data, subject=subject, number=recording)
        document = play_segments(show, session, name, segments, speed)
    else:
        chosen = choose_recording(session.folder, data=data, subject=subject, number=recording or 0)
        document = play(show, session, chosen, speed)
    following = ("bench", folder)
    show.next(*following)
    return {**document, "next": typed(*following)}


def _check_input(source: str, folder: Folder) -> None:
    """Refuse, before anything is shown, a file that is not there, and sound that no table of frames holds."""
    from edgeseq.data.dataset import SOUND

    path = Path(source)
    if source == "-":
        return
    if not path.exists() or path.is_dir():
        raise InputError(f"{source} cannot be read: {'it is a folder' if path.is_dir() else 'no such file'}")
    if path.suffix.lower() in SOUND_FILES:
        hears = any(channel.unit == SOUND for channel in folder.manifest.input.channels)
        mend = (
            f"a file of sound is cut into words first: python examples/keyword_spotting/spot.py --model {folder.path} "
            f"{source} does it"
            if hears
            else f"{folder.manifest.name} reads no sound"
        )
        raise InputError(f"{source}: --input takes a CSV file, and {mend}")


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
    if follows := how_it_follows(manifest.metrics):
        show.text(f"as judged on the test subjects, {follows}")
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
        shares = (
            f"{percent(summary.answer_accuracy)} of the labelled frames, {percent(summary.accuracy)} without the rule"
        )
        rows.append(("right", shares))
    show.line()
    show.facts(rows)
    return {"source": played.name, "engine": session.engine, "answers": answers, "summary": summary}


def play_segments(show: Show, session: Session, name: str, segments: Sequence[Segment], speed: float) -> Document:
    """Stream segments through a session, showing the answer to each and a summary."""
    from edgeseq.devices.stream import stream_segments

    manifest, answers = session.manifest, list[Document]()
    pace = f"{speed:g} times {manifest.input.step_rate:g} Hz" if speed else "as fast as the frames come"
    show.text(f"{name} ({len(segments):,}) through {manifest.name} on {session.engine}, {pace}")
    width = max(len(label) for label in manifest.labels)
    digits = max(len(str(len(segment.frames))) for segment in segments)  # type: ignore[arg-type]  # made as arrays

    def on_answer(answer: SegmentAnswer) -> None:
        truth = "" if answer.target < 0 else session.labels[answer.target]
        verdict = "" if not truth else "right" if truth == answer.label else f"wrong, it is {truth}"
        if show.json:
            answers.append({**msgspec.to_builtins(answer), "share": answer.share, "verdict": verdict})
        show.line(
            f"{answer.number:6}  {answer.label:<{width}}  {100 * answer.probability:3.0f} %  after "
            f"{answer.used:{digits}} of {answer.frames:{digits}} frames ({100 * answer.share:3.0f} %)  {verdict}"
        )

    summary = stream_segments(session, segments, speed=speed, on_answer=on_answer)
    rows = [
        (
            "streamed",
            f"{summary.segments:,} segments in {summary.seconds:.1f} s, {summary.missed_deadlines} frames late",
        ),
        ("a frame", f"{summary.latency_p50_us:.0f} us (p50), {summary.latency_p99_us:.0f} us (p99)"),
        (
            "frames",
            f"{percent(summary.share)} of a segment to its answer on average, {percent(summary.share_p90)} (p90)",
        ),
    ]
    if summary.accuracy is not None:
        rows.append(("right", f"{percent(summary.accuracy)} of the labelled segments"))
    show.line()
    show.facts(rows)
    return {"source": name, "engine": session.engine, "answers": answers, "summary": summary}


def choose_recording(folder: Folder, *, data: str | None = None, subject: str | None = None, number: int = 0) -> Played:
    """A recording of the data that a folder was trained on (or ``data``), of a test subject if none is named.

    Raises:
        InputError: the data is not to be had or has other channels, no such subject or recording.
    """
    dataset = _chosen(folder, data, subject, number, all_tested=False)
    chosen = dataset.recordings[number]
    targets = chosen.y.tolist() if dataset.labels == folder.manifest.labels else None
    name = f"subject {chosen.subject} of {dataset.name}, recording {number}"
    return Played(name, list(chosen.x), len(chosen.x), targets)


def choose_segments(
    folder: Folder, *, data: str | None = None, subject: str | None = None, number: int | None = None
) -> tuple[str, list[Segment]]:
    """The segments of a subject, or of all test subjects, or one of them; and what they are.

    Raises:
        InputError: the data is not to be had, has other channels or no segments; no such subject or recording.
    """
    from edgeseq.devices.stream import Segment

    dataset = _chosen(folder, data, subject, number or 0, all_tested=True)
    if dataset.task != "segment":
        raise InputError(f"{dataset.name} has endless recordings, and {folder.path} answers segments: pass --data")
    known = dataset.labels == folder.manifest.labels
    made = [Segment(r.x, int(r.y[0]) if known else -1) for r in dataset.recordings]
    only = subject or (dataset.subjects[0] if len(dataset.subjects) == 1 else "")
    whose = f"subject {only}" if only else f"{len(dataset.subjects)} test subjects"
    whose = "the test recordings" if dataset.dealt and not subject else whose
    if number is None:
        return f"{whose} of {dataset.name}", made
    return f"recording {number} of {whose} of {dataset.name}", [made[number]]


def _chosen(folder: Folder, data: str | None, subject: str | None, number: int, *, all_tested: bool) -> Dataset:
    """The recordings of a subject; without one, of the first test subject or of all. ``number`` must be among them."""
    from edgeseq.lineage import trained_on

    dataset = trained_on(folder, data)
    test = [name for name in dataset.subjects if name in folder.manifest.split.get("test", ())]
    chosen = [subject] if subject else (test or list(dataset.subjects))[: None if all_tested else 1]
    found = dataset.only(chosen)
    if not 0 <= number < len(found.recordings):
        whose = (
            f"subject {chosen[0]} of {dataset.name} has" if len(chosen) == 1 else f"{dataset.name} has, in its test,"
        )
        raise InputError(f"{whose} no recording {number}: 0 to {len(found.recordings) - 1}")
    return found


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
