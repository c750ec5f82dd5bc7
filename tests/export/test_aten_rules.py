"""Every ATen operator that capture knows, through a small module: the program computes what the module computes.

``SNIPPETS`` says one or more ways to come to each; a new rule needs one more entry. ``capture`` itself compares program
and module, with small, ordinary and large values; that this comparison would notice is tested in test_capture.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseq.errors import Unsupported
from edgeseq.export.aten import RULES
from edgeseq.export.integer import IntegerLinear
from edgeseq.models.neurons import Neurons
from edgeseq.models.quantized import QuantizedLinear
from edgeseq.program import interpret

aten = torch.ops.aten
Snippet = Callable[[Tensor, Tensor, nn.Module], Tensor]  # x (1, 6), h (1, 6), module to y (1, K)


def rows(x: Tensor) -> Tensor:
    return x.view(1, 2, 3)


def flat(x: Tensor) -> Tensor:
    return x.reshape(1, -1)


SNIPPETS: dict[str, list[Snippet]] = {
    "linear": [
        lambda x, h, m: m.dense(x),
        lambda x, h, m: m.bare(x),
        lambda x, h, m: flat(functional.linear(rows(x), m.narrow)),
    ],
    "matmul": [lambda x, h, m: x @ m.matrix, lambda x, h, m: flat(rows(x) @ m.narrow.T)],
    "mm": [lambda x, h, m: aten.mm(x, m.matrix)],
    "addmm": [lambda x, h, m: torch.addmm(h, x, m.matrix), lambda x, h, m: torch.addmm(m.vector, x, m.matrix)],
    "add": [lambda x, h, m: x + h, lambda x, h, m: torch.add(x, h, alpha=-0.5), lambda x, h, m: 2 + x],
    "sub": [lambda x, h, m: x - h, lambda x, h, m: torch.sub(x, h, alpha=3), lambda x, h, m: x - m.vector],
    "mul": [lambda x, h, m: x * h, lambda x, h, m: 0.1 * x, lambda x, h, m: flat(rows(x) * h[:, :3])],
    "div": [lambda x, h, m: x / (1 + h * h), lambda x, h, m: x / 3, lambda x, h, m: x / m.vector.exp()],
    "rsub": [lambda x, h, m: 1 - x, lambda x, h, m: torch.rsub(x, h, alpha=2)],
    "minimum": [lambda x, h, m: torch.minimum(x, h)],
    "maximum": [lambda x, h, m: torch.maximum(x, h)],
    "neg": [lambda x, h, m: -x],
    "abs": [lambda x, h, m: x.abs()],
    "exp": [lambda x, h, m: torch.exp(x)],
    "log": [lambda x, h, m: torch.log(x.abs() + 1)],
    "sqrt": [lambda x, h, m: torch.sqrt(x.abs())],
    "rsqrt": [lambda x, h, m: torch.rsqrt(x.abs() + 1)],
    "reciprocal": [lambda x, h, m: torch.reciprocal(x.abs() + 1)],
    "pow": [lambda x, h, m: x**2, lambda x, h, m: x.abs() ** 0.5],
    "square": [lambda x, h, m: torch.square(x)],
    "round": [lambda x, h, m: torch.round(3 * x)],
    "relu": [lambda x, h, m: torch.relu(x)],
    "sigmoid": [lambda x, h, m: torch.sigmoid(x)],
    "tanh": [lambda x, h, m: torch.tanh(x)],
    "gelu": [lambda x, h, m: functional.gelu(x)],
    "silu": [lambda x, h, m: functional.silu(x)],
    "glu": [lambda x, h, m: functional.glu(x), lambda x, h, m: flat(functional.glu(x.view(1, 2, 3), 1))],
    "leaky_relu": [lambda x, h, m: functional.leaky_relu(x), lambda x, h, m: functional.leaky_relu(x, 0.3)],
    "clamp": [
        lambda x, h, m: x.clamp(-0.5, 1),
        lambda x, h, m: x.clamp(min=0.2),
        lambda x, h, m: x.clamp(max=0.2),
        lambda x, h, m: x.clamp(h, h + 1),
    ],
    "clamp_min": [lambda x, h, m: torch.clamp_min(x, 0.3)],
    "hardtanh": [
        lambda x, h, m: functional.hardtanh(x),
        lambda x, h, m: functional.hardtanh(x, 0, 1),  # 1 is the default, which a captured graph leaves out
        lambda x, h, m: functional.hardtanh(x, -2, 0.5),
    ],
    "gt": [lambda x, h, m: (x > h).float(), lambda x, h, m: (x > 0.5).float()],
    "lt": [lambda x, h, m: (x < h).float(), lambda x, h, m: (x < 0.5).float()],
    "ge": [lambda x, h, m: (x >= x.relu()).float(), lambda x, h, m: (x >= 0.5).float()],
    "le": [lambda x, h, m: (x <= x.relu()).float(), lambda x, h, m: (x <= 0.5).float()],
    "where": [lambda x, h, m: torch.where(x > 0, x, h), lambda x, h, m: torch.where(x > 0, 1.0, h)],
    "sum": [
        lambda x, h, m: x.sum(-1, keepdim=True),
        lambda x, h, m: rows(x).sum(1),
        lambda x, h, m: rows(x).sum((1, 2)).view(1, 1),
        lambda x, h, m: x.sum().view(1, 1),
    ],
    "mean": [
        lambda x, h, m: x.mean(-1, keepdim=True),
        lambda x, h, m: rows(x).mean(-2),
        lambda x, h, m: x.mean().view(1, 1),
    ],
    "layer_norm": [
        lambda x, h, m: m.norm(x),
        lambda x, h, m: functional.layer_norm(x, (6,)),
        lambda x, h, m: flat(functional.layer_norm(rows(x), (3,), m.vector[:3], eps=1e-3)),
    ],
    "_native_batch_norm_legit_no_training": [
        lambda x, h, m: m.batch(x),
        lambda x, h, m: m.plain(x),
        lambda x, h, m: flat(m.channels(rows(x))),
    ],
    "softmax": [lambda x, h, m: torch.softmax(x, -1), lambda x, h, m: flat(torch.softmax(rows(x), 2))],
    "slice": [lambda x, h, m: x[:, 2:4], lambda x, h, m: x[:, -2:], lambda x, h, m: flat(rows(x)[:, :, :2])],
    "select": [lambda x, h, m: rows(x)[:, 1], lambda x, h, m: rows(x)[..., -1], lambda x, h, m: x[0][None]],
    "split": [
        lambda x, h, m: x.split(2, -1)[1],
        lambda x, h, m: x.split(4, 1)[1],
        lambda x, h, m: torch.cat(x.chunk(2, -1)[::-1], -1),
    ],
    "split_with_sizes": [lambda x, h, m: x.split([1, 3, 2], -1)[1]],
    "cat": [lambda x, h, m: torch.cat([x, h], -1), lambda x, h, m: torch.cat([x], 1)],
    "stack": [lambda x, h, m: flat(torch.stack([x, h], -1)), lambda x, h, m: flat(torch.stack([x, h], 1))],
    "unsqueeze": [
        lambda x, h, m: flat(rows(x) - h[:, :3].unsqueeze(1)),
        lambda x, h, m: flat(x.unsqueeze(-1) * m.vector),
    ],
    "squeeze": [
        lambda x, h, m: x.view(1, 6, 1).squeeze(-1),
        lambda x, h, m: x.view(1, 6, 1, 1).squeeze((-1, 2)),
        lambda x, h, m: x.view(1, 6, 1).squeeze()[None],
    ],
    "permute": [lambda x, h, m: flat(rows(x).permute(0, 2, 1)), lambda x, h, m: flat(rows(x).permute(0, -2, -1))],
    "transpose": [lambda x, h, m: flat(rows(x).transpose(-1, -2)), lambda x, h, m: flat(rows(x).mT)],
    "t": [lambda x, h, m: flat(aten.t(x))],
    "expand": [
        lambda x, h, m: flat(x[:, :2, None].expand(-1, -1, 3)),
        lambda x, h, m: x.expand(1, 6),
        lambda x, h, m: flat(h[:, :1].expand(2, 1, 4)),
    ],
    "view": [
        lambda x, h, m: flat(x.view(1, 3, 2) * m.vector[:2]),
        lambda x, h, m: (rows(x) * m.vector[:3]).flatten(-2),
        lambda x, h, m: torch.reshape(rows(x) * m.vector[:3], (1, -1)),
    ],
    "_unsafe_view": [lambda x, h, m: flat(aten._unsafe_view(x, [1, 3, 2]) * m.vector[:2])],
    "clone": [
        lambda x, h, m: x.clone() + h,
        lambda x, h, m: flat(rows(x).transpose(1, 2).contiguous()),
        lambda x, h, m: m.dropout(x) + h,
    ],
    "detach": [lambda x, h, m: x.detach() + h],
    "alias": [lambda x, h, m: aten.alias(x) + h],
    "_to_copy": [lambda x, h, m: (x > h).to(torch.float32), lambda x, h, m: aten._to_copy(x, dtype=torch.float32) + h],
    "edgeseq::quantize": [lambda x, h, m: m.integer(x)],
    "edgeseq::qlinear": [
        lambda x, h, m: m.integer(x),
        lambda x, h, m: m.integer(torch.cat([m.integer(x), h], -1)[:, :6]),
    ],
    "edgeseq::dequantize": [lambda x, h, m: m.integer(h)],
    "edgeseq::leaky": [
        lambda x, h, m: torch.cat([*m.leaky.step(x, {"membrane": h})[1].values()], -1),
        lambda x, h, m: m.jelly.step(x, {"membrane": h})[0],
    ],
    "edgeseq::synaptic": [
        lambda x, h, m: torch.cat([*m.synaptic.step(x, {"current": h, "membrane": x + h})[1].values()], -1)
    ],
}  # fmt: skip


def test_every_rule_has_a_snippet():
    assert set(SNIPPETS) == set(RULES)


def parts() -> dict[str, object]:
    torch.manual_seed(0)
    batch, channels = nn.BatchNorm1d(6), nn.BatchNorm1d(2)
    for norm in (batch, channels):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    plain = nn.BatchNorm1d(6, affine=False)
    for norm in (batch, channels, plain):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    layer_norm = nn.LayerNorm(6)
    nn.init.normal_(layer_norm.weight)
    quantized = QuantizedLinear(nn.Linear(6, 3))
    quantized.input.set_range(-3, 4)
    quantized.output.set_range(-2, 3)
    return {
        "leaky": Neurons(6, threshold=0.3), "synaptic": Neurons(6, alpha=0.7, threshold=0.3),
        "jelly": Neurons(6, beta=0.5, decay_input=True, reset="zero", delay=False, inclusive=True, threshold=0.3),
        "integer": IntegerLinear(quantized),
        "dense": nn.Linear(6, 4), "bare": nn.Linear(6, 3, bias=False), "narrow": torch.randn(2, 3),
        "matrix": torch.randn(6, 6), "vector": torch.randn(6), "norm": layer_norm, "batch": batch,
        "plain": plain, "channels": channels, "dropout": nn.Dropout(0.5),
    }  # fmt: skip


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_rule_says_what_the_operator_computes(name, captured, make_model, monkeypatch):
    used = []
    rule = RULES[name]
    monkeypatch.setitem(RULES, name, lambda b, *args, **kwargs: used.append(name) or rule(b, *args, **kwargs))

    def step(m, x, state):
        y = torch.cat([snippet(x, state["h"], m) for snippet in SNIPPETS[name]], -1)
        return y, {"h": state["h"] * 0.5}

    program = captured(step, **parts())
    assert len(used) >= len(SNIPPETS[name]), f"torch did not keep every {name} in its graph"
    generator = torch.Generator().manual_seed(9)
    x, h = torch.randn(2, 1, 6, generator=generator)
    y, following = make_model(step, **parts()).eval().step(x, {"h": h})
    found, states = interpret(program)(x.numpy(), {"h": h.numpy()})
    np.testing.assert_allclose(found, y.detach().numpy(), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(states["h"], following["h"].numpy())


REFUSED: dict[str, tuple[Snippet, str]] = {
    "a tanh gelu": (lambda x, h, m: functional.gelu(x, approximate="tanh"), "'gelu'.*only the exact form"),
    "another power": (lambda x, h, m: x**3, "'pow'.*exponent 3; 2 and 0.5 are known"),
    "another step": (lambda x, h, m: x[:, ::2], "'slice'.*only step 1"),
    "softmax over another axis": (lambda x, h, m: flat(torch.softmax(rows(x), 1)), "'softmax'.*only the last axis"),
    "two axes normalized": (lambda x, h, m: flat(functional.layer_norm(rows(x), (2, 3))), "'layer_norm'.*last axis"),
    "a product of two values": (lambda x, h, m: x @ h.T, "'matmul'.*constant matrix"),
    "a bias that changes": (lambda x, h, m: functional.linear(x, m.matrix, h[0]), "'linear'.*must be a constant"),
    "a matrix that changes": (lambda x, h, m: functional.linear(x, h), "'linear'.*must be a constant"),
    "batch statistics": (
        lambda x, h, m: functional.batch_norm(rows(x), None, None, training=True)[:, 0],
        "batch_norm_legit' .*not in the",
    ),
    "another type": (lambda x, h, m: x.double().float(), "float64; a step is computed in float32"),
    "a truth value as a number": (lambda x, h, m: x * (x > 0), "'mul'.*bool, float32 is needed"),
    "an argument of a known operator": (lambda x, h, m: torch.div(x, h, rounding_mode="floor"), "'div'.*rounding_mode"),
    "scaled addmm": (lambda x, h, m: torch.addmm(h, x, m.matrix, beta=0.5), "'addmm'.*beta"),
}


@pytest.mark.parametrize(("snippet", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_program_cannot_say_is_refused_and_not_guessed(snippet, message, captured):
    with pytest.raises(Unsupported, match=message):
        captured(lambda m, x, state: (snippet(x, state["h"], m), {"h": state["h"]}), **parts())
