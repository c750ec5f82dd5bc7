"""How much each number of a trained model matters: what pruning takes out last.

    magnitude   w²
    taylor      mean over batches of (w ∂L/∂w)²: what the loss changes by, to first order, when w is set to 0
    energy      of a mode of S4D: |w|² / (1 - |Ā|²), of its impulse response Re w Āᵗ without the turning

The parameters that set time constants count nothing: their size says how fast a state is, not what hangs on it. So what
a mode of S4D matters, when units compete, is what its weights in C do. (Of the preset s4d on spar_watch, C's importance
shared out by energy lost 1 to 4 points more macro-F1 by taylor, before retraining, and as much by magnitude.)

With the presets lmu and gru on spar_watch, half of the parameters or eight of ten weights gone, magnitude kept as much
of the macro-F1 on the validation subjects as taylor, within a tenth of a point, or more; with nine of ten parameters
gone lmu kept 95 % by magnitude, 59 % by taylor. A batch norm, though, undoes whatever scale the weights around it have,
and leaves their magnitude without meaning: of lmuformer-causal half kept 81 % by magnitude and 99 % by taylor, of s4d a
quarter 86 and 92 %, a tenth 78 and 91 %. So units are chosen by taylor where there are batch norms, by magnitude
elsewhere; single weights, which go one after the other while the rest adapts, by magnitude.

Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance estimation for neural network pruning", CVPR 2019 (taylor); the
energy is that of AIRE-Prune (2602.00534), after Gwak et al., "Layer-adaptive state pruning for deep state space
models", NeurIPS 2024.
"""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from torch import Tensor

from edgeseq.data import Dataset
from edgeseq.models.contract import State, StreamingModel
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.threads import threads
from edgeseq.training.answers import respond
from edgeseq.training.batches import batches_of
from edgeseq.training.denormals import flushed_denormals
from edgeseq.training.device import CPU
from edgeseq.training.loop import CrossEntropy
from edgeseq.training.settings import Settings

CRITERIA = ("taylor", "magnitude")
MODES = "modes"  # what the last part of a width's name is whose units are modes of a diagonal state space layer

Tensors = dict[str, Tensor]


def squared_gradients(model: StreamingModel, learned: Dataset, settings: Settings, seed: int) -> Tensors:
    """By name of a parameter, the mean of its squared gradient over a round of batches, drawn as training draws them.

    The loss is the cross entropy on the labels of ``learned``, the training subjects, with the weights of their
    classes. In eval mode, so that nothing of ``model`` changes and dropout does not blur it.
    """
    objective = CrossEntropy.of(learned, msgspec.structs.replace(settings, device=CPU))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    was_training, state = model.training, None
    model.eval()
    with threads(settings.threads), flushed_denormals():
        for batch in batches_of(learned, settings).round(np.random.default_rng([seed, 0])):
            starts: State | None = batch.carry.starts(model, state) if batch.carry and state is not None else None
            answers, state = respond(model, batch, starts)
            gradients = torch.autograd.grad(objective(answers, batch), list(parameters.values()), allow_unused=True)
            for total, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    total.addcmul_(gradient, gradient, value=1 / settings.steps)
    model.train(was_training)
    return found


@torch.no_grad()
def saliency(model: StreamingModel, squared: Tensors | None) -> Tensors:
    """By name of a parameter, how much each of its numbers matters: by taylor, or by magnitude without ``squared``.

    ``squared`` may be of the model as it was before some training: then it says how sensitive the loss was, and the
    weights how large they are now. Of :meth:`StreamingModel.dynamics` nothing does.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    found = {name: p.square() * (1 if squared is None else squared[name]) for name, p in parameters.items()}
    for name in found.keys() & set(model.dynamics()):
        found[name].zero_()
    return found


@torch.no_grad()
def mode_energy(model: StreamingModel, width: str) -> Tensor:
    """Of the modes of a layer, ``(H, M)`` in double, the energy of each as a share of its channel's.

    ``width``: the name of the layer's modes among the model's widths.
    """
    owner = model.get_submodule(width.rpartition(".")[0])
    layer = next(module for module in owner.modules() if isinstance(module, DiagonalSsm))
    turn, weight = (part.double().square().sum(0).T for part in layer.discretize())  # |Ā|², |w|² (H, M)
    energy = weight / (1 - turn).clamp(min=torch.finfo(torch.float32).eps)  # a mode that does not decay counts most
    return energy / energy.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def modes_of(model: StreamingModel) -> list[str]:
    """The names of the widths whose units are modes."""
    return [name for name in model.widths() if name.rpartition(".")[2] == MODES]
