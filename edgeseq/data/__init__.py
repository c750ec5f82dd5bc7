"""Data: recordings with labels and subjects, from a name or a path, checked before they are trained on.

Imports only the standard library, numpy and msgspec (pyarrow when a Parquet file is read).
"""

from edgeseq.data.dataset import IGNORED, Dataset, Recording, check
from edgeseq.data.facts import Facts
from edgeseq.data.mapping import Mapping
from edgeseq.data.npz import read_npz, write_npz
from edgeseq.data.registry import datasets, load, locate, located, named, registered
from edgeseq.data.split import Split, deal, default_split, split_by_subject, subject_folds
from edgeseq.data.tables import read_tables

__all__ = [
    "IGNORED",
    "Dataset",
    "Facts",
    "Mapping",
    "Recording",
    "Split",
    "check",
    "datasets",
    "deal",
    "default_split",
    "load",
    "locate",
    "located",
    "named",
    "read_npz",
    "read_tables",
    "registered",
    "split_by_subject",
    "subject_folds",
    "write_npz",
]
