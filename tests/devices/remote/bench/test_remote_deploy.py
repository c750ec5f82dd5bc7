"""What a board gets: once, whole or not at all, and from wheels where it has no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseq.devices.remote import environment, probe
from edgeseq.devices.remote.deploy import clean, deploy
from edgeseq.devices.remote.ssh import connect
from edgeseq.devices.remote.staging import PREFIX, staging
from edgeseq.errors import DeviceUnreachable, InputError
from edgeseq.folder import open_folder

from ..conftest import is_running, wait_until
from .conftest import DATA, nothing_runs

pytestmark = pytest.mark.slow


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_board_gets_what_it_lacks_once(link, server, wheelhouse, model):
    steps: list[str] = []
    place = deploy(link, [model], sys.executable, wheelhouse, steps.append)
    assert [step.split()[0] for step in steps] == ["sending", "installing", "sending"]
    assert place.left_out == ("onnxruntime",)
    assert entries(server.home) == [".local"]
    assert not list((server.home / DATA / "envs").glob(f"{PREFIX}*"))
    found = place.run(link, [place.python, "-c", "import edgeseq, ai_edge_litert; print(edgeseq.__file__)"])
    assert found.stdout.startswith(f"{server.home}/.local/share/edgeseq/envs/"), found.stderr
    assert "typer" not in place.run(link, [place.python, "-m", "pip", "list"]).stdout

    def changed() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in server.home.rglob("*") if not path.is_symlink()}

    before = changed()
    again: list[str] = []
    repeated = deploy(link, [model], sys.executable, wheelhouse, again.append)
    assert (repeated.python, repeated.folders, repeated.left_out) == (place.python, place.folders, place.left_out)
    assert again == []
    assert changed() == before
    other = deploy(link, [open_folder("har_watch")], sys.executable, wheelhouse, again.append)
    assert again == ["sending har_watch"]
    assert other.python == place.python


def test_modules_of_the_boards_user_come_not_ahead_of_what_was_installed(furnished, link, wheelhouse, model):
    for name in ("edgeseq", "numpy", "json"):
        (furnished.home / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    place = deploy(link, [model], sys.executable, wheelhouse)
    done = place.run(link, [place.python, "-m", "edgeseq.devices", "facts", "--json"])
    assert done.code == 0, done.stderr


def test_a_complete_environment_needs_neither_room_nor_wheels(furnished, link, wheelhouse, model, monkeypatch):
    monkeypatch.setattr(probe, "NEEDED_BYTES", 10**18)
    assert deploy(link, [model], sys.executable, wheelhouse).left_out == ("onnxruntime",)
    shutil.rmtree(furnished.home / DATA)
    with pytest.raises(DeviceUnreachable, match="are needed: make room"):
        deploy(link, [model], sys.executable, wheelhouse)


def test_cleaning_leaves_nothing_of_ours_and_all_that_is_the_users(furnished, link):
    (furnished.home / DATA / "mine").write_text("x")
    (furnished.home / "notes").write_text("x")
    assert clean(link) == str(furnished.home / DATA)
    assert entries(furnished.home / DATA) == ["mine"]
    (furnished.home / DATA / "mine").unlink()
    clean(link)
    assert not (furnished.home / DATA).exists()
    clean(link)
    assert entries(furnished.home) == [".local", "notes"]


def test_a_wheelhouse_for_another_machine_is_told(link, server, tmp_path, wheelhouse, model):
    for wheel in wheelhouse.glob("*.whl"):
        machine = "_aarch64.whl" if os.uname().machine == "x86_64" else "_x86_64.whl"
        pure = wheel.stem.endswith("-any")
        shutil.copy(
            wheel, tmp_path / (wheel.name if pure else f"{wheel.stem.rpartition('-')[0]}-manylinux_2_28{machine}")
        )
    with pytest.raises(DeviceUnreachable) as refused:
        deploy(link, [model], sys.executable, tmp_path)
    assert f"the wheelhouse {tmp_path} holds no wheel of numpy" in str(refused.value)
    assert os.uname().machine in str(refused.value)
    assert "pip download" in str(refused.value)
    assert entries(server.home / DATA / "envs") == []


def test_a_wheelhouse_without_wheels_is_refused_before_anything_is_sent(link, server, tmp_path, model):
    with pytest.raises(InputError, match="holds no wheels; this fills it: pip download"):
        deploy(link, [model], sys.executable, tmp_path)
    assert entries(server.home) == []


@pytest.mark.parametrize("moment", ["wheels/*.whl", "env/lib/python3*/site-packages/numpy"])
def test_an_interrupted_installation_leaves_nothing(server, wheelhouse, model, moment):
    with connect(server.target, name="kitchen") as link:
        failed: list[BaseException] = []

        def work() -> None:
            try:
                deploy(link, [model], sys.executable, wheelhouse)
            except DeviceUnreachable as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert wait_until(lambda: any((server.home / DATA / "envs").glob(f"{PREFIX}*/{moment}")), 60)
        link.close()
        thread.join(30)
        assert not thread.is_alive()
    assert failed
    assert nothing_runs(server)
    with connect(server.target, name="kitchen") as link:
        deploy(link, [model], sys.executable, wheelhouse)
    assert len(entries(server.home / DATA / "envs")) == 1


def test_what_a_link_left_goes_when_it_has_ended(furnished, link, wheelhouse, model):
    places = [furnished.home / DATA / name for name in ("envs", "folders")]
    with connect(furnished.target, name="kitchen") as other:
        left = [Path(staging(str(place), other.owner)) for place in places]
        for each in left:
            (each / "item").mkdir(parents=True)
        deploy(link, [model], sys.executable, wheelhouse)
        assert all(each.exists() for each in left)
    assert wait_until(lambda: not is_running(int(other.owner.partition("_")[0])))
    deploy(link, [model], sys.executable, wheelhouse)
    assert not any(each.exists() for each in left)


def test_environments_that_nobody_uses_go_when_another_is_made(furnished, link, wheelhouse, model):
    envs = furnished.home / DATA / "envs"
    old, used = envs / "old", envs / "used"
    for each in (old, used):
        each.mkdir()
        (each / ".complete").touch()
    os.utime(old / ".complete", (0, 0))
    (own,) = set(entries(envs)) - {"old", "used"}
    (envs / own / ".complete").unlink()
    deploy(link, [model], sys.executable, wheelhouse)
    assert set(entries(envs)) == {own, "used"}


@pytest.fixture
def small_disk(server) -> Callable[[str], None]:
    """Make the home a file system of its own, with so much room."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    mounted = []

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "edgeseq-test", str(server.home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(server.home)

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", ["8m", "72m"], ids=["sending", "installing"])
def test_a_full_disk_is_told_and_left_as_it_was(server, small_disk, wheelhouse, model, monkeypatch, size):
    monkeypatch.setattr(probe, "NEEDED_BYTES", 0)
    small_disk(f"size={size}")
    with connect(server.target, name="kitchen") as link, pytest.raises(DeviceUnreachable) as refused:
        deploy(link, [model], sys.executable, wheelhouse)
    assert "kitchen" in str(refused.value)
    assert "make room" in str(refused.value)
    assert entries(server.home / DATA / "envs") == []


def test_a_home_that_cannot_be_written_is_told(server, small_disk, wheelhouse, model):
    small_disk("size=1m", "ro")
    with (
        connect(server.target, name="kitchen") as link,
        pytest.raises(DeviceUnreachable, match=r"nothing can be written to .*Read-only"),
    ):
        deploy(link, [model], sys.executable, wheelhouse)


def test_without_a_network_the_wheelhouse_is_named(server, link, model, tmp_path, monkeypatch):
    """The package index is one that nobody serves."""
    (server.home / ".config" / "pip").mkdir(parents=True)
    (server.home / ".config" / "pip" / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.setattr(environment, "INSTALL_SECONDS", 120.0)
    with pytest.raises(DeviceUnreachable) as refused:
        deploy(link, [model], sys.executable)
    assert "it reaches no package index" in str(refused.value)
    assert "--wheelhouse" in str(refused.value)
    assert entries(server.home / DATA / "envs") == []
