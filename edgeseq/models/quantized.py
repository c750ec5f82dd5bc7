"""Layers with int8 or int4 weights and int8 activations, and states on a grid: what a compressed model is built from.

    q(x) = clip(round(x / s) + z, -128, 127)               an activation: one scale s and zero point z a tensor
    w_i  = s_i · round(w / s_i), s_i = max|w_i| / l          a weight matrix: one scale an output channel, symmetric,
                                                            l = 127 for int8 and 7 for int4
    b_i  = s s_i · round(b / (s s_i))                       a bias: int32, at the scale of the products

after Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018. In training the rounding passes gradients straight through, and nothing passes where the range was left.
Weights are quantized by Brevitas. Activations go through torch's own fake quantization: it multiplies by 1 / s as the
runtimes do, and costs a fraction of a general quantizer's call, which a recurrent loop pays at every frame.

Only what is an nn.Linear is quantized. The memory of an LMU (A, B and its state) stays wide, unless it is asked for
(:mod:`edgeseq.models.memories`); so does a GRU's state as
it is carried and in the products with its gates, while the linear map that reads it is int8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.errors import InputError, MissingDependency, Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.contract import Projection, Store, StreamingModel, set_mask
from edgeseq.models.memories import MEMORY_LIMITS, Memory, memories, round_memories
from edgeseq.program.quantized import HIGHEST, LOWEST

STATE_LIMITS = {"int8": 127, "int16": 32767}
WEIGHT_LIMITS = {"int8": 127, "int4": 7}
SMALLEST_SCALE = 1e-12  # 1 / s must be a float32 number, whatever the range
LARGEST_BIAS = 2**30  # so that half of int32 is left for the products
LARGEST_WIDTH = (2**31 - 1 - LARGEST_BIAS) // (255 * 127)  # inputs whose products fit there
SMALLEST_ROW = 1e-4  # max|w_i| is taken as no less: a row of zeros has a scale too


class Quantizer(nn.Module):
    """Rounds an activation to one of 256 values, ``scale`` apart; the real 0 is one of them, at ``zero``."""

    scale: Tensor
    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32))

    def set_range(self, low: float, high: float) -> None:
        """Span ``low`` to ``high``, and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale.fill_(max((high - low) / (HIGHEST - LOWEST), SMALLEST_SCALE) if high > low else 1.0)
        self.zero.fill_(min(max(round(LOWEST - low / float(self.scale)), LOWEST), HIGHEST))

    def follow_grid(self, scale: Tensor) -> None:
        """The values of an int8 state: what stands on its grid already is not rounded again."""
        self.scale.copy_(scale)
        self.zero.zero_()

    def integers(self, x: Tensor) -> Tensor:
        """``x`` of any shape as the int8 values that stand for it, in a float tensor."""
        inverse = 1 / self.scale.float()
        return torch.clamp(torch.round(x.float() * inverse) + self.zero, LOWEST, HIGHEST)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, rounded."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, LOWEST, HIGHEST)


class QuantizedLinear(nn.Module):
    """``y = q_out(W q_in(x) + b)`` with integer weights; the integer form of it is exact (see docs/operators.md).

    Weights are of -``limit`` to ``limit`` steps: 127 of int8, 7 of int4, which only needs fewer of an int8's values.
    """

    def __init__(self, plain: nn.Linear, weights: str = "int8") -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.limit = WEIGHT_LIMITS[weights]
        self.linear = _brevitas_linear(plain, weights)
        self.input = Quantizer()
        self.output = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """``x (..., in)`` to ``y (..., out)``."""
        return self.fixed()(x)

    def fixed(self) -> Callable[[Tensor], Tensor]:
        """The same with the weights quantized now, once: for a loop over the frames of a sequence.

        In training the sums are made of floats, which gradients need. Without gradients they are those of the integers
        that a device adds, exact, so that none of them falls on the other side of a tie.
        """
        if not torch.is_grad_enabled():
            return self._exact()
        weight, bias, scale = self.parts()
        rounded = bias.detach() / scale
        bias = bias + (scale * torch.round(rounded) - bias).detach()
        source, target = self.input, self.output
        return lambda x: cast(Tensor, target(linear(source(x), weight, bias)))

    def _exact(self) -> Callable[[Tensor], Tensor]:
        weight, bias, scale = (tensor.double() for tensor in self.integers())
        source, target = self.input, self.output
        # As the step program has it (edgeseq/program/quantized.py): one float32 multiplier a channel.
        multiplier = scale.float() * source.scale.float() / target.scale.float()
        shift = bias - source.zero * weight.sum(1)

        def answer(x: Tensor) -> Tensor:
            sums = linear(source.integers(x).double(), weight, shift).float()
            q = torch.clamp(torch.round(sums * multiplier) + target.zero, LOWEST, HIGHEST)
            return ((q - target.zero) * target.scale).to(x.dtype)

        return answer

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Quantized weights ``(out, in)`` as real numbers, the bias ``(out)``, and the bias's scales ``(out)``."""
        weight, scale = self._rows()
        return weight, self.linear.bias, self.input.scale * scale

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights ``(out, in)`` in int8 tensors, bias ``(out)`` int32, and the weights' scales ``(out)`` float32."""
        with torch.no_grad():
            weight, scale = self._rows()
            return (
                torch.round(weight / scale[:, None]).to(torch.int8),
                torch.round(self.linear.bias / (self.input.scale * scale)).to(torch.int32),
                scale.to(torch.float32),
            )

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Quantized weights ``(out, in)`` as real numbers, and the scale ``(out)`` of each row.

        A bias that would leave int32 makes the scale of its row larger: what is lost of the weights there is less than
        a step of the answer, which holds the bias too.
        """
        quantized, plain = self.linear.quant_weight(), self.linear.weight
        weight, scale = quantized.value, quantized.scale.detach().flatten()
        needed = self.linear.bias.detach().abs() / LARGEST_BIAS / self.input.scale
        coarse = needed > scale
        if bool(coarse.any()):
            scale = torch.maximum(scale, needed)
            rounded = torch.round(plain / scale[:, None]) * scale[:, None]
            weight = torch.where(coarse[:, None], plain + (rounded - plain).detach(), weight)
        return weight, scale


class StateGrid(nn.Module):
    """Keeps a state ``(..., *shape)`` on a symmetric grid of int8 or int16, one scale for each element of ``shape``.

    The scale is the same before and after the step, so a state that is carried is not rounded twice.
    """

    scale: Tensor

    def __init__(self, shape: tuple[int, ...], kind: str) -> None:
        super().__init__()
        self.shape, self.limit = shape, float(STATE_LIMITS[kind])
        self.register_buffer("scale", torch.ones(shape))

    def set_range(self, largest: Tensor) -> None:
        """Span ``-largest`` to ``largest``, for each element of ``shape``."""
        scale = (largest / self.limit).clamp(min=SMALLEST_SCALE)
        self.scale.copy_(torch.where(largest > 0, scale, torch.ones_like(largest)))

    def forward(self, state: Tensor) -> Tensor:
        """The state, rounded."""
        inside = torch.clamp(state * (1 / self.scale), -self.limit, self.limit)
        rounded = torch.round(inside)
        if torch.is_grad_enabled():
            rounded = inside + (rounded - inside).detach()
        return rounded * self.scale


def with_precision(model: StreamingModel, precision: Precision) -> StreamingModel:
    """Replace the linear maps and stores of a float ``model``, in place, by those of ``precision``; ranges are not set.

    Its memories are put on their grid too.

    Raises:
        Unsupported: a combination of number formats that is not known, or a model that would not be of it: it names
            no linear map, shares one between two places, keeps a state that passes no store, or has no memory.
        MissingDependency: Brevitas is not installed.
    """
    kinds = (precision.weights, precision.activations)
    if kinds not in (("float32", "float32"), ("int8", "int8"), ("int4", "int8")):
        raise Unsupported(
            f"weights {kinds[0]} with activations {kinds[1]}: float32 with float32, or int8 or int4 with int8"
        )
    if precision.state not in ("float32", *STATE_LIMITS):
        raise Unsupported(f"state precision {precision.state!r}: float32, int16 and int8 are known")
    integer = precision.weights in WEIGHT_LIMITS
    projections = model.projections() if integer else {}
    if integer:
        _check_projections(model, projections)
    remembered = {} if precision.memory == "float32" else _memories(model, precision.memory)
    stores = {} if precision.state == "float32" else _stores(model, precision.state)
    # Everything is checked: a model that is refused is as it was.
    _quantize_projections(model, projections, precision.weights)
    if remembered:
        round_memories(remembered.values(), precision.memory)
    for name, store in stores.items():
        model.set_submodule(name, StateGrid(store.shape, precision.state))
    return model


def _quantize_projections(model: StreamingModel, projections: Mapping[str, Projection], weights: str) -> None:
    for name in projections:
        plain = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, QuantizedLinear(plain, weights))
        if getattr(plain, "mask", None) is not None:
            set_mask(model.get_submodule(name), cast(Tensor, plain.mask))
    made = quantized_linears(model)
    for name, projection in projections.items():
        if projection.follows:
            made[name].input = made[projection.follows].output


def _check_projections(model: StreamingModel, projections: Iterable[str]) -> None:
    """Refuse what would leave the model other than its manifest says, or cannot be computed in int32."""
    family = type(model).__name__
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    if not projections:
        raise Unsupported(f"{family} names no linear map in projections(), so nothing of it can be int8: name some")
    for name in projections:
        plain = model.get_submodule(name)
        if type(plain) is not nn.Linear:
            raise InputError(f"{name} is a {type(plain).__name__}: only a plain linear map can be quantized")
        if len(names[id(plain)]) > 1:
            raise Unsupported(
                f"{family} has one linear map under the names {', '.join(names[id(plain)])}, and only one of them "
                "would be int8: use two nn.Linear, or leave it out by overriding projections()"
            )
        if plain.in_features > LARGEST_WIDTH:
            raise Unsupported(
                f"{name} of {family} has {plain.in_features} inputs, and int32 holds the products of {LARGEST_WIDTH}: "
                "leave it out by overriding projections()"
            )


def _stores(model: StreamingModel, kind: str) -> dict[str, Store]:
    """The model's stores by name: one for each state at least."""
    stores = {name: module for name, module in model.named_modules() if isinstance(module, Store)}
    states = [name for name in model.initial_state(1) if name not in model.counts()]
    if len(stores) < len(states):
        raise Unsupported(
            f"{type(model).__name__} has {len(stores)} Store for its states {', '.join(states)}, "
            f"so not all of them would be {kind}: pass each through a Store of its own in step, or keep the state in "
            "float32"
        )
    return stores


def _memories(model: StreamingModel, kind: str) -> dict[str, Memory]:
    """The model's memories by name: one at least."""
    if kind not in MEMORY_LIMITS:
        raise Unsupported(f"memory precision {kind!r}: float32, int16 and int8 are known")
    if not (found := memories(model)):
        raise Unsupported(
            f"{type(model).__name__} has no linear memory to keep in {kind}: those of LMU families and of S4D have one"
        )
    return found


def quantized_linears(model: nn.Module) -> dict[str, QuantizedLinear]:
    """The quantized linear maps of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def state_grids(model: nn.Module) -> dict[str, StateGrid]:
    """The rounded stores of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, StateGrid)}


def _brevitas_linear(plain: nn.Linear, kind: str) -> Any:
    try:
        from brevitas.nn import QuantLinear
        from brevitas.quant import Int8WeightPerChannelFloat
    except ImportError:
        raise MissingDependency("brevitas", "train", f"{kind} weights") from None

    class Weights(Int8WeightPerChannelFloat):  # type: ignore[misc]
        scaling_min_val = SMALLEST_ROW
        bit_width = int(kind.removeprefix("int"))

    made = QuantLinear(plain.in_features, plain.out_features, bias=True, weight_quant=Weights)
    with torch.no_grad():
        made.weight.copy_(plain.weight)
        made.bias.zero_() if plain.bias is None else made.bias.copy_(plain.bias)
    made.bias.requires_grad_(plain.bias is not None)
    return made
