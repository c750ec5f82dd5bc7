"""Environments that nobody has used for long go, but for those that hold what is nowhere else."""

from __future__ import annotations

import os

from edgeseq.devices.remote import install


def test_an_unused_environment_goes_and_one_with_a_long_run_stays(tmp_path):
    names = ("own", "unused", "empty", "running", "recent")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / install.MARKER).touch()
        if name != "recent":
            os.utime(tmp_path / name / install.MARKER, (0, 0))
    (tmp_path / "empty" / "runs").mkdir()
    (tmp_path / "running" / "runs" / "0123").mkdir(parents=True)
    install._prune(tmp_path / "own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "recent", "running"]
