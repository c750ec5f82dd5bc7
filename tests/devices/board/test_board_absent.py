"""What is missing, damaged or silent: absent, and never an error."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseq.devices.board import clocks, power, processor, sources, throttle
from edgeseq.devices.board.moments import Moment, read_moment, throttling
from edgeseq.devices.board.sources import ask, read_number, read_text
from edgeseq.devices.board.words import lines
from edgeseq.devices.facts import Facts, read_facts

DAMAGE = st.one_of(
    st.sampled_from(["missing", "directory", "loop"]),
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"\n", b"nan\n", b"inf\n", b"-256000\n", b"1e999\n", b"1e300\n", b"\xff\xfe", b"0-99999999\n", b"\x1b[2J"]
    ),
    st.integers(0, 30),  # cut off after so many bytes
)
ANSWERS = st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["frequency(48)=0", "throttled=0x", "temp=nan'C"]))
PLAUSIBLE_C = (-50, 150)


def spoil(file: Path, damage: str | bytes | int) -> None:
    content = file.read_bytes()
    file.unlink()
    if damage == "directory":
        file.mkdir()
    elif damage == "loop":
        file.symlink_to(file.name)
    elif isinstance(damage, bytes):
        file.write_bytes(damage)
    elif isinstance(damage, int):
        file.write_bytes(content[:damage])


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_is_an_error(boards, data: st.DataObject) -> None:
    board = boards[data.draw(st.sampled_from(sorted(boards)))]
    damages = data.draw(st.dictionaries(st.sampled_from(sorted(board.files)), DAMAGE, min_size=1))
    answers = data.draw(st.dictionaries(st.sampled_from([*sorted(board.answers), "vcgencmd x"]), ANSWERS))
    with tempfile.TemporaryDirectory() as place:
        root = board.plant(Path(place))
        for path, damage in damages.items():
            spoil(root / path, damage)
        said = {**board.answers, **answers}
        facts = read_facts(root, lambda command: said.get(" ".join(command)))
        moment = read_moment(root, lambda command: said.get(" ".join(command)))
    assert msgspec.json.decode(msgspec.json.encode(facts), type=Facts) == facts
    assert msgspec.json.decode(msgspec.json.encode(moment), type=Moment) == moment
    assert all(text.isprintable() for row in lines(facts) for text in row)
    for reading in (facts, moment):
        assert reading.temperature_c is None or PLAUSIBLE_C[0] < reading.temperature_c < PLAUSIBLE_C[1]
        assert reading.clock_mhz is None or reading.clock_mhz > 0
    assert throttling(facts, [moment], facts) is None or (facts.throttle or facts.governor == "performance")


@pytest.mark.parametrize("content", [b"", b"\n", b"no number\n", b"nan", b"\xff\xff", b"\0\0"])
def test_files_that_say_nothing_give_nothing(boards, tmp_path: Path, content: bytes) -> None:
    for board in boards.values():
        root = type(board)("aarch64", dict.fromkeys(board.files, content)).plant(tmp_path / board.machine)
        facts = read_facts(root, lambda command: None)
        assert (facts.clock_mhz, facts.clock_max_mhz, facts.clock_says, facts.temperature_c) == (None,) * 4
        assert (facts.core, facts.soc, facts.gpu, facts.power_mode, facts.throttled) == (None,) * 5
        assert (facts.memory_bytes, facts.swap_bytes) == (None, None)
        assert (facts.features, facts.isolated, facts.throttle, facts.rails) == ((),) * 4


def test_an_empty_machine_has_no_facts_but_its_own(tmp_path: Path) -> None:
    facts = read_facts(tmp_path / "nothing", lambda command: None)
    assert (facts.model, facts.core, facts.governor, facts.rails) == (None, None, None, ())
    assert (facts.python_bits, bool(facts.versions["numpy"])) == (64, True)


def test_a_sensor_that_sleeps_answers_eagain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Sleeping(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> None:
            return None  # what FileIO makes of EAGAIN

    monkeypatch.setattr(Path, "open", lambda file, mode: io.BufferedReader(Sleeping()))
    assert read_text(tmp_path / "temp") is None
    assert read_number(tmp_path / "temp") is None


def test_this_machine_can_be_read() -> None:
    facts = read_facts()
    assert facts.memory_bytes is not None
    assert facts.memory_bytes > 2**28
    assert isinstance(read_moment().monotonic_ns, int)
    assert dict(lines(facts))["machine"].endswith(f"({os.uname().machine})")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("3", (3,)),
        ("1,4-6", (1, 4, 5, 6)),
        ("2-1", ()),
        ("1,", ()),
        ("0-10:2/4", ()),
        ("0-99999999999", ()),
        ("٣", ()),
        ("0-9999", tuple(range(8192))),
    ],
)
def test_lists_of_cores(text: str, cpus: tuple[int, ...]) -> None:
    assert processor.parse_cpus(text) == cpus


@pytest.mark.parametrize(
    ("answer", "bits"),
    [
        ("throttled=0x50005\n", 0x50005),
        ("throttled=0x0", 0),
        ("50000\n", 0x50000),
        ("throttled=", None),
        ("throttled=0x", None),
        ("throttled=0xzz", None),
        ("123456789", None),
        ("VCHI initialization failed", None),
        (None, None),
    ],
)
def test_throttle_bits(answer: str | None, bits: int | None) -> None:
    assert throttle.parse_throttled(answer) == bits


def test_each_throttle_bit_has_its_word_and_its_time() -> None:
    words = [throttle.decode(1 << bit) for bit in (*range(4), *range(16, 20))]
    assert words == [
        (f"{word} {when}",)
        for when in ("now", "since boot")
        for word in ("under-voltage", "clock capped", "throttled", "soft temperature limit")
    ]
    assert throttle.decode(0) == throttle.decode(0xFFF0FFF0) == ()


def test_answers_that_are_none() -> None:
    assert clocks.parse_clock("frequency(48)=0\n") is None
    assert clocks.parse_clock("error=2") is None
    assert clocks.parse_temperature("temp=nan'C") is None
    assert clocks.parse_temperature("temp=-3.5'C\n") == -3.5
    assert clocks.parse_power_mode("NV Power Mode:\n0\n") is None
    assert power.parse_pmic(" VDD_CORE_A current(7)=nanA\n VDD_CORE_V volt(15)=0.7V\n") == ()
    assert power.parse_pmic(" VDD_CORE_A current(7)=0.7V\n VDD_CORE_V volt(15)=0.7V\n") == ()
    assert power.parse_pmic(" VDD_CORE_A current(7)=0.5A\n") == ()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a shell script on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(script: str, mode: int = stat.S_IRWXU) -> str:
        (tmp_path / "asked").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "asked").chmod(mode)
        return "asked"

    return make


def test_a_program_that_answers(program) -> None:
    assert ask((program('echo "frequency($1)=$2"; echo noise >&2'), "48", "a b; c")) == "frequency(48)=a b; c\n"
    assert ask((program(r"printf '\377volt'"),)) == "�volt"


def test_a_program_that_reads_gets_nothing(program) -> None:
    assert ask((program("cat; echo done"),)) == "done\n"


def test_a_program_that_fails_or_is_not_there_or_not_allowed(program, tmp_path: Path) -> None:
    assert ask((program("echo 1; exit 3"),)) is None
    assert ask(("no-such-program-anywhere",)) is None
    assert ask((program("echo 1", mode=stat.S_IRUSR),)) is None
    (tmp_path / "asked").write_bytes(b"\x7fELF no program")
    (tmp_path / "asked").chmod(stat.S_IRWXU)
    assert ask(("asked",)) is None


def test_a_program_that_hangs_is_ended_with_what_it_started(program, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "TIMEOUT", 0.5)
    name = program(f"sleep 60 & echo $! > {tmp_path}/child; echo begun; wait")
    assert ask((name,)) is None
    child = int((tmp_path / "child").read_text())
    for _ in range(100):  # until whoever inherited it has seen that it ended
        with suppress(ProcessLookupError, FileNotFoundError):
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        break
    else:
        pytest.fail("the program's child still runs")
