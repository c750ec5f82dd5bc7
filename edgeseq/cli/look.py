"""``edgeseq inspect``: what a model folder is, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseq.card import accuracies, formats_said, names_in, parent_said, stage_said
from edgeseq.cli.captured import Captured, captured
from edgeseq.cli.export import show_proof
from edgeseq.cli.output import Document, Json, Show, counted, installed, kilobytes, percent, typed
from edgeseq.cli.shipped import Shipped, shipped, show_tensors
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import how_it_follows

if TYPE_CHECKING:
    from edgeseq.manifest import Input, Manifest, Stage
    from edgeseq.program import Program


def inspect(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    program: Annotated[bool, typer.Option("--program", help="List every node of the step program.")] = False,
    energy: Annotated[
        bool, typer.Option("--energy", help="Count operations on real frames and estimate their energy, instead.")
    ] = False,
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="With --energy: a model to compare with; repeatable.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="With --energy: recordings (a path, NAME or NAME=PATH), not the golden frames."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="With --energy: how many frames at most.", callback=counted)
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")] = False,
    json: Json = False,
) -> Document:
    """Show what a model folder holds, costs, and how it was made; with --energy, how busy it is on real frames.

    A model that is not exported yet is counted on the step program that it would have, where torch is installed.

    Example: edgeseq inspect runs/gru-export --program
    """
    show = Show(json)
    opened = open_folder(folder)
    if energy:
        from edgeseq.cli.energy import show_energy

        if program:
            raise InputError("--program lists the step program and --energy counts it: give one or the other")
        return show_energy(show, opened, beside or [], data=data, frames=frames, trust=trust)
    if beside or data is not None or frames is not None:
        raise InputError("--beside, --data and --frames say what --energy is counted on: pass --energy too")
    manifest = opened.manifest
    step = captured(opened, trust=trust)
    if program and step.program is None:
        raise InputError(f"{folder} holds no step program: run {opened.how_to_export} ({step.missing})")
    trained = _trained(opened, trust=trust)
    weights = shipped(opened, trained)
    _show_model(show, manifest)
    names = names_in(manifest.lineage)
    show.table(
        ["state", "dtype", ">offset", ">shape", ">starts from"],
        [[s.name, s.dtype, str(s.offset), "×".join(map(str, s.shape)), f"{s.initial:g}"] for s in manifest.states],
    )
    _show_costs(show, step, trained, weights)
    if weights:
        show_tensors(show, weights)
    if step.program is not None and program:
        _show_nodes(show, step.program)
    if manifest.facts:
        show.table(["fact", ">value"], [[_spoken(name), f"{value:,.6g}"] for name, value in manifest.facts.items()])
    show.table(
        ["file", ">bytes", "sha256"],
        [
            [name, f"{(opened.path / name).stat().st_size:,}", digest[:16]]
            for name, digest in sorted(manifest.files.items())
        ],
    )
    if manifest.proof:
        show_proof(show, manifest.proof)
    show.table(["made by", "from", "seed", "with"], [_stage_row(stage, names) for stage in manifest.lineage])
    foreign = ("--trust",) if ":" in manifest.family else ()
    export = ("export", folder, "--out", f"{folder}-export", *foreign)
    following = ("stream", folder) if opened.formats else export
    show.next(*following)
    return {**_document(opened, step.program, trained, weights, every_node=program), "next": typed(*following)}


def _trained(folder: Folder, *, trust: bool) -> int | None:
    """The number of trained parameters; of a folder that does not say it, counted where its model can be built."""
    if folder.manifest.parameters is not None or not installed("torch"):
        return folder.manifest.parameters
    from edgeseq.models.contract import parameter_count
    from edgeseq.models.store import load_model

    try:
        return parameter_count(load_model(folder, trust=trust))
    except EdgeseqError:  # code from outside, or a layer that needs what is not installed: not known here
        return None


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _delay(source: Input) -> str:
    """What a look-ahead costs in time."""
    return f" ({1000 * source.look_ahead / source.step_rate:g} ms)" if source.look_ahead else ""


def _rule(manifest: Manifest) -> str:
    rule = manifest.decision
    if manifest.task == "frame":
        return "; ".join(filter(None, (rule.shown(), how_it_follows(manifest.metrics))))
    early = rule.early
    if early is None:
        return "the largest logit at the segment's end"
    return (
        f"as soon as a probability exceeds {early.confidence:.3f}, after {early.earliest:g} s or more, for "
        f"{early.hold:g} s; else at the segment's end"
    )


def _members(part: str, subjects: Sequence[str]) -> str:
    """Who is in a part of the split; "rule" says how it was made, where that was not by subject."""
    return ", ".join(subjects) if part == "rule" else f"subjects {', '.join(subjects)}"


def _step(source: Input) -> str:
    """How much a step takes, where that is more than a sample."""
    count = source.samples_per_step
    return f", {count} samples ({1000 / source.step_rate:g} ms) a step" if count > 1 else ""


def _of_front(manifest: Manifest) -> str:
    stays = "front" in manifest.arguments and manifest.precision.weights != "float32"
    return "; the front end computes in float32" if stays else ""


def _show_model(show: Show, manifest: Manifest) -> None:
    from edgeseq.signal.log_mel import LogMel

    source = manifest.input
    front = LogMel.of(manifest.arguments["front"]) if "front" in manifest.arguments else None
    channels = ", ".join(
        f"{channel.name} ({channel.unit})" if channel.unit else channel.name for channel in source.channels
    )
    rows = [
        ("model", f"{manifest.name}, family {manifest.family} {_arguments(manifest.arguments)}"),
        (
            "input",
            f"{channels}{_step(source)} at {source.rate:g} Hz, look-ahead {source.look_ahead}{_delay(source)}",
        ),
        *([("features", front.shown())] if front else []),
        ("answers", f"one at every {manifest.task}: {', '.join(manifest.labels)}"),
        ("decision", _rule(manifest)),
        ("precision", f"{formats_said(manifest)}{_of_front(manifest)}"),
        ("reset", manifest.reset),
    ]
    rows += [(part, _members(part, subjects)) for part, subjects in manifest.split.items()]
    metrics = manifest.metrics
    if "test_accuracy" in metrics:
        scores = f"{percent(metrics['test_accuracy'])} of the {manifest.task}s"
        scores += f", macro-F1 {percent(metrics.get('test_macro_f1'))}"
        if "test_accuracy_smoothed" in metrics:
            scores += f", {percent(metrics['test_accuracy_smoothed'])} smoothed"
        rows.append(("tested", scores))
    else:
        rows += [(_spoken(name), f"{value:.4g}") for name, value in accuracies(manifest).items()]
    if "spike_flips" in metrics:
        share = f"{percent(metrics['spike_rate'])} of all that could be"
        rows.append(("spikes", f"{share}; {percent(metrics['spike_flips'])} are otherwise than in the float model"))
    show.facts(rows)
    show.line()


def _show_costs(show: Show, step: Captured, trained: int | None, weights: Shipped | None) -> None:
    from edgeseq.cli.front import front_cost
    from edgeseq.program import cost

    program = step.program
    rows = [("parameters", "not known here" if trained is None else f"{trained:,} trained")]
    if weights:
        rows += [("zeros", weights.zeros.shown())] if weights.zeros else []
        rows += [("ships", weights.shown()), ("engines load", weights.shown_loaded())]
    if program is None:
        rows.append(("costs", f"not counted: {step.missing}"))
    else:
        spent, constants = cost(program), sum(array.size for array in program.constants.values())
        counts = Counter(node.operator for node in program.nodes)
        operators = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        rows += [
            ("step", f"{spent.nodes} nodes: {operators}"),
            *((f"{block} memory", chosen.shown()) for block, chosen in step.memories.items()),
            (
                "costs",
                f"{spent.macs:,} MACs, {spent.acs:,} ACs and {spent.elementwise:,} elementwise operations a step",
            ),
            ("holds", f"{constants:,} constants in {kilobytes(spent.constant_bytes)}"),
            ("carries", f"a state of {program.state_size:,} in {kilobytes(spent.state_bytes)}"),
        ]
        front = front_cost(program)
        rows += [("front end", front.shown())] if front else []
    show.facts(rows)
    show.line()


def _show_nodes(show: Show, program: Program) -> None:
    show.table(
        ["node", "operator", ">shape", "reads", "from module"],
        [
            [n.output.name, n.operator, "×".join(map(str, n.output.shape)), ", ".join(n.inputs), n.origin]
            for n in program.nodes
        ],
    )


def _arguments(arguments: dict[str, Any]) -> str:
    return "(" + ", ".join(f"{name}={value}" for name, value in arguments.items()) + ")"


def _stage_row(stage: Stage, names: Mapping[str, str]) -> list[str]:
    seed = "" if stage.seed is None else str(stage.seed)
    wanted = ("edgeseq", "torch", "onnx") if stage.data is None else ("edgeseq", "torch")
    versions = ", ".join(f"{name} {stage.versions[name]}" for name in wanted if name in stage.versions)
    origin = ", ".join(filter(None, (parent_said(stage, names), stage.data)))
    if stage.verb == "retime":
        origin += f", {stage.arguments['from']:g} → {stage.arguments['rate']:g} Hz"
    return [stage_said(stage), origin, seed, versions]


def _document(
    folder: Folder, program: Program | None, trained: int | None, weights: Shipped | None, *, every_node: bool
) -> Document:
    from edgeseq.cli.front import front_cost
    from edgeseq.program import cost

    found: Document = {
        "folder": str(folder.path),
        "hash": folder.hash,
        "manifest": folder.manifest,
        "bytes": {name: (folder.path / name).stat().st_size for name in folder.manifest.files},
        "parameters": trained,
        "shipped": weights,
    }
    if program is not None:
        found["cost"] = cost(program, trained)
        found["constants"] = sum(array.size for array in program.constants.values())
        found["operators"] = dict(Counter(node.operator for node in program.nodes))
        found["front_end"] = front_cost(program)
        if every_node:
            found["nodes"] = program.nodes
    return found
