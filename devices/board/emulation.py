"""Whether an ARM machine is an emulator. Its functions are those of a board, its times are those of nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edgeseq.devices.board.clocks import clock_range, firmware_clock, governor
from edgeseq.devices.board.identity import TREES, compatible, is_raspberry_pi, soc, tree_model
from edgeseq.devices.board.processor import QEMU_MAX, instructions, parts
from edgeseq.devices.board.sources import Ask, paths, read_line
from edgeseq.errors import InputError

ARM_MACHINES = ("aarch64", "arm64", "armv8l", "armv7l", "armv6l")
VARIABLE = "EDGESEQ_EMULATED"
WITHOUT_AES = ("bcm2836", "bcm2837", "bcm2711")
QEMU_CLOCK = 700.0  # MHz: what QEMU's firmware of a Raspberry Pi states for every clock, lowest and highest


def emulator(root: Path, ask: Ask, machine: str) -> str | None:
    """By what an ARM machine was seen to be emulated, None where nothing says so.

    - The kernel under an ARM program is an x86 one: programs are emulated one by one (qemu-aarch64, containers of
      another architecture).
    - The device tree, the processor's name or the firmware's tables are QEMU's own. That holds for virtual machines on
      ARM computers too, whose times are not those of a board either.
    - The tree is that of a Raspberry Pi up to the 4, and the processor has the instructions for AES: these chips were
      made without them, and QEMU's processors have them.
    - The tree is a Raspberry Pi's, but its firmware does not answer (``vcgencmd``) and the kernel does not set a clock.
      QEMU's Raspberry Pi has the board's own tree and thermal zone (25.178 °C, always). From version 9 on it answers
      the kernel's requests too: throttle bits 0, every clock 700 MHz, which are therefore no proof. It does not
      answer ``vcgencmd``. A real board's system has one or the other: where both are missing, no times are shown.
    """
    if machine not in ARM_MACHINES:
        return None
    return _by_kernel(root) or _by_machine(root) or _by_processor(root) or _by_raspberry_pi(root, ask)


def said_by_user(environment: Mapping[str, str] = os.environ) -> bool | None:
    """What the user says of this machine: EDGESEQ_EMULATED=1 that it is emulated, =0 that it is not.

    Raises:
        InputError: it is set to something else.
    """
    value = environment.get(VARIABLE) or None
    if value not in (None, "0", "1"):
        raise InputError(f"{VARIABLE} is {value!r}: 1 says that this machine is emulated, 0 that it is not")
    return None if value is None else value == "1"


def _by_kernel(root: Path) -> str | None:
    architecture = read_line(root / "proc/sys/kernel/arch") or ""  # since Linux 6.1
    alias = read_line(root / "sys/devices/system/cpu/modalias") or ""
    x86 = architecture in ("x86_64", "i686") or alias.startswith("cpu:type:x86")
    return "the kernel under this ARM program runs on x86" if x86 else None


def _by_machine(root: Path) -> str | None:
    if "linux,dummy-virt" in (*compatible(root), tree_model(root)):
        return "the device tree is that of QEMU's machine virt"
    if any(paths(root, f"{tree}/fw-cfg@*") for tree in TREES):
        return "the device tree has QEMU's configuration device"
    if read_line(root / "sys/class/dmi/id/sys_vendor") == "QEMU":
        return "the firmware's tables name QEMU as the maker"
    return None


def _by_processor(root: Path) -> str | None:
    return "the processor is QEMU's own, max" if QEMU_MAX in parts(root) else None


def _by_raspberry_pi(root: Path, ask: Ask) -> str | None:
    if is_raspberry_pi(root) and soc(root) in WITHOUT_AES and "aes" in instructions(root):
        return f"the chip is a {soc(root)}, and its processor has instructions (AES) that this chip was made without"
    set_by_kernel = governor(root) is not None and clock_range(root) != (QEMU_CLOCK, QEMU_CLOCK)
    if not is_raspberry_pi(root) or set_by_kernel or firmware_clock(root, ask) is not None:
        return None
    return "a Raspberry Pi whose firmware does not answer (vcgencmd) and whose kernel does not set its clock"
