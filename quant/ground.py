"""What every stage of this room stands on: the data of a folder, split as it was, and its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseq.data import Dataset, Split
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import stage_entry, trained_on
from edgeseq.manifest import Stage
from edgeseq.models.contract import StreamingModel
from edgeseq.models.store import load_model
from edgeseq.quant.distill import Distillation, distilling
from edgeseq.training.checks import check_apart, check_fits
from edgeseq.training.loop import Objective
from edgeseq.training.settings import Settings
from edgeseq.training.stage import choose_split, kept_apart


@dataclass(frozen=True)
class Ground:
    """Of ``origin`` the data, or what is read the same way from ``data``, the split, and the folders of ``teachers``
    with their models."""

    origin: Folder
    data: str | None
    dataset: Dataset
    split: Split
    teachers: tuple[Folder, ...]
    models: tuple[StreamingModel, ...]

    @classmethod
    def of(
        cls, origin: Folder, teachers: Sequence[str | Path | Folder] = (), data: str | None = None, *, trust: bool
    ) -> Ground:
        """Read it all.

        Raises:
            InputError: unusable data, a split that is not said; a teacher reads or answers something else, or has seen
                people of the split's other parts.
        """
        test, validation = kept_apart(origin)
        dataset = trained_on(origin, data)
        split = choose_split(dataset, test=test, validation=validation)
        folders = tuple(each if isinstance(each, Folder) else open_folder(each) for each in teachers)
        for folder in folders:
            check_fits(folder, f"the teacher {folder.path}", dataset)
            check_apart(folder, f"the teacher {folder.path}", split, "Distill from teachers that were split alike")
        models = tuple(load_model(folder, trust=trust) for folder in folders)
        return cls(origin, data, dataset, split, folders, models)

    def objective(
        self, student: StreamingModel, settings: Settings, how: Distillation
    ) -> AbstractContextManager[Objective | None]:
        """What ``student`` learns inside the block: the answers of the teachers, or without any the labels alone."""
        if not self.models:
            return nullcontext()
        return distilling(student, self.models, self.split.train, settings, how)

    def entry(self, verb: str, arguments: dict[str, Any], seed: int, parent: Folder | None) -> Stage:
        """The lineage entry of a stage that starts from ``parent``; data that is not named is that of ``origin``."""
        said = self.origin.manifest.data_stage
        teachers = [{"name": folder.manifest.name, "hash": folder.hash} for folder in self.teachers]
        return stage_entry(
            verb,
            {**arguments, "mapping": said.arguments.get("mapping") if said else None, "teachers": teachers},
            seed=seed,
            data=self.data or (said.data if said else None),
            data_fingerprint=self.dataset.origin_fingerprint,
            parent=parent.hash if parent else None,
        )
