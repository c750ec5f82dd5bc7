"""Power where a board measures it: a Jetson's INA3221, a Raspberry Pi 5's power chip. Most boards have neither."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgeseq.devices.board.identity import vcgencmd
from edgeseq.devices.board.sources import ROOT, Ask, ask, paths, read_line, read_number, to_number

PMIC = "vcgencmd pmic_read_adc"
INPUTS = ("VDD_IN", "POM_5V_IN")  # what a Jetson module as a whole takes; the other rails are parts of it
UNUSED = ("NC", "sum of shunt voltages")
CHANNELS = (1, 2, 3)  # of an INA3221; the kernel's seventh is a sum of shunts, not a rail


class Rail(msgspec.Struct, frozen=True):
    """One rail's power at one moment in watts; ``source`` is the sensor, "ina3221 1-0040"."""

    name: str
    watts: float
    source: str


def read_rails(root: Path = ROOT, ask: Ask = ask) -> tuple[Rail, ...]:
    """The rails of this board, () where nothing measures them. A Raspberry Pi 5 answers about ten times a second."""
    return (*_ina3221(root), *_ina3221_of_jetpack_4(root), *parse_pmic(vcgencmd(root, ask, "pmic_read_adc")))


def whole(rails: Sequence[Rail]) -> Rail | None:
    """What the board as a whole takes: a Jetson's input rail, or the sum of a Raspberry Pi 5's rails.

    That sum is without what hangs on 5 V directly (USB, fan, HATs). None where no reading stands for the board.
    """
    inputs = [rail for rail in rails if rail.name in INPUTS]
    if inputs:
        return inputs[0]
    parts = [rail.watts for rail in rails if rail.source == PMIC]
    return Rail(f"sum of {len(parts)} rails", sum(parts), PMIC) if parts else None


def parse_pmic(answer: str | None) -> tuple[Rail, ...]:
    """The rails that have a current and a voltage: "VDD_CORE_A current(7)=0.75A", "VDD_CORE_V volt(15)=0.72V".

    They are paired by name: the numbers in brackets do not go together. EXT5V and BATT have a voltage only.
    """
    line = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(\S+)\2\s*$", re.MULTILINE | re.ASCII)
    said = {(name, unit): to_number(value) for name, unit, value in line.findall(answer or "")}
    pairs = [(name, said[name, "A"], said.get((name, "V"))) for name, unit in said if unit == "A"]
    return tuple(Rail(name, a * v, PMIC) for name, a, v in pairs if a is not None and v is not None)


def _ina3221(root: Path) -> list[Rail]:
    """JetPack 5 and 6, and the kernel's own driver: millivolts and milliamperes by channel."""
    rails = []
    for chip in paths(root, "sys/bus/i2c/devices/*/hwmon/hwmon*"):
        device = chip.parent.parent
        if read_line(device / "name") != "ina3221":
            continue
        for n in CHANNELS:
            label = read_line(chip / f"in{n}_label") or f"channel {n}"
            volts, amperes = read_number(chip / f"in{n}_input"), read_number(chip / f"curr{n}_input")
            if label not in UNUSED and volts is not None and amperes is not None:
                rails.append(Rail(label, volts * amperes / 1e6, f"ina3221 {device.name}"))
    return rails


def _ina3221_of_jetpack_4(root: Path) -> list[Rail]:
    """JetPack 4's own driver: milliwatts by rail."""
    rails = []
    for named in paths(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-9]"):
        label, n = read_line(named), named.name[-1]
        milliwatts = read_number(named.with_name(f"in_power{n}_input"))
        if label is not None and label not in UNUSED and milliwatts is not None:
            rails.append(Rail(label, milliwatts / 1e3, f"ina3221 {named.parent.parent.name}"))
    return rails
