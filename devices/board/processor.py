"""The processor and its memory: core, the features that decide which kernels a runtime takes, isolated cores."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from edgeseq.devices.board.sources import fields, paths, read_line, read_text, to_number

ARM, NVIDIA = 0x41, 0x4E
QEMU_MAX = (0x00, 0x051)  # "-cpu max": no maker, and part "Q"
PARTS = {  # (implementer, part) in MIDR_EL1
    QEMU_MAX: "QEMU max",
    (ARM, 0xB76): "ARM1176",
    (ARM, 0xC07): "Cortex-A7",
    (ARM, 0xC08): "Cortex-A8",
    (ARM, 0xC09): "Cortex-A9",
    (ARM, 0xC0F): "Cortex-A15",
    (ARM, 0xD03): "Cortex-A53",
    (ARM, 0xD04): "Cortex-A35",
    (ARM, 0xD05): "Cortex-A55",
    (ARM, 0xD07): "Cortex-A57",
    (ARM, 0xD08): "Cortex-A72",
    (ARM, 0xD09): "Cortex-A73",
    (ARM, 0xD0A): "Cortex-A75",
    (ARM, 0xD0B): "Cortex-A76",
    (ARM, 0xD0C): "Neoverse-N1",
    (ARM, 0xD0D): "Cortex-A77",
    (ARM, 0xD40): "Neoverse-V1",
    (ARM, 0xD41): "Cortex-A78",
    (ARM, 0xD42): "Cortex-A78AE",
    (ARM, 0xD44): "Cortex-X1",
    (ARM, 0xD46): "Cortex-A510",
    (ARM, 0xD47): "Cortex-A710",
    (ARM, 0xD49): "Neoverse-N2",
    (ARM, 0xD4B): "Cortex-A78C",
    (ARM, 0xD4F): "Neoverse-V2",
    (NVIDIA, 0x003): "Denver 2",
    (NVIDIA, 0x004): "Carmel",
}
DECISIVE = (
    *("neon", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),  # ARM, 32 and 64 bits
    *("sse4_1", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
)
MAX_CPUS = 8192  # as many as Linux can be built for


def parts(root: Path) -> list[tuple[int, int]]:
    """(implementer, part) of each core that is online, from /proc/cpuinfo or, where that has none, from MIDR_EL1."""
    listed = parse_parts(read_text(root / "proc/cpuinfo") or "")
    registers = "sys/devices/system/cpu/cpu[0-9]*/regs/identification/midr_el1"
    return listed or [part for file in paths(root, registers) if (part := parse_midr(read_line(file))) is not None]


def parse_parts(cpuinfo: str) -> list[tuple[int, int]]:
    """(implementer, part) of each block of /proc/cpuinfo that has both."""
    found = []
    for block in re.split(r"\n\s*\n", cpuinfo):
        said = fields(block)
        implementer, part = (_hexadecimal(said.get(name)) for name in ("CPU implementer", "CPU part"))
        if implementer is not None and part is not None:
            found.append((implementer, part))
    return found


def pair_parts(text: str) -> list[tuple[int, int]]:
    """(implementer, part) of "0x41 0xd03 0x41 0xd03": what /proc/cpuinfo says of them, in its order."""
    values = [_hexadecimal(word) for word in text.split()]
    return [
        (one, two) for one, two in zip(values[::2], values[1::2], strict=False) if one is not None and two is not None
    ]


def parse_midr(text: str | None) -> tuple[int, int] | None:
    """(implementer, part) in the register's bits 31-24 and 15-4: 0x00000000410fd083 is (0x41, 0xd08)."""
    value = _hexadecimal(text)
    return None if value is None else (value >> 24 & 0xFF, value >> 4 & 0xFFF)


def name_cores(found: list[tuple[int, int]]) -> str | None:
    """ "Cortex-A72" where all cores are of one kind, "4x Cortex-A55 + 4x Cortex-A76" where they are not."""
    unknown = "implementer {:#04x} part {:#05x}"
    kinds = Counter(PARTS.get(part) or unknown.format(*part) for part in found)
    if len(kinds) < 2:
        return next(iter(kinds), None)
    return " + ".join(f"{count}x {name}" for name, count in kinds.items())


def features(root: Path) -> tuple[str, ...]:
    """Those instructions that all cores have and that decide which kernels a runtime takes."""
    common = instructions(root)
    return tuple(name for name in DECISIVE if name in common)


def instructions(root: Path) -> set[str]:
    """All extensions that all cores have, by the kernel's names."""
    said = [
        set(value.split())
        for line in (read_text(root / "proc/cpuinfo") or "").splitlines()
        for name, _, value in (line.partition(":"),)
        if name.strip() in ("Features", "flags")
    ]
    return set.intersection(*said) if said else set()


def isolated(root: Path) -> tuple[int, ...]:
    """The cores that the scheduler keeps free (``isolcpus=``)."""
    return parse_cpus(read_line(root / "sys/devices/system/cpu/isolated") or "")


def parse_cpus(text: str) -> tuple[int, ...]:
    """A kernel's list of cores: "1,4-6" is (1, 4, 5, 6). Anything else is ()."""
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text, re.ASCII):
        return ()
    ranges = [[int(end) for end in part.split("-")] for part in text.split(",")]
    found = {cpu for ends in ranges for cpu in range(ends[0], ends[-1] + 1)}
    return tuple(sorted(cpu for cpu in found if cpu < MAX_CPUS))


def memory(root: Path) -> tuple[int | None, int | None]:
    """Bytes of memory and of swap."""
    said = fields(read_text(root / "proc/meminfo"))
    memory, swap = (_kilobytes(said.get(name)) for name in ("MemTotal", "SwapTotal"))
    return memory, swap


def _kilobytes(text: str | None) -> int | None:
    value = to_number((text or "").removesuffix("kB"))
    return None if value is None or value < 0 else int(value) * 1024


def _hexadecimal(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text) else None
