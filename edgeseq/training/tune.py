"""What choosing a decision rule has in common, whatever the task: a trained model in, the same with another rule out.

Nothing is trained: a rule is chosen on the validation subjects and judged on the test subjects. The weights, and the
files of an exported model, stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.data.split import Split
from edgeseq.errors import InputError
from edgeseq.folder import Folder, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry, trained_on
from edgeseq.manifest import Decision
from edgeseq.models.contract import StreamingModel
from edgeseq.models.store import load_model
from edgeseq.training.checks import check_same_recordings
from edgeseq.training.stage import check_start, choose_split, kept_apart


@dataclass(frozen=True)
class Tunable:
    """The model of ``parent`` whose rule is to be chosen, and the data to do it on.

    ``data``: where they come from, ``fingerprint``: what they were before any resampling.
    """

    parent: Folder
    model: StreamingModel
    split: Split
    data: str | None
    fingerprint: str

    @classmethod
    def of(cls, parent: Folder, out: Path, *, data: str | None, overwrite: bool, trust: bool) -> Tunable:
        """The model of the folder ``parent``, with the data it was trained on, or ``data``, split as it was then.

        Raises:
            InputError: unusable data, data of another task or with other labels, other recordings than those of the
                training where nobody knows who was recorded, an existing target.
        """
        check_start(out, 0, [parent.path], overwrite=overwrite)
        manifest = parent.manifest
        model = load_model(parent, trust=trust)
        test, validation = kept_apart(parent)
        dataset, original = trained_on(parent, data), manifest.data_stage
        if dataset.task != manifest.task or dataset.labels != manifest.labels:
            raise InputError(
                f"{dataset.name} has {dataset.task}s of {', '.join(dataset.labels)} to answer, and {parent.path} "
                f"answers {manifest.task}s of {', '.join(manifest.labels)}"
            )
        check_same_recordings(parent, f"the model of {parent.path}", dataset)
        split = choose_split(dataset, test=test, validation=validation)
        named = data or (original.data if original else None)
        return cls(parent, model, split, named, dataset.origin_fingerprint)

    def write(
        self,
        out: Path,
        decision: Decision,
        metrics: Mapping[str, float],
        arguments: Mapping[str, Any],
        *,
        overwrite: bool,
    ) -> Folder:
        """Write the model with the rule ``decision`` and the ``metrics`` of it; ``arguments`` are for the lineage."""
        manifest = self.parent.manifest
        original = manifest.data_stage
        entry = stage_entry(
            "tune",
            {**arguments, "mapping": original.arguments.get("mapping") if original else None},
            data=self.data,
            data_fingerprint=self.fingerprint,
            parent=self.parent.hash,
        )
        tuned = msgspec.structs.replace(
            manifest, name=out.name, decision=decision, metrics=dict(metrics), lineage=(*manifest.lineage, entry)
        )
        with new_folder(out, overwrite=overwrite) as staging:
            for name in manifest.files:
                shutil.copyfile(self.parent.file(name), staging / name)
            seal(staging, tuned)
        return open_folder(out)
