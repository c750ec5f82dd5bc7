"""A small model that looks ahead, for whoever trains or scores one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeseq.models.contract import LookAheadModel


class Window(LookAheadModel):
    """The answer of frame t is a linear map of the frames t to t + L, zeros where there are none, and of their mean.

    The mean is over all frames so far, so that a segment's answer hangs on all of it.
    """

    def __init__(self, input_size: int, output_size: int, look_ahead: int) -> None:
        super().__init__(input_size, output_size)
        self.look_ahead = look_ahead
        self.readout = nn.Linear((look_ahead + 2) * input_size, output_size)

    def initial_state(self, batch):
        size, late = self.input_size, self.look_ahead
        state = {"sum": torch.zeros(batch, size), "count": torch.zeros(batch, 1)}
        return {**state, "past": torch.zeros(batch, late, size), "live": torch.zeros(batch, late)}

    def step(self, x, state, live=None):
        y, state = self.forward(x[:, None], state, None if live is None else live[:, None])
        return y[:, 0], state

    def forward(self, x, state=None, live=None):
        state = self.initial_state(len(x)) if state is None else state
        live = x.new_ones(*x.shape[:2], 1) if live is None else live
        frames = torch.cat([state["past"], self.normalize(x) * live], 1)  # (B, L + T, C)
        there = torch.cat([state["live"][..., None], live], 1)
        windows = frames.unfold(1, self.look_ahead + 1, 1).flatten(2)  # (B, T, C (L + 1))
        heard = frames[:, self.look_ahead :].cumsum(1) + state["sum"][:, None]
        count = there[:, self.look_ahead :].cumsum(1) + state["count"][:, None]
        y = self.readout(torch.cat([windows, heard / count.clamp(min=1)], -1))
        following = {"sum": heard[:, -1], "count": count[:, -1], "past": frames[:, x.shape[1] :]}
        return y, {**following, "live": there[:, x.shape[1] :, 0]}


@pytest.fixture
def window():
    """``window(look_ahead, inputs=2, outputs=2, seed=0)``: such a model."""

    def make(look_ahead, inputs=2, outputs=2, seed=0):
        torch.manual_seed(seed)
        model = Window(inputs, outputs, look_ahead)
        model.set_normalization([0.3] * inputs, [2.0] * inputs)
        return model

    return make
