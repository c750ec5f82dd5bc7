"""The Legendre memory: the authors' matrices and memories, stability, and that it remembers what its equations say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

from edgeseq.errors import InputError
from edgeseq.models.legendre import LONG_CHUNK, LegendreMemory, discretize
from edgeseq.models.lmu import LmuBlock


def assert_authors_matrices(vectors):
    count = sum(name.startswith("ab/") and name.endswith("/A") for name in vectors)
    assert count
    for i in range(count):
        a, b = discretize(int(vectors[f"ab/{i}/d"]), float(vectors[f"ab/{i}/theta"]))
        np.testing.assert_allclose(a.numpy(), vectors[f"ab/{i}/A"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(b.numpy(), vectors[f"ab/{i}/B"][:, 0], rtol=0, atol=1e-9)


def assert_authors_memory(u, m, theta):
    memory = LegendreMemory(1, m.shape[-1], theta)
    start = memory.initial_state(len(u))
    found = memory(torch.from_numpy(u), start)[:, :, 0]
    tolerance = 1e-5 * np.abs(m).max()
    np.testing.assert_allclose(found.numpy(), m, rtol=0, atol=tolerance)
    steps, state = [], start
    for t in range(u.shape[1]):
        state = memory.step(torch.from_numpy(u[:, t]), state)
        steps.append(state[:, 0])
    np.testing.assert_allclose(torch.stack(steps, 1).numpy(), m, rtol=0, atol=tolerance)


def test_matrices_are_the_authors(small_reference):
    assert_authors_matrices(small_reference)


def test_memory_is_the_authors(small_reference):
    assert_authors_memory(small_reference["fft/u"], small_reference["fft/m"], float(small_reference["fft/theta"]))


def test_matrices_are_the_authors_at_every_size(reference):
    vectors = reference("lmu_cell.npz")
    assert_authors_matrices(vectors)
    a, b = discretize(int(vectors["cfg/d"]), float(vectors["cfg/theta"]))
    np.testing.assert_allclose(a.numpy(), vectors["A64"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(b.numpy(), vectors["B64"][:, 0], rtol=0, atol=1e-10)


def test_memory_of_every_stream_is_the_authors(reference):
    vectors = reference("lmu_fft.npz")
    assert_authors_memory(vectors["u"], vectors["m"], float(vectors["cfg/theta"]))


def test_mixer_of_a_block_is_the_authors_read_out(reference):
    vectors = {name: torch.from_numpy(a) for name, a in reference("lmu_fft.npz").items() if a.dtype == np.float32}
    (hidden, width), order = vectors["w/W_h.weight"].shape, vectors["m"].shape[-1]
    block = LmuBlock(width - order, 1, order, 48.0, hidden)
    with torch.no_grad():
        block.mixer.weight.copy_(vectors["w/W_h.weight"])
        block.mixer.bias.copy_(vectors["w/W_h.bias"])
        found = block.mix(vectors["m"][:, :, None], vectors["x"])
    torch.testing.assert_close(found, vectors["h"], rtol=0, atol=1e-5 * float(vectors["h"].abs().max()))


@pytest.mark.parametrize("theta", [1.0, 7.5, 50.0, 300.0, 5000.0])
@pytest.mark.parametrize("order", [1, 2, 6, 16, 32, 64])
def test_memory_is_stable(order, theta):
    a, b = discretize(order, theta)
    assert float(torch.linalg.eigvals(a).abs().max()) < 1
    assert torch.isfinite(b).all()


@pytest.mark.parametrize(("order", "theta"), [(0, 10.0), (-1, 10.0), (4, 0.0), (4, -2.0)])
def test_an_order_or_a_window_that_is_not_positive_is_refused(order, theta):
    with pytest.raises(InputError, match="must be positive"):
        discretize(order, theta)


def test_one_order_is_a_leaky_average():
    a, b = discretize(1, 10.0)
    assert float(a) == pytest.approx(math.exp(-1 / 10), abs=1e-15)
    assert float(b) == pytest.approx(1 - math.exp(-1 / 10), abs=1e-15)


@pytest.mark.parametrize(("order", "theta"), [(8, 60.0), (12, 100.0)])
def test_the_window_can_be_read_from_the_memory(order, theta):
    """u(t - rθ) ≈ Σ_i P_i(2r - 1) m_i for 0 ≤ r ≤ 1, on a signal whose waves are long against the window."""
    t = torch.arange(600, dtype=torch.float64)
    u = torch.sin(2 * math.pi * t / 150) + 0.5 * torch.cos(2 * math.pi * t / 90)
    memory = LegendreMemory(1, order, theta).double()
    memory.A, memory.B = discretize(order, theta)
    m = memory(u[None, :, None], memory.initial_state(1).double())[0, :, 0].numpy()
    for r in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = m @ [float(legendre.Legendre.basis(i)(2 * r - 1)) for i in range(order)]
        # A held input is seen half a step late.
        delayed = np.interp(t.numpy() + 0.5 - r * theta, t.numpy(), u.numpy())
        settled = slice(300, 599)
        assert np.abs(found[settled] - delayed[settled]).max() < 0.02, r


@pytest.mark.parametrize("frames", [1, LONG_CHUNK - 1, LONG_CHUNK, LONG_CHUNK + 1, 3 * LONG_CHUNK])
def test_any_number_of_frames_continues_from_any_memory(frames):
    generator = torch.Generator().manual_seed(0)
    memory = LegendreMemory(2, 5, 12.0).double()
    u = torch.randn(3, frames, 2, generator=generator).double()
    state = torch.randn(3, 2, 5, generator=generator).double()
    found = memory(u, state)
    for t in range(frames):
        state = memory.step(u[:, t], state)
        torch.testing.assert_close(found[:, t], state, rtol=0, atol=1e-12)


def test_matrices_are_constants_of_the_model_and_not_trained():
    memory = LegendreMemory(2, 5, 12.0)
    assert list(memory.parameters()) == []
    assert set(memory.state_dict()) == {"A", "B"}
