"""The diagonal state space layer: the authors' vectors, and that its parallel form is its step and its convolution."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.diagonal import CHUNK, INITIALIZATIONS, RULES, DiagonalSsm, initial_modes
from edgeseq.models.quantized import StateGrid

SMALL = Path(__file__).with_name("s4d_reference.npz")
TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-9}  # of the largest number, or of 1 for doubles
LOOSE = 3e-5  # for what the authors sum in float32 over every frame: their own error is up to 1.2e-5 of the largest
few = settings(max_examples=12, deadline=None, derandomize=True)
lengths = st.integers(1, 3 * CHUNK + 1) | st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])


@pytest.fixture(scope="session", params=["shipped", "whole"])
def vectors(request):
    """The authors' vectors: the few that ship with the tests, and all of them where they are."""
    if request.param == "whole":
        return request.getfixturevalue("reference")("s4d.npz")
    with np.load(SMALL) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def inits(vectors):
    found = [name for name in INITIALIZATIONS if f"{name}/K" in vectors]
    assert found
    return found


def assert_authors(found, expected, tolerance=None):
    found = found.detach().resolve_conj().numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == expected.shape
    largest = np.abs(expected).max()
    largest = max(1.0, largest) if expected.dtype == np.float64 else largest
    assert np.abs(found - expected).max() <= (tolerance or TOLERANCE[expected.dtype.name]) * largest


def double(array):
    return torch.from_numpy(np.asarray(array)).double()


def complex_of(parts):
    """(1, H, M, 2) to complex (H, M)."""
    return torch.view_as_complex(double(parts)[0])


def layer_of(vectors, init, **arguments):
    """Ours, in double, with the authors' parameters; theirs has the imaginary part's sign turned, and a B."""
    channels, modes = vectors[f"{init}/raw/A_real"].shape
    layer = DiagonalSsm(channels, 2 * modes, init=init, **arguments).double()
    c = complex_of(vectors[f"{init}/raw/C"]) * complex_of(vectors[f"{init}/raw/B"])
    with torch.no_grad():
        layer.log_dt.copy_(double(vectors[f"{init}/raw/inv_dt"])[:, 0])
        layer.log_decay.copy_(double(vectors[f"{init}/raw/A_real"]))
        layer.frequency.copy_(-double(vectors[f"{init}/raw/A_imag"]))
        layer.C.copy_(torch.view_as_real(c))
        layer.D.copy_(double(vectors[f"{init}/D"]))
    return layer


def frames_first(array):
    return double(array).transpose(1, 2)  # (B, H, T) to (B, T, H)


def kernel(layer, length):
    """The answers to an impulse (H, T), without D."""
    u = torch.zeros(1, length, layer.channels, dtype=torch.float64)
    u[:, 0] = 1
    y, _ = layer(u, layer.initial_state(1))
    y[:, 0] -= layer.D
    return y[0].T


def folded(state, vectors, init):
    """The authors' state, B̄ u summed, (B, H, M) in ours, u summed, (B, 2, M, H)."""
    s = torch.from_numpy(state).to(torch.complex128) / torch.from_numpy(vectors[f"{init}/Bbar"])
    return torch.view_as_real(s).permute(0, 3, 2, 1).contiguous()


def unfolded(state, vectors, init):
    s = torch.view_as_complex(state.permute(0, 3, 2, 1).contiguous())
    return s * torch.from_numpy(vectors[f"{init}/Bbar"])


# -- the authors' vectors -------------------------------------------------------------------------------------------


def test_initial_modes_are_the_authors(vectors):
    sizes = [key for key in vectors if key.startswith("init/") and key.endswith("/N")]
    assert sizes
    for key in sizes:
        for init in INITIALIZATIONS:
            a, b = initial_modes(init, int(vectors[key]))
            expected = vectors[key.replace("/N", f"/{init}/B")]
            assert_authors(a.conj(), vectors[key.replace("/N", f"/{init}/A")])
            # The phase of an eigenvector is anybody's choice up to its sign, once its first component is real.
            assert_authors(b.real.abs(), np.abs(expected.real))
            assert_authors(b.imag.abs(), np.abs(expected.imag))


def test_constants_are_the_authors(vectors, inits):
    for init in inits:
        turn, weight = (torch.complex(*part).mT for part in layer_of(vectors, init).discretize())
        assert_authors(turn, vectors[f"{init}/Abar"])
        assert_authors(weight, 2 * vectors[f"{init}/C"] * vectors[f"{init}/Bbar"])


def test_kernels_are_the_authors(vectors, inits):
    for init in inits:
        plain, length = layer_of(vectors, init), vectors[f"{init}/K"].shape[1]
        assert_authors(kernel(plain, length), vectors[f"{init}/K64"])
        assert_authors(kernel(plain, length), vectors[f"{init}/K"])
        half = vectors[f"{init}/K_rate2"]
        assert_authors(kernel(layer_of(vectors, init, rate=2.0), half.shape[1]), half)
        assert_authors(kernel(layer_of(vectors, init, rule="bilinear"), length), vectors[f"{init}/K_bilinear"])


def test_answers_and_states_are_the_authors(vectors, inits):
    u = frames_first(vectors["u"])
    for init in inits:
        layer = layer_of(vectors, init)
        y, s = layer(u, layer.initial_state(len(u)))
        for key in ("y64", "y", "y_step"):
            assert_authors(y.transpose(1, 2), vectors[f"{init}/{key}"])
        assert_authors(unfolded(s, vectors, init), vectors[f"{init}/state_last"], LOOSE)
        y, s = layer(u, folded(vectors[f"{init}/chunk/state0"], vectors, init))
        assert_authors(y.transpose(1, 2), vectors[f"{init}/chunk/y"])
        assert_authors(unfolded(s, vectors, init), vectors[f"{init}/chunk/state_next"], LOOSE)


def test_gradients_are_the_authors(vectors, inits):
    u = frames_first(vectors["u"])
    for init in inits:
        layer, raw = layer_of(vectors, init), f"{init}/raw"
        y, _ = layer(u, layer.initial_state(len(u)))
        (y * frames_first(vectors[f"{init}/grad/upstream_y"])).sum().backward()
        slopes = {name: parameter.grad for name, parameter in layer.named_parameters()}
        of_product = torch.view_as_complex(slopes["C"])  # ours is the product c b: theirs follow by the chain rule
        b, c = complex_of(vectors[f"{raw}/B"]), complex_of(vectors[f"{raw}/C"])
        found = {
            "inv_dt": slopes["log_dt"][:, None],
            "A_real": slopes["log_decay"],
            "A_imag": -slopes["frequency"],
            "D": slopes["D"][None],
            "C": torch.view_as_real((of_product * b.conj()).resolve_conj())[None],
            "B": torch.view_as_real((of_product * c.conj()).resolve_conj())[None],
        }
        for name, slope in found.items():
            assert_authors(slope, vectors[f"{init}/grad/{name}"], LOOSE)


# -- one system in three forms --------------------------------------------------------------------------------------


def drawn(rule, frames, seed, dtype=torch.float64):
    torch.manual_seed(seed)
    layer = DiagonalSsm(3, 6, init=INITIALIZATIONS[seed % 4], rule=rule, dt_max=0.5).to(dtype)
    return layer, torch.randn(2, frames, 3, dtype=dtype), torch.randn(2, 2, 3, 3, dtype=dtype)


def by_steps(layer, u, s):
    answers = []
    for t in range(u.shape[1]):
        y, s = layer.step(u[:, t], s)
        answers.append(y)
    return torch.stack(answers, 1), s


@pytest.mark.parametrize("rule", RULES)
@few
@given(frames=lengths, seed=st.integers(0, 99))
def test_chunks_are_the_loop_of_step_and_so_is_the_last_frame_alone(rule, frames, seed):
    layer, u, s = drawn(rule, frames, seed)
    y, after = by_steps(layer, u, s)
    for found, expected in zip((*layer(u, s), *layer.last(u, s)), (y, after, y[:, -1], after), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
@few
@given(frames=lengths, seed=st.integers(0, 99))
def test_chunks_are_a_convolution_and_what_is_left_of_the_start(rule, frames, seed):
    """By an FFT padded to twice the length, with powers of Ā in logarithms."""
    layer, u, s = drawn(rule, frames, seed)
    turn, weight = (torch.complex(*part).mT for part in layer.discretize())
    powers = torch.exp(torch.arange(frames + 1) * torch.log(turn)[..., None])  # (H, M, T + 1)
    taps = (weight[..., None] * powers[..., :-1]).sum(1).real  # (H, T)
    x = torch.fft.rfft(u.mT, 2 * frames) * torch.fft.rfft(taps, 2 * frames)
    start = torch.complex(*s.unbind(1)).mT  # (B, H, M)
    expected = torch.fft.irfft(x, 2 * frames)[..., :frames].mT + layer.D * u
    expected = expected + torch.einsum("bhm,hmt->bth", weight * start, powers[..., 1:]).real
    for y, after in (layer(u, s), layer.convolved(u, s)):
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after, by_steps(layer, u, s)[1], rtol=1e-9, atol=1e-9)


def test_chunks_and_steps_of_floats_stay_together_for_thousands_of_frames():
    layer, u, s = drawn("zoh", 4000, 0, torch.float32)
    with torch.no_grad():
        y, after = layer(u, s)
        expected, expected_after = by_steps(layer, u, s)
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (after - expected_after).abs().max() <= 1e-5 * expected_after.abs().max()


def test_a_rounded_state_is_stepped_on_a_grid_with_a_scale_for_each_mode():
    layer, u, s = drawn("zoh", 50, 1)
    grid = StateGrid((2, 3, 3), "int8").double()
    grid.set_range(torch.rand(2, 3, 3) * 3 + 0.1)
    layer.store = grid
    with torch.no_grad():
        found, last, expected = layer(u, s), layer.last(u, s), by_steps(layer, u, s)
    for got in (found, (last[0], last[1])):
        assert torch.equal(got[1], expected[1])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(last[0], expected[0][:, -1])
    levels = found[1] / grid.scale
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    assert levels.abs().max() <= 127


@few
@given(
    log_dt=st.floats(-12, 3), log_decay=st.floats(-6, 5), frequency=st.floats(-500, 500), rule=st.sampled_from(RULES)
)
def test_no_parameters_make_it_unstable(log_dt, log_decay, frequency, rule):
    layer = DiagonalSsm(1, 2, rule=rule).double()
    with torch.no_grad():
        for parameter, value in ((layer.log_dt, log_dt), (layer.log_decay, log_decay), (layer.frequency, frequency)):
            parameter.fill_(value)
        turn, weight = layer.discretize()
        rounded, _ = layer.float().discretize()
    assert torch.linalg.vector_norm(turn) < 1
    assert torch.linalg.vector_norm(rounded.double()) < 1 + 1e-7  # both parts may be rounded up
    assert torch.isfinite(weight).all()


def test_at_half_the_rate_a_held_input_gives_the_same_answers_exactly():
    layer, u, s = drawn("zoh", 40, 2)
    layer.D.data.zero_()
    turn, _ = layer.discretize()
    held, _ = layer(u.repeat_interleave(2, 1), 0 * s)
    layer.rate.fill_(2.0)
    torch.testing.assert_close(layer(u, 0 * s)[0], held[:, 1::2], rtol=1e-9, atol=1e-9)
    squared = torch.complex(*turn) ** 2
    torch.testing.assert_close(torch.complex(*layer.discretize()[0]), squared, rtol=1e-9, atol=1e-12)


def test_time_constants_at_the_start_lie_between_the_bounds():
    layer = DiagonalSsm(500, 4, dt_min=0.02, dt_max=0.3)
    dt = layer.log_dt.detach().exp()
    assert 0.02 <= float(dt.min()) < 0.03
    assert 0.2 < float(dt.max()) <= 0.3 + 1e-6
    assert torch.allclose(layer.log_decay, torch.tensor(0.5).log())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 5}, "state size 5 must be even"),
        ({"size": 0}, "state size 0 must be even"),
        ({"init": "lim"}, "unknown initialization 'lim'. Did you mean 'lin'"),
        ({"rule": "euler"}, "unknown discretization 'euler'"),
        ({"dt_min": 0.2}, "dt_min 0.2, dt_max 0.1"),
        ({"rate": 0.0}, "rate 0.0"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        DiagonalSsm(2, **{"size": 4, **arguments})


def test_what_an_initialization_has_in_b_is_in_c_at_the_start():
    """c is complex standard normal, E|c|² = 1, times b of its mode."""
    torch.manual_seed(0)
    for init in INITIALIZATIONS:
        _, b = initial_modes(init, 8)
        found = DiagonalSsm(20_000, 8, init=init).C.detach().double().square().sum(-1).mean(0)  # (M)
        torch.testing.assert_close(found, b.abs().square(), rtol=0.05, atol=0)


def test_step_sizes_start_log_uniform():
    torch.manual_seed(0)
    log_dt = DiagonalSsm(20_000, 2, dt_min=1e-3, dt_max=1e-1).log_dt.detach()
    shares = [float((log_dt < math.log(dt)).float().mean()) for dt in (10**-2.5, 1e-2, 10**-1.5)]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.02)


def test_weights_at_another_rate_are_refused():
    stored = DiagonalSsm(3, 4, rate=2.0).state_dict()
    with pytest.raises(InputError, match="retimed to rate 2, not 1"):
        DiagonalSsm(3, 4).load_state_dict(stored)
