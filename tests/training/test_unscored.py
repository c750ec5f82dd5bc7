"""How much of the start of a recording is scored: what the data set says, in training and in evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseq.data import Dataset, Recording
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import presets
from edgeseq.training.configure import configure
from edgeseq.training.evaluate import evaluate

RATE = 10.0


class Late(StreamingModel):
    """Answers 1 from the 20th frame on, and 0 before."""

    def __init__(self):
        super().__init__(1, 2)

    def initial_state(self, batch):
        return {"count": self.input_mean.new_zeros(batch, 1)}

    def step(self, x, state):
        late = (state["count"] >= 20).float()
        return torch.cat([1 - late, late], -1), {"count": state["count"] + 1}


def standing(unscored, task="frame"):
    recordings = tuple(
        Recording(np.zeros((40, 1), np.float32), np.ones(40, np.int16), who, who) for who in ("1", "2", "3")
    )
    return Dataset("some", recordings, ("x",), ("V",), RATE, ("a", "b"), task=task, unscored=unscored)


@pytest.mark.parametrize(("unscored", "frames", "right"), [(0.0, 40, 20), (0.5, 35, 20), (2.0, 20, 20), (3.0, 10, 10)])
def test_a_model_is_scored_from_where_the_data_set_says(unscored, frames, right):
    found = evaluate(Late(), standing(unscored))
    assert found.frames == 3 * frames
    assert found.accuracy == right / frames


@pytest.mark.parametrize(("unscored", "settle"), [(0.0, 0.0), (0.3, 0.3), (0.5, 0.5), (1.0, 1.0), (2.0, 1.0)])
def test_what_is_scored_is_trained_on(unscored, settle):
    _, _, settings = configure(presets()["gru"], standing(unscored), {})
    assert settings.settle == settle
    assert configure(presets()["gru"], standing(unscored), {"settle": 0.7})[2].settle == 0.7
