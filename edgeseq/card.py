"""What a model folder says of itself in words: the model card, and the phrases that ``inspect`` shares with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseq.manifest import Input, Manifest, Stage

FEW_BITS = ("qd", "dq")  # methods of quantize whose weights are floats of few values
KEEP_WEIGHTS = ("tune", "export")
HASH = 12  # characters of a hash that are shown
ZEROS = "they save shipped bytes; engines multiply them"


@dataclass(frozen=True)
class Zeros:
    """Of the weights of the maps that were pruned, ``of`` in all, ``count`` are 0."""

    count: int
    of: int

    def shown(self) -> str:
        """For people."""
        return f"{100 * self.count / max(self.of, 1):.1f} % of the linear maps' weights: {ZEROS}"


def few_bits(lineage: Sequence[Stage]) -> tuple[int, str] | None:
    """The bits and the method of weights that are floats of few values; None of any others."""
    last = next((stage for stage in reversed(lineage) if stage.verb not in KEEP_WEIGHTS), None)
    if last is None or last.verb != "quantize" or last.arguments.get("method") not in FEW_BITS:
        return None
    return last.arguments["bits"], last.arguments["method"]


def loaded_as(manifest: Manifest) -> str:
    """The numbers that an engine holds the weights of linear maps in: of int4 and of few bits there are no kernels."""
    return "float32" if manifest.precision.weights == "float32" else "int8"


def weights_said(manifest: Manifest) -> str:
    """What the weights are, and what is computed with where that is something else."""
    found, loaded = few_bits(manifest.lineage), loaded_as(manifest)
    known = manifest.precision.weights if found is None else f"{found[0]} bits ({found[1]})"
    return known if known == loaded else f"{known}, computed with as {loaded}"


def formats_said(manifest: Manifest) -> str:
    """The number formats of weights, activations and state; of a memory too, where it is not float32."""
    kinds = manifest.precision
    state = kinds.state if kinds.state == "float32" else f"rounded to {kinds.state}, carried as float32"
    memory = "" if kinds.memory == "float32" else f", memory {kinds.memory}"
    return f"weights {weights_said(manifest)}; activations {kinds.activations}, state {state}{memory}"


def stage_said(stage: Stage) -> str:
    """A stage in a few words: ``prune structured 0.5``, ``quantize qat int4``."""
    arguments = stage.arguments
    if stage.verb in ("train", "distill"):
        return f"{stage.verb} {arguments.get('model') or ''}".rstrip()
    if stage.verb == "prune":
        shares = (f"{name} {arguments[name]:g}" for name in ("structured", "modes", "weights") if arguments.get(name))
        return f"prune {', '.join(shares)}"
    return f"quantize {_quantized(arguments)}" if stage.verb == "quantize" else stage.verb


def _quantized(arguments: Mapping[str, Any]) -> str:
    method, kinds = arguments.get("method", ""), arguments.get("precision")
    if kinds is None:
        return f"{method} {arguments['bits']} bits" if "bits" in arguments else str(method)
    others = (f", {what} {kinds[what]}" for what in ("state", "memory") if kinds.get(what, "float32") != "float32")
    return f"{method} {kinds['weights']}{''.join(others)}"


def names_in(lineage: Sequence[Stage]) -> dict[str, str]:
    """The names of folders that a lineage speaks of, by hash: those that taught."""
    teachers = (teacher for stage in lineage for teacher in stage.arguments.get("teachers") or ())
    return {teacher["hash"]: teacher["name"] for teacher in teachers if teacher.get("name")}


def parent_said(stage: Stage, names: Mapping[str, str]) -> str:
    """The folder that a stage started from, by name where that is known; "" of one that started from none."""
    return f"{names.get(stage.parent, 'folder')} {stage.parent[:HASH]}" if stage.parent else ""


def accuracies(manifest: Manifest) -> dict[str, float]:
    """The metrics without what pruning counted."""
    if not manifest.pruned:
        return dict(manifest.metrics)
    return {name: value for name, value in manifest.metrics.items() if name.split("_")[0] != "zeros"}


def card(manifest: Manifest, shipped: int | None = None, zeros: Zeros | None = None) -> str:
    """The model card, in Markdown; ``shipped``: the bytes of the weights (:func:`edgeseq.folder.shipped_bytes`)."""
    source = manifest.input
    channels = ", ".join(f"{channel.name} ({channel.unit})" for channel in source.channels)
    lines = [
        f"# {manifest.name}",
        "",
        f"A `{manifest.family}` model that reads {channels} at {source.rate:g} Hz and answers at every "
        f"{'frame' if manifest.task == 'frame' else 'segment'}: {', '.join(manifest.labels)}.",
        "",
        f"W{formats_said(manifest)[1:]} ({manifest.state_size} values). Feed raw units: the normalization is "
        f"inside the model. Reset the state {manifest.reset}.",
        "",
    ]
    if shipped is not None:
        size = _bits_each(shipped, manifest.parameters, zeros)
        lines += [f"The weights ship in {shipped:,} bytes{size}; an engine loads them as {loaded_as(manifest)}.", ""]
    lines += [f"Zeros: {zeros.shown()}.", ""] if zeros else []
    if scores := accuracies(manifest):
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in scores.items()] + [""]
    if manifest.split:
        lines += ["| part | who |", "|---|---|"]
        lines += [f"| {part} | {', '.join(subjects)} |" for part, subjects in manifest.split.items()] + [""]
    if manifest.proof:
        lines += ["| proof | frames | error | allowed | same answer |", "|---|---|---|---|---|"]
        for link in manifest.proof:
            same = "" if link.agreement is None else f"{100 * link.agreement:.2f} %"
            lines.append(f"| {link.name} | {link.frames} | {' | '.join(link.shown())} | {same} |")
        lines.append("")
    lines += [_made(manifest.lineage), ""]
    lines += ["```python", "import edgeseq", "", f'session = edgeseq.Session("{manifest.name}")']
    lines += [f"logits = session.step(frame)  # {_frame(source)}", "```", ""]
    return "\n".join(lines)


def _made(lineage: Sequence[Stage]) -> str:
    """How the model came about, and from which folder the last stage made it."""
    origin = parent_said(lineage[-1], names_in(lineage)) if lineage else ""
    return f"Made by: {' → '.join(map(stage_said, lineage))}{f', of {origin}' if origin else ''}."


def _bits_each(shipped: int, parameters: int | None, zeros: Zeros | None) -> str:
    if not parameters:
        return ""
    gone = zeros.count if zeros else 0
    left = f", {parameters:,} of them not 0" if gone else ""
    places = parameters + gone
    return f": {8 * shipped / places:.3g} bits for each of {places:,} parameters{left}"


def _frame(source: Input) -> str:
    """What a frame is, in a few words."""
    if source.samples_per_step == 1:
        return f"{source.width} values"
    return f"{source.width} values: {source.samples_per_step} samples, the oldest first"
