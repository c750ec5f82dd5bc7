"""A whole ARM machine in QEMU, reached over SSH on 127.0.0.1 like a board on the desk.

Its disk is written to a scratch copy that is gone when it stops. Nothing but the forwarded port leads in or out.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 300.0  # seconds until it must have let us in: a Raspberry Pi 3 takes 20 where nothing else runs
LINK = "wire"
_PR_SET_PDEATHSIG = 1
_VIRT = (
    "-M virt -cpu {processor} -smp 2 -m 1G -device virtio-blk-pci,drive=disk -device virtio-net-pci,romfile=,id={link}"
)
KINDS = {
    # The name of the machine, its options, how its console is called, and how the disk is attached.
    "virt": (f"{_VIRT},netdev=net", "ttyAMA0", "none,id=disk", ()),
    "raspi3b": ("-M raspi3b -device usb-net,id={link},netdev=net", "ttyS1,115200", "sd", ("-serial", "null")),
}


class Machine:
    """A machine that runs. ``config`` is an OpenSSH configuration in which it is the host ``board``."""

    def __init__(self, process: subprocess.Popen[bytes], scratch: Path) -> None:
        self.process, self.config = process, scratch / "ssh_config"
        self._monitor, self._console = scratch / "monitor", scratch / "console.log"

    @property
    def console(self) -> str:
        """What it wrote on its serial console."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def run(self, command: str, *, input: bytes = b"", timeout: float = 300) -> subprocess.CompletedProcess[bytes]:
        """``ssh board COMMAND``, a command line for its shell, whatever its exit code."""
        ssh = ["ssh", "-F", str(self.config), "board", command]
        return subprocess.run(ssh, input=input, capture_output=True, check=False, timeout=timeout)

    def say(self, command: str, *, input: bytes = b"") -> str:
        """The standard output of a command, which must succeed."""
        done = self.run(command, input=input)
        assert done.returncode == 0, f"{command}\n{done.stdout!r}\n{done.stderr!r}\n{self.console[-2000:]}"
        return done.stdout.decode()

    def wait(self) -> None:
        """Until a command runs there. The first connections are taken by QEMU and reset: its server is not up yet."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"QEMU ended with {self.process.returncode}\n{self.console}"
            try:
                if self.run("true", timeout=30).returncode == 0:
                    return
            except subprocess.TimeoutExpired:
                continue
            time.sleep(0.3)
        raise AssertionError(f"no login within {PATIENCE:.0f} s\n{self.console}")

    def until(self, condition: str, seconds: float = 120) -> None:
        """Wait there until a command of the shell succeeds."""
        asked = f"for i in $(seq {round(2 * seconds)}); do {condition} && exit 0; sleep 0.5; done; exit 1"
        done = self.run(f"({asked}) >/dev/null", timeout=2 * seconds + 60)
        assert done.returncode == 0, f"never: {condition}\n{done.stderr!r}\n{self.console[-2000:]}"

    def boot_id(self) -> str:
        """What the kernel calls this start of the machine."""
        return self.say("cat /proc/sys/kernel/random/boot_id").strip()

    def cut_power(self) -> None:
        """Start it anew without a word to its system: its disk has what was written through to it, and nothing more."""
        self.order("system_reset")

    @contextmanager
    def cut(self) -> Iterator[None]:
        """The network cable out; in again afterwards."""
        self.order(f"set_link {LINK} off")
        try:
            yield
        finally:
            self.order(f"set_link {LINK} on")

    def order(self, command: str) -> None:
        """A command for QEMU's own monitor."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._monitor))
            _until_prompt(monitor)
            monitor.sendall(f"{command}\n".encode())
            _until_prompt(monitor)


def _until_prompt(monitor: socket.socket) -> None:
    said = b""
    while not said.endswith(b"(qemu) "):
        got = monitor.recv(4096)
        assert got, f"the monitor closed after {said!r}"
        said += got


@contextmanager
def boot(
    board: Path, kind: str, scratch: Path, *, processor: str = "cortex-a72", options: Sequence[str] = ()
) -> Iterator[Machine]:
    """A machine of ``kind`` from the stand-in's folder ``board``, up and reachable; its process ends with the block."""
    port = _free_port()
    _write_config(board, scratch, port)
    arguments, console, drive, serial = KINDS[kind]
    command = [
        "qemu-system-aarch64",
        *arguments.format(processor=processor, link=LINK).split(),
        *("-kernel", str(board / "kernel/vmlinuz"), "-initrd", str(board / "kernel/initrd.gz")),
        *("-append", f"console={console} quiet panic=-1"),
        *("-drive", f"file={board / 'root.img'},format=raw,if={drive}", "-snapshot"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-display", "none", "-monitor", f"unix:{scratch / 'monitor'},server=on,wait=off"),
        *(*serial, "-serial", f"file:{scratch / 'console.log'}"),
        *options,
    ]
    if kind == "raspi3b":
        command += ["-dtb", str(board / "kernel/bcm2837-rpi-3-b.dtb")]
    with (scratch / "qemu.log").open("wb") as log:
        process = subprocess.Popen(["nice", "-n", "10", *command], stderr=log, preexec_fn=_end_with_parent)
        machine = Machine(process, scratch)
        try:
            machine.wait()
            yield machine
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_with_parent() -> None:
    """No machine outlives the tests, however they end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _write_config(board: Path, scratch: Path, port: int) -> None:
    key = (board / "host_key.pub").read_text()
    (scratch / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    said = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": "root",
        "IdentityFile": board / "key",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": scratch / "known_hosts",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": 10,
        "ServerAliveInterval": 5,
        "ServerAliveCountMax": 3,
        "BatchMode": "yes",
    }
    lines = "".join(f"    {name} {value}\n" for name, value in said.items())
    (scratch / "ssh_config").write_text(f"Host board\n{lines}")
