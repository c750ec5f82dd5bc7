"""User-mode emulation: one program for ARM, started by this machine's kernel, on a processor that is always named.

QEMU 7.2's default processor computes int8 wrongly (its SVE), so there is no default here. Only what an ARM program has
to see is redirected: its libraries, and a /proc/cpuinfo of the processor, without which ONNX Runtime's detection
crashes; everything else is this machine's. Nothing is registered with the kernel: a program that starts itself again,
as Python does through ``sys.executable``, finds the same emulator under its own name.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REDIRECTED = ("bin", "etc", "lib", "usr")
_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
# By QEMU's name, the part number and what the kernel of such a board lists.
PROCESSORS = {
    "cortex-a53": ("0xd03", _V8),  # Raspberry Pi 3 and Zero 2 W
    "cortex-a72": ("0xd08", _V8),  # Raspberry Pi 4
    "cortex-a76": ("0xd0b", f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),  # Pi 5; as A78AE: dot products
    "cortex-a7": ("0xc07", "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"),
}
CORES = 4


@dataclass(frozen=True)
class Python:
    """An ARM Python on one processor: a command like any other."""

    command: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """``python ARGUMENTS``, whatever its exit code."""
        command = ["nice", "-n", "10", str(self.command), *map(str, arguments)]
        return subprocess.run(
            command, env=dict(self.environment), capture_output=True, text=True, check=False, timeout=timeout
        )

    def say(self, *arguments: str | Path) -> str:
        """The standard output of ``python ARGUMENTS``, which must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def emulated_python(rootfs: Path, processor: str, paths: Sequence[Path], scratch: Path, compiled: Path) -> Python:
    """The Python of ``rootfs`` on ``processor``, importing from ``paths``; ``scratch`` is empty, and its home.

    ``compiled`` is where modules are kept that one of its processes has compiled, which takes longer than importing.
    """
    (program,) = (rootfs / "usr/bin").glob("python3.??")
    narrow = processor == "cortex-a7"
    seen = scratch / "seen"
    (seen / "proc").mkdir(parents=True)
    (seen / "proc/cpuinfo").write_text(cpuinfo(processor))
    for name in REDIRECTED:
        (seen / name).symlink_to(rootfs / name)
    command = scratch / program.name
    emulator = ["qemu-arm" if narrow else "qemu-aarch64", "-cpu", processor, "-L", str(seen), "-0", str(command)]
    command.write_text(f'#!/bin/sh\nexec {shlex.join([*emulator, str(program)])} "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONPYCACHEPREFIX": str(compiled),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    if narrow:  # 32-bit Python asks for files by a call (statx) that QEMU 7.2 does not redirect
        environment["PYTHONHOME"] = str(rootfs / "usr")
    return Python(command, environment)


def cpuinfo(processor: str) -> str:
    """/proc/cpuinfo as an ARM kernel writes it for :data:`CORES` cores."""
    part, features = PROCESSORS[processor]
    told = {
        "BogoMIPS": "108.00",
        "Features": features,
        "CPU implementer": "0x41",
        "CPU architecture": "7" if processor == "cortex-a7" else "8",
        "CPU variant": "0x0",
        "CPU part": part,
        "CPU revision": "3",
    }
    lines = "".join(f"{name}\t: {value}\n" for name, value in told.items())
    return "".join(f"processor\t: {core}\n{lines}\n" for core in range(CORES))
