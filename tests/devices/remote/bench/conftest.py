"""Boards that are furnished: an environment is installed once, from wheels that are fetched once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeseq.devices.remote.deploy import deploy
from edgeseq.devices.remote.ssh import CONFIG_VARIABLE, connect
from edgeseq.devices.remote.wheel import BASE, RUNTIMES
from edgeseq.folder import Folder, open_folder

from ..conftest import Server, _start, wait_until

DATA = Path(".local/share/edgeseq")
MODEL = "har_watch_fp32"


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels for this machine: LiteRT, and no ONNX Runtime."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*command, *BASE, RUNTIMES["tflite"]], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no wheels can be fetched here: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="session")
def model() -> Folder:
    return open_folder(MODEL)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path, model: Folder) -> Iterator[Path]:
    """A home with everything in it that a board gets."""
    server = _start(tmp_path_factory.mktemp("installed"))
    before = os.environ.get(CONFIG_VARIABLE)
    os.environ[CONFIG_VARIABLE] = str(server.config)
    try:
        with connect(server.target) as link:
            deploy(link, [model], sys.executable, wheelhouse, lambda step: None)
        yield server.home
    finally:
        os.environ.pop(CONFIG_VARIABLE) if before is None else os.environ.update({CONFIG_VARIABLE: before})
        server.stop()


@pytest.fixture
def furnish(installed: Path) -> Callable[[Server], Server]:
    """Give a server's home what a board has after its first bench."""

    def give(server: Server) -> Server:
        shutil.copytree(installed, server.home, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
        shutil.rmtree(server.home / DATA / "folders")  # tests damage them, and the environments' files are shared
        return server

    return give


@pytest.fixture
def furnished(server: Server, furnish: Callable[[Server], Server]) -> Server:
    return furnish(server)


def nothing_runs(server: Server) -> bool:
    """Whether all that was started over ssh has ended."""
    return wait_until(lambda: not [pid for pid in server.commands() if pid != os.getpid()])
