"""What one board is asked for, and what becomes of its answers.

Its shell is this machine's, and its Python says what it was told to, where a test is not of what it says itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from edgeseq.devices.bench import bench_side_by_side, write_report
from edgeseq.devices.remote import remote_bench
from edgeseq.devices.remote.command import Done
from edgeseq.devices.remote.deploy import Place
from edgeseq.devices.remote.inventory import Device
from edgeseq.devices.remote.remote_bench import Asked, Benched, Keep, bench_board
from edgeseq.errors import DeviceUnreachable, GateFailed, InputError
from edgeseq.folder import Folder, open_folder

from ..conftest import leaky_program, write_folder
from .conftest import put_tool
from .test_remote_probe import board

MODELS = ("model0", "model1", "model2")
# Answers as the verbs do, with what lies in $ANSWERS.
SAID = """#!/bin/sh
shift 2; verb=$1; shift
case $verb in
verify) cat "$ANSWERS/verify/${1##*/}" ;;
bench)
  if [ -e "$ANSWERS/refused" ]; then cat "$ANSWERS/refused"; exit; fi
  printf '{"reports": ['; ahead=
  while [ "$1" != --json ]; do printf %s "$ahead"; cat "$ANSWERS/bench/${1##*/}"; ahead=,; shift; done
  printf ']}\\n' ;;
esac
"""
CHECKED = {"unchecked": [], "links": [{"name": "program ~ golden"}]}
REAL = f'exec {sys.executable} "$@"'
ASKED = Asked(engines=("numpy",), seconds=0.02, paced_seconds=0.06)


@dataclass
class Kitchen:
    """A board without a link: what would run there runs here. The link is lost before the verb ``cut``."""

    data: Path
    models: Sequence[Folder]
    name: str = "kitchen"
    answers: Path = Path()
    real: bool = False
    cut: str = "nothing"
    processor: str = "1 2"
    environment: str = "first"
    ran: list[list[str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    lost: bool = False

    def script(self, text: str, args: Sequence[str] = (), timeout: float | None = None) -> Done:
        """As a link runs it."""
        self.ran.append(list(args[1:]))
        self.lost = self.lost or self.cut in args
        if self.lost:
            raise DeviceUnreachable("kitchen: the link was lost")
        done = subprocess.run(["sh", "-c", text, "sh", *args], capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def alive(self) -> bool:
        """Whether the link is there."""
        return not self.lost

    def deploy(self, *_: object) -> Place:
        """Send what is not there: as the real one, but nothing has to be installed."""
        env = self.data / "envs" / self.environment
        if not env.exists():
            (env / "bin").mkdir(parents=True)
            said = SAID.replace("$ANSWERS", str(self.answers))
            program = REAL if self.real else f'[ "$1" = -m ] || {REAL}\n{said}'
            put_tool(env / "bin", "python", program)
        paths = [self.data / "folders" / folder.hash for folder in self.models]
        for folder, path in zip(self.models, paths, strict=True):
            if not path.exists():
                shutil.copytree(folder.path, path)
        return Place(board(processor=self.processor), str(self.data), str(env), tuple(map(str, paths)))

    def bench(self, asked: Asked = ASKED, keep: Keep = lambda reports: None) -> Benched:
        self.steps, self.ran = [], []
        return bench_board(self, Device("ssh://kitchen"), self.models, asked, self.steps.append, keep)

    def verbs(self) -> list[str]:
        """The verbs that ran there, in order."""
        return [argv[3] for argv in self.ran if argv[1:3] == ["-m", "edgeseq.devices"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    place = tmp_path_factory.mktemp("models")
    right = {name: write_folder(place / name, leaky_program(seed)) for seed, name in enumerate((*MODELS, "other"))}
    wrong = {
        name: write_folder(place / name, leaky_program(width), golden=leaky_program(width + 1))
        for name, width in (("wrong", 4), ("worse", 8))
    }
    return {name: open_folder(path) for name, path in {**right, **wrong}.items()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Folder]) -> Path:
    """What boards say of the folders."""
    place = tmp_path_factory.mktemp("answers")
    failed = {"error": {"type": "GateFailed", "message": "it does not hold", "exit_code": 5}}
    reports = bench_side_by_side(list(folders.values()), ["numpy"], seconds=0.02, paced_seconds=0.06)
    for (name, folder), report in zip(folders.items(), reports, strict=True):
        write_answer(place / "verify" / folder.hash, failed if name in ("wrong", "worse") else CHECKED)
        write_answer(place / "bench" / folder.hash, report)
    return place


def write_answer(file: Path, document: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.encode(document))


@pytest.fixture
def kitchen(tmp_path: Path, folders: dict[str, Folder], answers: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    made = Kitchen(tmp_path / "data", [folders[name] for name in MODELS], answers=answers)
    monkeypatch.setattr(remote_bench, "deploy", made.deploy)
    return made


def test_folders_are_checked_first_and_then_measured_in_turns(kitchen):
    kitchen.real = True
    found = kitchen.bench()
    assert kitchen.verbs() == ["verify", "verify", "verify", "bench"]
    assert kitchen.steps[-1] == "measuring model0, model1, model2"
    assert [(folder.path.name, report.name, report.device) for folder, report in found.reports] == [
        (name, name, "kitchen") for name in ("model0", "model1", "model2")
    ]
    assert found.failed is None
    moments = {report.moments for _, report in found.reports}
    assert len(moments) == 1  # read between the turns that they took together


def test_a_folder_that_fails_its_check_is_named_and_the_others_measured(kitchen, folders):
    kitchen.models = [folders[name] for name in ("model0", "wrong", "model1")]
    found = kitchen.bench()
    assert [folder.path.name for folder, _ in found.reports] == ["model0", "model1"]
    assert isinstance(found.failed, GateFailed)
    assert str(found.failed) == "kitchen: checking wrong: it does not hold"
    kitchen.models = [folders["wrong"]]
    with pytest.raises(GateFailed, match="checking wrong"):
        kitchen.bench()


def test_errors_of_one_kind_keep_their_kind(kitchen, folders):
    kitchen.models = [folders[name] for name in ("wrong", "worse", "model0")]
    failed = kitchen.bench().failed
    assert isinstance(failed, GateFailed)
    assert {"checking wrong", "checking worse"} <= set(re.findall("checking [a-z]+", str(failed)))


def test_a_link_that_is_lost_ends_the_board_at_once(kitchen):
    kitchen.cut = "verify"
    with pytest.raises(DeviceUnreachable, match="lost"):
        kitchen.bench()
    assert kitchen.verbs() == ["verify"]


def test_a_check_that_was_passed_is_remembered(kitchen):
    kitchen.bench()
    kitchen.bench()
    assert kitchen.verbs() == ["bench"]
    assert kitchen.steps[1:4] == [f"model{number} passed its check there before" for number in range(3)]


@pytest.mark.parametrize("changed", ["environment", "processor", "engines", "folder", "torn"])
def test_what_is_new_is_checked_again(kitchen, changed, folders):
    kitchen.models = kitchen.models[:1]
    asked = ASKED
    kitchen.bench()
    if changed == "environment":
        kitchen.environment = "second"
    elif changed == "processor":
        kitchen.processor = "3 4"
    elif changed == "engines":
        asked = Asked(("litert",), 0.02, 0.06)
    elif changed == "folder":
        kitchen.models = [folders["other"]]
    else:
        (mark,) = (kitchen.data / "envs" / "first" / "checked").iterdir()
        mark.write_bytes(b"")
    kitchen.bench(asked)
    assert kitchen.verbs() == ["verify", "bench"]


def test_a_check_that_failed_is_not_remembered(kitchen, folders):
    kitchen.models = [folders["wrong"]]
    for _ in range(2):
        with pytest.raises(GateFailed):
            kitchen.bench()
        assert kitchen.verbs() == ["verify"]


def test_a_board_that_cannot_remember_is_measured_all_the_same(kitchen):
    kitchen.models = kitchen.models[:1]
    kitchen.deploy()
    (kitchen.data / "envs" / "first" / "checked").write_text("in the way")
    assert kitchen.bench().reports
    assert any(step.startswith("that model0 passed is not remembered there: ") for step in kitchen.steps)


@pytest.mark.parametrize("remembered", [False, True])
def test_a_file_that_was_damaged_there_removes_its_folder_alone(kitchen, remembered):
    kitchen.real = True
    kitchen.models = kitchen.models[:2]
    if remembered:
        kitchen.bench()
    sent = [Path(path) for path in kitchen.deploy().folders]
    (sent[1] / "golden.npz").write_bytes(b"somebody's hand")
    found = kitchen.bench()
    assert [folder.path.name for folder, _ in found.reports] == ["model0"]
    assert f"kitchen: {'measuring' if remembered else 'checking'} model1: " in str(found.failed)
    assert "was changed after it was written" in str(found.failed)
    assert "sends it again" in str(found.failed)
    assert any("by itself, not in turns" in note for note in found.notes) == remembered
    assert [path.exists() for path in sent] == [True, False]


@pytest.fixture
def refused(kitchen, tmp_path):
    """A board that refuses what it is asked to measure."""
    kitchen.answers = shutil.copytree(kitchen.answers, tmp_path / "answers")
    error = {"type": "InputError", "message": "--pin 1000: there is no such processor", "exit_code": 2}
    write_answer(kitchen.answers / "refused", {"error": error})
    return kitchen


def test_an_option_that_the_board_refuses_removes_nothing(refused):
    with pytest.raises(InputError) as error:
        refused.bench()
    said = [f"kitchen: measuring {name}: --pin 1000: there is no such processor" for name in MODELS]
    assert str(error.value) == "; ".join(said)
    assert all((refused.data / "folders" / folder.hash).exists() for folder in refused.models)


def test_a_link_that_is_lost_while_measuring_is_not_asked_again(kitchen):
    kitchen.cut = "bench"
    with pytest.raises(DeviceUnreachable, match="lost"):
        kitchen.bench()
    assert kitchen.verbs().count("bench") == 1


@pytest.fixture
def changing(kitchen, tmp_path):
    """A board with one folder, whose answers a test may change: ``changing(check, report)``."""
    kitchen.models = kitchen.models[:1]
    kitchen.answers = shutil.copytree(kitchen.answers, tmp_path / "answers")
    (folder,) = kitchen.models
    file = kitchen.answers / "bench" / folder.hash
    report = msgspec.json.decode(file.read_bytes())

    def change(check: dict[str, object], *engines: str) -> Kitchen:
        write_answer(kitchen.answers / "verify" / folder.hash, check)
        write_answer(file, {**report, "engines": [{**report["engines"][0], "engine": name} for name in engines]})
        return kitchen

    return change


WITH_LITERT = {**CHECKED, "links": [*CHECKED["links"], {"name": "litert free-running"}]}


def test_what_a_check_left_out_is_told_each_time(changing):
    kitchen = changing({**CHECKED, "unchecked": ["model.tflite"]}, "numpy")
    for verbs in (["verify", "bench"], ["bench"]):
        found = kitchen.bench(Asked(seconds=0.02, paced_seconds=0.06))
        assert found.notes == ["kitchen did not check model.tflite of model0: no engine there runs it"]
        assert kitchen.verbs() == verbs


def test_an_engine_that_the_remembered_check_was_not_of_is_checked_after_all(changing):
    changing(CHECKED, "numpy").bench()
    kitchen = changing(WITH_LITERT, "numpy", "litert")
    assert len(kitchen.bench().reports) == 1
    assert kitchen.verbs() == ["bench", "verify"]
    kitchen.bench()
    assert kitchen.verbs() == ["bench"]


def test_numbers_of_an_engine_that_no_check_is_of_are_none(changing):
    kitchen = changing(CHECKED, "numpy", "litert")
    with pytest.raises(GateFailed, match="kitchen: model0 was measured in litert, and not checked in it"):
        kitchen.bench()


LONG = Asked(engines=("numpy",), seconds=0.02, duration="100ms")


def run_of(kitchen: Kitchen) -> Path:
    """Where the board would keep a long run that is not through."""
    (place,) = [Path(argv[-1]).parent for argv in kitchen.ran if argv[0] == "cat" and argv[-1].endswith("report.json")]
    return place


def test_a_long_run_leaves_nothing_there_when_its_report_has_come(kitchen):
    kitchen.real = True
    kitchen.models = kitchen.models[:1]
    found = kitchen.bench(LONG)
    assert found.reports[0][1].long_run is not None
    assert found.notes == []
    assert not run_of(kitchen).exists()


def test_a_long_run_stays_there_until_its_report_is_kept_here(kitchen):
    def refuse(reports: object) -> None:
        assert (run_of(kitchen) / "report.json").exists()
        raise InputError("bench.json cannot be written: No space left on device")

    kitchen.real = True
    kitchen.models = kitchen.models[:1]
    first = kitchen.bench(LONG, refuse)
    assert "kitchen still has its report" in first.notes[-1]
    assert "No space left" in first.notes[-1]
    again = kitchen.bench(LONG)
    assert kitchen.verbs() == []
    assert again.reports[0][1] == first.reports[0][1]
    assert not run_of(kitchen).exists()


def test_a_report_of_an_earlier_command_is_told_from_a_new_one(kitchen):
    kitchen.models = kitchen.models[:1]
    _, first = kitchen.bench(LONG).reports[0]
    run_of(kitchen).mkdir(parents=True)
    write_report(run_of(kitchen) / "report.json", {"reports": [first]})
    found = kitchen.bench(LONG)
    assert found.reports[0][1] == first
    assert found.notes == [f"kitchen measured model0 at {first.measured}, by an earlier command"]
    assert kitchen.verbs() == []
    assert kitchen.bench(LONG).notes == []


@pytest.mark.parametrize("changed", ["environment", "processor", "rate"])
def test_another_build_or_command_is_another_run(kitchen, changed):
    kitchen.models = kitchen.models[:1]
    kitchen.bench(LONG)
    place = run_of(kitchen)
    kitchen.bench(LONG)
    assert run_of(kitchen) == place
    if changed == "environment":
        kitchen.environment = "second"
    elif changed == "processor":
        kitchen.processor = "3 4"
    kitchen.bench(Asked(engines=("numpy",), seconds=0.02, duration="100ms", rate=99.0 if changed == "rate" else None))
    assert run_of(kitchen) != place


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("Killed", "failed there"),
        ('{"reports": []}', "is not that of model0"),
        ('{"reports": [{"name": 3}]}', "is damaged"),
        ("{}", "is damaged"),
    ],
)
def test_an_answer_that_is_none_is_told(kitchen, printed, said):
    kitchen.models = kitchen.models[:1]
    kitchen.bench()
    put_tool(kitchen.data / "envs" / "first" / "bin", "python", f"echo '{printed}'")
    with pytest.raises(DeviceUnreachable, match=said):
        kitchen.bench()
