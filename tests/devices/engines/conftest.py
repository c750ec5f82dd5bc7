"""A cache of engines that is empty, and engines that die, are counted or are taken at their word."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseq.devices.engines import choice
from edgeseq.devices.engines.choice import Choice, memory_file
from edgeseq.devices.engines.prove import Proven
from edgeseq.folder import Folder, open_folder

Fakes = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the file in it that choices are kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return memory_file()


@pytest.fixture
def leaky(folders: dict[str, Path]) -> Folder:
    return open_folder(folders["leaky"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines are tried no more but taken at their word; the folders that were measured, so often."""
    measured: list[str] = []

    def fast(folder: Folder) -> Choice:
        measured.append(folder.path.name)
        return Choice("numpy", (Proven("numpy", True, p50_us=1.0, runtime="numpy 1"),), True)

    monkeypatch.setattr(choice, "measure", fast)
    return measured


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which engines were tried in a process of their own, each with its folder; all of them work."""
    done: list[str] = []

    def fast(folder: Folder, name: str, **_: object) -> Proven:
        done.append(f"{folder.path.name} {name}")
        return Proven(name, True, runtime=f"{name} 1")

    monkeypatch.setattr(choice, "prove", fast)
    return done


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    """``fakes(litert=source, onnxruntime=source)``: the environment of a process that loads these runtimes instead."""

    def write(litert: str = "", onnxruntime: str = "") -> dict[str, str]:
        packages = {"ai_edge_litert/__init__": "", "ai_edge_litert/interpreter": litert}
        packages |= {"onnxruntime/__init__": onnxruntime} if onnxruntime else {}
        for name, source in packages.items():
            file = tmp_path / "fake" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        return {**os.environ, "PYTHONPATH": str(tmp_path / "fake")}

    return write


def python(code: str, *arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)
