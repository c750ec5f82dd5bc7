"""What a step of an LMU costs with its memory as a recurrence and as taps, and whether the cheaper one is chosen.

    python benchmarks/memory_forms.py [--rounds 60] [--out benchmarks/results/memory_forms.json]

Both forms of one block of random weights, in LiteRT and ONNX Runtime, called by hand in turns: chunks of calls, the
order shuffled each round; medians over the chunks, and their ratio. ``lower`` chooses by counted products
(edgeseq/export/memory.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import Call, in_turns, write_result

from edgeseq.devices.engines.ort import session_options
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.models.lmu import Lmu

# channels, order, theta, hidden: from the watch's blocks to the published sizes (psMNIST 468 and 256, LMUFormer 256)
SIZES = (
    (12, 6, 100.0, 48),
    (4, 24, 10.0, 32),
    (4, 24, 40.0, 32),
    (1, 64, 64.0, 64),
    (1, 128, 64.0, 128),
    (1, 128, 256.0, 128),
    (1, 256, 128.0, 256),
    (1, 256, 784.0, 212),
    (1, 468, 784.0, 346),
)
INPUTS, LABELS, CHUNK = 6, 7, 20


def litert(file: Path, state: int) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("step")
    inputs = {name: detail["index"] for name, detail in runner.get_input_details().items()}
    outputs = {name: detail["index"] for name, detail in runner.get_output_details().items()}
    del runner
    x = np.ones((1, INPUTS), np.float32)
    kept = np.zeros((1, state), np.float32)

    def step() -> None:
        nonlocal kept
        interpreter.set_tensor(inputs["x"], x)
        interpreter.set_tensor(inputs["state"], kept)
        interpreter.invoke()
        kept = interpreter.get_tensor(outputs["next_state"])

    return step


def onnxruntime(file: Path, state: int) -> Call:
    import onnxruntime as ort

    session = ort.InferenceSession(str(file), session_options(ort), providers=["CPUExecutionProvider"])
    x = np.ones((1, INPUTS), np.float32)
    kept = np.zeros((1, state), np.float32)

    def step() -> None:
        nonlocal kept
        kept = session.run(["next_state"], {"x": x, "state": kept})[0]

    return step


def measure(size: tuple[int, int, float, int], rounds: int, folder: Path) -> dict[str, Any]:
    channels, order, theta, hidden = size
    torch.manual_seed(0)
    model = Lmu(INPUTS, LABELS, channels=(channels,), orders=(order,), thetas=(theta,), hidden=(hidden,)).eval()
    calls: dict[tuple[str, str], Call] = {}
    for form in ("recurrence", "taps"):
        program = capture(lower(model, form))
        write_tflite(program, folder / f"{form}.tflite", name=form)
        write_onnx(program, folder / f"{form}.onnx", name=form)
        calls["litert", form] = litert(folder / f"{form}.tflite", program.state_size)
        calls["onnxruntime", form] = onnxruntime(folder / f"{form}.onnx", program.state_size)
    medians = in_turns(calls, rounds, CHUNK)
    (choice,) = lower(model, "auto").memories.values()
    row: dict[str, Any] = {
        "channels": channels,
        "order": order,
        "theta": theta,
        "hidden": hidden,
        "taps": choice.taps,
        "recurrence_macs": choice.recurrence_macs,
        "taps_macs": choice.taps_macs,
        "chosen": choice.form,
    }
    for engine in ("litert", "onnxruntime"):
        row[f"{engine}_recurrence_us"] = round(1e6 * medians[engine, "recurrence"], 2)
        row[f"{engine}_taps_us"] = round(1e6 * medians[engine, "taps"], 2)
        row[f"{engine}_taps_ratio"] = round(medians[engine, "taps"] / medians[engine, "recurrence"], 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, options.rounds, Path(folder)))
        row = rows[-1]
        print(
            f"U {row['channels']:3} Q {row['order']:4} theta {row['theta']:5g} H {row['hidden']:4} K {row['taps']:5}  "
            f"MACs {row['recurrence_macs']:8,} / {row['taps_macs']:8,}  chosen {row['chosen']:10}  taps take "
            f"{row['litert_taps_ratio']:6.2f} x in LiteRT, {row['onnxruntime_taps_ratio']:6.2f} x in ONNX Runtime",
            file=sys.stderr,
        )
    write_result(options.out, rounds=options.rounds, rows=rows)


if __name__ == "__main__":
    main()
