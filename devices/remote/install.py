"""What the board's own Python runs to make an environment there: the standard library alone, and no module of edgeseq.

The environment is made under another name and takes its own when it is complete. What goes wrong leaves nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MARKER = ".complete"
UNUSED_DAYS = 30
_TIMES = ("--retries", "2", "--timeout", "30")
# --no-compile: most modules are never imported, and a slow board compiles them all for minutes.
_PIP = (
    "install",
    "--no-compile",
    "--no-input",
    "--disable-pip-version-check",
    "--no-cache-dir",
    "--only-binary=:all:",
    *_TIMES,
)
_ABSENT = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")


class Failed(Exception):
    """A program ended with an error; its text is what it said."""


def main(arguments: str) -> int:
    """Make the environment that ``arguments`` (JSON) describes, and print a JSON object: what was left out, or why not.

    They are ``staging`` (a folder with the wheels in ``wheels``), ``target`` (the environment), ``wheel`` (edgeseq's,
    by name), ``needed`` and ``optional`` (requirements), and ``offline``: whether wheels are only looked for there.
    """
    wanted = json.loads(arguments)
    staging, target = Path(wanted["staging"]), Path(wanted["target"])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        left_out = _install(staging, wanted)
        _place(staging / "env", target, left_out)
    except (Failed, OSError) as error:
        print(json.dumps({"failed": str(error)}))
        return 1
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _prune(target)
    print(json.dumps({"left_out": left_out}))
    return 0


def _ended(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _install(staging: Path, wanted: dict[str, Any]) -> list[str]:
    """Make ``staging/env``; returns the optional packages that there is nothing of for this machine."""
    temporary = staging / "tmp"  # /tmp is memory on many boards, and too small
    temporary.mkdir()
    own = {"LC_ALL": "C", "TMPDIR": str(temporary), "PIP_NO_COLOR": "1", "PIP_USER": "0"}
    environment = {**os.environ, **own}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    python = str(staging / "env" / "bin" / "python")
    _run([sys.executable, "-m", "venv", "--without-pip", str(staging / "env")], environment)
    _run([python, "-m", "ensurepip"], environment)  # venv itself would not say why it failed
    sources = ["--no-index", "--find-links", str(staging / "wheels")] if wanted["offline"] else []
    command = [python, "-m", "pip", *_PIP, *sources]
    command += [str(staging / "wheels" / wanted["wheel"]), *wanted["needed"]]
    optional: list[str] = list(wanted["optional"])
    left_out: list[str] = []
    while True:
        try:
            _run([*command, *optional], environment)
            return left_out
        except Failed as error:
            absent = [each for each in optional if _name(each) in map(_name, _ABSENT.findall(str(error)))]
            if not absent or _no_network(str(error)):
                raise
            optional = [each for each in optional if each not in absent]
            left_out += [_name(each) for each in absent]


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Run a program, which finds no modules in the folder it runs in."""
    pipe, void = subprocess.PIPE, subprocess.DEVNULL
    folder = environment["TMPDIR"]
    done = subprocess.run(
        command, stdin=void, stdout=pipe, stderr=subprocess.STDOUT, env=environment, cwd=folder, check=False
    )
    if done.returncode:
        raise Failed(done.stdout.decode(errors="replace").strip() or f"{command[0]} ended with {done.returncode}")


def _name(requirement: str) -> str:
    """The package of a requirement, as pip compares names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0] if found else requirement).lower()


def _no_network(said: str) -> bool:
    """Whether pip got no answer, in which case it says too that there is no such package."""
    return "WARNING: Retrying" in said or "Could not fetch URL" in said


def _place(made: Path, target: Path, left_out: list[str]) -> None:
    subprocess.run(["sync"], check=False)  # the marker must not be on the disk before what it speaks of
    (made / MARKER).write_text(" ".join(left_out))
    if not (target / MARKER).exists():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)


def _prune(target: Path) -> None:
    """Remove environments that nobody has used for long: each edgeseq has its own.

    One with a run of hours in it stays: what that has is nowhere else.
    """
    oldest = time.time() - UNUSED_DAYS * 86400
    for marker in target.parent.glob(f"*/{MARKER}"):
        runs = any((marker.parent / "runs").glob("*"))
        if marker.parent != target and not runs and marker.stat().st_mtime < oldest:
            shutil.rmtree(marker.parent, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
