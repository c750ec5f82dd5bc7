"""A step in ExecuTorch, in its own environment: python executorch_worker.py PROGRAM.pt2 FRAMES.npy ANSWERS

Standard output gets a line of JSON with the version and the answers to so many first frames, then one with nanoseconds
for each line that comes on standard input: ``tight FIRST COUNT`` or ``paced FIRST COUNT RATE``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Step, paced, tight


def opened(program: str) -> Step:
    """One step of a saved ``torch.export`` program of x and the states, zeros at first, on XNNPACK.

    The lowered program is written beside it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    exported = torch.export.load(program)
    names = [spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    shapes = {node.name: node.meta["val"].shape for node in exported.graph.nodes if node.op == "placeholder"}
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    file = Path(program).with_suffix(".pte")  # a program that is loaded from bytes does not keep them alive
    file.write_bytes(lowered.buffer)
    method = Runtime.get().load_program(file).load_method("forward")
    states = [torch.zeros(shapes[name]) for name in names[1:]]

    def step(frame: Any) -> Any:
        nonlocal states
        y, *states = method.execute([torch.from_numpy(frame)[None], *states])
        return y.numpy()

    return step


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the runtime writes remarks to standard output, from C
    program, frames_file, count = sys.argv[1:]
    torch.set_num_threads(1)
    frames = list(np.load(frames_file))
    step = opened(program)

    def say(what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    first = [step(frame).ravel().tolist() for frame in frames[: int(count)]]
    gc.collect()
    gc.freeze()
    say({"version": metadata.version("executorch"), "torch": torch.__version__, "answers": first})
    for line in sys.stdin:
        how, at, number, *rate = line.split()
        chosen = [frames[(int(at) + i) % len(frames)] for i in range(int(number))]
        say(tight(step, chosen) if how == "tight" else paced(step, chosen, float(rate[0])))


if __name__ == "__main__":
    main()
