"""edgeseq's own wheel for boards: the same bytes each time, and all that the device's verbs import, and no more."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeseq.devices.remote.wheel import BASE, RUNTIMES, build_wheel, runtimes
from edgeseq.folder import MODEL_FILES, pretrained

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "edgeseq" / "pretrained" / "har_watch_fp32"
NEVER_ON_A_BOARD = {"edgeseq.models.store"}  # imported by edgeseq.save_model alone, which needs torch


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build_wheel(folder)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_the_same_package_gives_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_the_record_has_every_file_with_its_hash_and_size(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
        (record,) = [name for name in names if name.endswith("/RECORD")]
        rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
        assert [name for name, _, _ in rows] == names
        for name, digest, size in rows[:-1]:
            content = wheel.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={found}", str(len(content)))
        assert rows[-1] == [record, "", ""]


def test_nothing_is_in_it_that_only_a_host_needs(unpacked):
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*.py")}
    assert "edgeseq/devices/__main__.py" in held
    rooms = {"/".join(name.split("/")[:3]) for name in held}
    assert not {"edgeseq/devices/remote", "edgeseq/devices/report"} & rooms
    assert {name.split("/")[1] for name in held if name.count("/") > 1} == {"devices", "program"}


def test_every_module_that_it_imports_is_in_it(unpacked):
    """Also those that are imported inside functions, which no run of a verb is sure to reach."""
    missing = {
        (file.relative_to(unpacked).as_posix(), name)
        for file in unpacked.rglob("*.py")
        for name in imported(file, unpacked)
        if name not in NEVER_ON_A_BOARD
    }
    assert not missing


def imported(file: Path, root: Path) -> set[str]:
    """The modules of edgeseq that a file imports and that are not there."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            place = root / name.replace(".", "/")
            if name.split(".")[0] == "edgeseq" and not (place.with_suffix(".py").exists() or place.is_dir()):
                found.add(name)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", MODEL, "--engine", "numpy", "--frames", "20", "--json"),
        ("bench", MODEL, "--engine", "numpy", "--seconds", "0.02", "--paced-seconds", "0.05", "--json"),
        ("bench", MODEL, "--engine", "numpy", "--seconds", "0.02", "--duration", "60ms", "--out", "OUT", "--json"),
        ("stream", MODEL, "--engine", "numpy", "--speed", "0", "--json"),
        ("facts", MODEL, "--json"),
    ],
    ids=["verify", "bench", "bench-long", "stream", "facts"],
)
def test_the_verbs_work_from_it_alone(unpacked, tmp_path, arguments):
    program = (
        "import sys, runpy, edgeseq\n"
        f"assert edgeseq.__file__.startswith({str(unpacked)!r}), edgeseq.__file__\n"
        "for name in ('torch', 'onnx', 'rich', 'typer', 'sklearn', 'matplotlib', 'jinja2'): sys.modules[name] = None\n"
        "runpy.run_module('edgeseq.devices', run_name='__main__')\n"
    )
    given = [str(tmp_path / "out.json") if each == "OUT" else str(each) for each in arguments]
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_it_asks_for_what_the_project_does():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in (*BASE, *RUNTIMES.values()):
        assert f'"{requirement}' in text
    assert RUNTIMES.keys() == MODEL_FILES.keys()
    assert runtimes(["onnx"]) == (RUNTIMES["onnx"],)
    assert runtimes([]) == ()


def test_no_pretrained_model_is_in_it(unpacked):
    assert pretrained()
    assert not list(unpacked.rglob("*.onnx"))
