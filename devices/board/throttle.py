"""What slows a board down: a Raspberry Pi's firmware, the kernel that cools, a Jetson's over-current alarms.

Words end in "now" or in "since boot": what was since boot may have been long before a run.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeseq.devices.board.identity import is_raspberry_pi, vcgencmd
from edgeseq.devices.board.sources import Ask, paths, read_line, read_number, read_text

BITS = (
    "under-voltage",
    "clock capped",
    "throttled",
    "soft temperature limit",
)  # from bit 0: now; from bit 16: since boot
SINCE_BOOT = 16
SYSFS = "sys/devices/platform/soc/soc:firmware/get_throttled"  # of older kernels; what "since boot" means differs


def read_throttle(root: Path, ask: Ask) -> tuple[str | None, tuple[str, ...]]:
    """A Raspberry Pi's bits in hexadecimal (None on other boards), and everything that slows the board in words."""
    bits = parse_throttled(vcgencmd(root, ask, "get_throttled"))
    if bits is None and is_raspberry_pi(root):
        bits = parse_throttled(read_text(root / SYSFS))
    told = (*(() if bits is None else decode(bits)), *_low_voltage(root), *_cooling(root), *_alarms(root))
    return None if bits is None else f"{bits:x}", tuple(dict.fromkeys(told))


def parse_throttled(answer: str | None) -> int | None:
    """The bits of "throttled=0x50000" (the firmware) or "50000" (the kernel)."""
    found = re.fullmatch(r"(?:throttled=0x)?([0-9a-fA-F]{1,8})", (answer or "").strip())
    return int(found[1], 16) if found else None


def decode(bits: int) -> tuple[str, ...]:
    """0x50005 as ("under-voltage now", "throttled now", "under-voltage since boot", "throttled since boot")."""
    now = (f"{word} now" for bit, word in enumerate(BITS) if bits >> bit & 1)
    since = (f"{word} since boot" for bit, word in enumerate(BITS, SINCE_BOOT) if bits >> bit & 1)
    return (*now, *since)


def _low_voltage(root: Path) -> tuple[str, ...]:
    """The kernel's own sensor for a Raspberry Pi's supply, which asks the firmware every two seconds."""
    sensors = [file for file in paths(root, "sys/class/hwmon/hwmon*/name") if read_line(file) == "rpi_volt"]
    alarms = [read_number(file.with_name("in0_lcrit_alarm")) for file in sensors]
    return (f"{BITS[0]} now",) if any(alarms) else ()


def _cooling(root: Path) -> tuple[str, ...]:
    """Whether the kernel holds the clock down because a zone is hot: "cpufreq-cpu0", formerly "thermal-cpufreq-0"."""
    devices = paths(root, "sys/class/thermal/cooling_device*/type")
    states = (read_number(file.with_name("cur_state")) for file in devices if "cpufreq" in (read_line(file) or ""))
    return ("clock lowered by the kernel now",) if any((state or 0) > 0 for state in states) else ()


def _alarms(root: Path) -> tuple[str, ...]:
    """How often a Jetson slowed itself for its supply. On Orin oc1 is under-voltage, oc2 and oc3 are over-current."""
    counters = ((file.name.partition("_")[0], read_number(file)) for file in _counters(root))
    return tuple(f"alarm {name} {count:.0f} times since boot" for name, count in counters if count and count > 0)


def _counters(root: Path) -> list[Path]:
    return [file for file in paths(root, "sys/class/hwmon/hwmon*/oc*_event_cnt") if re.match(r"oc\d_", file.name)]
