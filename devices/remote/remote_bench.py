"""Benches on boards elsewhere: each gets what it lacks, checks the files on its own processor, and measures them."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import BenchReport
from edgeseq.devices.remote.command import Done
from edgeseq.devices.remote.deploy import Place, deploy
from edgeseq.devices.remote.inventory import Device
from edgeseq.devices.remote.refusals import last_lines
from edgeseq.devices.remote.ssh import Link, connect
from edgeseq.devices.remote.target import Ssh
from edgeseq.errors import DeviceUnreachable, EdgeseqError, GateFailed, InputError, MissingDependency, Unsupported
from edgeseq.folder import Folder

CHECK_SECONDS = 1800.0
SLACK_SECONDS = 900.0  # beside the measuring itself: engines are proven, opened, and started in processes of their own
_ENGINES = 5  # that a folder may have
_ENDING_SECONDS = 5.0
_KINDS: dict[int, type[EdgeseqError]] = {
    kind.exit_code: kind for kind in (InputError, MissingDependency, Unsupported, GateFailed)
}

Say = Callable[[str, str], object]


@dataclass(frozen=True)
class Asked:
    """What a bench is asked for, passed on to the board; None is its own default. Durations are in seconds.

    ``duration``: a run of so long, as a user writes it, on one engine; it goes on after an interruption.
    """

    engines: tuple[str, ...] = ()
    seconds: float = 2.0
    paced_seconds: float = 10.0
    rate: float | None = None
    duration: str | None = None
    pin: str | None = None
    priority: str | None = None
    threads: int | None = None

    @property
    def arguments(self) -> list[str]:
        """As options of ``python -m edgeseq.devices bench``."""
        given = {"rate": self.rate, "duration": self.duration, "pin": self.pin, "priority": self.priority}
        given |= {"seconds": self.seconds, "paced-seconds": self.paced_seconds, "threads": self.threads}
        return [*self.only, *(f"--{name}={value}" for name, value in given.items() if value is not None)]

    @property
    def only(self) -> list[str]:
        """The engines, as options."""
        return [f"--engine={engine}" for engine in self.engines]

    @property
    def limit(self) -> float | None:
        """After how many seconds a board is no longer waited for; None: never, for a run of hours."""
        if self.duration is not None:
            return None
        return self.seconds + (len(self.engines) or _ENGINES) * self.paced_seconds + SLACK_SECONDS

    def run_name(self, folder: Folder) -> str:
        """What a run of hours is called on a board: the same command gives the same name again."""
        return hashlib.sha256("\0".join([folder.hash, *self.arguments]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Benched:
    """What a board measured, a report for each folder; and what there is to say about it, in sentences."""

    reports: list[BenchReport]
    notes: list[str]


def bench_board(
    link: Link, device: Device, folders: Sequence[Folder], asked: Asked, say: Callable[[str], object]
) -> Benched:
    """Send to a board what it lacks, let it check the folders and measure them, one after the other.

    ``say`` is told each step. Nothing is left running there.

    Raises:
        DeviceUnreachable: the link was lost, or edgeseq cannot run there.
        EdgeseqError: what the bench on the board ended with; a file that computes wrongly there is a GateFailed.
    """
    wheelhouse = Path(device.wheelhouse) if device.wheelhouse else None
    say("asking what it is")
    place = deploy(link, folders, device.python, wheelhouse, say)
    notes = [
        f"{link.name} does without {each}: there is no wheel of it for {place.board.machine}"
        + (f" in {wheelhouse}" if wheelhouse else "")
        for each in place.left_out
    ]
    reports = []
    for folder, path in zip(folders, place.folders, strict=True):
        name = folder.path.name
        say(f"checking {name}")
        unchecked = _check(link, place, folder, path, asked)
        if not asked.engines:  # those that were named leave files out by themselves
            notes += [f"{link.name} did not check {file} of {name}: no engine there runs it" for file in unchecked]
        say(f"measuring {name}")
        reports.append(_measure(link, place, folder, path, asked))
    return Benched(reports, notes)


def _verb(place: Place, verb: str) -> list[str]:
    return [place.python, "-m", "edgeseq.devices", verb]


def _check(link: Link, place: Place, folder: Folder, path: str, asked: Asked) -> list[str]:
    """Prove a folder's files on the board; returns those that no engine there runs."""
    done = place.run(link, [*_verb(place, "verify"), path, "--json", *asked.only], CHECK_SECONDS)
    try:
        return list(_document(link, f"checking {folder.path.name}", done)["unchecked"])
    except InputError as error:  # a power cut, or somebody's hand
        place.run(link, ["rm", "-rf", "--", path])
        raise InputError(f"{error} (removed there: the same command sends it again)") from None


def _measure(link: Link, place: Place, folder: Folder, path: str, asked: Asked) -> BenchReport:
    command = [*_verb(place, "bench"), path, "--json", *asked.arguments]
    if asked.duration is None:
        return _report(link, folder, place.run(link, command, asked.limit))
    run = f"{place.data}/runs/{asked.run_name(folder)}"  # what it has stays there until the report has come
    out = f"{run}/report.json"
    done = place.run(link, ["cat", out])  # a report that was made, and did not come
    if done.code:
        place.run(link, ["mkdir", "-p", "--", run])
        done = place.run(link, [*command, f"--out={out}"])
    report = _report(link, folder, done)
    place.run(link, ["rm", "-rf", "--", run])
    return report


def _report(link: Link, folder: Folder, done: Done) -> BenchReport:
    _document(link, f"measuring {folder.path.name}", done)
    try:
        report = msgspec.json.decode(_last_line(done), type=BenchReport)
    except msgspec.ValidationError as error:
        raise DeviceUnreachable(f"{link.name}: its report of {folder.path.name} is damaged: {error}") from None
    return msgspec.structs.replace(report, device=link.name)


def _document(link: Link, doing: str, done: Done) -> dict[str, Any]:
    """The document that a verb printed there.

    Raises:
        EdgeseqError: the error that the verb ended with.
        DeviceUnreachable: it ended without a word that is one.
    """
    try:
        document = msgspec.json.decode(_last_line(done), type=dict[str, Any])
    except msgspec.MsgspecError:
        raise DeviceUnreachable(f"{link.name}: {doing} {_ended(done)}") from None
    if "error" in document:
        failed = document["error"]
        raise error_of(failed["exit_code"], f"{link.name}: {failed['message']}")
    return document


def _last_line(done: Done) -> str:
    return done.stdout.strip().rpartition("\n")[2]


def error_of(exit_code: int, message: str) -> EdgeseqError:
    """The error that has this exit code; DeviceUnreachable where a board's own has none that means the same here."""
    kind = _KINDS.get(exit_code, DeviceUnreachable)
    error = kind.__new__(kind)
    EdgeseqError.__init__(error, message)  # not its own: that of a missing package words its message itself
    return error


def _ended(done: Done) -> str:
    if 128 < done.code < 128 + signal.NSIG:
        name = signal.Signals(done.code - 128).name
        why = ", which is what a board does that has no memory left" if name == "SIGKILL" else ""
        return f"was ended there by {name}{why}: {last_lines(done.stderr, 3)}"
    return f"failed there: {last_lines(done.stderr, 3)}"


@dataclass
class Boards:
    """Benches of several boards side by side, each with a link and a thread of its own: one that fails leaves the rest.

    ``say`` is told the name of a board and its next step, from those threads.
    """

    devices: Mapping[str, Device]
    folders: Sequence[Folder]
    asked: Asked
    accept_new: bool = False
    say: Say = lambda name, step: None
    _done: dict[str, Benched | BaseException] = field(default_factory=dict)
    _links: list[Link] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _interrupted: bool = False

    def bench(self) -> dict[str, Benched | EdgeseqError]:
        """Measure on all of them; what each came to, in their order.

        Raises:
            KeyboardInterrupt: after all links have been closed, and so ended what ran on the boards.
        """
        threads = [threading.Thread(target=self._work, args=(name,), daemon=True) for name in self.devices]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._interrupt(threads)
            raise
        found: dict[str, Benched | EdgeseqError] = {}
        for name in self.devices:
            outcome = self._done[name]
            if not isinstance(outcome, Benched | EdgeseqError):
                raise outcome
            found[name] = outcome
        return found

    def _interrupt(self, threads: Sequence[threading.Thread]) -> None:
        with self._lock:
            self._interrupted = True
            links = list(self._links)
        for link in links:
            link.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join(_ENDING_SECONDS)

    def _work(self, name: str) -> None:
        try:
            self._done[name] = self._bench(name, self.devices[name])
            self.say(name, "done")
        except BaseException as error:  # the thread that waits for this one raises it
            self._done[name] = error
            self.say(name, "failed")

    def _bench(self, name: str, device: Device) -> Benched:
        target = device.target
        if not isinstance(target, Ssh):
            raise InputError(f"{name} is this machine, and is not measured over a link")
        self.say(name, f"connecting to {target.url}")
        with connect(target, self.accept_new or device.accept_new_host_key, name=name) as link:
            with self._lock:
                self._links.append(link)
                if self._interrupted:
                    raise KeyboardInterrupt
            return bench_board(link, device, self.folders, self.asked, lambda step: self.say(name, step))
