"""``edgeseq compress`` on a real, small model: a search, its budget, and two processes that share a study."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psycopg
import pytest

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices.session import Session
from edgeseq.quant.study import JOURNAL
from edgeseq.training.stage import train

pytestmark = pytest.mark.slow
RATE = 25.0
SHORT = {"rounds": 2, "steps": 4, "batch": 4, "crop": 1.0, "settle": 0.1}
SETTINGS = [f"--set={name}={value}" for name, value in SHORT.items()]


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A GRU of 12 units that tells slow waves from fast ones."""
    t, recordings = np.arange(int(20 * RATE)) / RATE, []
    for subject in "12345":
        rng = np.random.default_rng(int(subject))
        for label in range(2):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2)) + rng.normal(0, 0.1)
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    root = tmp_path_factory.mktemp("searched")
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, ("slow", "fast")), root / "waves.npz")
    changes = {**SHORT, "rounds": 8, "steps": 20, "model.hidden": 12}
    return train(
        str(root / "waves.npz"), root / "gru", preset="gru", changes=changes, test=["3"], validation=["5"]
    ).path


def compress(*arguments):
    command = [sys.executable, "-m", "edgeseq", "compress", *map(str, arguments), *SETTINGS, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return json.loads(out)


def test_the_models_of_the_front_run_and_cost_what_the_table_says(source, tmp_path):
    said = ended(compress(source, "--out", tmp_path, "--budget", "drop=100", "--trials", 4))
    assert len(said["tried"]) + len(said["not_possible"]) == 4
    assert said["front"]
    names = {each.name for each in (tmp_path / "pareto").iterdir()}
    assert len(names) == len(said["front"])
    for name in names:
        session = Session(tmp_path / "pareto" / name)
        assert session.step(np.zeros(2, np.float32)).shape == (2,)
    assert (tmp_path / JOURNAL).is_file()
    assert min(row["bytes"] for row in said["front"]) == min(row["bytes"] for row in said["tried"])


def test_a_budget_that_nothing_meets_says_what_came_nearest(source, tmp_path):
    process = compress(source, "--out", tmp_path, "--budget", "bytes=1", "--trials", 1)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 7
    assert "the one chain that was run is not within the budget; the nearest is int8-ptq: bytes " in err
    assert json.loads(out)["error"]["exit_code"] == 7


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server on loopback with a database ``studies``; its URL."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "/none").parent]
    if not (homes[-1] / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # Not among pytest's folders: another run of it closes those to the server's user.
    root = Path(tempfile.mkdtemp(prefix="edgeseq-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # which the server refuses
        shutil.chown(root, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(program, *arguments):
        subprocess.run([*as_user, homes[-1] / program, *map(str, arguments)], check=True, capture_output=True, cwd=root)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call("initdb", "-D", root / "data", "-A", "trust", "-U", "edgeseq")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    # Its output to a file: a pipe would stay open as long as the server runs.
    call("pg_ctl", "-D", root / "data", "-o", options, "-l", root / "log", "-w", "start")
    try:
        with psycopg.connect(f"host=127.0.0.1 port={port} user=edgeseq dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE studies")
        yield f"postgresql+psycopg://edgeseq@127.0.0.1:{port}/studies"
    finally:
        call("pg_ctl", "-D", root / "data", "-m", "fast", "-w", "stop")
        shutil.rmtree(root)


def test_two_processes_work_on_one_study_in_postgresql(source, tmp_path, postgres):
    """Each has its own folder, as two machines have; what one has tried the other does not try again."""
    common = [source, "--budget", "drop=100", "--trials", 6, "--storage", postgres]
    common += ["--form", "int8-ptq", "--form", "qd4"]
    workers = [compress(*common, "--out", tmp_path / name) for name in "ab"]
    found = [ended(worker) for worker in workers]
    made = [{each.name for each in (tmp_path / name / "chains").glob("*-export")} for name in "ab"]
    assert all(made)
    assert {row["chain"]["form"] for row in found[0]["tried"]} <= {"int8-ptq", "qd4"}
    for document, name in zip(found, "ab", strict=True):
        front = {each.name for each in (tmp_path / name / "pareto").iterdir()}
        assert len(front) == len(document["front"]) > 0  # made here too where the other had found them
    again = ended(compress(*common, "--out", tmp_path / "a"))
    assert len(again["tried"]) + len(again["not_possible"]) in (6, 7)  # 7: both began their last one at a time
