"""Which board it is: its device tree's name, its chip, and the two makers that are asked more."""

from __future__ import annotations

from pathlib import Path

from edgeseq.devices.board.sources import Ask, fields, printable, read_line, read_text

TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
TEGRA_GPUS = {  # of the modules called Jetson; there is a later one than this table where a chip is not in it
    "tegra210": "GM20B (Maxwell)",
    "tegra186": "GP10B (Pascal)",
    "tegra194": "GV11B (Volta)",
    "tegra234": "GA10B (Ampere)",
}


def tree_model(root: Path) -> str | None:
    """The board's name in its device tree."""
    return next((name for tree in TREES if (name := read_line(root / tree / "model"))), None)


def cpu_model(root: Path) -> str | None:
    """The processor's or board's name in /proc/cpuinfo."""
    found = fields(read_text(root / "proc/cpuinfo"))
    return next((printable(found[name]) for name in ("model name", "Model", "Hardware") if found.get(name)), None)


def compatible(root: Path) -> tuple[str, ...]:
    """What the device tree says the board is like, from the board itself to its chip: "raspberrypi,4-model-b", ..."""
    listed = next((text for tree in TREES if (text := read_text(root / tree / "compatible"))), "")
    return tuple(entry for part in listed.split("\x00") if (entry := printable(part)))


def soc(root: Path) -> str | None:
    """The chip: "bcm2711", "tegra234". None for QEMU's "linux,dummy-virt", which has none."""
    maker, _, chip = (compatible(root) or ("",))[-1].partition(",")
    return None if maker == "linux" else chip or None


def is_raspberry_pi(root: Path) -> bool:
    """Whether the device tree is a Raspberry Pi's; an emulator may have it too (see :mod:`.emulation`)."""
    return (tree_model(root) or "").startswith("Raspberry Pi")


def is_jetson(root: Path) -> bool:
    """Whether the chip is NVIDIA's Tegra."""
    return (soc(root) or "").startswith("tegra")


def gpu(root: Path) -> str | None:
    """The GPU of a Jetson. No engine here uses it: a step of one frame is over before a GPU has begun."""
    return f"NVIDIA {TEGRA_GPUS.get(soc(root) or '', soc(root))}" if is_jetson(root) else None


def vcgencmd(root: Path, ask: Ask, *question: str) -> str | None:
    """What a Raspberry Pi's firmware answers; None on every other board, which is not asked."""
    return ask(("vcgencmd", *question)) if is_raspberry_pi(root) else None
