from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeseq.models.rnn import Rnn


def torch_gru(model: Rnn, layers: int) -> nn.GRU:
    """torch's own GRU with the model's weights: the same tensors under its names."""
    hidden = model.layers[0].hidden_size
    gru = nn.GRU(model.input_size, hidden, layers, batch_first=True).double()
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            for ours, theirs in ((layer.from_input, "ih"), (layer.from_hidden, "hh")):
                getattr(gru, f"weight_{theirs}_l{i}").copy_(ours.weight)
                getattr(gru, f"bias_{theirs}_l{i}").copy_(ours.bias)
    return gru


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("run", ["forward", "run_steps"])
def test_gru_is_torchs_gru_in_values_and_gradients(layers, run):
    torch.manual_seed(0)
    model = Rnn(5, 4, hidden=7, layers=layers).double()
    gru = torch_gru(model, layers)
    x, h = torch.randn(2, 30, 5).double(), torch.randn(layers, 2, 7).double()
    y, after = getattr(model, run)(x, {f"layers.{i}.hidden": h[i] for i in range(layers)})
    hidden, final = gru(x, h)
    expected = model.readout(hidden)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for i in range(layers):
        torch.testing.assert_close(after[f"layers.{i}.hidden"], final[i], rtol=0, atol=1e-12)
    upstream = torch.randn_like(y)
    (y * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for i, layer in enumerate(model.layers):
        for ours, theirs in ((layer.from_input, "ih"), (layer.from_hidden, "hh")):
            for kind in ("weight", "bias"):
                found, wanted = getattr(ours, kind).grad, getattr(gru, f"{kind}_{theirs}_l{i}").grad
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
