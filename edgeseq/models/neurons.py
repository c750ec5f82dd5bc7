"""Leaky integrate-and-fire neurons: pure functions of one step, and a population that is trained fused over time.

With input current I, membrane v (v' before the step), threshold θ, reset r and spike s, which is 0 or 1:

    subtract            v = β v' + I - r θ        r = [v' > θ]         Leaky of snnTorch, 0.8 and later
    subtract_decayed    v = β (v' - r θ) + I      r = [v' > θ]         Leaky of snnTorch before
    zero                v = β (1 - r) v' + I      r = [v' > θ]
    none                v = β v' + I                                   and in all of them s = [v > θ]

That is with ``delay``: a spike resets the membrane at the step after it. Without, the membrane is reset as soon as it
has fired: v = β v' + I, s = [v > θ], and then v ← v - s θ (subtract) or v ← (1 - s) v (zero). ``inclusive``: by ≥.

A neuron with ``alpha`` has a synapse that decays too: i = α i' + I stands in place of I (Synaptic of snnTorch). With
``decay_input`` the current is (1 - β) I; with beta = 0.5, reset "zero", no delay and ≥ this is SpikingJelly's neuron
with τ = 2.

Eshraghian et al., "Training spiking neural networks using lessons from deep learning", Proc. IEEE, 2023; Fang et al.,
"SpikingJelly", Science Advances, 2023. As there, a spike's derivative is a smooth one (``SURROGATES``) and no gradient
passes through a reset's r.

Shape letters: B batch, T frames, N neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import State, Store
from edgeseq.models.fused import RESETS, SURROGATES, Rule, decayed, spiked, surrogate_gradient

LEAST_THRESHOLD = 0.01  # that a learned one may come to: at 0 or below neurons would fire at rest


class _Fire(torch.autograd.Function):
    """The spike ``[membrane > threshold]`` as 0 or 1, with a surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, membrane: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
        ctx.save_for_backward(membrane, threshold)
        ctx.rule = rule
        spikes: Tensor = rule.fired(membrane, threshold).to(membrane.dtype)
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        membrane, threshold = ctx.saved_tensors
        through = surrogate_gradient(ctx.rule.surrogate, gradients[0], membrane - threshold)
        return through, -through.sum(), None


def _fire(membrane: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    spikes: Tensor = _Fire.apply(membrane, threshold, rule)  # type: ignore[no-untyped-call]
    return spikes


def leaky(
    current: Tensor,
    membrane: Tensor,
    beta: Tensor,
    threshold: Tensor,
    *,
    reset: str = "subtract",
    delay: bool = True,
    inclusive: bool = False,
    surrogate: str = "atan",
) -> tuple[Tensor, Tensor]:
    """One step of leaky integrate-and-fire neurons: ``current, membrane (..., N)`` to the spikes and the next membrane.

    ``beta`` and ``threshold`` are scalar tensors; the equations are this module's.
    """
    rule = Rule(reset, delay, inclusive, surrogate)
    if not delay:
        charged = beta * membrane + current
        spikes = _fire(charged, threshold, rule)
        return spikes, _relaxed(charged, spikes.detach(), threshold, reset)
    fired = rule.fired(membrane, threshold).to(membrane.dtype)
    if reset == "subtract":
        following = beta * membrane + current - fired * threshold
    else:
        following = beta * _relaxed(membrane, fired, threshold, reset) + current
    return _fire(following, threshold, rule), following


def _relaxed(membrane: Tensor, fired: Tensor, threshold: Tensor, reset: str) -> Tensor:
    """The membrane after the reset of those that have ``fired``."""
    if reset == "zero":
        return (1 - fired) * membrane
    return membrane if reset == "none" else membrane - fired * threshold


def synaptic(
    current: Tensor,
    synapse: Tensor,
    membrane: Tensor,
    alpha: Tensor,
    beta: Tensor,
    threshold: Tensor,
    *,
    reset: str = "subtract",
    delay: bool = True,
    inclusive: bool = False,
    surrogate: str = "atan",
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of neurons with a synapse: ``current, synapse, membrane (..., N)`` to spikes, synapse and membrane.

    ``synapse`` is the decaying current i; ``alpha``, ``beta`` and ``threshold`` are scalar tensors.
    """
    synapse = alpha * synapse + current
    spikes, membrane = leaky(
        *(synapse, membrane, beta, threshold), reset=reset, delay=delay, inclusive=inclusive, surrogate=surrogate
    )
    return spikes, synapse, membrane


class Neurons(nn.Module):
    """A population of ``size`` neurons that share ``beta``, ``threshold`` and, with a synapse, ``alpha``.

    These are scalar tensors: parameters if ``learn``, else buffers. The decays are clipped to 0..1 where they are used;
    whoever trains them calls :meth:`project` after each step.

    ``forward`` equals the loop of ``step``. It runs over all frames in one call of autograd, whose backward pass is
    written by hand, as long as the states are kept in plain floats.

    Raises:
        InputError: an unknown reset or surrogate, or a reset that does not go with ``delay``.
    """

    beta: Tensor
    threshold: Tensor
    alpha: Tensor | None

    def __init__(
        self,
        size: int,
        *,
        beta: float = 0.9,
        threshold: float = 1.0,
        alpha: float | None = None,
        decay_input: bool = False,
        reset: str = "subtract",
        delay: bool = True,
        inclusive: bool = False,
        surrogate: str = "atan",
        learn: bool = True,
    ) -> None:
        super().__init__()
        if reset not in RESETS:
            raise unknown("reset", reset, RESETS)
        if surrogate not in SURROGATES:
            raise unknown("surrogate", surrogate, SURROGATES)
        if reset == "subtract_decayed" and not delay:
            raise InputError(
                "reset 'subtract_decayed' is one that acts a step late: set delay, or use 'subtract', which without "
                "a delay decays with the rest of the membrane"
            )
        self.size = size
        self.rule = Rule(reset, delay, inclusive, surrogate)
        self.decay_input = decay_input
        for name, value in (("beta", beta), ("threshold", threshold), ("alpha", alpha)):
            tensor = None if value is None else torch.tensor(float(value))
            if learn and tensor is not None:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        # What a step is computed by; a captured one has an operator here that stays whole.
        self.equation: Callable[..., tuple[Tensor, ...]] = leaky if alpha is None else synaptic
        self.store: nn.Module = Store()
        if alpha is not None:
            self.current_store: nn.Module = Store()

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return ("membrane",) if self.alpha is None else ("current", "membrane")

    def initial_state(self, batch: int) -> State:
        """All states at 0, each ``(B, N)``."""
        return {name: self.threshold.detach().new_zeros(batch, self.size) for name in self.states}

    def decays(self) -> tuple[Tensor | None, Tensor]:
        """Alpha (None without a synapse) and beta as they are used."""
        return None if self.alpha is None else self.alpha.clamp(0, 1), self.beta.clamp(0, 1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring what is learned back, in place, to where it means something: decays 0 to 1, the threshold 0.01 or more.

        Clipping it where it is used is not enough: beyond the border a clipped number has no gradient, and would never
        come back.
        """
        for name, low, high in (("beta", 0.0, 1.0), ("alpha", 0.0, 1.0), ("threshold", LEAST_THRESHOLD, None)):
            value = getattr(self, name)
            if isinstance(value, nn.Parameter):
                value.clamp_(low, high)

    def drive(self, current: Tensor) -> Tensor:
        """The current that charges the neurons: ``current``, or with ``decay_input`` 1 - β times that."""
        return current * (1 - self.beta.clamp(0, 1)) if self.decay_input else current

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """``current (B, N)`` and the state to the spikes ``(B, N)``, 0 or 1, and the next state."""
        alpha, beta = self.decays()
        constants = (beta, self.threshold) if alpha is None else (alpha, beta, self.threshold)
        before = [state[name] for name in self.states]
        spikes, *after = self.equation(self.drive(current), *before, *constants, **self.rule._asdict())
        stores = [self.store] if alpha is None else [self.current_store, self.store]
        kept = (store(tensor) for store, tensor in zip(stores, after, strict=True))
        return spikes, dict(zip(self.states, kept, strict=True))

    def forward(self, current: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """``current (B, T, N)`` to the spikes ``(B, T, N)`` and the state after the last frame."""
        state = self.initial_state(current.shape[0]) if state is None else state
        if not all(isinstance(module, Store) for module in self.children()):
            return self._one_by_one(current, state)
        alpha, beta = self.decays()
        rows = self.drive(current).transpose(0, 1)  # (T, B, N)
        following = {}
        if alpha is not None:
            rows = decayed(rows, state["current"], alpha)
            following["current"] = rows[-1]
        spikes, membrane = spiked(rows, state["membrane"], beta, self.threshold, self.rule)
        return spikes.transpose(0, 1), {**following, "membrane": membrane}  # (B, T, N)

    def _one_by_one(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        kept = []
        for current_t in current.unbind(1):
            spikes, state = self.step(current_t, state)
            kept.append(spikes)
        return torch.stack(kept, 1), state

    def extra_repr(self) -> str:
        """The size and what is not to be seen of the weights."""
        return f"{self.size}, {', '.join(f'{key}={value}' for key, value in self.rule._asdict().items())}"


def prefixed(name: str, state: State) -> State:
    """``state`` under names that say whose it is: "membrane" of "u" is "u.membrane"."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def taken(name: str, state: State) -> State:
    """The states of ``name`` under their own names: the opposite of :func:`prefixed`."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
