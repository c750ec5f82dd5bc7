"""The authors' vectors of the LMU: recurrent (pytorch-lmu, Keras LMU) and in parallel, with gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeseq.models.legendre import LegendreMemory, discretize
from edgeseq.models.lmu_cell import LmuCellLayer

RELATIVE = 1e-5  # to the largest of an array: float32, summed in another order


def assert_authors(found, expected, name=""):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max(), err_msg=name)


def tensors(vectors, *names):
    return [torch.from_numpy(vectors[name]) for name in names]


def layer_of(encoder, mixer, theta, order, **arguments):
    """A layer with these matrices ``(out, in)`` side by side: of x, h, m in the encoder, of m, x, h in the mixer."""
    chosen = {"links": (), "input_to_hidden": False, "recurrent": False, "bias": False, "activation": "tanh"}
    encoder, mixer = np.concatenate(encoder, 1), np.concatenate(mixer, 1)
    inputs = arguments.pop("inputs")
    layer = LmuCellLayer(inputs, len(encoder), order, theta, len(mixer), **{**chosen, **arguments})
    with torch.no_grad():
        for linear, weight in ((layer.encoder, encoder), (layer.mixer, mixer)):
            assert linear.weight.shape == weight.shape
            linear.weight.copy_(torch.from_numpy(weight))
            if linear.bias is not None:
                linear.bias.zero_()
    return layer


def by_steps(layer, x, m, h):
    memories, kept = [], []
    for x_t in x.unbind(1):
        m, h = layer.step(x_t, m, h)
        memories.append(m)
        kept.append(h)
    return torch.stack(memories, 1), torch.stack(kept, 1)


def at_once(layer, x, m, h):
    m, kept = layer(x, m, h)
    return m[:, None], kept  # of the memory the last alone


RUNS = {"forward": at_once, "steps": by_steps}


@pytest.fixture(params=["shipped", "all"])
def cell(request):
    """The vectors of the recurrent cell: the part that is shipped, and all of them where they are."""
    if request.param == "all":
        return request.getfixturevalue("reference")("lmu_cell.npz")
    with np.load(Path(__file__).with_name("lmu_cell_reference.npz")) as stored:
        return dict(stored)


def published_layer(vectors):
    w = {name.removeprefix("w/"): array for name, array in vectors.items() if name.startswith("w/")}
    return layer_of(
        [w["e_x"], w["e_h"], w["e_m"]],
        [w["W_m"], w["W_x"], w["W_h"]],
        float(vectors["cfg/theta"]),
        w["W_m"].shape[1],
        inputs=w["W_x"].shape[1],
        links=("hidden", "memory"),
        input_to_hidden=True,
        recurrent=True,
    )


@pytest.mark.parametrize("run", RUNS)
def test_the_cell_is_the_authors(cell, run):
    layer = published_layer(cell)
    (x,) = tensors(cell, "x")
    start = layer.memory.initial_state(len(x)), x.new_zeros(len(x), layer.hidden_size)
    m, h = RUNS[run](layer, x, *start)
    assert_authors(h, cell["h"])
    assert_authors(m[:, -1, 0], cell["m"][:, -1])
    if run == "forward":
        return
    assert_authors(m[:, :, 0], cell["m"])
    before = torch.cat([start[1][:, None], h[:, :-1]], 1), torch.cat([start[0][:, None], m[:, :-1]], 1).flatten(2)
    assert_authors(layer.encoder(torch.cat([x, *before], -1)), cell["u"])


@pytest.mark.parametrize("run", RUNS)
def test_the_cell_continues_as_the_authors_from_a_state(cell, run):
    layer = published_layer(cell)
    x, m, h = tensors(cell, "state/x", "state/m0", "state/h0")
    m, h = RUNS[run](layer, x, m[:, None], h)
    assert_authors(h, cell["state/h"])
    assert_authors(h[:, -1], cell["state/h_last"])
    assert_authors(m[:, -1, 0], cell["state/m_last"])


@pytest.mark.parametrize("run", RUNS)
def test_the_cells_gradients_are_the_authors(reference, run):
    vectors = reference("lmu_cell.npz")
    layer = published_layer(vectors)
    x, upstream = tensors(vectors, "x", "grad/upstream_h")
    m, h = RUNS[run](layer, x, layer.memory.initial_state(len(x)), x.new_zeros(len(x), layer.hidden_size))
    assert_authors(h[:, -1], vectors["h_last"])
    assert_authors(m[:, -1, 0], vectors["m_last"])
    (h * upstream).sum().backward()
    of_encoder = zip(("e_x", "e_h", "e_m"), layer.encoder.weight.grad.split(layer.encoder_sizes, 1), strict=True)
    of_mixer = zip(("W_m", "W_x", "W_h"), layer.mixer.weight.grad.split(layer.mixer_sizes, 1), strict=True)
    for name, gradient in (*of_encoder, *of_mixer):
        assert_authors(gradient, vectors[f"grad/{name}"], name)


def test_the_parallel_lmu_and_its_gradients_are_the_authors(reference):
    """With a ReLU on u, which the family of feed-forward LMUs has not: from its parts."""
    vectors = reference("lmu_fft.npz")
    x, upstream = tensors(vectors, "x", "grad/upstream_h")
    (hidden, width), order = vectors["w/W_h.weight"].shape, vectors["m"].shape[-1]
    maps = nn.ModuleDict({"W_u": nn.Linear(width - order, 1), "W_h": nn.Linear(width, hidden)})
    maps.load_state_dict({n.removeprefix("w/"): torch.from_numpy(a) for n, a in vectors.items() if n.startswith("w/")})
    memory = LegendreMemory(1, order, float(vectors["cfg/theta"]))
    u = torch.relu(maps["W_u"](x))
    m = memory(u, memory.initial_state(len(x))).flatten(2)
    h = torch.relu(maps["W_h"](torch.cat([m, x], -1)))
    for name, found in (("u", u), ("m", m), ("h", h), ("h_last", h[:, -1])):
        assert_authors(found, vectors[name], name)
    (h * upstream).sum().backward()
    for name, parameter in maps.named_parameters():
        assert_authors(parameter.grad, vectors[f"grad/{name}"], name)


def impulse_answer(order, theta, frames):
    """What a memory holds 0, 1, ... steps after an input of 1: ``(frames, Q)``."""
    memory = LegendreMemory(1, order, theta)
    impulse = torch.zeros(1, frames, 1)
    impulse[:, 0] = 1
    return memory(impulse, memory.initial_state(1))[0, :, 0]


def test_the_impulse_response_is_the_authors(reference):
    vectors = reference("lmu_fft.npz")
    order, frames = vectors["H"].shape
    assert_authors(impulse_answer(order, float(vectors["cfg/theta"]), frames), vectors["H"].T)


KERAS = {  # the links that each case has, in Keras' words and in ours
    "links_all": {"links": ("hidden", "memory"), "input_to_hidden": True, "recurrent": True},
    "memory_to_memory_rnncell": {"links": ("memory",), "recurrent": True},
    "memory_only": {"links": ("memory",)},
    "default_rnncell": {"input_to_hidden": True, "recurrent": True},
    "default_dense": {"input_to_hidden": True, "activation": "relu"},
}


def keras_layer(vectors, case):
    """Keras' kernels are (in, out), with those of the last step in a matrix of their own; no hidden cell: one of 0."""
    prefix = f"{case}/w/"
    w = {name.removeprefix(prefix): a.T for name, a in vectors.items() if name.startswith(prefix)}
    order, copies = int(vectors["cfg/d"]), int(vectors["cfg/Md"])
    encoder = [w[name] for name in ("kernel", "recurrent_kernel") if name in w]
    mixer = [w[name] for name in ("hidden.kernel", "hidden.recurrent_kernel") if name in w]
    layer = layer_of(
        encoder,
        mixer or [np.zeros((1, copies * order), np.float32)],
        float(vectors["cfg/theta"]),
        order,
        inputs=vectors["x"].shape[-1],
        bias=True,
        **KERAS[case],
    )
    with torch.no_grad():
        for linear, name in ((layer.encoder, "bias"), (layer.mixer, "hidden.bias")):
            if name in w:
                linear.bias.copy_(torch.from_numpy(w[name]))
    return layer


@pytest.mark.parametrize("case", KERAS)
@pytest.mark.parametrize("run", RUNS)
def test_every_choice_of_links_is_keras_lmus(reference, case, run):
    vectors = reference("keras_lmu.npz")
    layer = keras_layer(vectors, case)
    (x,) = tensors(vectors, "x")
    h = x.new_zeros(len(x), layer.hidden_size) if layer.keeps_hidden else None
    m, h = RUNS[run](layer, x, layer.memory.initial_state(len(x)), h)
    expected = vectors[f"{case}/y"]
    if case == "memory_only":
        h, expected = m.flatten(2), expected[:, -m.shape[1] :]
    assert_authors(h, expected)


def test_every_case_of_keras_lmu_is_tested(reference):
    stored = {name.removesuffix("/impl") for name in reference("keras_lmu.npz") if name.endswith("/impl")}
    assert stored == set(KERAS)


@pytest.mark.parametrize("mode", ["fft", "raw_exact"])
def test_a_long_memory_is_keras_lmus(reference, mode):
    vectors = reference("keras_lmu.npz")
    x, kernel = tensors(vectors, "ff/x", "ff/w/kernel")
    memory = LegendreMemory(kernel.shape[1], int(vectors["cfg/d"]), float(vectors["cfg/theta"]))
    m = memory(x @ kernel, memory.initial_state(len(x)))
    assert_authors(m.flatten(2), vectors[f"ff/{mode}/m"])
    response = vectors["ff/impulse_response"]
    assert_authors(impulse_answer(memory.order, memory.theta, len(response)), response)


def test_matrices_are_keras_lmus_transposed(reference):
    vectors = reference("keras_lmu.npz")
    a, b = discretize(int(vectors["cfg/d"]), float(vectors["cfg/theta"]))
    assert_authors(a.numpy().T, vectors["A_keras"])
    assert_authors(b.numpy()[None], vectors["B_keras"])


def test_a_hold_for_next_to_no_time_is_eulers_step_of_keras_lmu(reference):
    """(Ā - I) / Δ and B̄ / Δ tend to what Euler's rule multiplies by a step."""
    vectors, parts = reference("keras_lmu.npz"), 1e6
    order, theta = int(vectors["cfg/d"]), float(vectors["euler/theta"])
    a, b = discretize(order, parts * theta)
    assert_authors(np.eye(order) + parts * (a.numpy().T - np.eye(order)), vectors["euler/A_keras"])
    assert_authors(parts * b.numpy()[None], vectors["euler/B_keras"])
