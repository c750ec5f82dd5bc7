"""The stage behind ``edgeseq retime``: a model folder for one sample rate in, the same model for another out.

Nothing is learned. A model whose equations have a step size (S4D's Δt, the LMU's θ in steps) is discretized anew; how
much that costs in accuracy is measured on the recordings, resampled.
"""

from __future__ import annotations

import math
from pathlib import Path

from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import has_few_bits, stage_entry, trained_on
from edgeseq.models.store import load_model
from edgeseq.training.checks import check_same_recordings
from edgeseq.training.settings import Settings
from edgeseq.training.stage import Trainee, check_start, choose_split, kept_apart, write_scored


def retime(
    source: str | Path,
    out: str | Path,
    *,
    rate: float,
    data: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> Folder:
    """Write the model of ``source`` for frames at ``rate`` Hz to the folder ``out``, scored at that rate.

    Raises:
        InputError: a rate that is none or 16 times off, unusable data, an existing target.
        Unsupported: the family has no step size, or the model is quantized: its ranges and levels are those of a rate.
    """
    out, parent = Path(out), open_folder(source)
    check_start(out, 0, [parent.path], overwrite=overwrite)
    manifest = parent.manifest
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"rate {rate:g} Hz: more than 0 is needed")
    if rate == manifest.input.rate:
        raise InputError(f"{parent.path} runs at {rate:g} Hz already")
    if has_few_bits(parent):
        raise Unsupported(f"{parent.path} is quantized for {manifest.input.rate:g} Hz: retime first, then quantize")
    model = load_model(parent, trust=trust)
    arguments = {**manifest.arguments, **model.retime(manifest.input.rate / rate)}
    test, validation = kept_apart(parent)
    dataset, original = trained_on(parent, data, rate=rate), manifest.data_stage
    check_same_recordings(parent, str(parent.path), dataset)
    split = choose_split(dataset, test=test, validation=validation)
    entry = stage_entry(
        "retime",
        {"rate": rate, "from": manifest.input.rate, "mapping": original.arguments.get("mapping") if original else None},
        data=data or (original.data if original else None),
        data_fingerprint=dataset.origin_fingerprint,
        parent=parent.hash,
    )
    trainee = Trainee(model, manifest.family, arguments, Settings(), parent, pruned=manifest.pruned)
    return write_scored(out, trainee, split, entry, overwrite=overwrite)
