"""What ``edgeseq compress`` refuses ahead of its first chain, before anything is written.

What is wrong with all chains is said at once; what is found out later is then a verdict on a chain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeseq.errors import InputError, unknown
from edgeseq.folder import MANIFEST_NAME, Folder
from edgeseq.lineage import has_few_bits
from edgeseq.quant.gates import SCORE
from edgeseq.quant.study import JOURNAL

PRESET = "gru"  # whose settings a model is trained with that was made from no preset


def check_request(source: Folder, out: Path, *, trials: int, storage: str | None = None) -> None:
    """Refuse a model that is not to be compressed, and a folder that is not to be filled. Needs no torch.

    Raises:
        InputError: ``source`` is quantized or has no score, ``trials`` is below 1, or ``out`` is a file, a model
            folder, not to be written, or holds something and no study (unless that is in a ``storage``).
    """
    if trials < 1:
        raise InputError(f"trials {trials}: at least 1 chain is to be tried")
    if has_few_bits(source):
        raise InputError(f"{source.path} is quantized already: compress the float model that it came from")
    if SCORE not in source.manifest.metrics:
        raise InputError(f"{source.path} has no {SCORE} to compare with: start from a folder that edgeseq trained")
    if (out / MANIFEST_NAME).exists():
        raise InputError(f"{out} is a model folder: name another folder with --out, for the study and its models")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder with --out")
    if storage is None and out.is_dir() and any(out.iterdir()) and not (out / JOURNAL).is_file():
        raise InputError(f"{out} is not empty and holds no study ({JOURNAL}): name another folder with --out")
    there = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{out} cannot be written: {there} is {'read-only' if there.is_dir() else 'a file'}")


def check_stages(
    source: Folder,
    students: Sequence[str] = (),
    *,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    data: str | None = None,
    trust: bool = False,
) -> str:
    """Prepare every training that chains begin with, and run none; returns the fingerprint of the data.

    Raises:
        InputError: an unknown preset or setting, data that cannot be used or has too few frames for the proof.
        Unsupported: a student does not answer what the data asks.
    """
    from edgeseq.devices.check import MIN_FRAMES
    from edgeseq.lineage import trained_on
    from edgeseq.models.registry import presets
    from edgeseq.quant.distill import distillation, split_changes
    from edgeseq.training.stage import choose_split, kept_apart, prepare

    known = presets()
    for student in students:
        if student not in known:
            raise unknown("preset", student, known)
    if seed < 0:
        raise InputError(f"seed {seed}: 0 or more is needed")
    loss, others = split_changes(changes or {})
    distillation(loss)
    test, validation = kept_apart(source)
    dataset = trained_on(source, data)
    split = choose_split(dataset, test=test, validation=validation)
    prepare(source, PRESET, dataset, split, others, seed, trust=trust)
    for student in students:
        prepare(None, student, dataset, split, others, seed, trust=trust)
    frames = sum(len(recording.x) for recording in dataset.recordings)
    if frames < MIN_FRAMES:
        raise InputError(
            f"{dataset.name} has {frames} frames, the proof of every model needs {MIN_FRAMES}: pass --data"
        )
    return dataset.origin_fingerprint
