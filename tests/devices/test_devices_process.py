"""The room from outside: as a process, and where nothing but the base is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseq.program import Program

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
"""
HEAVY = {"torch", "onnx", "typer", "rich", "snntorch", "sklearn", "flatbuffers", "click"}
RUNTIMES = {"ai_edge_litert", "onnxruntime", "tflite_runtime"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def devices(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseq.devices", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)


def test_the_whole_room_works_without_torch_onnx_typer_and_rich(folder: Path) -> None:
    code = BLOCKER.format(blocked=HEAVY) + (
        "import importlib, pkgutil, edgeseq.devices\n"
        "for module in pkgutil.walk_packages(edgeseq.devices.__path__, 'edgeseq.devices.'):\n"
        "    importlib.import_module(module.name)\n"
        "from edgeseq.devices.__main__ import main\n"
        "sys.exit(main(['verify', sys.argv[1], '--frames', '50', '--json']))\n"
    )
    done = python(code, str(folder))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["links"]) == 7


def test_importing_the_room_loads_no_runtime() -> None:
    code = BLOCKER.format(blocked=HEAVY | RUNTIMES) + (
        "import edgeseq.devices.__main__\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'edgeseq', 'numpy', 'msgspec', 'safetensors', 'hypothesis', 'scipy', 'pickle'}))\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "safetensors" not in done.stdout


def test_without_any_runtime_numpy_runs_the_model(folder: Path) -> None:
    code = BLOCKER.format(blocked=HEAVY | RUNTIMES) + (
        "import numpy as np\n"
        "from edgeseq.devices.session import Session\n"
        "session = Session(sys.argv[1])\n"
        "print(session.engine, session.step(np.ones(3, np.float32)).shape)\n"
    )
    assert python(code, str(folder)).stdout == "numpy (4,)\n"


def test_nobody_imports_the_room_by_its_folders_name() -> None:
    wrong = re.compile(r"^\s*(import|from)\s+(devices|export|quant)(\.|\s)", re.MULTILINE)
    rooms = ("edgeseq", "devices", "export", "quant", "tests", "examples", "benchmarks")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 30
    assert [str(file) for file in files if wrong.search(file.read_text(encoding="utf-8"))] == []


def test_the_room_imports_only_what_a_board_has() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "msgspec", "edgeseq", "onnxruntime"}
    own = {"errors", "manifest", "folder", "card", "program", "data", "devices", "metrics", "early", "decisions"}
    own |= {"signal", "events", "lineage"}  # of live streams, from sensors and recordings
    drawn = {"jinja2", "matplotlib"}  # inside functions that make a page, which no board does
    live = {"starlette", "websockets", "paho", "bleak"}  # of the extras live and ble
    found = re.compile(r"^\s*(?:from|import)\s+([\w.]+)", re.MULTILINE)
    for file in (ROOT / "devices").rglob("*.py"):
        for name in found.findall(file.read_text(encoding="utf-8")):
            top, *rest = name.split(".")
            more = drawn if file.parent.name == "report" else live if "live" in file.parts else set()
            assert top in allowed | more, f"{file} imports {name}"
            assert top != "edgeseq" or not rest or rest[0] in own, f"{file} imports {name}"


def test_verify_passes_and_prints_every_link(folder: Path) -> None:
    done = devices("verify", folder, "--engine", "litert", "--engine", "numpy")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok ") for line in lines)


def test_verify_fails_with_exit_code_5_and_still_prints_one_document(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    folder = make_folder(programs["gated"](seed=0), tflite=programs["gated"](seed=1))
    done = devices("verify", folder, "--json")
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert document["passed"] is False
    assert [link["name"] for link in document["links"] if not link["passed"]] == [
        "litert teacher-forced",
        "litert free-running",
    ]
    assert document["error"]["type"] == "GateFailed"
    assert document["error"]["exit_code"] == 5
    assert document["error"]["message"] in done.stderr
    assert "error: litert teacher-forced does not hold" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify", "no/such/folder"], 2, "is not a folder"),
        (["verify", "FOLDER", "--engine", "litrt"], 2, "Did you mean 'litert'"),
        (["stream", "FOLDER", "--input", "no.csv"], 2, "no.csv cannot be read"),
        (["stream", "FOLDER", "--speed", "-1"], 2, "speed"),
        (["bench", "FOLDER", "--rate", "0"], 2, "a positive number is needed"),
        (["verify", "FOLDER", "--engine", "tflite-runtime"], 3, "pip install 'edgeseq[legacy-tflite]'"),
        (["dance", "FOLDER"], 2, "invalid choice"),
        ([], 2, "required"),
    ],
)
def test_errors_have_their_exit_code_and_no_traceback(
    folders: dict[str, Path], arguments: list[str], code: int, message: str
) -> None:
    done = devices(*[str(folders["leaky"]) if word == "FOLDER" else word for word in arguments])
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if code != 2 or ("required" not in message and "choice" not in message):  # usage is argparse's own affair
        words = [str(folders["leaky"]) if word == "FOLDER" else word for word in arguments]
        document = json.loads(devices(*words, "--json").stdout)
        assert document.keys() == {"error"}
        assert document["error"]["exit_code"] == code
        assert message in document["error"]["message"]
        assert done.stderr == f"error: {document['error']['message']}\n"


def test_verify_of_a_few_frames_says_that_it_is_no_proof(folder: Path) -> None:
    done = devices("verify", folder, "--frames", "50")
    assert done.returncode == 0
    assert all("    50 frames" in line for line in done.stdout.splitlines())
    assert done.stderr == "checked on 50 frames only: a proof needs 2000\n"
    document = json.loads(devices("verify", folder, "--frames", "50", "--json").stdout)
    assert (document["passed"], document["frames"]) == (True, 50)
    whole = devices("verify", folder, "--json")
    assert (json.loads(whole.stdout)["frames"], whole.stderr) == (2000, "")


def test_verify_where_no_runtime_works_fails_with_the_install_lines(folder: Path) -> None:
    code = BLOCKER.format(blocked=HEAVY | RUNTIMES) + (
        "from edgeseq.devices.__main__ import main\nsys.exit(main(['verify', sys.argv[1]]))\n"
    )
    done = python(code, str(folder))
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install ai-edge-litert" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads_ends_silently(folder: Path) -> None:
    command = [sys.executable, "-m", "edgeseq.devices", "stream", str(folder), "--speed", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "arguments", [["stream", "--speed", "0"], ["verify", "--engine", "numpy"], ["facts", "--json"]]
)
def test_a_full_disk_is_an_error_without_a_traceback(folder: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeseq.devices", arguments[0], str(folder), *arguments[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*No space left on device\n", done.stderr)


def test_any_error_of_the_system_is_an_error_of_the_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeseq.devices import __main__ as verbs

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "held")

    monkeypatch.setattr("edgeseq.devices.check.check_folder", full)
    assert verbs.main(["verify", str(folder), "--json"]) == 2
    said = capsys.readouterr()
    message = "held: No space left on device"
    assert json.loads(said.out) == {"error": {"type": "InputError", "message": message, "exit_code": 2}}
    assert said.err == f"error: {message}\n"


def test_stream_answers_golden_frames(folder: Path) -> None:
    done = devices("stream", folder, "--speed", "0")
    assert done.returncode == 0
    *changes, last = done.stdout.splitlines()
    assert re.match(r"\s+0\.00 s  (label\d|unknown)  \(\d+ %\)", changes[0])
    assert re.match(rf"2000 frames on (litert|onnxruntime|numpy), {len(changes)} changes", last)


def test_stream_reads_csv_from_a_file_and_from_standard_input_alike(folder: Path, tmp_path: Path) -> None:
    x = np.load(folder / "golden.npz")["x"][:200]
    lines = "\n".join(",".join(f"{value:.9g}" for value in row) for row in x) + "\n"
    (tmp_path / "frames.csv").write_text("c0,c1,c2\n" + lines)
    golden = json.loads(devices("stream", folder, "--speed", "0", "--json").stdout)
    from_file = devices("stream", folder, "--input", tmp_path / "frames.csv", "--speed", "0", "--json")
    from_stdin = devices("stream", folder, "--input", "-", "--json", stdin=lines)
    one, other = json.loads(from_file.stdout), json.loads(from_stdin.stdout)
    assert one["changes"] == other["changes"] == [c for c in golden["changes"] if c["seconds"] < 4]
    assert one["summary"]["frames"] == other["summary"]["frames"] == 200


def test_stream_refuses_a_gap_in_the_samples(folder: Path) -> None:
    done = devices("stream", folder, "--input", "-", stdin="1,2,3\n1,nan,3\n")
    assert done.returncode == 2
    assert "frame 1: channel c1 is nan" in done.stderr


def test_bench_writes_its_report(folder: Path, tmp_path: Path) -> None:
    arguments = ("--seconds", "0.02", "--paced-seconds", "0.1", "--engine", "litert", "--out", tmp_path / "bench.json")
    done = devices("bench", folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "bench.json").read_text())
    table = devices("bench", folder, *arguments)
    assert "litert" in table.stdout


def test_facts_name_the_engines_of_a_folder(folder: Path) -> None:
    facts = json.loads(devices("facts", folder, "--json").stdout)
    assert list(facts["engines"]) == ["litert", "onnxruntime", "numpy"]
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert devices("facts").returncode == 0


def test_the_overhead_benchmark_runs_and_asks_for_a_folder(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "step_overhead.py")]
    none = subprocess.run(command, capture_output=True, text=True, check=False)
    assert none.returncode == 2
    assert "runs/lmu-export" in none.stderr
    options = ["--json", "--rounds", "3", "--out", str(tmp_path / "overhead.json")]
    done = subprocess.run([*command, str(folder), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["engine"], row["raw"]) for row in rows] == [
        ("litert", "public"),
        ("litert", "wrapper"),
        ("onnxruntime", "public"),
        ("numpy", "public"),
    ]
    assert {"engine", "family", "ratio", "session_us", "raw_us", "samples"} <= set(rows[0])
    written = json.loads((tmp_path / "overhead.json").read_text())
    assert written == json.loads(done.stdout)
    assert written["machine"]
    assert {"python", "numpy", "ai-edge-litert"} <= set(written["versions"])
