"""Clock, governor, power mode and temperature."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from edgeseq.devices.board.identity import is_jetson, vcgencmd
from edgeseq.devices.board.sources import Ask, fields, paths, printable, read_line, read_number, read_text, to_number

ClockSource = Literal["kernel", "firmware"]
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
COLDEST, HOTTEST = -50.0, 150.0  # °C; a zone outside is off (a Jetson's says -256) or broken
FAKE_ZONES = ("PMIC",)  # a Jetson's always says 100 °C


def governor(root: Path) -> str | None:
    """How the kernel chooses the clock of the first core: "performance", "ondemand", ..."""
    return read_line(root / CPUFREQ / "scaling_governor")


def clock(root: Path, ask: Ask) -> tuple[float | None, ClockSource | None]:
    """The first core's clock in MHz, and who says so.

    A Raspberry Pi's firmware is asked first: it measures, and it lowers the clock behind the kernel's back.
    """
    measured = firmware_clock(root, ask)
    if measured is not None:
        return measured, "firmware"
    scaled = _megahertz(root / CPUFREQ / "scaling_cur_freq")
    stated = to_number(fields(read_text(root / "proc/cpuinfo")).get("cpu MHz")) if scaled is None else scaled
    return stated, None if stated is None else "kernel"


def firmware_clock(root: Path, ask: Ask) -> float | None:
    """The clock in MHz that a Raspberry Pi's firmware measures."""
    return parse_clock(vcgencmd(root, ask, "measure_clock", "arm"))


def parse_clock(answer: str | None) -> float | None:
    """MHz of "frequency(48)=1800404352"; the number in brackets is another on each board. 0 Hz is no answer."""
    found = re.search(r"frequency\(\d+\)=(\d{1,12})\b", answer or "", re.ASCII)
    return int(found[1]) / 1e6 or None if found else None


def highest_clock(root: Path) -> float | None:
    """The highest clock in MHz that the kernel now allows the first core; what cools a board lowers it."""
    return _megahertz(root / CPUFREQ / "scaling_max_freq") or _megahertz(root / CPUFREQ / "cpuinfo_max_freq")


def clock_range(root: Path) -> tuple[float, float] | None:
    """The lowest and the highest clock of the hardware in MHz; None without a driver for it."""
    lowest, highest = (_megahertz(root / CPUFREQ / f"cpuinfo_{end}_freq") for end in ("min", "max"))
    return None if lowest is None or highest is None else (lowest, highest)


def power_mode(root: Path, ask: Ask) -> str | None:
    """A Jetson's power mode, "MAXN" or "15W", which caps its clocks and turns cores off."""
    if not is_jetson(root):
        return None
    return parse_power_mode(ask(("nvpmodel", "-q"))) or stored_power_mode(root)


def parse_power_mode(answer: str | None) -> str | None:
    """The name in "NV Power Mode: 15W", which other lines may come before and after."""
    said = next((line for line in (answer or "").splitlines() if line.startswith("NV Power Mode:")), "")
    return printable(said.partition(":")[2])


def stored_power_mode(root: Path) -> str | None:
    """The mode that nvpmodel has noted ("pmode:0002"), by its table of names: not every user may ask the program."""
    noted = re.search(r"pmode:(\d{1,4})\b", read_text(root / "var/lib/nvpmodel/status") or "", re.ASCII)
    if noted is None:
        return None
    table = read_text(root / "etc/nvpmodel.conf") or ""
    names = dict(re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", table, re.MULTILINE | re.ASCII))
    return printable(names.get(str(int(noted[1])))) or f"mode {int(noted[1])}"


def temperature(root: Path, ask: Ask) -> float | None:
    """The hottest thermal zone in °C, a Raspberry Pi's firmware where there are no zones."""
    zones = paths(root, "sys/class/thermal/thermal_zone*/temp")
    found = hottest((read_line(zone.with_name("type")), read_number(zone)) for zone in zones)
    return parse_temperature(vcgencmd(root, ask, "measure_temp")) if found is None else found


def hottest(zones: Iterable[tuple[str | None, float | None]]) -> float | None:
    """°C of the hottest of thermal zones, each with its type and its thousandths of a degree."""
    degrees = [value / 1000 for kind, value in zones if value is not None and not (kind or "").startswith(FAKE_ZONES)]
    return max((value for value in degrees if COLDEST < value < HOTTEST), default=None)


def parse_temperature(answer: str | None) -> float | None:
    """°C of "temp=48.7'C"."""
    found = re.search(r"temp=(-?\d{1,3}(?:\.\d+)?)'C", answer or "", re.ASCII)
    return float(found[1]) if found else None


def _megahertz(file: Path) -> float | None:
    kilohertz = read_number(file)
    return kilohertz / 1000 if kilohertz and kilohertz > 0 else None
