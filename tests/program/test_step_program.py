"""The step program itself: what it refuses, that it survives the disk, and what it is said to cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseq.errors import InputError
from edgeseq.program import Builder, Node, Program, State, Value, cost, interpret, operator, operators
from edgeseq.program.graph import CONSTANTS_NAME, JSON_NAME


def leaky() -> Program:
    """m' = a m + W x; y = V m'."""
    builder = Builder(Value("x", (1, 3)), [Value("cell.m", (1, 4))])
    builder.origin = "cell"
    decay = builder.constant("decay", np.float32([0.5]))
    inflow = builder.add("linear", "x", builder.constant("cell.w", np.arange(12, dtype=np.float32).reshape(4, 3)))
    memory = builder.add("add", builder.add("mul", "cell.m", decay), inflow)
    bias = builder.constant("b", np.float32([1, 2]))
    y = builder.add("linear", memory, builder.constant("v", np.ones((2, 4), np.float32)), bias)
    return builder.finish(y, {"cell.m": memory})


def node(operator: str, inputs: tuple[str, ...], name: str, shape: tuple[int, ...], **attributes: object) -> Node:
    return Node(operator, inputs, Value(name, shape), attributes)


def with_node(extra: Node) -> Program:
    program = leaky()
    return replace(program, nodes=(*program.nodes, extra))


# -- shapes ---------------------------------------------------------------------------------------------------------

GRID = {"scale": 0.5, "zero": 0}
GRIDS = {"x_scale": 0.5, "x_zero": 0, "y_scale": 0.5, "y_zero": 0}
REFUSED = {
    "relu": ([(1, 2), (1, 2)], {}),
    "add": ([(1, 2), (1, 3)], {}),
    "div": ([(1, 2)], {}),
    "greater": ([(1, 2), (1, 3)], {}),
    "linear": ([(1, 3), (4, 2)], {}),
    "layer_norm": ([(1, 3), (3,), (2,)], {"epsilon": 1e-5}),
    "softmax": ([], {}),
    "slice": ([(1, 4)], {"axis": 1, "start": 2, "stop": 5}),
    "concat": ([(1, 2, 3), (1, 3, 3)], {"axis": 2}),
    "reshape": ([(1, 4)], {"shape": [1, 5]}),
    "transpose": ([(1, 4)], {"axes": [0, 0]}),
    "sum": ([(1, 4)], {"axes": [2]}),
    "mean": ([(1, 4)], {"axes": []}),
    "quantize": ([(1, 4), (1, 4)], GRID),
    "dequantize": ([], GRID),
    "qlinear": ([(1, 3), (4, 2), (4,), (4,)], GRIDS),
}
MORE_REFUSED = [
    ("linear", [(1, 3), (4, 3), (3,)], {}),
    ("linear", [(), (4, 3)], {}),
    ("linear", [(1, 3), (4, 3), (4,), (4,)], {}),
    ("layer_norm", [(1, 3), (3,), (3,)], {"epsilon": 0.0}),
    ("layer_norm", [(1, 3), (3,), (3,)], {"epsilon": "small"}),
    ("slice", [(1, 4)], {"axis": -1, "start": 0, "stop": 1}),
    ("slice", [(1, 4)], {"axis": 1, "start": 2, "stop": 2}),
    ("slice", [(1, 4)], {"axis": 1, "start": "0", "stop": 2}),
    ("concat", [], {"axis": 0}),
    ("concat", [(1, 2)], {"axis": 2}),
    ("reshape", [(1, 4)], {"shape": [-1, -4]}),
    ("reshape", [(1, 4)], {"shape": 4}),
    ("transpose", [(1, 4)], {"axes": [1, 0, 2]}),
    ("sum", [(1, 4)], {"axes": [1, 1]}),
    ("where", [(1, 4), (1, 4), (1, 4)], {}),
    ("qlinear", [(1, 3), (4, 3), (3,), (4,)], GRIDS),
    ("qlinear", [(1, 3), (4, 3), (4,), (1,)], GRIDS),
    ("qlinear", [(1, 3), (4, 3), (4,)], GRIDS),
]


@pytest.mark.parametrize(("name", "shapes", "attributes"), [(k, *v) for k, v in REFUSED.items()] + MORE_REFUSED)
def test_an_operator_refuses_inputs_that_do_not_fit_and_says_its_name(name, shapes, attributes):
    inputs = [Value(f"v{i}", shape) for i, shape in enumerate(shapes)]
    with pytest.raises(InputError, match=f"operator {name} "):
        operator(name).infer(inputs, attributes)


@pytest.mark.parametrize("name", operators())
def test_an_operator_refuses_an_attribute_that_it_does_not_have(name):
    accepted = dict.fromkeys(operator(name).accepts, 1)
    with pytest.raises(InputError, match=rf"operator {name}: attributes .*'colour'.*accepted"):
        operator(name).infer([Value("x", (1, 2))], {**accepted, "colour": 1})


@pytest.mark.parametrize("name", [name for name in operators() if name != "where"])
def test_an_operator_refuses_a_truth_value_as_a_number(name):
    entry = operator(name)
    shapes: dict[str, list[tuple[int, ...]]] = {"linear": [(1, 2), (2, 2)], "layer_norm": [(1, 2), (2,), (2,)]}
    shapes["qlinear"] = [(1, 2), (2, 2), (2,), (2,)]
    shapes |= {"leaky": [*[(1, 2)] * 2, (), ()], "synaptic": [*[(1, 2)] * 3, (), (), ()]}
    given = {"axis": 1, "start": 0, "stop": 1, "axes": [0, 1], "shape": [2], "epsilon": 1e-5}
    given |= {"reset": "subtract", "delay": True, "inclusive": False}
    given.update((f"{prefix}{key}", value) for prefix in ("", "x_", "y_") for key, value in GRID.items())
    attributes = {key: given[key] for key in entry.accepts}
    for count in (1, 2, 3, 4):
        values = [
            Value(f"v{i}", s, "bool" if i == 0 else "float32") for i, s in enumerate(shapes.get(name, [(1, 2)] * count))
        ]
        with pytest.raises(InputError, match=f"operator {name} does not fit"):
            entry.infer(values, attributes)


def test_an_unknown_operator_is_named_with_the_closest():
    with pytest.raises(InputError, match=r"'sigmoyd'\. Did you mean 'sigmoid'"):
        operator("sigmoyd")


# -- check ----------------------------------------------------------------------------------------------------------


def test_a_name_assigned_twice_is_refused():
    with pytest.raises(InputError, match=r"'add_2' .*already taken"):
        with_node(node("relu", ("x",), "add_2", (1, 3))).check()


@pytest.mark.parametrize("name", ["x", "cell.m", "cell.w"])
def test_assigning_the_input_a_state_or_a_constant_is_refused(name):
    with pytest.raises(InputError, match="already taken"):
        with_node(node("relu", ("x",), name, (1, 3))).check()


def test_reading_a_name_before_it_is_given_is_refused():
    program = leaky()
    with pytest.raises(InputError, match="reads 'mul_1', which no earlier node gives"):
        replace(program, nodes=program.nodes[::-1][1:]).check()


def test_a_wrong_declared_shape_is_refused():
    with pytest.raises(InputError, match=r"'r' \(relu\) says its result is float32\[1, 4\].*gives float32\[1, 3\]"):
        with_node(node("relu", ("x",), "r", (1, 4))).check()


def test_a_wrong_declared_type_is_refused():
    with pytest.raises(InputError, match="says its result is bool"):
        with_node(Node("relu", ("x",), Value("r", (1, 3), "bool"))).check()


def test_an_unknown_operator_in_a_program_is_refused():
    with pytest.raises(InputError, match="unknown operator of the step program 'rely'"):
        with_node(node("rely", ("x",), "r", (1, 3))).check()


def test_a_matrix_that_is_not_a_constant_is_refused():
    builder = Builder(Value("x", (1, 3)), [Value("w", (1, 3))])
    with pytest.raises(InputError, match="operator linear: input 1, 'w', must be a constant"):
        builder.add("linear", "x", "w")
    with pytest.raises(InputError, match=r"operator linear: input 1, 'cell\.m', must be a constant"):
        with_node(node("linear", ("cell.m", "cell.m"), "r", (1, 1))).check()


@pytest.mark.parametrize("after", ["nothing", "x", "truth"])
def test_a_state_that_does_not_become_a_value_like_itself_is_refused(after):
    program = with_node(Node("greater", ("cell.m", "decay"), Value("truth", (1, 4), "bool")))
    with pytest.raises(InputError, match=r"state 'cell\.m' does not become"):
        replace(program, states=(State(program.states[0].before, after),)).check()


def test_a_frame_or_a_state_that_is_no_float32_is_refused():
    program = leaky()
    with pytest.raises(InputError, match="'x' is int8; a frame and states are float32"):
        replace(program, x=Value("x", (1, 3), "int8")).check()
    counts = State(Value("count", (1, 1), "int32"), "count")
    with pytest.raises(InputError, match="'count' is int32; a frame and states are float32"):
        replace(program, states=(*program.states, counts)).check()


@pytest.mark.parametrize("y", ["nothing", "truth"])
def test_an_answer_that_is_no_number_of_the_program_is_refused(y):
    program = with_node(Node("greater", ("cell.m", "decay"), Value("truth", (1, 4), "bool")))
    with pytest.raises(InputError, match=f"the answer '{y}'"):
        replace(program, y=y).check()


def test_a_state_named_like_a_constant_is_refused():
    program = leaky()
    with pytest.raises(InputError, match="share a name"):
        replace(program, constants={**program.constants, "cell.m": np.zeros((1, 4), np.float32)}).check()


# -- builder --------------------------------------------------------------------------------------------------------


def test_finish_keeps_only_what_is_needed():
    builder = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    unused = builder.constant("unused", np.ones(3, np.float32))
    builder.add("relu", builder.add("mul", "x", unused))
    y = builder.add("tanh", "x")
    program = builder.finish(y, {"m": builder.add("add", "m", "x")})
    assert [n.operator for n in program.nodes] == ["tanh", "add"]
    assert program.constants == {}


def test_equal_constants_of_one_name_are_shared_and_others_get_a_number():
    builder = Builder(Value("x", (1, 3)), [])
    one = builder.constant("c", np.float32([1]))
    assert builder.constant("c", np.float32([1])) == one == "c"
    assert builder.constant("c", np.float32([2])) == "c.1"
    assert builder.constant("c", np.float32([2])) == "c.1"
    assert builder.constant("x", np.float32([2])) == "x.1"


def test_a_constant_named_like_a_node_takes_nothing_from_it():
    builder = Builder(Value("x", (1, 3)), [Value("relu_0", (1, 3))])
    assert builder.add("relu", builder.add("relu", "x")) == "relu_2"
    assert [n.inputs for n in builder.nodes] == [("x",), ("relu_1",)]


def test_a_program_changes_neither_its_inputs_nor_its_constants_and_returns_arrays_of_its_own():
    builder = Builder(Value("x", (1, 3)), [Value("a", (1, 3)), Value("b", (1, 3))])
    program = builder.finish("a", {"a": "x", "b": "b"})
    x, states = np.ones((1, 3), np.float32), {"a": np.zeros((1, 3), np.float32), "b": np.full((1, 3), 2, np.float32)}
    y, following = interpret(program)(x, states)
    x += 5
    states["a"] += 5
    states["b"] += 5
    assert (y == 0).all()
    assert (following["a"] == 1).all()
    assert (following["b"] == 2).all()


# -- disk -----------------------------------------------------------------------------------------------------------


def test_a_program_survives_the_disk(tmp_path):
    program = leaky()
    program.write(tmp_path)
    again = Program.read(tmp_path)
    assert (again.x, again.y, again.states, again.nodes) == (program.x, program.y, program.states, program.nodes)
    assert list(again.constants) == list(program.constants)
    for name, array in program.constants.items():
        np.testing.assert_array_equal(again.constants[name], array)
        assert again.constants[name].dtype == array.dtype


def test_equal_programs_are_written_as_equal_bytes(tmp_path):
    for name in ("one", "two", "again"):
        (tmp_path / name).mkdir()
    leaky().write(tmp_path / "one")
    leaky().write(tmp_path / "two")
    Program.read(tmp_path / "one").write(tmp_path / "again")
    for file in (JSON_NAME, CONSTANTS_NAME):
        contents = {(tmp_path / name / file).read_bytes() for name in ("one", "two", "again")}
        assert len(contents) == 1, file


def test_both_files_can_be_read_by_the_same_people(tmp_path):
    leaky().write(tmp_path)
    assert (tmp_path / CONSTANTS_NAME).stat().st_mode == (tmp_path / JSON_NAME).stat().st_mode
    save_file(dict(leaky().constants), tmp_path / "plain")
    assert (tmp_path / CONSTANTS_NAME).read_bytes() == (tmp_path / "plain").read_bytes()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    leaky().write(tmp_path)
    return tmp_path


def change(folder: Path, **fields: object) -> None:
    document = json.loads((folder / JSON_NAME).read_bytes())
    (folder / JSON_NAME).write_bytes(msgspec.json.encode({**document, **fields}))


def test_a_newer_format_is_refused(written):
    change(written, version=2)
    with pytest.raises(InputError, match="format version 2; this edgeseq reads 1"):
        Program.read(written)


def test_a_truncated_program_is_refused(written):
    text = (written / JSON_NAME).read_bytes()
    (written / JSON_NAME).write_bytes(text[: len(text) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        Program.read(written)


def test_damaged_constants_are_refused(written):
    (written / CONSTANTS_NAME).write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="cannot be read"):
        Program.read(written)


@pytest.mark.parametrize("file", [JSON_NAME, CONSTANTS_NAME])
def test_a_missing_file_is_named_with_its_mend(written, file):
    (written / file).unlink()
    with pytest.raises(InputError, match=f"{file} is missing.*edgeseq export"):
        Program.read(written)


def test_constants_of_another_program_are_refused(written):
    document = json.loads((written / JSON_NAME).read_bytes())
    document["constants"][0]["shape"] = [2]
    change(written, constants=document["constants"])
    with pytest.raises(InputError, match="constant 'decay' is missing or of another shape"):
        Program.read(written)


def test_a_program_on_disk_is_checked_when_it_is_read(written):
    change(written, y="nowhere")
    with pytest.raises(InputError, match="the answer 'nowhere'"):
        Program.read(written)


# -- cost -----------------------------------------------------------------------------------------------------------


def test_cost_is_what_a_hand_counts():
    found = cost(leaky())
    assert found.macs == 4 * 3 + 4 + 2 * 4  # the product with the decay is accumulated, as those of the matrices are
    assert found.elementwise == 0  # a bias is part of its linear map, and the sum of the product before it
    assert found.nodes == 4
    assert found.constant_bytes == 4 * (1 + 12 + 2 + 8)
    assert found.state_bytes == 4 * 4


def test_cost_of_a_linear_map_counts_every_row():
    builder = Builder(Value("x", (1, 6)), [Value("m", (1, 2, 3))])
    product = builder.add("linear", "m", builder.constant("w", np.ones((5, 3), np.float32)))
    normed = builder.add(
        "layer_norm", product, *(builder.constant(k, np.ones(5, np.float32)) for k in "gb"), epsilon=1e-5
    )
    total = builder.add("sum", normed, axes=[1, 2])
    y = builder.add("mul", "x", builder.add("reshape", total, shape=[1, 1]))
    found = cost(builder.finish(y, {"m": "m"}))
    assert found.macs == 2 * 5 * 3
    assert found.elementwise == 5 * 10 + 10 + 6  # layer norm: 5 a value; the sum reads 10; the product makes 6
    assert found.state_bytes == 4 * 6
