"""The proof of models with int8 layers: it holds for right ones, and each way to be wrong fails the link it belongs to.

The number of frames that a proof needs is set lower here: what a test looks for shows in a few hundred.
"""

from __future__ import annotations

from dataclasses import replace

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices import check
from edgeseq.devices.check import check_folder, integer_matmuls, wide_states
from edgeseq.devices.compare import ANSWERS_TOLERANCE, FORCED_TOLERANCE
from edgeseq.errors import GateFailed, InputError
from edgeseq.export import lower as lowering
from edgeseq.export import stage
from edgeseq.export.capture import capture
from edgeseq.export.fusion import onnx_integer_matmuls, wrong_onnx_bias_scales
from edgeseq.export.lower import lower
from edgeseq.export.proof import prove_step
from edgeseq.export.stage import export, prove
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization, Precision, Stage
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.program import Builder, Node, Program, State, Value
from edgeseq.quant.calibrate import calibrate, quantize_model

FRAMES, INPUTS, LABELS, RATE = 200, 6, 4, 50.0
LMU = {"channels": [3, 2], "orders": [5, 4], "thetas": [20.0, 40.0], "hidden": [12, 10], "products": 3}
MODELS = {"lmu": ("lmu", LMU), "gru": ("rnn", {"hidden": 12, "layers": 2})}
INTEGER_LAYERS = {"lmu": 7, "gru": 5}
COMBINATIONS = [("lmu", "float32"), ("lmu", "int8"), ("gru", "float32"), ("gru", "int16")]
HOST = ["training form ~ step form", "training form, forced", "step form ~ program"]


@pytest.fixture(autouse=True)
def few_frames_do(monkeypatch):
    monkeypatch.setattr(check, "MIN_FRAMES", FRAMES)
    monkeypatch.setattr(stage, "MIN_FRAMES", FRAMES)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Smooth walks of one subject to calibrate on and another to prove with."""
    rng, recordings = np.random.default_rng(3), []
    for subject in "12":
        x = rng.normal(size=(FRAMES, INPUTS))
        for t in range(1, FRAMES):
            x[t] = 0.97 * x[t - 1] + 0.25 * x[t]
        recordings.append(Recording(x.astype(np.float32), (np.arange(FRAMES) // 50).astype(np.int16), subject, subject))
    path = tmp_path_factory.mktemp("data") / "walks.npz"
    names = tuple("abcdef")
    dataset = Dataset("walks", tuple(recordings), names, ("V",) * INPUTS, RATE, ("w", "x", "y", "z"))
    write_npz(dataset, path)
    return path, dataset


@pytest.fixture(scope="session")
def source(data, tmp_path_factory):
    """``source(family, state)``: a folder as ``edgeseq quantize`` writes it; with no state, the float one before."""
    root, (path, dataset), made = tmp_path_factory.mktemp("sources"), data, {}

    def write(family, state):
        torch.manual_seed(0)
        kind, arguments = MODELS[family]
        model, precision = build(kind, INPUTS, LABELS, arguments).eval(), Precision()
        torch.nn.init.normal_(model.readout.weight)  # answers that differ from frame to frame
        if state:
            precision = Precision("int8", "int8", state)
            quantize_model(model, precision, calibrate(model, dataset.recordings[:1]))
        out = root / f"{family}-{state}"
        channels = tuple(map(Channel, dataset.channels, dataset.units))
        manifest = Manifest(
            name=out.name,
            family=kind,
            arguments=arguments,
            task="frame",
            labels=dataset.labels,
            input=Input(channels, RATE, Normalization((0.0,) * INPUTS, (1.0,) * INPUTS)),
            states=state_entries(model),
            precision=precision,
            split={"train": ("1",), "test": ("2",)},
            lineage=(Stage("train", {"mapping": None}, {}, 0, str(path), dataset.fingerprint()),),
        )
        with new_folder(out) as staging:
            save_weights(model, staging)
            seal(staging, manifest)
        return open_folder(out)

    def given(family, state="float32"):
        if (family, state) not in made:
            made[family, state] = write(family, state)
        return made[family, state]

    return given


@pytest.fixture(scope="session")
def proven(source, tmp_path_factory):
    """``proven(family, state)``: the folder exported and proven, once."""
    root, made = tmp_path_factory.mktemp("exports"), {}

    def given(family, state="float32"):
        if (family, state) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(check, "MIN_FRAMES", FRAMES)
                patch.setattr(stage, "MIN_FRAMES", FRAMES)
                made[family, state] = export(source(family, state).path, root / f"{family}-{state}", frames=FRAMES)
        return made[family, state]

    return given


def golden(folder):
    with np.load(folder.path / "golden.npz") as stored:
        return stored["x"]


def link_of(links, name):
    (found,) = [link for link in links if link.name == name]
    return found


def failing(links):
    return {link.name for link in links if not link.passed}


# -- right models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "state"), COMBINATIONS)
def test_the_whole_chain_holds_and_counts_integer_layers_in_both_files(proven, family, state):
    links = {link.name: link for link in proven(family, state).manifest.proof}
    assert list(links) == [
        *HOST,
        *(["program wide states"] if state == "float32" else []),
        "program ~ golden",
        *(f"litert {what}" for what in ("teacher-forced", "free-running", "state moves", "integer layers")),
        *(f"onnxruntime {what}" for what in ("teacher-forced", "free-running", "state moves", "integer layers")),
    ]
    assert all(link.passed for link in links.values())
    count = INTEGER_LAYERS[family]
    for name, link in links.items():
        if "teacher-forced" in name or name in HOST[1:]:
            assert (link.tolerance, link.gate) == (FORCED_TOLERANCE, "values")
        if "free-running" in name or name in (HOST[0], "program ~ golden"):
            assert (link.tolerance, link.gate) == (ANSWERS_TOLERANCE, "answers")
            assert link.agreement > 0.99
        if "integer layers" in name:
            assert (link.note, link.gate) == (f"{count} of {count} int8 layers", "count")


def test_a_float_models_links_are_what_they_were(proven):
    links = proven("gru", None).manifest.proof
    forced, free = ("teacher-forced", 1e-5), ("free-running", 1e-4)
    assert [(link.name, link.tolerance, link.gate, link.passed) for link in links] == [
        (HOST[0], 1e-4, "values", True),
        (HOST[1], 1e-5, "values", True),
        (HOST[2], 1e-5, "values", True),
        ("program ~ golden", 1e-4, "values", True),
        *(
            (f"{engine} {what}", tolerance, "values", True)
            for engine in ("litert", "onnxruntime")
            for what, tolerance in (forced, free, ("state moves", 0.0))
        ),
    ]
    assert not any("tie" in link.note or "int8" in link.note for link in links)


@pytest.mark.parametrize(("family", "state"), COMBINATIONS)
def test_the_builtin_kernels_pass_within_steps_and_are_said_to_differ(proven, family, state):
    links = check_folder(proven(family, state), ["litert-builtin", "litert"], frames=FRAMES)
    exact, own = (link_of(links, f"{engine} teacher-forced") for engine in ("litert", "litert-builtin"))
    assert own.passed
    assert 10 * FORCED_TOLERANCE < own.error <= own.tolerance < 1
    assert "rounds int8 layers in a way of its own" in own.note
    assert "way of its own" not in exact.note
    assert exact.error <= FORCED_TOLERANCE == exact.tolerance
    assert link_of(links, "litert-builtin integer layers").passed


def test_numpy_checks_an_int8_folder_without_any_runtime(proven):
    links = check_folder(proven("lmu", "int8"), ["numpy"], frames=FRAMES)
    assert {link.error for link in links if "teacher-forced" in link.name} == {0.0}
    assert not failing(links)


# -- a wrong program ------------------------------------------------------------------------------------------------


def changed_constant(program, name, change):
    array = program.constants[name].copy()
    change(array)
    return replace(program, constants={**program.constants, name: array})


def constant_of(program, layer, position):
    """The name of the weight (1), bias (2) or weight scale (3) of a quantized layer."""
    return next(n.inputs[position] for n in program.nodes if n.operator == "qlinear" and n.origin == layer)


def one_weight_off(program):
    """One weight of the read-out, by a 30th of its row's range."""

    def change(weight):
        weight[0, 0] += np.int8(8) if weight[0, 0] < 100 else np.int8(-8)

    return changed_constant(program, constant_of(program, "readout", 1), change)


def double_bias(program):
    """What a bias would be that was quantized by half the scale of the products."""
    return changed_constant(program, constant_of(program, "readout", 2), lambda bias: np.multiply(bias, 2, out=bias))


def swapped_zero(program):
    """The read-out gives the zero point that it reads by, and is dequantized by that."""
    nodes = []
    for node in program.nodes:
        if node.origin == "readout" and node.operator == "qlinear":
            node = replace_attributes(node, y_zero=node.attributes["x_zero"] or 7)
        nodes.append(node)
    return replace(program, nodes=tuple(nodes))


def rounded_state(program):
    """Every state passes a quantizer of 8 bits before it is carried on."""
    nodes, states = list(program.nodes), []
    for i, state in enumerate(program.states):
        q, kept = Value(f"q{i}", state.before.shape, "int8"), Value(f"kept{i}", state.before.shape)
        nodes.append(Node("quantize", (state.after,), q, {"scale": 0.03125, "zero": 0}))
        nodes.append(Node("dequantize", (q.name,), kept, {"scale": 0.03125, "zero": 0}))
        states.append(State(state.before, kept.name, state.initial))
    return replace(program, nodes=tuple(nodes), states=tuple(states)).check()


def replace_attributes(node, **changes):
    return Node(node.operator, node.inputs, node.output, {**node.attributes, **changes}, node.origin)


WRONG_PROGRAMS = {
    "rounded state": rounded_state,
    "weight": one_weight_off,
    "bias": double_bias,
    "zero point": swapped_zero,
}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("wrong", WRONG_PROGRAMS)
def test_a_program_with_a_wrong_integer_fails_its_own_link_alone(proven, source, family, wrong):
    folder = proven(family)
    program = WRONG_PROGRAMS[wrong](Program.read(folder.path))
    links = prove_step(load_model(source(family)), program, golden(folder)[:100])
    assert failing(links) == {HOST[2]}


def test_a_zero_point_that_does_not_fit_is_refused_when_a_program_is_read(proven, tmp_path):
    swapped_zero(Program.read(proven("lmu").path)).write(tmp_path)
    with pytest.raises(InputError, match=r"dequantize reads '.*' with scale .*, zero point .*, but it was made"):
        Program.read(tmp_path)


def test_a_step_form_with_other_integers_fails_the_first_link(source, proven, monkeypatch):
    folder = proven("gru")
    real = lowering.with_integers

    def other(form):
        real(form)
        form.model.readout.bias += 40 * torch.arange(LABELS, dtype=torch.int32) * form.model.readout.bias.abs().max()
        return form

    monkeypatch.setattr(lowering, "with_integers", other)
    model = load_model(source("gru"))
    program = capture(lower(model))  # its second link holds: it is what the step form is
    assert failing(prove_step(model, program, golden(folder))) == {HOST[0], HOST[1]}


# -- ties -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tie_frames(source):
    """``tie_frames(count)``: 150 frames of a GRU's input, ``count`` of which stand on half steps of its quantizer.

    The program's first scale is off by one float32 step, which nothing but a tie can tell.
    """
    model = load_model(source("gru"))
    program = capture(lower(model))
    (first,) = [n for n in program.nodes if n.operator == "quantize" and n.origin == "layers.0.from_input"]
    scale = np.float32(first.attributes["scale"])
    nudged = replace_attributes(first, scale=float(np.nextafter(scale, np.float32(9), dtype=np.float32)))
    program = replace(program, nodes=tuple(nudged if node is first else node for node in program.nodes))

    def frames(count):
        rng = np.random.default_rng(5)
        x = scale * (rng.integers(-40, 40, (150, INPUTS)) + np.float32(0.2))
        x[:count] = scale * (2 * rng.integers(10, 30, (count, INPUTS)) + np.float32(1.5))
        return model, program, x.astype(np.float32)

    return frames


def test_a_value_at_a_tie_may_fall_on_either_side_and_is_counted(tie_frames):
    links = prove_step(*tie_frames(2))
    assert not failing(links)
    assert "2 frames rounded the other way at a tie" in links[2].note
    assert links[2].error <= FORCED_TOLERANCE


def test_a_tie_excuses_its_own_frame_alone(tie_frames):
    """The program's weights for channel 0 are wrong, and only one frame, after that with the tie, has a value there."""
    model, program, x = tie_frames(1)
    weight = constant_of(program, "layers.0.from_input", 1)

    def negate(array):
        array[:, 0] *= -1

    x[:, 0] = 0
    x[100, 0] = x[100].max()
    links = prove_step(model, changed_constant(program, weight, negate), x)
    assert failing(links) == {HOST[2]}
    assert "1 frame rounded the other way at a tie" in links[2].note


def test_no_tie_no_excuse(tie_frames):
    links = prove_step(*tie_frames(0))
    assert not failing(links)
    assert "tie" not in links[2].note


def test_ties_that_are_not_rare_fail_the_link(tie_frames):
    links = prove_step(*tie_frames(30))
    assert failing(links) == {HOST[2]}
    assert "30 frames rounded the other way at a tie" in links[2].note


# -- wrong files ----------------------------------------------------------------------------------------------------


def rewritten(folder, out, **files):
    """A copy of a folder with some of its files made anew by ``files[format](path)``, sealed again."""
    with new_folder(out) as staging:
        for file in folder.path.iterdir():
            (staging / file.name).write_bytes(file.read_bytes())
        for name, write in files.items():
            write(staging / f"model.{name}")
        seal(staging, folder.manifest)
    return open_folder(out)


ENGINE = {"tflite": "litert", "onnx": "onnxruntime"}
WRONG_FILES = {
    "weight": (one_weight_off, "teacher-forced"),
    "bias": (double_bias, "teacher-forced"),
    "rounded state": (rounded_state, "teacher-forced"),
}


@pytest.mark.parametrize("kind", ENGINE)
@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_wrong_file_fails_its_engines_links_alone(proven, tmp_path, kind, wrong):
    folder, (change, link) = proven("lmu"), WRONG_FILES[wrong]
    other = change(Program.read(folder.path))
    changed = rewritten(folder, tmp_path / "wrong", **{kind: lambda path: stage.WRITERS[kind](other, path)})
    links = check_folder(changed, frames=FRAMES)
    names = failing(links)
    assert f"{ENGINE[kind]} {link}" in names
    assert all(name.startswith(f"{ENGINE[kind]} ") for name in names)
    if wrong == "rounded state":
        assert link_of(links, f"{ENGINE[kind]} {link}").note.startswith("largest in state blocks.")


def test_a_wrong_weight_is_more_than_the_builtin_kernels_may_round(proven, tmp_path):
    folder = proven("lmu")
    program = Program.read(folder.path)
    other = changed_constant(
        program, constant_of(program, "readout", 1), lambda weight: np.negative(weight, out=weight)
    )
    changed = rewritten(folder, tmp_path / "wrong", tflite=lambda path: stage.WRITERS["tflite"](other, path))
    assert "litert-builtin teacher-forced" in failing(check_folder(changed, ["litert-builtin"], frames=FRAMES))


def change_tflite(change):
    """A writer over a TFLite file that hands its graph and the tensors of it by name to ``change``."""

    def write(path):
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        change(model.subgraphs[0], {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors})
        flat = flatbuffers.Builder()
        flat.Finish(model.Pack(flat), b"TFL3")
        path.write_bytes(bytes(flat.Output()))

    return write


def change_onnx(change):
    """A writer over an ONNX file that hands its graph and the stored arrays by name to ``change``."""

    def write(path):
        model = onnx.load(path)
        change(model.graph, {each.name: numpy_helper.to_array(each) for each in model.graph.initializer})
        onnx.save(model, path)

    return write


def test_another_zero_point_in_the_tflite_file_fails_its_link(proven, tmp_path):
    def shift(graph, tensors):
        mixer = next(
            t for t in graph.tensors if t.quantization is not None and list(t.quantization.zeroPoint) == [-128]
        )
        mixer.quantization.zeroPoint = [0]  # the upper half of its range is lost

    changed = rewritten(proven("lmu"), tmp_path / "wrong", tflite=change_tflite(shift))
    assert "litert teacher-forced" in failing(check_folder(changed, frames=FRAMES))


def test_a_zero_point_that_a_reader_in_the_onnx_file_takes_for_another_fails_its_link(proven, tmp_path):
    def swap(graph, stored):
        answer = next(node for node in reversed(graph.node) if node.op_type == "DequantizeLinear")
        graph.initializer.append(numpy_helper.from_array(np.uint8(int(stored[answer.input[2]]) ^ 64), "other"))
        answer.input[2] = "other"

    changed = rewritten(proven("lmu"), tmp_path / "wrong", onnx=change_onnx(swap))
    links = check_folder(changed, frames=FRAMES)
    assert "onnxruntime teacher-forced" in failing(links)
    assert link_of(links, "onnxruntime teacher-forced").note == "largest in the logits"


def test_a_bias_scale_that_the_tflite_kernels_would_ignore_is_refused(proven, tmp_path):
    def double(graph, tensors):
        bias = next(tensor for name, tensor in tensors.items() if name.endswith("bias") and "readout" in name)
        bias.quantization.scale = [2 * scale for scale in bias.quantization.scale]

    changed = rewritten(proven("lmu"), tmp_path / "wrong", tflite=change_tflite(double))
    with pytest.raises(GateFailed, match=r"model\.tflite: bias '.*readout.*' has scale") as raised:
        check_folder(changed, frames=FRAMES)
    assert raised.value.exit_code == 5


def test_every_bias_in_the_onnx_file_has_the_scale_of_its_products(proven):
    """ONNX Runtime does not look at it in what it fuses; another runtime may."""
    graph = onnx.load(proven("lmu").path / "model.onnx").graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    products = [[made[name] for name in node.input] for node in graph.node if node.op_type == "Gemm"]
    products = [sources for sources in products if all(node.op_type == "DequantizeLinear" for node in sources)]
    assert len(products) == INTEGER_LAYERS["lmu"]
    for x, weight, bias in products:
        np.testing.assert_array_equal(stored[bias.input[1]], stored[x.input[1]] * stored[weight.input[1]])


@pytest.mark.parametrize("name", ["state", "next_state"])
def test_a_quantized_state_in_the_tflite_file_is_refused(proven, tmp_path, name):
    def quantize(graph, tensors):
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint = [0.01], [0]
        tensors[name].quantization = found

    changed = rewritten(proven("lmu"), tmp_path / "wrong", tflite=change_tflite(quantize))
    with pytest.raises(GateFailed, match=f"tensor '{name}' is quantized") as raised:
        check_folder(changed, frames=FRAMES)
    assert raised.value.exit_code == 5


def test_an_integer_state_in_the_onnx_file_is_refused(proven, tmp_path):
    def narrow(graph, stored):
        (wide,) = [value for value in graph.output if value.name == "next_state"]
        wide.type.tensor_type.elem_type = TensorProto.UINT8
        scale, zero = (numpy_helper.from_array(np.array(v), n) for v, n in ((np.float32(0.1), "s"), (np.uint8(9), "z")))
        graph.initializer.extend([scale, zero])
        maker = next(node for node in graph.node if node.output[0] == "next_state")
        maker.output[0] = "wide"
        graph.node.append(helper.make_node("QuantizeLinear", ["wide", "s", "z"], ["next_state"]))

    changed = rewritten(proven("lmu"), tmp_path / "wrong", onnx=change_onnx(narrow))
    with pytest.raises(GateFailed, match=r"'next_state' is tensor\(uint8\)") as raised:
        check_folder(changed, ["onnxruntime"], frames=FRAMES)
    assert raised.value.exit_code == 5


# -- export says no, and leaves nothing behind ----------------------------------------------------------------------


def one_float_layer(program):
    """The same values, but the read-out is computed in float32 between a dequantize and a quantize."""
    at, node = next((i, n) for i, n in enumerate(program.nodes) if n.operator == "qlinear" and n.origin == "readout")
    x, weight, bias, scale = node.inputs
    wide, s = node.attributes, program.constants[scale]
    constants = {
        "float.w": program.constants[weight] * s[:, None],
        "float.b": (program.constants[bias] * s * np.float32(wide["x_scale"])).astype(np.float32),
    }
    source = Value("float.x", program.values[x].shape)
    product = Value("float.y", node.output.shape)
    made = (
        Node("dequantize", (x,), source, {"scale": wide["x_scale"], "zero": wide["x_zero"]}),
        Node("linear", (source.name, "float.w", "float.b"), product),
        Node("quantize", (product.name,), node.output, {"scale": wide["y_scale"], "zero": wide["y_zero"]}),
    )
    nodes = (*program.nodes[:at], *made, *program.nodes[at + 1 :])
    return replace(program, nodes=nodes, constants={**program.constants, **constants}).check()


GATES = {
    "another program": ("capture", one_weight_off, "step form ~ program"),
    "a weight in TFLite": ("tflite", one_weight_off, "litert teacher-forced"),
    "a weight in ONNX": ("onnx", one_weight_off, "onnxruntime teacher-forced"),
    "a float layer in TFLite": ("tflite", one_float_layer, "litert integer layers"),
    "a float layer in ONNX": ("onnx", one_float_layer, "onnxruntime integer layers"),
}


@pytest.mark.parametrize("gate", GATES)
def test_an_export_that_fails_a_gate_leaves_no_folder_behind(source, tmp_path, monkeypatch, gate):
    where, change, link = GATES[gate]
    if where == "capture":
        monkeypatch.setattr(stage, "capture", lambda *given: change(capture(*given)))
    else:
        write = stage.WRITERS[where]
        monkeypatch.setitem(stage.WRITERS, where, lambda program, path, **more: write(change(program), path, **more))
    with pytest.raises(GateFailed, match=f"^{link} does not hold over") as raised:
        export(source("gru").path, tmp_path / "out", frames=FRAMES)
    assert raised.value.exit_code == 5
    if "integer layers" in link:
        assert "4 of 5 int8 layers" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_the_whole_chain_is_proven_again_from_the_folder_alone(proven):
    folder = proven("gru", "int16")
    assert prove(folder) == folder.manifest.proof
    assert onnx_integer_matmuls(folder.file("model.onnx"))[0] == INTEGER_LAYERS["gru"]


def test_where_nobody_counts_there_is_no_link_and_in_float_there_is_nothing_to_count(proven):
    program = Program.read(proven("gru").path)
    assert integer_matmuls("x", program, None) == []
    assert integer_matmuls("x", Program.read(proven("gru", None).path), 3) == []
    for found, passed in [(5, True), (4, False), (6, False)]:
        (link,) = integer_matmuls("x", program, found)
        assert (link.name, link.error, link.passed) == ("x integer layers", abs(5 - found), passed)


def test_a_state_that_comes_out_of_an_int8_layer_is_not_wide():
    scale = float(np.float32(0.1))
    builder = Builder(Value("x", (1, 3)), [Value("wide", (1, 3)), Value("narrow", (1, 3))])
    narrow = builder.add("dequantize", builder.add("quantize", "x", scale=scale, zero=0), scale=scale, zero=0)
    kept = builder.add("reshape", builder.add("slice", narrow, axis=1, start=0, stop=3), shape=[1, 3])
    program = builder.finish(narrow, {"wide": builder.add("add", "wide", narrow), "narrow": kept})
    (link,) = wide_states(program, "float32")
    assert (link.passed, link.note) == (False, "rounded: narrow")
    assert wide_states(program, "int8") == []


def test_a_bias_of_another_scale_in_the_onnx_file_is_named(proven, tmp_path):
    """ONNX Runtime ignores it where it fuses the layer: every link would hold."""
    import onnx
    from onnx import numpy_helper

    file = proven("gru").file("model.onnx")
    assert wrong_onnx_bias_scales(file) == []
    model = onnx.load(file)
    made = {node.output[0]: node for node in model.graph.node}
    bias = made[next(node for node in model.graph.node if node.op_type == "Gemm").input[2]]
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == bias.input[1])
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    assert bias.input[0] in wrong_onnx_bias_scales(tmp_path / "wrong.onnx")
