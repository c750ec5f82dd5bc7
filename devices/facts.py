"""The facts that make numbers of two machines comparable. What cannot be read is None, never a guess."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import msgspec

MEASURED, EMULATED, HOST = "measured-on-device", "emulated-functional", "host"
RUNTIMES = ("ai-edge-litert", "onnxruntime", "tflite-runtime", "numpy", "msgspec", "edgeseq")
_ROOT = Path("/")
_ARM = ("aarch64", "arm64", "armv7l", "armv6l")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One machine at one moment: clock in MHz, temperature in °C, a Raspberry Pi's throttle bits (hexadecimal).

    ``device_tree`` is true where the model is that of the board and not only of the processor.
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

    @property
    def provenance(self) -> str:
        """What a number taken here may be called: "measured-on-device" on an ARM board, "host" anywhere else.

        QEMU's ARM machine has a device tree too, and calls itself dummy-virt: its times mean nothing.
        """
        if self.device_tree and "dummy-virt" in (self.model or ""):
            return EMULATED
        return MEASURED if self.device_tree and self.machine in _ARM else HOST


def read_facts(root: Path = _ROOT) -> Facts:
    """The facts of this machine; ``root`` is where /proc, /sys and /etc are looked for."""
    tree = _text(root / "proc/device-tree/model")
    return Facts(
        machine=platform.machine(),
        model=tree or _cpu_model(root),
        device_tree=tree is not None,
        cores=os.cpu_count(),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_mhz=_clock(root),
        temperature_c=temperature(root),
        throttled=_text(root / "sys/devices/platform/soc/soc:firmware/get_throttled"),
        os=_os_name(root),
        kernel=platform.release(),
        python=platform.python_version(),
        versions=_versions(RUNTIMES),
    )


def temperature(root: Path = _ROOT) -> float | None:
    """The hottest thermal zone in °C, None where there is none."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    readings = [value for value in (_number(zone) for zone in zones) if value is not None]
    return max(readings) / 1000 if readings else None


def _clock(root: Path) -> float | None:
    kilohertz = _number(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if kilohertz is not None:
        return kilohertz / 1000
    stated = _field(root / "proc/cpuinfo", ("cpu MHz",))
    try:
        return None if stated is None else float(stated)
    except ValueError:
        return None


def _cpu_model(root: Path) -> str | None:
    return _field(root / "proc/cpuinfo", ("model name", "Model", "Hardware"))


def _os_name(root: Path) -> str:
    named = _field(root / "etc/os-release", ("PRETTY_NAME",), separator="=")
    return named.strip('"') if named else platform.system()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # absent from the table is what "not installed" looks like
    return found


def _text(file: Path) -> str | None:
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # absent, or a driver that does not answer
        return None
    return content.strip("\x00\n ") or None  # the device tree ends its strings with a zero byte


def _number(file: Path) -> float | None:
    content = _text(file)
    try:
        return None if content is None else float(content)
    except ValueError:
        return None


def _field(file: Path, names: tuple[str, ...], separator: str = ":") -> str | None:
    """The first line ``name: value`` of a file, for the first of ``names`` that it has."""
    lines = (line.partition(separator) for line in (_text(file) or "").splitlines())
    found = {key.strip(): value.strip() for key, _, value in reversed(list(lines))}
    return next((found[name] for name in names if found.get(name)), None)
