"""The day-long run of the benchmarks, in short: memory stays, answers do not drift, a saved state is the same state."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeseq.folder import open_folder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEPS, PART = 20_000, 5_000


@pytest.fixture(scope="module")
def long_run():
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module("long_run")
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def recordings(count=5):
    """Recordings whose frames say where they are from: (recording, frame)."""
    lengths = [300 + 100 * number for number in range(count)]
    return [np.stack([np.full(n, i), np.arange(n)], 1).astype(np.float32) for i, n in enumerate(lengths)]


def test_a_stream_is_recordings_end_to_end_in_another_order_each_time(long_run):
    chunks = list(long_run.stream(recordings(), 7300, 0, 0))
    assert [len(chunk) for chunk in chunks] == [1000] * 7 + [300]
    frames = np.concatenate(chunks)
    starts = np.flatnonzero(frames[:, 1] == 0)
    heard = frames[starts, 0].tolist()
    assert [sorted(heard[i : i + 5]) for i in (0, 5)] == [[0, 1, 2, 3, 4]] * 2
    assert heard[:5] != heard[5:10]
    steps = np.diff(frames[:, 1])
    assert set(steps[np.diff(frames[:, 0]) == 0]) <= {1.0, -299.0, -399.0, -499.0, -599.0, -699.0}
    assert np.array_equal(np.concatenate(list(long_run.stream(recordings(), 7300, 0, 0))), frames)
    assert not np.array_equal(np.concatenate(list(long_run.stream(recordings(), 7300, 0, 1))), frames)
    assert not np.array_equal(np.concatenate(list(long_run.stream(recordings(), 7300, 1, 0))), frames)


def test_a_frame_is_off_where_any_bit_is(long_run):
    one = np.zeros((4, 3), np.float32)
    other = one.copy()
    other[1] = -0.0
    other[3, 2] = 1e-45
    assert long_run.off_by_a_bit(one, other) == 2
    assert long_run.off_by_a_bit(np.full((1, 1), np.nan, np.float32), np.full((1, 1), np.nan, np.float32)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["har_watch", "har_watch_fp32"])
def test_a_long_stream_neither_grows_nor_drifts_and_a_saved_state_is_the_same_state(long_run, name, tmp_path):
    found = long_run.Day(open_folder(name), tmp_path, steps=STEPS, part=PART, seed=0).run()
    assert [part.steps for part in found.parts] == [PART] * 4
    assert [part.restored_different for part in found.parts] == [None, None, 0, 0]
    assert found.growth < 1e6
    assert found.same_answer >= 0.9999
    assert found.largest > 1
    if name == "har_watch":
        assert (found.reference, found.different, found.drift) == ("onnxruntime", 0, 0.0)
    else:
        assert found.reference == "torch forward"
        assert 0 < found.drift < 1e-4 * found.largest


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was_and_ends_the_same(long_run, tmp_path):
    options = ("--steps", STEPS, "--part", PART, "--work", tmp_path, "--out", tmp_path / "out.json")
    command = [sys.executable, str(BENCHMARKS / "long_run.py"), "har_watch", *map(str, options)]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as first:
        while first.poll() is None and not list(tmp_path.glob("har_watch-*.json")):
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    (checkpoint,) = tmp_path.glob("har_watch-*.json")
    reached = len(msgspec.json.decode(checkpoint.read_bytes(), type=long_run.Checkpoint).parts)
    assert 1 <= reached < STEPS // PART
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (resumed,) = long_run.read(tmp_path / "out.json")
    assert resumed.resumed == 1
    assert [part.process for part in resumed.parts] == [0] * reached + [1] * (STEPS // PART - reached)
    whole = long_run.Day(open_folder("har_watch"), tmp_path / "whole", steps=STEPS, part=PART, seed=0).run()
    assert (resumed.different, resumed.restored_different) == (whole.different, whole.restored_different) == (0, 0)
    assert resumed.largest == whole.largest
