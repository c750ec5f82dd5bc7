"""What is half made on a board: it goes when the link has ended that made it, in every shell that a board may have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeseq.devices.remote.ssh import connect
from edgeseq.devices.remote.staging import OWNER, SWEEP, staging

from .conftest import is_running, wait_until

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    return SHELLS[request.param]


def owner_of(shell: list[str], process: str = "$$") -> str:
    """What a process that these shells run would say it is."""
    text = f"printf %s {OWNER.replace('$$', process)}"
    return subprocess.run([*shell, "-c", text], capture_output=True, text=True, check=True).stdout


def left(place: Path, owner: str) -> Path:
    made = Path(staging(str(place), owner))
    (made / "wheels").mkdir(parents=True)
    return made


def test_what_a_process_makes_that_runs_stays_and_all_else_goes(shell, tmp_path):
    place = tmp_path / "a place"
    running, over = owner_of(shell, str(os.getpid())), owner_of(shell)
    assert running.startswith(f"{os.getpid()}_")
    kept = left(place, running)
    node = running.rpartition("_")[2]
    left(place, over)
    left(place, f"{os.getpid()}_00000000-0000-0000-0000-000000000000_{node}")  # before the board lost its power
    (place / "mine").touch()
    done = subprocess.run(
        [*shell, "-c", f'{SWEEP} sweep "$1"', "sh", place], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(place.iterdir()) == sorted([kept, place / "mine"])


def test_what_another_board_makes_in_a_home_that_both_have_goes_when_it_is_a_day_old(shell, tmp_path):
    owners = (f"{os.getpid()}_00000000-0000-0000-0000-000000000000_kitchen.another", "", "1_of-an-earlier-edgeseq")
    kept = [left(tmp_path, owner) for owner in owners]
    for owner in owners:
        made = left(tmp_path, owner)
        day = made.stat().st_mtime - 25 * 3600
        os.utime(made, (day, day))
    done = subprocess.run([*shell, "-c", f'{SWEEP} sweep "$1"', "sh", tmp_path], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_folder_that_is_not_there_is_nothing_to_sweep(shell, tmp_path):
    done = subprocess.run([*shell, "-c", f"{SWEEP} sweep nothing"], cwd=tmp_path, capture_output=True, check=True)
    assert (done.stderr, list(tmp_path.iterdir())) == (b"", [])


def test_the_owner_is_a_process_that_lasts_as_long_as_the_link(server):
    with connect(server.target) as link:
        process = int(link.owner.partition("_")[0])
        assert is_running(process)
        assert process in server.sessions()
    assert wait_until(lambda: not is_running(process))
