"""The facts that make numbers of two machines comparable. What cannot be read is None, never a guess."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import msgspec

from edgeseq.devices.board import clocks, identity, processor
from edgeseq.devices.board.clocks import ClockSource
from edgeseq.devices.board.emulation import ARM_MACHINES, VARIABLE, emulator, said_by_user
from edgeseq.devices.board.power import Rail, read_rails
from edgeseq.devices.board.sources import ROOT, Ask, ask, fields, printable, read_text
from edgeseq.devices.board.throttle import read_throttle

MEASURED, EMULATED, HOST = "measured-on-device", "emulated-functional", "host"
RUNTIMES = ("ai-edge-litert", "onnxruntime", "tflite-runtime", "numpy", "msgspec", "edgeseq")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One machine at one moment: clocks in MHz, temperature in °C, a Raspberry Pi's throttle bits (hexadecimal).

    ``device_tree`` is true where the model is that of the board and not only of the processor. ``emulated`` is by what
    the machine was seen to be an emulator, and ``said_real`` that the user knows better. ``core`` is every core's name,
    ``features`` those of its instructions that decide which kernels run; ``clock_mhz`` and ``clock_max_mhz`` are the
    first core's, by what ``clock_says``; ``throttle`` says the throttle bits, and what else slows the board, in words;
    ``power_mode`` and ``gpu`` are a Jetson's; ``isolated`` are the cores that the scheduler leaves alone.
    """

    machine: str
    model: str | None
    device_tree: bool
    cores: int | None
    governor: str | None
    clock_mhz: float | None
    temperature_c: float | None
    throttled: str | None
    os: str
    kernel: str
    python: str
    versions: dict[str, str]
    python_bits: int | None = None
    emulated: str | None = None
    said_real: bool = False
    core: str | None = None
    soc: str | None = None
    features: tuple[str, ...] = ()
    isolated: tuple[int, ...] = ()
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    clock_max_mhz: float | None = None
    clock_says: ClockSource | None = None
    power_mode: str | None = None
    gpu: str | None = None
    throttle: tuple[str, ...] = ()
    rails: tuple[Rail, ...] = ()

    @property
    def provenance(self) -> str:
        """What a number taken here may be called: "measured-on-device" on an ARM board, "host" anywhere else.

        Times of an emulated machine ("emulated-functional") mean nothing. Reports from before ``emulated`` say only
        that the model is QEMU's dummy-virt.
        """
        looks = self.emulated is not None or (self.device_tree and "dummy-virt" in (self.model or ""))
        if looks and not self.said_real:
            return EMULATED
        return MEASURED if self.device_tree and self.machine in ARM_MACHINES else HOST


def read_facts(root: Path = ROOT, ask: Ask = ask) -> Facts:
    """The facts of this machine; ``root`` is where /proc, /sys and /etc are looked for, ``ask`` runs a program.

    Raises:
        InputError: EDGESEQ_EMULATED is neither 0 nor 1.
    """
    tree, machine, said = identity.tree_model(root), platform.machine(), said_by_user()
    clock_mhz, clock_says = clocks.clock(root, ask)
    throttled, throttle = read_throttle(root, ask)
    memory_bytes, swap_bytes = processor.memory(root)
    return Facts(
        machine=machine,
        model=tree or identity.cpu_model(root),
        device_tree=tree is not None,
        cores=os.cpu_count(),
        governor=clocks.governor(root),
        clock_mhz=clock_mhz,
        temperature_c=clocks.temperature(root, ask),
        throttled=throttled,
        os=_os_name(root),
        kernel=platform.release(),
        python=platform.python_version(),
        versions=_versions(RUNTIMES),
        python_bits=8 * struct.calcsize("P"),
        emulated=f"{VARIABLE}=1 says so" if said else emulator(root, ask, machine),
        said_real=said is False,
        core=processor.name_cores(processor.parts(root)),
        soc=identity.soc(root),
        features=processor.features(root),
        isolated=processor.isolated(root),
        memory_bytes=memory_bytes,
        swap_bytes=swap_bytes,
        clock_max_mhz=clocks.highest_clock(root),
        clock_says=clock_says,
        power_mode=clocks.power_mode(root, ask),
        gpu=identity.gpu(root),
        throttle=throttle,
        rails=read_rails(root, ask),
    )


def _os_name(root: Path) -> str:
    named = fields(read_text(root / "etc/os-release"), separator="=").get("PRETTY_NAME")
    return printable((named or "").strip("\"'")) or platform.system()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # absent from the table is what "not installed" looks like
    return found
