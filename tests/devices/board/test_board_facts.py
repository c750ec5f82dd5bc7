"""The facts of each kind of board, exact."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeseq.devices.board.power import Rail, read_rails, whole
from edgeseq.devices.board.words import lines
from edgeseq.devices.facts import Facts, read_facts
from edgeseq.errors import InputError

ARMV82 = ("asimd", "asimddp", "asimdhp")
EXPECTED = {
    "pi 3": {
        "model": "Raspberry Pi 3 Model B Rev 1.2",
        "soc": "bcm2837",
        "core": "Cortex-A53",
        "features": ("asimd",),
        "governor": "ondemand",
        "clock_mhz": 600.062,
        "clock_max_mhz": 1200.0,
        "clock_says": "firmware",
        "temperature_c": 48.312,
        "throttled": "0",
        "memory_bytes": 929764 * 1024,
        "swap_bytes": 102396 * 1024,
        "os": "Debian GNU/Linux 12 (bookworm)",
        "provenance": "measured-on-device",
    },
    "pi 4": {
        "soc": "bcm2711",
        "core": "Cortex-A72",
        "clock_mhz": 1800.404352,
        "clock_max_mhz": 1800.0,
        "temperature_c": 55.017,
        "throttled": "50000",
        "throttle": ("under-voltage since boot", "throttled since boot"),
        "isolated": (3,),
        "rails": (),
        "provenance": "measured-on-device",
    },
    "pi 5": {
        "soc": "bcm2712",
        "core": "Cortex-A76",
        "features": ARMV82,
        "clock_mhz": 2400.033792,
        "throttle": (),
        "gpu": None,
        "power_mode": None,
        "provenance": "measured-on-device",
    },
    "jetson nano": {
        "soc": "tegra210",
        "core": "Cortex-A57",
        "clock_mhz": 1224.0,
        "clock_says": "kernel",
        "temperature_c": 34.5,
        "throttled": None,
        "throttle": (),
        "power_mode": "MAXN",
        "gpu": "NVIDIA GM20B (Maxwell)",
        "rails": (
            Rail("POM_5V_IN", 1.909, "ina3221 6-0040"),
            Rail("POM_5V_GPU", 0.04, "ina3221 6-0040"),
            Rail("POM_5V_CPU", 0.404, "ina3221 6-0040"),
        ),
        "provenance": "measured-on-device",
    },
    "jetson orin nano": {
        "soc": "tegra234",
        "core": "Cortex-A78AE",
        "features": ARMV82,
        "temperature_c": 45.875,
        "throttle": (),
        "power_mode": "25W",
        "gpu": "NVIDIA GA10B (Ampere)",
        "provenance": "measured-on-device",
    },
    "qemu virt": {
        "model": "linux,dummy-virt",
        "soc": None,
        "core": "Cortex-A72",
        "governor": None,
        "clock_mhz": None,
        "clock_says": None,
        "temperature_c": None,
        "provenance": "emulated-functional",
    },
    "qemu raspi3b": {
        "model": "Raspberry Pi 3 Model B",
        "soc": "bcm2837",
        "core": "Cortex-A53",
        "temperature_c": 25.178,
        "throttled": None,
        "provenance": "emulated-functional",
    },
    "x86": {
        "model": "Intel(R) Core(TM) i7-1165G7 @ 2.80GHz",
        "device_tree": False,
        "soc": None,
        "core": None,
        "features": ("sse4_1", "avx", "avx2", "fma", "avx512f", "avx512_vnni"),
        "governor": "performance",
        "clock_mhz": 2803.2,
        "clock_max_mhz": 4700.0,
        "temperature_c": 61.0,
        "isolated": (2, 3, 6),
        "emulated": None,
        "provenance": "host",
    },
}


@pytest.fixture
def read(boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read the facts of a board, given or by its name."""

    def read(board) -> Facts:
        board = boards[board] if isinstance(board, str) else board
        monkeypatch.setattr("platform.machine", lambda: board.machine)
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        return read_facts(board.plant(root), board.ask)

    return read


@pytest.mark.parametrize("name", EXPECTED)
def test_the_facts_of_a_board_are_those_of_its_files(read, name: str) -> None:
    facts = read(name)
    assert {key: getattr(facts, key) for key in EXPECTED[name]} == EXPECTED[name]


def test_every_board_is_expected_somehow(boards) -> None:
    assert EXPECTED.keys() == boards.keys()


def test_the_rails_of_an_orin_are_millivolts_times_milliamperes_without_the_unused_channel(read) -> None:
    rails = {rail.name: rail.watts for rail in read("jetson orin nano").rails}
    assert rails == pytest.approx({"VDD_IN": 4.80768, "VDD_CPU_GPU_CV": 0.480768, "VDD_SOC": 1.442304})


def test_the_rails_of_a_raspberry_pi_5_are_paired_by_name(read) -> None:
    rails = read("pi 5").rails
    assert {rail.name: rail.watts for rail in rails} == pytest.approx(
        {"3V7_WL_SW": 0.0281903, "3V3_SYS": 0.4025501, "VDD_CORE": 0.5414231, "0V8_AON": 0.00422884}, rel=1e-5
    )
    total = whole(rails)
    assert total is not None
    assert (total.name, total.watts) == ("sum of 4 rails", pytest.approx(0.9763924, rel=1e-5))


def test_a_jetsons_input_stands_for_all_of_it_and_its_parts_are_not_added(read) -> None:
    rails = read("jetson nano").rails
    assert whole(rails) == rails[0]
    assert whole(rails[1:]) is None
    assert whole(()) is None


def test_a_channel_without_a_label_is_called_by_its_number(boards, tmp_path: Path) -> None:
    board = boards["jetson orin nano"]
    (label,) = (path for path in board.files if path.endswith("1-0040/hwmon/hwmon1/in2_label"))
    root = board.without(label).plant(tmp_path)
    assert [rail.name for rail in read_rails(root, board.ask)] == ["VDD_IN", "channel 2", "VDD_SOC"]


def test_cores_of_two_kinds_are_counted(read, boards) -> None:
    first, second = boards["pi 3"].files["proc/cpuinfo"], boards["pi 5"].files["proc/cpuinfo"]
    facts = read(boards["pi 5"].also({"proc/cpuinfo": first + second}))
    assert facts.core == "4x Cortex-A53 + 4x Cortex-A76"
    assert facts.features == ("asimd",)  # what only some cores have, a program that is moved cannot use


def test_a_core_that_nobody_named_here_is_its_numbers(read, boards) -> None:
    unnamed = boards["pi 3"].files["proc/cpuinfo"].replace("0xd03", "0xdff")
    assert read(boards["pi 3"].also({"proc/cpuinfo": unnamed})).core == "implementer 0x41 part 0xdff"


def test_the_core_is_read_from_its_register_where_cpuinfo_does_not_say(read, boards) -> None:
    assert read(boards["qemu virt"].also({"proc/cpuinfo": "processor\t: 0\n"})).core == "Cortex-A72"


def test_the_tree_is_found_in_its_other_place(read, boards) -> None:
    board = boards["pi 5"]
    moved = {path.replace("proc/device-tree", "sys/firmware/devicetree/base"): c for path, c in board.files.items()}
    facts = read(type(board)(board.machine, moved, board.answers))
    assert (facts.model, facts.soc, facts.device_tree) == ("Raspberry Pi 5 Model B Rev 1.0", "bcm2712", True)


def test_a_raspberry_pi_without_vcgencmd_is_read_from_the_kernel(read, boards) -> None:
    files = {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}
    facts = read(boards["pi 3"].without("vcgencmd").also(files))
    assert (facts.clock_mhz, facts.clock_says, facts.temperature_c) == (600.0, "kernel", 48.312)
    assert facts.throttled == "50005"
    assert facts.throttle == (
        *("under-voltage now", "throttled now"),
        *("under-voltage since boot", "throttled since boot"),
    )
    assert facts.provenance == "measured-on-device"


def test_a_raspberry_pi_without_thermal_zones_asks_its_firmware(read, boards) -> None:
    assert read(boards["pi 4"].without("sys/class/thermal")).temperature_c == 55.0


def test_a_jetson_that_does_not_answer_has_noted_its_power_mode(read, boards) -> None:
    assert read(boards["jetson orin nano"].without("nvpmodel")).power_mode == "25W"


def test_a_noted_power_mode_without_a_name_is_a_number(read, boards) -> None:
    assert read(boards["jetson orin nano"].without("nvpmodel", "etc/nvpmodel")).power_mode == "mode 1"


def test_only_a_jetson_has_a_power_mode(read, boards) -> None:
    facts = read(boards["pi 5"].also(answers={"nvpmodel -q": "NV Power Mode: MAXN\n"}))
    assert (facts.power_mode, facts.gpu) == (None, None)


def test_other_boards_are_not_asked_for_what_only_a_raspberry_pi_knows(boards, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []
    root = boards["jetson nano"].plant(tmp_path)
    read_facts(root, lambda command: asked.append(tuple(command)))
    assert set(asked) == {("nvpmodel", "-q")}


def test_what_makes_an_emulator_is_said(read, boards) -> None:
    assert "machine virt" in (read("qemu virt").emulated or "")
    assert "the chip is a bcm2837, and its processor has instructions (AES)" in (read("qemu raspi3b").emulated or "")


def test_a_raspberry_pi_that_nobody_vouches_for_is_an_emulator(read, boards) -> None:
    facts = read(boards["pi 3"].without("vcgencmd", "sys/devices/system/cpu/cpu0/cpufreq"))
    assert "firmware does not answer" in (facts.emulated or "")
    assert facts.provenance == "emulated-functional"


def test_a_raspberry_pi_5_has_the_instructions_that_older_ones_were_made_without(read, boards) -> None:
    assert "aes" in boards["pi 5"].files["proc/cpuinfo"]
    assert read("pi 5").emulated is None


@pytest.mark.parametrize(
    ("board", "files", "reason"),
    [
        ("pi 4", {"proc/sys/kernel/arch": "x86_64\n"}, "runs on x86"),
        ("pi 4", {"sys/devices/system/cpu/modalias": "cpu:type:x86,ven0000:feature:,00\n"}, "runs on x86"),
        ("pi 4", {"proc/device-tree/fw-cfg@9020000/reg": "0"}, "configuration device"),
        ("pi 4", {"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "tables name QEMU"),
        ("pi 4", {"proc/cpuinfo": "Features\t: fp asimd aes crc32\n"}, "chip was made without"),
        ("pi 4", {"proc/cpuinfo": "CPU implementer\t: 0x00\nCPU part\t: 0x051\n"}, "QEMU's own, max"),
    ],
)
def test_each_sign_of_an_emulator_is_enough(read, boards, board: str, files: dict[str, str], reason: str) -> None:
    facts = read(boards[board].also(files))
    assert reason in (facts.emulated or "")
    assert facts.provenance == "emulated-functional"


def test_an_emulated_raspberry_pi_that_states_one_clock_for_everything_is_not_a_real_one(read, boards) -> None:
    """QEMU 9 answers the kernel's questions for a clock, and for the throttle bits."""
    place = "sys/devices/system/cpu/cpu0/cpufreq"
    stated = {f"{place}/{name}_freq": "700000\n" for name in ("cpuinfo_min", "cpuinfo_max", "scaling_cur")}
    stated[f"{place}/scaling_governor"] = "ondemand\n"
    bits = {"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"}
    silent = boards["pi 3"].without("vcgencmd")
    assert read(silent).provenance == "measured-on-device"
    assert read(silent.also(stated | bits)).provenance == "emulated-functional"


@pytest.mark.parametrize("lost", ["vcgencmd", "sys/devices/system/cpu/cpu0/cpufreq"])
def test_a_real_raspberry_pi_needs_one_of_its_firmware_and_its_clock_driver(read, boards, lost: str) -> None:
    assert read(boards["pi 3"].without(lost)).provenance == "measured-on-device"


def test_the_user_knows_better_and_it_is_seen(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_EMULATED", "0")
    facts = read("qemu raspi3b")
    assert facts.provenance == "measured-on-device"
    assert facts.emulated is not None
    assert "because EDGESEQ_EMULATED=0 says so (the chip is a bcm2837" in dict(lines(facts))["numbers"]
    monkeypatch.setenv("EDGESEQ_EMULATED", "1")
    assert read("pi 5").provenance == read("x86").provenance == "emulated-functional"
    monkeypatch.setenv("EDGESEQ_EMULATED", "")
    assert read("pi 5").provenance == "measured-on-device"
    monkeypatch.setenv("EDGESEQ_EMULATED", "yes")
    with pytest.raises(InputError, match="EDGESEQ_EMULATED is 'yes'"):
        read("pi 5")


def test_facts_of_a_report_from_before_there_were_more_are_read() -> None:
    old = {
        **{"machine": "aarch64", "model": "linux,dummy-virt", "device_tree": True, "cores": 2, "governor": None},
        **{"clock_mhz": None, "temperature_c": None, "throttled": None, "os": "Debian", "kernel": "6.1"},
        **{"python": "3.11", "versions": {}},
    }
    facts = msgspec.convert(old, Facts)
    assert (facts.provenance, facts.core, facts.rails) == ("emulated-functional", None, ())
    assert msgspec.convert({**old, "model": "Raspberry Pi 4"}, Facts).provenance == "measured-on-device"


def test_facts_survive_being_written(read, boards, tmp_path: Path) -> None:
    for name in boards:
        facts = read(name)
        assert msgspec.json.decode(msgspec.json.encode(facts), type=Facts) == facts


def test_facts_in_words(read) -> None:
    words = dict(lines(read("jetson orin nano")))
    assert words["processor"] == "4x Cortex-A78AE"
    assert words["instructions"] == "asimd asimddp asimdhp"
    assert words["memory"] == "7,619 MiB, swap 3,810 MiB"
    assert words["clock"] == "730 of 1,510 MHz (the kernel says so)"
    assert words["gpu"] == "NVIDIA GA10B (Ampere), not used: edgeseq runs on the CPU"
    assert words["power"] == "VDD_IN 4.81 W, VDD_CPU_GPU_CV 0.48 W, VDD_SOC 1.44 W"
    assert words["numbers"] == "measured here are called: measured-on-device"
    assert "throttling" not in words


def test_the_words_of_raspberry_pis(read) -> None:
    words = dict(lines(read("pi 4")))
    assert words["throttling"] == "under-voltage since boot, throttled since boot (bits 50000)"
    assert words["processor"] == "4x Cortex-A72; kept free by the scheduler: 3"
    assert not {"gpu", "power", "power mode"} & words.keys()
    assert dict(lines(read("pi 3")))["throttling"] == "none (bits 0)"
    assert dict(lines(read("pi 5")))["power"] == "sum of 4 rails 0.98 W"


def test_what_an_emulator_cannot_say_is_said_to_be_unreadable(read) -> None:
    words = dict(lines(read("qemu virt")))
    assert (words["clock"], words["governor"], words["temperature"]) == ("not readable",) * 3
    assert "EDGESEQ_EMULATED=0 if that is wrong" in words["numbers"]
