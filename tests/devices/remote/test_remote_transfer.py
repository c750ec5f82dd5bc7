"""Files to a board: whole or not at all, by rsync or tar, whatever they are called."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq.devices.remote import transfer
from edgeseq.devices.remote.ssh import connect
from edgeseq.devices.remote.staging import PREFIX
from edgeseq.errors import DeviceUnreachable, InputError

from .conftest import children, is_running, put_tool, socket_place, wait_until

NAMES = ("plain", "a b", "$(touch HIT)", "; touch HIT", "'\"", "-rf", "a\nb", "*", "host:path", "ü", ".hidden")


@pytest.fixture(params=["rsync", "tar"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to send; what the other one would do is an error."""
    if request.param == "rsync" and not shutil.which("rsync"):
        pytest.skip("there is no rsync here: make sshd")
    other = "_send_archive" if request.param == "rsync" else "_rsync"
    if request.param == "tar":
        monkeypatch.setattr(transfer.shutil, "which", lambda name: None)
    monkeypatch.setattr(transfer, other, lambda *_: pytest.fail(f"{other} was called"))
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a file for each awkward name, one below, an empty one, one to run, and a link."""
    place = tmp_path / "tree"
    (place / "below" / "deeper").mkdir(parents=True)
    (place / "empty").mkdir()
    for name in NAMES:
        (place / name).write_text(f"this is {name}")
    (place / "below" / "deeper" / "data").write_bytes(bytes(range(256)) * 500)
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("plain")
    return place


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(each.relative_to(place)): each.read_bytes() if each.is_file() else None for each in place.rglob("*")}


def staged(place: Path) -> list[Path]:
    # By os.walk, which takes it as it comes that the board is just removing them.
    return [Path(folder, name) for folder, names, _ in os.walk(place) for name in names if name.startswith(PREFIX)]


def test_a_folder_goes_there(link, server, tree, way):
    link.send(tree, str(server.home / "on" / "the" / "way"))
    assert contents(server.home / "on" / "the" / "way") == contents(tree)
    assert os.access(server.home / "on" / "the" / "way" / "run", os.X_OK)
    assert not staged(server.home)


@pytest.mark.parametrize("name", NAMES)
def test_names_mean_nothing_to_a_shell(link, server, way, tmp_path, name):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / name).write_text("content")
    link.send(tmp_path / "local" / name, f"{server.home}/{name}/{name}")
    assert (server.home / name / name).read_text() == "content"
    assert [entry.name for entry in server.home.iterdir()] == [name]
    assert not Path("HIT").exists()


def test_what_is_there_is_replaced_and_not_mixed(link, server, tree, way, tmp_path):
    target = server.home / "target"
    link.send(tree, str(target))
    (tree / "plain").write_text("another text with another length")
    (tree / "run").write_text("#!/bin/SH\n")  # as long as it was, and made in the same second
    (tree / "a b").unlink()
    link.send(tree, str(target))
    assert contents(target) == contents(tree)
    link.send(tree / "plain", str(target))
    assert target.read_text() == "another text with another length"
    link.send(tree, str(target))
    assert contents(target) == contents(tree)
    assert [entry.name for entry in server.home.iterdir()] == ["target"]


def test_without_rsync_on_the_board_tar_does_it(poor_server, tree, monkeypatch):
    monkeypatch.setattr(transfer, "_rsync", lambda *_: pytest.fail("rsync was called"))
    with connect(poor_server.target) as link:
        link.send(tree, str(poor_server.home / "target"))
    assert contents(poor_server.home / "target") == contents(tree)


@pytest.mark.skipif(not shutil.which("rsync"), reason="there is no rsync here: make sshd")
def test_where_a_shell_says_more_than_rsync_bears_tar_does_it(server, tree):
    (server.home / ".bashrc").write_text("echo welcome to this board\n")
    with connect(server.target) as link:
        link.send(tree, str(server.home / "target"))
    assert contents(server.home / "target") == contents(tree)
    assert not staged(server.home)


@pytest.mark.parametrize("remote", ["", "/", ".", "..", "a/..", "~/models", "a\0b"])
def test_what_is_no_place_for_a_copy_is_refused(link, tree, remote):
    with pytest.raises(InputError, match="no path to send to"):
        link.send(tree, remote)


def test_nothing_to_send_is_refused(link, server, tmp_path):
    with pytest.raises(InputError, match="is not there to be sent to kitchen"):
        link.send(tmp_path / "nothing", f"{server.home}/target")
    assert not list(server.home.iterdir())


def test_a_place_that_cannot_be_made_is_said(link, server, tree, way):
    (server.home / "file").write_text("in the way")
    with pytest.raises(DeviceUnreachable, match=r"kitchen: sending .* failed \(.*(Not a directory|File exists)"):
        link.send(tree, f"{server.home}/file/below")
    assert (server.home / "file").read_text() == "in the way"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_and_nothing_is_left(link, small_disk, tmp_path):
    (small_disk / "target").write_text("as it was")
    (tmp_path / "large").write_bytes(os.urandom(1_000_000))
    with pytest.raises(DeviceUnreachable, match=r"(No space left on device|Wrote only).*make room"):
        link.send(tmp_path / "large", str(small_disk / "target"))
    assert (small_disk / "target").read_text() == "as it was"
    assert [entry.name for entry in small_disk.iterdir()] == ["target"]


# Programs on the board that do their work, or begin it, say so, and go on: tar for minutes, rsync until its input ends.
SLOW = {"tar": ('{real} "$@"', "sleep 300"), "rsync": ("head -c 100", "cat >/dev/null")}


@pytest.mark.parametrize("program", SLOW)
def test_a_board_that_dies_during_a_transfer_leaves_what_was_there(poor_server, tree, tmp_path, program):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here: make sshd")
    mark, target = tmp_path / "mark", poor_server.home / "target"
    work, more = SLOW[program]
    work = work.format(real=shutil.which(program))
    put_tool(poor_server.tools, program, f"{work}; echo $$ >'{mark}.new'; mv '{mark}.new' '{mark}'; {more}")
    target.mkdir()
    (target / "file").write_text("as it was")
    killing = threading.Thread(target=lambda: wait_until(mark.exists) and poor_server.kill())
    killing.start()
    with (
        pytest.raises(DeviceUnreachable, match="kitchen: the link was lost during"),
        connect(poor_server.target, name="kitchen") as link,
    ):
        link.send(tree, str(target))
    killing.join()
    assert contents(target) == {"file": b"as it was"}
    if program == "tar":
        assert wait_until(lambda: not is_running(int(mark.read_text())))
        assert wait_until(lambda: not staged(poor_server.home))


SENDING = """
import sys
from pathlib import Path
from edgeseq.devices.remote.ssh import connect
from edgeseq.devices.remote.target import Ssh
with connect(Ssh("127.0.0.1", sys.argv[1], int(sys.argv[2]))) as link:
    link.send(Path(sys.argv[3]), sys.argv[4])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_transfer_leaves_nothing_on_either_side(poor_server, tree, tmp_path, number):
    mark, target = tmp_path / "mark", poor_server.home / "target"
    put_tool(poor_server.tools, "tar", f"{shutil.which('tar')} \"$@\"; echo >'{mark}'; sleep 300")
    user, port = poor_server.target.user, str(poor_server.port)
    command = [sys.executable, "-c", SENDING, user, port, str(tree), str(target)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        assert wait_until(mark.exists)
        here = children(process.pid)
        assert here
        places = [socket_place(pid) for pid in here]
        process.send_signal(number)
        process.wait()
    for place in filter(None, places):
        shutil.rmtree(place, ignore_errors=True)  # a process that is killed cannot
    assert wait_until(lambda: not any(is_running(pid) for pid in here))
    assert wait_until(lambda: not poor_server.sessions())
    assert not list(poor_server.home.iterdir())


def test_a_transfer_that_is_not_done_in_time_is_given_up(poor_server, tree):
    put_tool(poor_server.tools, "tar", "sleep 300")
    with connect(poor_server.target, name="kitchen") as link:
        with pytest.raises(DeviceUnreachable, match=r"kitchen: .* was not done after 1 s"):
            link.send(tree, f"{poor_server.home}/target", timeout=1)
        assert wait_until(lambda: not list(poor_server.home.iterdir()))
