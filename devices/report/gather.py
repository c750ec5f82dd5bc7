"""From folders and their benchmarks to the models of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edgeseq.devices.bench import BenchReport, EngineReport
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.report.document import EngineRow, Model, distribution
from edgeseq.errors import InputError, unknown
from edgeseq.folder import MODEL_FILES, Folder, shipped_bytes
from edgeseq.metrics import Scores


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


def bench_of(folder: Folder, reports: Sequence[BenchReport], path: Path) -> BenchReport:
    """The report of a folder: the last one in ``path`` with its hash.

    Raises:
        InputError: there is none, it measured no engine, or one that this edgeseq does not know.
    """
    own = [report for report in reports if report.folder_hash == folder.hash and report.engines]
    if own:
        strange = [entry.engine for entry in own[-1].engines if entry.engine not in ENGINES]
        if strange:
            raise unknown(f"engine in {path}", strange[0], ENGINES)
        return own[-1]
    have = ", ".join(f"{report.name} {report.folder_hash[:12]}" for report in reports) or "nothing"
    raise InputError(
        f"{path} holds no measurement of {folder.path} (hash {folder.hash[:12]}; it holds {have}): "
        f"run edgeseq bench {folder.path} --out {path}"
    )


def gather(
    folder: Folder, report: BenchReport, scores: Mapping[str, Scores], *, people: int = 0, unscored: str = ""
) -> Model:
    """One model of a report; ``scores`` by engine on so many ``people``, and ``unscored`` says why there are none."""
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
        timer_ns=report.timer_ns,
        energy=report.energy,
        facts=report.facts,
        facts_at_end=report.facts_at_end,
        engines=tuple(_row(entry, scores.get(entry.engine)) for entry in report.engines),
        people=people,
        task=folder.manifest.task,
        unscored=unscored,
        shipped_bytes=shipped_bytes(folder) if folder.has_weights else None,
    )


def _row(entry: EngineReport, scores: Scores | None) -> EngineRow:
    return EngineRow(
        engine=entry.engine,
        facts=entry.facts,
        file=entry.file,
        file_bytes=entry.file_bytes,
        load_ms=entry.fresh.load_ms,
        first_call_ms=entry.fresh.first_call_ms,
        peak_rss_bytes=entry.fresh.peak_rss_bytes,
        tight=distribution(entry.tight, entry.tight_ns),
        paced=distribution(entry.paced.call, entry.paced.call_ns),
        response=distribution(entry.paced.response, entry.paced.response_ns),
        paced_frames=entry.paced.frames,
        deadline_misses=entry.paced.deadline_misses,
        cpu_share=entry.paced.cpu_share,
        scores=scores,
    )


def distinct(models: Sequence[Model]) -> tuple[Model, ...]:
    """The models with names that tell them apart: those of folders with one name end in their hash."""
    names = Counter(model.name for model in models)
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
