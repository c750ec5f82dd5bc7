"""Benches of several boards side by side, each with a link and a thread of its own: one that fails leaves the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeseq.devices.bench import BenchReport
from edgeseq.devices.remote.inventory import Device
from edgeseq.devices.remote.remote_bench import Asked, Benched, bench_board
from edgeseq.devices.remote.ssh import Link, connect
from edgeseq.devices.remote.target import Ssh
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import Folder

_ENDING_SECONDS = 5.0


@dataclass
class Boards:
    """The boards by what the user calls them, and what is asked of them.

    ``say`` is told the name of a board and its next step, from their threads; ``keep`` gets the name and the reports of
    a run of hours, which leave the board after it. ``found`` holds what each has come to as soon as it has, also where
    :meth:`bench` ends with an exception.
    """

    devices: Mapping[str, Device]
    folders: Sequence[Folder]
    asked: Asked
    accept_new: bool = False
    say: Callable[[str, str], object] = lambda name, step: None
    keep: Callable[[str, Sequence[BenchReport]], object] = lambda name, reports: None
    found: dict[str, Benched] = field(default_factory=dict)
    _bugs: list[BaseException] = field(default_factory=list)
    _links: list[Link] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _interrupted: bool = False

    def bench(self) -> None:
        """Measure on all of them.

        Raises:
            KeyboardInterrupt: after all links have been closed, and so ended what ran on the boards.
            Exception: a bug that one of them met, after the others were through.
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
        if self._bugs:
            raise self._bugs[0]

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
            self._keep(name, self._bench(name, self.devices[name]))
            self.say(name, "done")
        except EdgeseqError as error:
            self._keep(name, Benched([], [], error))
            self.say(name, "failed")
        except BaseException as error:  # the thread that waits for this one raises it
            self._bugs.append(error)

    def _keep(self, name: str, benched: Benched) -> None:
        with self._lock:
            if not self._interrupted:  # or an interruption would be told as a link that was lost
                self.found[name] = benched

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
            return bench_board(
                link,
                device,
                self.folders,
                self.asked,
                lambda step: self.say(name, step),
                lambda reports: self.keep(name, reports),
            )
