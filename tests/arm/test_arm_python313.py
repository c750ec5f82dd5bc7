"""Python 3.13 of Debian 13: the wheels install there, and the base package works."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from .conftest import ROOT
from .emulator import emulated_python
from .stand_in import pip, platform

pytestmark = pytest.mark.arm


@pytest.fixture(scope="module")
def installed(arm, tmp_path_factory):
    """edgeseq's own wheel with everything it asks for, from the wheels that a board without network would be given."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("edgeseq", "export", "quant", "devices"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = [*pip("wheel"), "--no-deps", "--no-build-isolation", "-w", folder, tree]
    subprocess.run([str(part) for part in build], check=True)
    (wheel,) = folder.glob("edgeseq-*.whl")
    own = ("--no-index", "--find-links", arm / "wheels-3.13", *platform("aarch64", "3.13"))
    # It would compare with the Python that pip itself runs on; the wheels were chosen for this one.
    own += ("--ignore-requires-python",)
    install = [*pip("install"), "--target", folder / "site", *own, f"{wheel}[onnx]"]
    subprocess.run([str(part) for part in install], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def python(arm, installed, compiled, tmp_path_factory):
    home = tmp_path_factory.mktemp("python313")
    return emulated_python(arm / "trixie/rootfs", "cortex-a76", [installed], home, compiled)


def test_it_is_that_python_on_arm(python):
    program = "import sys, platform; print(sys.version_info[:2], platform.machine(), 'torch' in sys.modules)"
    assert python.say("-c", program).strip() == "(3, 13) aarch64 False"


@pytest.mark.parametrize("name", ["har_watch", "har_watch_fp32"])
def test_the_shipped_models_check_themselves(python, name):
    said = json.loads(python.say("-m", "edgeseq.devices", "verify", name, "--frames", "40", "--json"))
    assert said["passed"]
    assert not said["unchecked"]
    assert {"litert", "onnxruntime"} <= {link["name"].split()[0] for link in said["links"]}


def test_the_command_line_answers(python):
    assert "har_watch" in python.say("-m", "edgeseq", "inspect", "har_watch")
    assert "of the labelled frames" in python.say("-m", "edgeseq", "stream", "har_watch", "--speed", "0")
