"""Reads ``braille7.npz``, whose frames are packed eight to a byte.

| key | shape, dtype | meaning |
| --- | --- | --- |
| bits | (R, B) uint8 | the frames (T, C) of each recording as bits, filled up to whole bytes at the end |
| shape | (3,) integer | R, T, C |
| y | (R,) integer | label index of each recording |
| labels | (K,) text | names of the labels, by index |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeseq.data.dataset import SPIKE, Dataset
from edgeseq.data.facts import Facts, Known
from edgeseq.data.sets.files import needed, segments
from edgeseq.data.split import deal
from edgeseq.errors import InputError

RATE = 200.0  # Hz: the encoder counts in bins of 5 ms
_KEYS = ("bits", "shape", "y", "labels")


def read_braille7(path: Path) -> Dataset:
    """The recordings of the file, as segments, (T, C) of zeros and ones each; nobody knows who was recorded.

    Raises InputError for a file that is not in the format above.
    """
    arrays = needed(path, "braille7", _KEYS)
    bits, shape, y = arrays["bits"], tuple(int(size) for size in arrays["shape"].ravel()), arrays["y"]
    if (
        bits.dtype != np.uint8
        or len(shape) != 3
        or bits.shape != (shape[0], -(-shape[1] * shape[2] // 8))
        or y.shape != shape[:1]
    ):
        raise InputError(
            f"{path}: 'bits' is {bits.dtype} {bits.shape} and 'y' {y.shape}, where 'shape' says {shape}. Give bytes of "
            "T × C bits for each recording, and a label."
        )
    frames = np.unpackbits(bits, axis=1, count=shape[1] * shape[2]).reshape(shape).astype(np.float32)
    return deal(
        Dataset(
            name=path.stem,
            recordings=segments(frames, y, "", path.name),
            channels=tuple(f"taxel{k + 1}" for k in range(shape[2])),
            units=(SPIKE,) * shape[2],
            rate=RATE,
            labels=tuple(str(label) for label in arrays["labels"].tolist()),
            task="segment",
        )
    )


BRAILLE7 = Known(
    Facts(
        name="braille7",
        summary="a fingertip of twelve taxels sliding over seven Braille letters, as spikes",
        recordings=920,
        frames=235_520,
        minutes=19.6,
        rate=200.0,
        channels=tuple(f"taxel{k}" for k in range(1, 13)),
        labels=("Space", "A", "E", "I", "O", "U", "Y"),
        licence="of the repository Apache-2.0, of the recordings behind it unknown: look it up before publishing",
        citation=(
            "S. F. Müller-Cleve, V. Fra, L. Khacef, A. Pequeño-Zurro, D. Klepatsch, E. Forno, D. G. Ivanovich, "
            "S. Rastogi, G. Urgese, F. Zenke, C. Bartolozzi. Braille letter reading: A benchmark for "
            "spatio-temporal pattern recognition on neuromorphic hardware. Frontiers in Neuroscience 16, 2022, "
            "951164. Encoded by B. Leto, G. Urgese, E. Macii, V. Fra. A LIF-based Legendre Memory Unit as "
            "neuromorphic State Space Model benchmarked on a second-long spatio-temporal task. NICE 2025."
        ),
        origin=(
            "github.com/neuromorphic-polito/L2MU-Braille, data/braille_splitted/ds_val_0.pt to ds_val_9.pt, "
            "merged without duplicates"
        ),
        part=(
            "all but the origin's test split. One file is read, braille7.npz with the keys bits, shape, y and labels "
            "(edgeseq/data/sets/braille7.py describes them), and no .pt file"
        ),
        task="segment",
    ),
    read_braille7,
    ("braille7.npz",),
)
