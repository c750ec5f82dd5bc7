"""The LMU computes the equations of its module's docstring, written here a second time, in numpy and one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseq.errors import InputError
from edgeseq.models.lmu import Lmu


@pytest.mark.parametrize("products", [0, 5])
@pytest.mark.parametrize("hidden", [(4, 7), (6, 6)], ids=["plain", "residual"])
def test_a_step_is_the_equations(products, hidden):
    torch.manual_seed(0)
    model = Lmu(3, 2, channels=(2, 3), orders=(4, 5), thetas=(9.0, 20.0), hidden=hidden, products=products).double()
    model.set_normalization([1.0, 2.0, 3.0], [2.0, 4.0, 0.5])
    w = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    memories = [torch.randn(1, 2, 4).double(), torch.randn(1, 3, 5).double()]
    x = torch.randn(1, 3).double()

    def affine(name, value):
        return w[f"{name}.weight"] @ value + w[f"{name}.bias"]

    h = (x[0].numpy() - [1, 2, 3]) / [2, 4, 0.5]
    if products:
        h = np.concatenate([h, affine("front.value", h) * np.tanh(affine("front.gate", h))])
    expected = []
    for i, memory in enumerate(memories):
        u = affine(f"blocks.{i}.encoder", h)
        a, b = w[f"blocks.{i}.memory.A"], w[f"blocks.{i}.memory.B"]
        m = np.stack([a @ memory[0, c].numpy() + b * u[c] for c in range(len(u))])
        mixed = np.maximum(affine(f"blocks.{i}.mixer", np.concatenate([m.ravel(), h])), 0)
        h = h + mixed if len(h) == len(mixed) else mixed
        expected.append(m)
    with torch.no_grad():
        y, after = model.step(x, {f"blocks.{i}.memory": memory for i, memory in enumerate(memories)})
    np.testing.assert_allclose(y[0].numpy(), affine("readout", h), rtol=0, atol=1e-6)
    for i, m in enumerate(expected):
        np.testing.assert_allclose(after[f"blocks.{i}.memory"][0].numpy(), m, rtol=0, atol=1e-6)


@pytest.mark.parametrize("short", ["channels", "orders", "thetas", "hidden"])
def test_every_block_needs_an_entry_in_every_argument(short):
    arguments = {"channels": (2, 3), "orders": (4, 5), "thetas": (9.0, 20.0), "hidden": (6, 6)}
    with pytest.raises(InputError, match=rf"one entry per block.*{short} "):
        Lmu(3, 2, **{**arguments, short: arguments[short][:1]})
