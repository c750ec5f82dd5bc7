"""A model that is not edgeseq's, trained by a loop that is not edgeseq's, and saved as a model folder.

    python train.py [FOLDER]

See README.md for what comes next.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from my_model import FastGRNN, Mine
from torch.nn.functional import cross_entropy

import edgeseq
from edgeseq.data import default_split, load

HIDDEN, STEPS, BATCH, FRAMES = 32, 120, 32, 100


def train(net, recordings, mean, std):
    rng, optimizer = np.random.default_rng(0), torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(STEPS):
        chosen = [recordings[i] for i in rng.integers(len(recordings), size=BATCH)]
        starts = [rng.integers(len(r.x) - FRAMES) for r in chosen]
        x = np.stack([(r.x[s : s + FRAMES] - mean) / std for r, s in zip(chosen, starts, strict=True)])
        y = np.stack([r.y[s : s + FRAMES] for r, s in zip(chosen, starts, strict=True)])
        scores = net(torch.from_numpy(x))
        loss = cross_entropy(scores.flatten(0, 1), torch.from_numpy(y).long().flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model, recordings):
    right = [(model(torch.from_numpy(r.x[None]))[0][0].argmax(-1).numpy() == r.y)[r.y >= 0] for r in recordings]
    return float(np.concatenate(right).mean())


def main(out):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    watch = load("spar_watch")
    split = default_split(watch)
    frames = np.concatenate([recording.x for recording in split.train.recordings])
    mean, std = frames.mean(0), frames.std(0)
    net = FastGRNN(len(watch.channels), HIDDEN, len(watch.labels))
    train(net, split.train.recordings, mean, std)

    model = Mine(len(watch.channels), len(watch.labels), hidden=HIDDEN)
    model.net.load_state_dict(net.state_dict())
    model.set_normalization(mean, std)
    scored = accuracy(model.eval(), split.validation.recordings)
    folder = edgeseq.save_model(
        model,
        out,
        family="my_model:Mine",
        arguments={"hidden": HIDDEN},
        data="spar_watch",  # labels, channels and rate; later the frames of the proof
        split=split.subjects(),  # who is tested on: for the accuracy in bench and report, and before quantize
        metrics={"validation_accuracy": scored},
    )
    print(f"{100 * scored:.0f} % of the frames of a person never seen; wrote {folder.path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("fastgrnn"))
