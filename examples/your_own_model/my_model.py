"""A model as somebody else has it, and what edgeseq needs to know of it: where its state starts, and one step.

FastGRNN is that of Kusupati et al., "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated recurrent neural
network", NeurIPS 2018, eq. (3): both gates share W and U.

    z_t = σ(W x_t + U h_{t-1} + b_z)
    n_t = tanh(W x_t + U h_{t-1} + b_n)
    h_t = (ζ (1 - z_t) + ν) n_t + z_t h_{t-1}        0 < ζ, ν < 1
"""

import torch
from torch import Tensor, nn

from edgeseq.models.contract import State, StreamingModel


class FastGRNN(nn.Module):
    """Knows nothing of edgeseq: windows ``(B, T, C)`` in, scores of the classes at every frame ``(B, T, K)`` out."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.w = nn.Linear(inputs, hidden, bias=False)
        self.u = nn.Linear(hidden, hidden, bias=False)
        self.b_z = nn.Parameter(torch.ones(hidden))
        self.b_n = nn.Parameter(torch.zeros(hidden))
        self.zeta = nn.Parameter(torch.tensor(1.0))
        self.nu = nn.Parameter(torch.tensor(-4.0))
        self.classify = nn.Linear(hidden, classes)

    def cell(self, x: Tensor, h: Tensor) -> Tensor:
        both = self.w(x) + self.u(h)  # (B, H)
        z, n = torch.sigmoid(both + self.b_z), torch.tanh(both + self.b_n)
        return (torch.sigmoid(self.zeta) * (1 - z) + torch.sigmoid(self.nu)) * n + z * h

    def forward(self, x: Tensor) -> Tensor:
        h, hidden = x.new_zeros(len(x), self.hidden), []
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
            hidden.append(h)
        return self.classify(torch.stack(hidden, 1))


class Mine(StreamingModel):
    """The same network for a stream. ``forward`` is inherited: it takes one step after the other."""

    def __init__(self, input_size: int, output_size: int, *, hidden: int = 32) -> None:
        super().__init__(input_size, output_size)
        self.net = FastGRNN(input_size, hidden, output_size)

    def initial_state(self, batch: int) -> State:
        return {"net.h": self.input_mean.new_zeros(batch, self.net.hidden)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = self.net.cell(self.normalize(x), state["net.h"])  # a stream brings raw units
        return self.net.classify(h), {"net.h": h}
