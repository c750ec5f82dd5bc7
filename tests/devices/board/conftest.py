"""The files and answers of boards, as their documents and what was seen in emulators say that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CPU = "sys/devices/system/cpu"
ARMV8 = "fp asimd evtstrm crc32 cpuid"
QEMU_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
ARMV82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Board:
    """A machine: what platform.machine() says, its files below a root, and what its programs answer."""

    machine: str
    files: dict[str, str | bytes]
    answers: dict[str, str] = field(default_factory=dict)

    def plant(self, root: Path) -> Path:
        for path, content in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    def ask(self, command: Sequence[str]) -> str | None:
        return self.answers.get(" ".join(command))

    def without(self, *starts: str) -> Board:
        """The board without the files and the answers whose names start so."""
        files = {path: content for path, content in self.files.items() if not path.startswith(starts)}
        return Board(self.machine, files, {c: text for c, text in self.answers.items() if not c.startswith(starts)})

    def also(self, files: dict[str, str | bytes] | None = None, answers: dict[str, str] | None = None) -> Board:
        return Board(self.machine, self.files | (files or {}), self.answers | (answers or {}))


def tree(model: str, *compatible: str) -> dict[str, str | bytes]:
    listed = "".join(f"{entry}\0" for entry in compatible)
    return {"proc/device-tree/model": f"{model}\0", "proc/device-tree/compatible": listed}


def cpuinfo(cores: int, part: str, features: str, revision: str = "3", tail: str = "") -> dict[str, str | bytes]:
    blocks = [
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: {revision}\n\n"
        for n in range(cores)
    ]
    return {"proc/cpuinfo": "".join(blocks) + tail}


def cpufreq(governor: str, now: int, lowest: int, highest: int) -> dict[str, str | bytes]:
    place = f"{CPU}/cpu0/cpufreq"
    return {
        f"{place}/scaling_governor": f"{governor}\n",
        f"{place}/scaling_cur_freq": f"{now}\n",
        f"{place}/scaling_min_freq": f"{lowest}\n",
        f"{place}/scaling_max_freq": f"{highest}\n",
        f"{place}/cpuinfo_min_freq": f"{lowest}\n",
        f"{place}/cpuinfo_max_freq": f"{highest}\n",
    }


def zones(**degrees: int | str) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for n, (name, value) in enumerate(degrees.items()):
        found[f"sys/class/thermal/thermal_zone{n}/type"] = name.replace("_", "-") + "\n"
        found[f"sys/class/thermal/thermal_zone{n}/temp"] = f"{value}\n" if value != "" else b""
    return found


def system(name: str, memory_kb: int, swap_kb: int = 0, isolated: str = "") -> dict[str, str | bytes]:
    return {
        "etc/os-release": f'NAME="Linux"\nPRETTY_NAME="{name}"\n',
        "proc/meminfo": f"MemTotal:       {memory_kb} kB\nMemFree:         1000 kB\nSwapTotal:        {swap_kb} kB\n",
        f"{CPU}/isolated": f"{isolated}\n",
    }


def cooling(state: int, name: str = "cpufreq-cpu0") -> dict[str, str | bytes]:
    place = "sys/class/thermal/cooling_device0"
    return {f"{place}/type": f"{name}\n", f"{place}/cur_state": f"{state}\n", f"{place}/max_state": "9\n"}


BOOKWORM, TRIXIE = "Debian GNU/Linux 12 (bookworm)", "Debian GNU/Linux 13 (trixie)"
PMIC = """\
   3V7_WL_SW_A current(0)=0.00780744A
     3V3_SYS_A current(1)=0.12199130A
    VDD_CORE_A current(7)=0.75012000A
     0V8_AON_A current(16)=0.00531135A
   3V7_WL_SW_V volt(8)=3.61069200V
     3V3_SYS_V volt(9)=3.29982600V
    VDD_CORE_V volt(15)=0.72178200V
     0V8_AON_V volt(19)=0.79618980V
       EXT5V_V volt(24)=4.92450000V
        BATT_V volt(25)=nanV
"""
I2C = "sys/bus/i2c"


def ina3221(place: str, rails: dict[str, tuple[int, int]]) -> dict[str, str | bytes]:
    """Of JetPack 5 and 6: labels, millivolts and milliamperes, and the seventh channel, a sum."""
    chip = f"{I2C}/devices/{place}"
    found: dict[str, str | bytes] = {f"{chip}/name": "ina3221\n", f"{chip}/hwmon/hwmon1/name": "ina3221\n"}
    for n, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        found[f"{chip}/hwmon/hwmon1/in{n}_label"] = f"{label}\n"
        found[f"{chip}/hwmon/hwmon1/in{n}_input"] = f"{millivolts}\n"
        found[f"{chip}/hwmon/hwmon1/curr{n}_input"] = f"{milliamperes}\n"
    found[f"{chip}/hwmon/hwmon1/in7_label"] = "sum of shunt voltages\n"
    found[f"{chip}/hwmon/hwmon1/in7_input"] = "5\n"
    return found


def ina3221x(place: str, rails: dict[str, int]) -> dict[str, str | bytes]:
    """Of JetPack 4: names and milliwatts."""
    chip = f"{I2C}/drivers/ina3221x/{place}/iio:device0"
    found: dict[str, str | bytes] = {}
    for n, (label, milliwatts) in enumerate(rails.items()):
        found[f"{chip}/rail_name_{n}"] = f"{label}\n"
        found[f"{chip}/in_power{n}_input"] = f"{milliwatts}\n"
        found[f"{chip}/in_voltage{n}_input"] = "5064\n"
    return found


PI_3_TREE = tree("Raspberry Pi 3 Model B Rev 1.2", "raspberrypi,3-model-b", "brcm,bcm2837")
PI_3 = Board(
    "aarch64",
    PI_3_TREE
    | cpuinfo(4, "0xd03", ARMV8, "4")
    | cpufreq("ondemand", 600000, 600000, 1200000)
    | zones(cpu_thermal=48312)
    | system(BOOKWORM, 929764, 102396)
    | {"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"},
    {
        "vcgencmd measure_clock arm": "frequency(45)=600062000\n",
        "vcgencmd measure_temp": "temp=48.3'C\n",
        "vcgencmd get_throttled": "throttled=0x0\n",
        "vcgencmd pmic_read_adc": 'error=1 error_msg="Command not registered"\n',
    },
)
PI_4 = Board(
    "aarch64",
    tree("Raspberry Pi 4 Model B Rev 1.5", "raspberrypi,4-model-b", "brcm,bcm2711")
    | cpuinfo(4, "0xd08", ARMV8, tail="Revision\t: c03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n")
    | cpufreq("performance", 1800000, 600000, 1800000)
    | zones(cpu_thermal=55017)
    | system(BOOKWORM, 3884360, 102396, isolated="3")
    | cooling(0)
    | {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"},
    {
        "vcgencmd measure_clock arm": "frequency(48)=1800404352\n",
        "vcgencmd measure_temp": "temp=55.0'C\n",
        "vcgencmd get_throttled": "throttled=0x50000\n",
        "vcgencmd pmic_read_adc": 'error=1 error_msg="Command not registered"\n',
    },
)
PI_5 = Board(
    "aarch64",
    tree("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712")
    | cpuinfo(4, "0xd0b", ARMV82, "1")
    | cpufreq("ondemand", 2400000, 1500000, 2400000)
    | zones(cpu_thermal=51350)
    | system(BOOKWORM, 8245184, 204784),
    {
        "vcgencmd measure_clock arm": "frequency(0)=2400033792\n",
        "vcgencmd measure_temp": "temp=51.0'C\n",
        "vcgencmd get_throttled": "throttled=0x0\n",
        "vcgencmd pmic_read_adc": PMIC,
    },
)
JETSON_NANO = Board(
    "aarch64",
    tree(
        "NVIDIA Jetson Nano Developer Kit",
        "nvidia,p3449-0000-b00+p3448-0000-b00",
        "nvidia,jetson-nano",
        "nvidia,tegra210",
    )
    | cpuinfo(4, "0xd07", "fp asimd evtstrm aes pmull sha1 sha2 crc32", "1")
    | cpufreq("schedutil", 1224000, 102000, 1479000)
    | zones(AO_therm=34500, CPU_therm=29000, GPU_therm=28500, PLL_therm=27500, PMIC_Die=100000, thermal_fan_est=29250)
    | system("Ubuntu 18.04.6 LTS", 4059388, 2029680)
    | cooling(0, "thermal-cpufreq-0")
    | ina3221x("6-0040", {"POM_5V_IN": 1909, "POM_5V_GPU": 40, "POM_5V_CPU": 404}),
    {"nvpmodel -q": "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n"},
)
JETSON_ORIN_NANO = Board(
    "aarch64",
    tree(
        *("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "nvidia,p3768-0000+p3767-0005-super"),
        *("nvidia,p3767-0005", "nvidia,tegra234"),
    )
    | cpuinfo(6, "0xd42", ARMV82 + " flagm paca pacg", "1")
    | cpufreq("schedutil", 729600, 115200, 1510400)
    | zones(
        cpu_thermal=45875, gpu_thermal=44468, cv0_thermal="", cv1_thermal=-256000, soc0_thermal=45031, tj_thermal=45875
    )
    | system("Ubuntu 22.04.5 LTS", 7802212, 3901088)
    | cooling(0)
    | ina3221("1-0040", {"VDD_IN": (5008, 960), "VDD_CPU_GPU_CV": (5008, 96), "VDD_SOC": (5008, 288)})
    | ina3221("1-0041", {"NC": (0, 0)})
    | {"sys/class/hwmon/hwmon3/name": "soctherm_oc\n"}
    | {f"sys/class/hwmon/hwmon3/oc{n}_event_cnt": "0\n" for n in (1, 2, 3)}
    | {
        "var/lib/nvpmodel/status": "pmode:0001",
        "etc/nvpmodel.conf": "# modes\n< POWER_MODEL ID=0 NAME=15W >\nGPU MAX_FREQ 1\n< POWER_MODEL ID=1 NAME=25W >\n",
    },
    {"nvpmodel -q": "NV Power Mode: 25W\n1\n"},
)
QEMU_VIRT = Board(
    "aarch64",
    tree("linux,dummy-virt", "linux,dummy-virt")
    | cpuinfo(2, "0xd08", QEMU_ARMV8)
    | system(BOOKWORM, 1000316)
    | {
        "proc/device-tree/fw-cfg@9020000/compatible": "qemu,fw-cfg-mmio\0",
        f"{CPU}/cpu0/regs/identification/midr_el1": "0x00000000410fd083\n",
    },
)
QEMU_RASPI3B = Board(
    "aarch64",
    tree("Raspberry Pi 3 Model B", "raspberrypi,3-model-b", "brcm,bcm2837")
    | cpuinfo(4, "0xd03", QEMU_ARMV8, "4")
    | zones(cpu_thermal=25178)
    | system(BOOKWORM, 929764),
)
X86 = Board(
    "x86_64",
    {
        "proc/cpuinfo": "".join(
            f"processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-1165G7 @ 2.80GHz\n"
            f"cpu MHz\t\t: 1200.500\nflags\t\t: fpu sse sse2 sse4_1 avx fma avx2 avx512f avx512_vnni hypervisor\n\n"
            for n in range(8)
        ),
        f"{CPU}/modalias": "cpu:type:x86,ven0000fam0006mod008C:feature:,0000\n",
        "proc/sys/kernel/arch": "x86_64\n",
        "sys/class/dmi/id/sys_vendor": "QEMU\n",
    }
    | cpufreq("performance", 2803200, 400000, 4700000)
    | zones(x86_pkg_temp=61000)
    | system(TRIXIE, 16143836, 999420, isolated="2-3,6"),
)
BOARDS = {
    "pi 3": PI_3,
    "pi 4": PI_4,
    "pi 5": PI_5,
    "jetson nano": JETSON_NANO,
    "jetson orin nano": JETSON_ORIN_NANO,
    "qemu virt": QEMU_VIRT,
    "qemu raspi3b": QEMU_RASPI3B,
    "x86": X86,
}


@pytest.fixture(scope="session")
def boards() -> dict[str, Board]:
    return BOARDS


@pytest.fixture(autouse=True)
def nothing_said_by_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGESEQ_EMULATED", raising=False)
