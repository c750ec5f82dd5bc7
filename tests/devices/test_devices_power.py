"""Energy from the rails of a board: here the rails of the fixture draw what the test says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgeseq.devices.bench import BenchReport, bench, measure, power
from edgeseq.devices.bench.turns import TURNS, paced_turn
from edgeseq.devices.bench.words import energy_words, sentences
from edgeseq.devices.board.power import Rail
from edgeseq.devices.session import Session

IDLE, JOULES = 2.0, 0.004


class Board:
    """A board that takes ``IDLE`` watts, and ``JOULES`` more for each step since the last reading of its rails."""

    def __init__(self, *names: str) -> None:
        self.names, self.steps, self.readings, self.last = names, 0, 0, time.perf_counter()

    def read(self) -> tuple[Rail, ...]:
        self.readings += 1
        now = time.perf_counter()
        watts = IDLE + JOULES * self.steps / (now - self.last)
        self.steps, self.last = 0, now
        return tuple(Rail(name, watts / (number + 1), "ina3221 1-0040") for number, name in enumerate(self.names))


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, board: Board, seconds: float = 1.2) -> BenchReport:
    """A report of a folder in numpy, in which every step of a session costs energy."""

    def open_session(*arguments: str) -> Session:
        session = Session(*arguments)
        step = session.step

        def counted(frame: object) -> object:
            board.steps += 1
            return step(frame)

        session.step = counted
        return session

    monkeypatch.setattr("edgeseq.devices.bench.measure.Session", open_session)
    monkeypatch.setattr(power, "read_rails", board.read)
    return bench(folder, ["numpy"], seconds=0.01, paced_seconds=seconds, rate=100.0)


def test_a_step_costs_what_the_board_takes_above_idle(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "warm_up", lambda run: None)
    report = measured(monkeypatch, folders["leaky"], board := Board("VDD_IN", "VDD_SOC"))
    assert report.energy == "measured"
    assert report.power is not None
    assert report.power.provenance == "measured"
    assert report.power.counted == "VDD_IN"
    assert [rail.name for rail in report.power.idle] == ["VDD_IN", "VDD_SOC"]
    assert report.power.idle[0].watts == pytest.approx(IDLE)
    (entry,) = report.power.engines
    assert entry.engine == "numpy"
    assert entry.rails[0].watts == pytest.approx(IDLE + 100 * JOULES, rel=0.1)
    assert entry.joules_per_step == pytest.approx(JOULES, rel=0.2)
    assert entry.joules_error is not None
    assert 0 <= entry.joules_error < JOULES
    assert board.readings == 1 + 2 * round(1.2 / power.INTERVAL)
    said = sentences(report)
    assert any(text.startswith("Power: 2.000 W idle (VDD_IN, ina3221 1-0040)") for text in said)
    assert any(text.startswith("Energy: ") and "uJ a step above idle" in text for text in said)


def test_the_rails_are_read_after_the_timed_steps(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board("VDD_IN")
    order: list[str] = []
    monkeypatch.setattr(power, "read_rails", lambda: order.append("rails") or board.read())
    monkeypatch.setattr(measure, "paced_turn", lambda *arguments: order.append("paced") or paced_turn(*arguments))
    bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.1, rate=100.0)
    assert order[: order.index("rails")] == ["paced"] * TURNS
    assert "paced" not in order[TURNS:]


def test_without_a_rail_for_the_board_there_is_no_energy(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = measured(monkeypatch, folders["leaky"], Board("VDD_GPU_SOC"), seconds=0.3)
    assert report.power is not None
    assert report.power.counted is None
    (entry,) = report.power.engines
    assert (entry.joules_per_step, entry.joules_error) == (None, None)
    assert "Energy: no rail here stands for the board as a whole." in sentences(report)


def test_rails_that_stop_answering_leave_no_energy(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    once = iter([(Rail("VDD_IN", 2.0, "ina3221 1-0040"),)])
    monkeypatch.setattr(power, "read_rails", lambda: next(once, ()))
    report = bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.3, rate=100.0)
    assert report.power is not None
    assert (report.power.idle, report.power.engines[0].joules_per_step) == ((), None)


def test_an_energy_within_its_error_is_said_to_be_none() -> None:
    rails = (Rail("VDD_IN", 2.0, "ina3221 1-0040"),)
    seen = power.EnginePower("numpy", rails, 3e-6, 1e-6)
    lost = power.EnginePower("numpy", rails, 1e-6, 1e-6)
    assert energy_words(seen) == "3.0 ± 1.0 uJ a step above idle"
    assert energy_words(lost).endswith("(not told from none)")


def test_without_rails_nothing_is_measured(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "read_rails", lambda: ())
    monkeypatch.setattr(power, "_watch", lambda *_: pytest.fail("there is nothing to read"))
    report = bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.1)
    assert (report.power, report.energy) == (None, "none")
