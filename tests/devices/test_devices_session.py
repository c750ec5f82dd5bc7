from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgeseq
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.manifest import Decision, Early
from edgeseq.program import Program


def golden(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as stored:
        return {name: stored[name] for name in stored.files}


def test_the_package_offers_the_session() -> None:
    assert edgeseq.Session is Session


def test_run_equals_the_loop_of_steps(folder: Path, engine_name: str) -> None:
    x = golden(folder)["x"][:300]
    one, other = Session(folder, engine_name), Session(folder, engine_name)
    assert np.array_equal(one.run(x), np.stack([other.step(frame).copy() for frame in x]))
    assert all(np.array_equal(one.state[name], other.state[name]) for name in one.state)


def test_run_goes_on_from_the_carried_state(folder: Path, engine_name: str) -> None:
    x = golden(folder)["x"][:100]
    whole, parts = Session(folder, engine_name), Session(folder, engine_name)
    split = np.concatenate([parts.run(x[:37]), parts.run(x[37:38]), parts.run(x[38:38]), parts.run(x[38:])])
    assert np.array_equal(whole.run(x), split)


@pytest.mark.parametrize("cut", [0, 1, 2, 151])
def test_a_restored_state_continues_bit_for_bit(folder: Path, engine_name: str, cut: int, tmp_path: Path) -> None:
    x = golden(folder)["x"][:300]
    session = Session(folder, engine_name)
    session.run(x[:cut])
    saved = session.save(tmp_path / "state.npz")
    after = session.run(x[cut:])
    for content in (saved, tmp_path / "state.npz", str(tmp_path / "state.npz")):
        fresh = Session(folder, engine_name)
        fresh.run(x[200:210])  # anything else in between
        fresh.restore(content)
        assert np.array_equal(fresh.run(x[cut:]), after)


def test_a_state_may_be_carried_to_another_engine(folder: Path) -> None:
    x = golden(folder)["x"][:200]
    first, second, whole = Session(folder, "litert"), Session(folder, "onnxruntime"), Session(folder, "numpy")
    first.run(x[:100])
    second.state = first.state
    np.testing.assert_allclose(second.run(x[100:]), whole.run(x)[100:], atol=1e-4)


def test_reset_goes_back_to_the_start(folder: Path, engine_name: str) -> None:
    x = golden(folder)["x"][:50]
    session = Session(folder, engine_name)
    first = session.run(x)
    session.decide(first[-1])
    session.reset()
    assert all((value == 0.25).all() for value in session.state.values())
    assert np.array_equal(session.run(x), first)
    assert session.decide(first[0]).changed  # the first answer is always new


def test_the_state_is_named_and_shaped_as_in_the_manifest(folders: dict[str, Path], engine_name: str) -> None:
    session = Session(folders["gated"], engine_name)
    state = session.state
    assert {name: value.shape for name, value in state.items()} == {"slow.m": (1, 2, 3), "cell.h": (1, 5)}
    state["cell.h"][:] = 9  # a copy
    assert (session.state["cell.h"] == 0.25).all()
    session.state = state
    assert (session.state["cell.h"] == 9).all()
    assert (session.state["slow.m"] == 0.25).all()


def test_named_states_are_the_programs_own(folders: dict[str, Path], engine_name: str) -> None:
    session = Session(folders["gated"], engine_name)
    slow = np.zeros((1, 2, 3), np.float32)
    slow[0, 1] = 1  # the fast row
    session.state = {"slow.m": slow, "cell.h": np.zeros((1, 5), np.float32)}
    session.step(np.zeros(3, np.float32))
    np.testing.assert_allclose(session.state["slow.m"][0], [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize(
    "states",
    [
        {},
        {"slow.m": np.zeros((1, 2, 3))},
        {"slow.m": np.zeros((1, 2, 3)), "cell.h": np.zeros((1, 5)), "other": np.zeros(1)},
        {"slow.m": np.zeros((1, 3, 2)), "cell.h": np.zeros((1, 5))},
        {"slow.m": np.zeros((1, 2, 3)), "cell.h": np.zeros(1)},
    ],
    ids=["none", "one missing", "one too many", "transposed", "would broadcast"],
)
def test_states_of_another_model_are_refused(folders: dict[str, Path], states: dict[str, np.ndarray]) -> None:
    session = Session(folders["gated"], "numpy")
    with pytest.raises(InputError, match="state"):
        session.state = states


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04 cut off", npy(), Path("no/such/file")])
def test_what_is_not_a_saved_state_is_refused(folder: Path, content: bytes | Path) -> None:
    with pytest.raises(InputError, match="saved state"):
        Session(folder, "numpy").restore(content)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_run_refuses_frames_of_another_shape(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="frames have shape"):
        Session(folder, "numpy").run(np.zeros(shape))


def test_step_is_the_engines_own_function(folder: Path, engine_name: str) -> None:
    session = Session(folder, engine_name)
    assert session.step is session._engine.step  # nothing may come in between: see benchmarks/step_overhead.py


def test_memory_does_not_grow(folder: Path, engine_name: str) -> None:
    session = Session(folder, engine_name)
    frames = list(golden(folder)["x"][:100])

    def steps(count: int) -> None:
        for i in range(count):
            session.decide(session.step(frames[i % 100]))

    steps(200)
    tracemalloc.start()
    try:
        steps(200)
        before = tracemalloc.get_traced_memory()[0]
        steps(10_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown <= 1000


def test_repr_says_model_engine_and_sizes(folders: dict[str, Path], engine_name: str) -> None:
    text = repr(Session(folders["gated"], engine_name))
    assert text == f"<Session 'gated' on {engine_name}: 3 values at 50 Hz -> 4 logits, state of 11>"


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.tflite").write_bytes((copy / "model.tflite").read_bytes() + b"\0")
    with pytest.raises(InputError, match="was changed after it was written"):
        Session(copy)


def test_the_state_of_another_model_of_the_same_shape_is_refused(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    mine, other = (make_folder(programs["gated"](seed=seed), f"seed{seed}") for seed in (0, 1))
    session = Session(mine, "numpy")
    session.step(np.ones(3, np.float32))
    before = session.state
    with pytest.raises(InputError, match="is of another model; this one is seed0"):
        session.restore(Session(other, "numpy").save())
    assert all(np.array_equal(session.state[name], before[name]) for name in before)


def test_a_state_may_be_restored_in_another_export_and_engine_of_the_same_program(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    one, other = (make_folder(programs["gated"](), name) for name in ("one", "other"))
    session, copy = Session(one, "litert"), Session(other, "onnxruntime")
    session.step(np.ones(3, np.float32))
    copy.restore(session.save())
    assert all(np.array_equal(session.state[name], copy.state[name]) for name in session.state)


def test_a_state_that_does_not_say_whose_it_is_is_refused(folder: Path) -> None:
    session = Session(folder, "numpy")
    buffer = io.BytesIO()
    np.savez(buffer, **session.state)
    with pytest.raises(InputError, match="does not say of which model it is"):
        session.restore(buffer.getvalue())


def test_a_restored_stream_is_in_its_middle(looking_ahead: Callable[..., Path], engine_name: str) -> None:
    folder, x = looking_ahead(3), np.eye(4, dtype=np.float32)
    for cut in range(5):
        session, fresh = Session(folder, engine_name), Session(folder, engine_name)
        for k in range(cut):
            session.decide(session.step(x[k % 4]))
        fresh.restore(session.save())
        for k in range(cut, 8):
            answer = fresh.decide(fresh.step(x[k % 4]))
            assert answer.label == ("unknown" if k < 3 else f"label{(k - 3) % 4}")
            assert answer.changed or k not in (cut, 3)
        session.reset()
        fresh.restore(session.save())
        assert [fresh.decide(fresh.step(x[k])).label for k in range(4)] == ["unknown"] * 3 + ["label0"]


@pytest.mark.parametrize("cut", range(0, 14, 2))
def test_a_restored_segment_is_answered_as_if_it_had_never_been_left(
    make_folder: Callable[..., Path], programs: dict[str, Callable[..., Program]], cut: int
) -> None:
    rule = Early(confidence=0.6, earliest=0.1, hold=0.06, temperature=0.7, growth=0.2)
    folder = make_folder(programs["leaky"](), task="segment", decision=Decision(early=rule))
    finals = set()
    for x in golden(folder)["x"][:420].reshape(30, 14, 3):
        whole, fresh = Session(folder, "numpy"), Session(folder, "numpy")
        expected = [whole.decide(whole.step(frame)) for frame in x[:cut]]
        fresh.restore(whole.save())
        if cut:
            again = Session(folder, "numpy")
            again.restore(whole.save())
            assert again.conclude()[:2] == fresh.conclude()[:2]
            fresh.restore(whole.save())
        expected += [whole.decide(whole.step(frame)) for frame in x[cut:]]
        found = [fresh.decide(fresh.step(frame)) for frame in x[cut:]]
        for one, other in zip(found, expected[cut:], strict=True):
            assert (one.label, one.probability, one.final) == (other.label, other.probability, other.final)
            assert one.changed == other.changed or not one.final
        assert fresh.conclude()[:2] == whole.conclude()[:2]
        finals.add(next((t for t, answer in enumerate(expected) if answer.final), None))
    assert len(finals) > 2


def test_a_state_saved_before_frames_were_counted_starts_a_recording(looking_ahead: Callable[..., Path]) -> None:
    session = Session(looking_ahead(1), "numpy")
    session.decide(session.step(np.eye(4, dtype=np.float32)[2]))
    with np.load(io.BytesIO(session.save())) as stored:
        entries = {name: stored[name] for name in stored.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in entries.items() if not name.startswith("edgeseq:decided")})
    session.restore(buffer.getvalue())
    x = np.zeros(4, np.float32)
    assert session.decide(session.step(x)).label == "unknown"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("frames", wrong) for wrong in (-1, 0.5, [1, 2], "many")],
        *[("answer", wrong) for wrong in ([7, 0.5], [np.nan, 0.5], [1])],
        ("run", [1]),
        ("logits", [0, 1]),
    ],
)
def test_a_saved_state_that_counts_what_cannot_be_is_refused(
    make_folder: Callable[..., Path], programs: dict[str, Callable[..., Program]], name: str, value: object
) -> None:
    session = Session(make_folder(programs["leaky"](), task="segment"), "numpy")
    with np.load(io.BytesIO(session.save())) as stored:
        entries = {key: stored[key] for key in stored.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{**entries, f"edgeseq:decided.{name}": np.array(value)})
    with pytest.raises(InputError, match="saved"):
        session.restore(buffer.getvalue())
