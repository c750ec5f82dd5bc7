"""When a run counts as throttled."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeseq.devices.board.moments import Moment, read_moment, throttling
from edgeseq.devices.facts import Facts, read_facts

replace = msgspec.structs.replace


@pytest.fixture
def pi(boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """A Raspberry Pi 4 under the governor performance, which had been throttled some time before."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    return read_facts(boards["pi 4"].plant(tmp_path), boards["pi 4"].ask)


def moment(facts: Facts, **changed: object) -> Moment:
    given = {name: getattr(facts, name) for name in ("temperature_c", "clock_mhz", "throttled", "throttle")}
    return Moment(**({"monotonic_ns": 0} | given | changed))


def test_a_board_that_kept_its_clock_was_not_throttled_whatever_was_since_boot(pi: Facts) -> None:
    assert throttling(pi, [], pi) is None
    assert throttling(pi, [moment(pi), moment(pi, temperature_c=79.0), moment(pi, clock_mhz=None)], pi) is None


def test_a_bit_that_is_set_now(pi: Facts) -> None:
    slowed = moment(pi, throttled="50005", throttle=("under-voltage now", "throttled now", *pi.throttle))
    assert throttling(pi, [moment(pi), slowed, slowed], pi) == "under-voltage, throttled in 2 of 5 readings"
    before = replace(pi, throttle=("soft temperature limit now",))
    assert throttling(before, [], pi) == "soft temperature limit in 1 of 2 readings; " + (
        "under-voltage since boot, throttled since boot, which was not so when it began"
    )


def test_a_bit_since_boot_that_was_not_there_before(pi: Facts) -> None:
    after = replace(pi, throttled="d0000", throttle=(*pi.throttle, "soft temperature limit since boot"))
    assert throttling(pi, [moment(pi)], after) == "soft temperature limit since boot, which was not so when it began"


def test_bits_that_could_not_be_read_at_first_are_not_new(pi: Facts) -> None:
    silent = replace(pi, throttled=None, throttle=())
    assert throttling(silent, [moment(pi)], pi) is None


def test_an_alarm_of_a_jetson_that_came_again(boards, tmp_path: Path) -> None:
    board = boards["jetson orin nano"]
    facts = read_facts(board.plant(tmp_path), board.ask)
    (tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("2\n")
    after = read_facts(tmp_path, board.ask)
    assert after.throttle == ("alarm oc3 2 times since boot",)
    assert throttling(facts, [], after) == "alarm oc3 2 times since boot, which was not so when it began"
    assert throttling(after, [], after) is None


def test_a_clock_that_the_kernel_lowers_is_seen(boards, tmp_path: Path) -> None:
    board = boards["jetson nano"]
    facts = read_facts(board.plant(tmp_path), board.ask)
    (tmp_path / "sys/class/thermal/cooling_device0/cur_state").write_text("3\n")
    (tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq").write_text("918000\n")
    hot = read_moment(tmp_path, board.ask)
    assert hot.throttle == ("clock lowered by the kernel now",)
    assert throttling(facts, [hot], read_facts(tmp_path, board.ask)) == (
        "clock lowered by the kernel in 2 of 3 readings; the highest clock allowed fell from 1479 to 918 MHz"
    )


def test_only_what_slows_the_processor_counts_as_cooling(boards, tmp_path: Path) -> None:
    board = boards["pi 4"].also({"sys/class/thermal/cooling_device0/type": "pwm-fan\n"})
    board = board.also({"sys/class/thermal/cooling_device0/cur_state": "4\n"})
    assert all(word.endswith("since boot") for word in read_moment(board.plant(tmp_path), board.ask).throttle)


def test_the_kernels_sensor_of_the_supply(boards, tmp_path: Path) -> None:
    board = boards["pi 4"].also({"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"})
    assert "under-voltage now" in read_moment(board.plant(tmp_path), board.ask).throttle


def test_a_clock_below_what_performance_asks_for(pi: Facts) -> None:
    slow = moment(pi, clock_mhz=600.0)
    assert throttling(pi, [moment(pi), slow], pi) == (
        "the clock was 600 MHz, and the governor performance asks for 1800"
    )
    assert throttling(pi, [moment(pi, clock_mhz=1790.0)], pi) is None
    ondemand = replace(pi, governor="ondemand")
    assert throttling(ondemand, [slow], ondemand) is None


def test_a_computer_that_does_not_reach_its_turbo_is_not_throttled(boards, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    facts = read_facts(boards["x86"].plant(tmp_path), boards["x86"].ask)
    assert throttling(facts, [moment(facts, clock_mhz=2800.0)], facts) is None


def test_a_moment_is_what_the_facts_say_then(boards, tmp_path: Path) -> None:
    for board in boards.values():
        root = board.plant(tmp_path / str(len(list(tmp_path.iterdir()))))
        facts, now = read_facts(root, board.ask), read_moment(root, board.ask)
        assert now == moment(facts, monotonic_ns=now.monotonic_ns)
    assert read_moment(tmp_path, boards["x86"].ask).monotonic_ns > now.monotonic_ns
