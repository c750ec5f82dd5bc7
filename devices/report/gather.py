"""From folders and their benchmarks to the models of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeseq.devices.bench import BenchReport, EngineReport
from edgeseq.devices.bench.counts import BINS
from edgeseq.devices.bench.words import sentences
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.facts import EMULATED
from edgeseq.devices.report.document import Distribution, EngineRow, Following, Model, counted, distribution, untimed
from edgeseq.devices.report.numbers import joined, machine_name
from edgeseq.errors import InputError, unknown
from edgeseq.folder import MODEL_FILES, Folder, shipped_bytes
from edgeseq.metrics import Scores

HERE = "local"  # what the bench calls the machine that it runs on
Key = tuple[Path, str, str, Hashable]  # file, given name, machine's name, what else it is known by


def read_bench(path: Path) -> tuple[BenchReport, ...]:
    """The reports in a file: those of ``edgeseq bench --out``, or the one that a board's ``bench --json`` printed.

    Raises:
        InputError: it cannot be read, or is something else.
    """

    class Reports(msgspec.Struct):
        reports: tuple[BenchReport, ...]

    try:
        content = path.read_bytes()
        several = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).keys() >= {"reports"}
        if several:
            return msgspec.json.decode(content, type=Reports).reports
        return (msgspec.json.decode(content, type=BenchReport),)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not what edgeseq bench --out writes: {error}") from None


class Measured(NamedTuple):
    """What a bench says of a folder, and what its device is called; "" is left to the machine's own name."""

    folder: Folder
    report: BenchReport
    device: str = ""


def measurements(folders: Sequence[Folder], files: Sequence[tuple[Path, Sequence[BenchReport]]]) -> list[Measured]:
    """What ``files`` hold of the folders, folder by folder, each device once: the last report that it wrote to a file.

    Devices are told apart by the name that the bench gave them, by their machine, and by the file: the same machine in
    two files is two devices, which are then called by the file as well.

    Raises:
        InputError: a folder is in no file, a file holds none of the folders, or an engine that this edgeseq does not
            know.
    """
    found: list[tuple[Folder, Key, BenchReport]] = []
    for folder in folders:
        own: dict[Key, BenchReport] = {}
        for path, reports in files:
            own.update({_key(path, r): r for r in reports if r.folder_hash == folder.hash and r.engines})
        if not own:
            raise _nothing(folder, files)
        found += [(folder, key, report) for key, report in own.items()]
    for path, reports in files:
        mine = [report for _, key, report in found if key[0] == path]
        if not mine:
            raise InputError(f"{path} holds no measurement of the folders (it holds {_held(reports)}): leave it out")
        strange = [entry.engine for report in mine for entry in report.engines if entry.engine not in ENGINES]
        if strange:
            raise unknown(f"engine in {path}", strange[0], ENGINES)
    called = _called([key for _, key, _ in found])
    return [Measured(folder, report, called[key]) for folder, key, report in found]


def _key(path: Path, report: BenchReport) -> Key:
    facts = report.facts
    further = (facts.machine, facts.cores, facts.core, facts.memory_bytes, report.provenance)
    return (path, "" if report.device == HERE else report.device, machine_name(facts), further)


def _called(keys: Sequence[Key]) -> dict[Key, str]:
    """A name of its own for each device: the given one or the machine's, then with its file, then with a number."""
    called = {key: key[1] or key[2] for key in keys}
    for further in (lambda key, number: key[0].stem, lambda key, number: str(number)):
        taken = Counter(called.values())
        numbers: Counter[str] = Counter()
        for key, name in list(called.items()):
            if taken[name] > 1:
                numbers[name] += 1
                called[key] = f"{name} ({further(key, numbers[name])})"
    return called


def _nothing(folder: Folder, files: Sequence[tuple[Path, Sequence[BenchReport]]]) -> InputError:
    paths, have = ([str(path) for path, _ in files], _held([r for _, reports in files for r in reports]))
    some = f"{joined(paths)} {'holds' if len(paths) == 1 else 'hold'} no measurement"
    return InputError(
        f"{some} of {folder.path} (hash {folder.hash[:12]}; there is {have}): "
        f"run edgeseq bench {folder.path} --out {paths[-1]}"
    )


def _held(reports: Sequence[BenchReport]) -> str:
    return ", ".join(f"{report.name} {report.folder_hash[:12]}" for report in reports) or "nothing"


def gather(
    measured: Measured,
    scores: Mapping[str, Scores],
    *,
    people: int = 0,
    unscored: str = "",
    following: tuple[Following, ...] = (),
) -> Model:
    """One model of a report; ``scores`` by engine on so many ``people``, and ``unscored`` says why there are none.

    ``following``: how it follows changes.
    """
    folder, report, device = measured
    manifest = folder.manifest
    return Model(
        name=manifest.name,
        folder_hash=folder.hash,
        family=manifest.family,
        arguments=manifest.arguments,
        labels=manifest.labels,
        input=manifest.input,
        decision=manifest.decision,
        precision=manifest.precision,
        split=manifest.split,
        metrics=manifest.metrics,
        lineage=manifest.lineage,
        proof=manifest.proof,
        file_bytes={name: (folder.path / MODEL_FILES[name]).stat().st_size for name in folder.formats},
        rate=report.rate,
        provenance=report.provenance,
        parameters=report.parameters,
        constant_bytes=report.constant_bytes,
        state_bytes=report.state_bytes,
        macs=report.macs,
        elementwise=report.elementwise,
        timer_ns=None if report.provenance == EMULATED else report.timer_ns,
        energy=report.energy,
        facts=report.facts,
        facts_at_end=report.facts_at_end,
        engines=tuple(_row(entry, report, scores.get(entry.engine)) for entry in report.engines),
        people=people,
        task=folder.manifest.task,
        unscored=unscored,
        shipped_bytes=shipped_bytes(folder) if folder.has_weights else None,
        device=device,
        conditions=report.conditions,
        throttled=report.throttled,
        said=tuple(sentences(report)),
        measured=report.measured,
        following=following,
    )


def _row(entry: EngineReport, report: BenchReport, scores: Scores | None) -> EngineRow:
    powers = report.power.engines if report.power else ()
    energy = next((each for each in powers if each.engine == entry.engine), None)
    row = EngineRow(
        engine=entry.engine,
        facts=entry.facts,
        file=entry.file,
        file_bytes=entry.file_bytes,
        load_ms=entry.fresh.load_ms,
        first_call_ms=entry.fresh.first_call_ms,
        peak_rss_bytes=entry.fresh.peak_rss_bytes,
        tight=distribution(entry.tight, entry.tight_ns),
        paced=_paced(entry, report),
        response=distribution(entry.paced.response, entry.paced.response_ns),
        paced_frames=entry.paced.frames,
        deadline_misses=entry.paced.deadline_misses,
        cpu_share=entry.paced.cpu_share,
        scores=scores,
        jitter=entry.paced.jitter,
        joules_per_step=energy.joules_per_step if energy else None,
        joules_error=energy.joules_error if energy else None,
    )
    return row if report.provenance != EMULATED else untimed(row)


def _paced(entry: EngineReport, report: BenchReport) -> Distribution:
    """Of a long run, which keeps counts in the place of samples, those counts, each in the middle of its bin."""
    run = report.long_run
    if run is None:
        return distribution(entry.paced.call, entry.paced.call_ns)
    return counted(entry.paced.call, {2 ** ((i + 0.5) / BINS): number for i, number in run.call_counts.items()})


def distinct(models: Sequence[Model]) -> tuple[Model, ...]:
    """The models with names that tell folders apart: those of folders with one name end in their hash."""
    names = Counter({model.folder_hash: model.name for model in models}.values())
    return tuple(
        msgspec.structs.replace(model, name=f"{model.name} {model.folder_hash[:6]}") if names[model.name] > 1 else model
        for model in models
    )


def check_folders(folders: Sequence[Folder]) -> None:
    """Refuse what cannot be reported on, before anything is measured.

    Raises:
        InputError: a folder, or a copy of it, is there twice, or is not exported.
    """
    seen: dict[str, Folder] = {}
    for folder in folders:
        if folder.hash in seen:
            raise InputError(f"{folder.path} is named twice (as {seen[folder.hash].path}): name each folder once")
        seen[folder.hash] = folder
        if not folder.formats:
            raise InputError(f"{folder.path} is not exported, there is nothing to measure: run {folder.how_to_export}")
