"""What the tests of data sets share: small files of their formats, and where the real ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeseq.data import registered

HERE = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """The environment does not say where data sets are."""
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)


@pytest.fixture(scope="session")
def real():
    """``real(name)``: the file of a data set that is not shipped; skipped where it is not beside the repository."""

    def find(name):
        found = registered(name).find(HERE)
        return found or pytest.skip(f"{name} is not here")

    return find


@pytest.fixture(scope="session")
def save_npz():
    """``save_npz(path, arrays, **changes)``: the file of these arrays; a change to None removes one."""

    def save(path, arrays, **changes):
        np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
        return path

    return save
