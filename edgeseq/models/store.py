"""A model's weights on disk, and a model folder of a live model: safetensors, never a pickle."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgeseq import data as datasets
from edgeseq.data.dataset import TASKS
from edgeseq.errors import InputError, unknown
from edgeseq.folder import PACKED_NAME, WEIGHTS_NAME, Folder, check_target, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization, StateEntry, state_table
from edgeseq.models.check import alike, attributes, check_contract, check_states, stepped
from edgeseq.models.coding import check_packed, code, tensor_of
from edgeseq.models.contract import State, StreamingModel, mask_zeros, parameter_count
from edgeseq.models.listening import Listening, behind
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import FAMILIES, FRONT, build
from edgeseq.packed import Coded
from edgeseq.packed_file import write_packed

PARTS = ("train", "validation", "test")
SHOWN_MISFITS = 3


def save_weights(model: StreamingModel, folder: Path, coded: Mapping[str, Coded] | None = None) -> State:
    """Write the model's parameters and buffers as weights.safetensors; returns the numbers that are written.

    ``coded``: the tensors that fewer bits say exactly, beside those of the model's own quantized and pruned maps. Where
    there are any, all tensors are written as weights.packed too, at their true size
    (:func:`edgeseq.models.coding.code`, which also says what numbers both files then hold).
    """
    # Copies: a quantizer that two layers share stands under both names, and a file has no two names for one tensor.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    packed = code(model, tensors, coded or {})
    tensors |= {name: tensor_of(each) for name, each in packed.items()}
    (folder / WEIGHTS_NAME).write_bytes(save(tensors))  # safetensors' own save_file makes files that only we may read
    if packed:
        write_packed(folder / PACKED_NAME, packed)
        check_packed(folder / PACKED_NAME, tensors)
    return tensors


def load_model(folder: Folder, *, trust: bool = False) -> StreamingModel:
    """The trained model of a folder, in eval mode.

    Raises:
        InputError: the weights are missing or do not fit the family's arguments.
    """
    manifest, path = folder.manifest, folder.file(WEIGHTS_NAME)
    model = build(manifest.family, manifest.input.width, len(manifest.labels), dict(manifest.arguments), trust=trust)
    with_precision(model, manifest.precision)
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} does not hold the weights of a {manifest.family} as the manifest has it: {error}"
        ) from error
    mask_zeros(model, manifest.pruned)
    model.eval()
    return model


def initial_values(states: State) -> dict[str, float]:
    """The value that all elements of each state start from.

    Raises:
        InputError: a state starts from different values in its elements.
    """
    values = {}
    for name, tensor in states.items():
        values[name] = float(tensor.flatten()[0])
        if not bool((tensor == values[name]).all()):
            raise InputError(f"state {name!r} starts from different values in its elements; it must start from one")
    return values


def state_entries(model: StreamingModel) -> tuple[StateEntry, ...]:
    """The model's states in the packed layout, with the value that each starts from.

    Raises:
        InputError: a state that is not float32, is called what no file can call it, or starts from several values.
    """
    states = model.initial_state(1)
    check_states(states)
    initial = initial_values(states)
    return state_table((name, tuple(tensor.shape), initial[name]) for name, tensor in states.items())


def save_model(
    model: StreamingModel,
    out: str | Path,
    *,
    family: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: str | None = None,
    mapping: datasets.Mapping | None = None,
    labels: Sequence[str] = (),
    channels: Sequence[str | Channel] = (),
    rate: float | None = None,
    split: Mapping[str, Sequence[str]] | None = None,
    task: str | None = None,
    decision: Decision | None = None,
    metrics: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> Folder:
    """Write the model folder of a live ``model``, however it was trained; the other verbs take it from there.

    ``family`` is "module:Class" (by default the class of ``model``), which with ``arguments`` builds the model again
    wherever the folder is opened with trust. ``data`` is what the model was trained on, a name or a path that
    :func:`edgeseq.data.load` reads (with ``mapping``): labels, channels and rate in Hz are taken from it, and the proof
    takes its frames there. Without data, give ``labels``, ``channels`` and ``rate``, and later ``--data``. ``task`` is
    "frame" or "segment": by default that of the data, or what the model can answer, frames first. ``split``
    names the subjects of "train", "validation" and "test"; without it nobody knows whom the model has not seen, and
    there is no accuracy in ``bench`` and ``report``, none before ``quantize``, and no ``train --from`` without subjects
    named. ``metrics`` are numbers of your own to show.

    Raises:
        InputError: a model that does not keep the contract (:func:`edgeseq.models.check.check_contract`); the class
            cannot be imported by that name, or does not build, of the arguments and weights, a model that answers
            alike; another number of labels or channels than the model has; a task that is not the data's or that the
            model cannot answer; unknown subjects; a target that exists.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    if not isinstance(model, StreamingModel):
        raise InputError(
            f"the model is a {type(model).__name__}: a subclass of edgeseq.models.contract.StreamingModel is needed, "
            "which may hold it and says where its state starts and what one step is"
        )
    family = _importable(family) if family else _family_of(behind(model))
    heard = {FRONT: msgspec.to_builtins(model.front.features)} if isinstance(model, Listening) else {}
    given = _arguments({**(arguments or {}), **heard})
    rebuilt = _rebuilt(model, family, given)
    dataset = datasets.load(data, mapping) if data else None
    source = _input(rebuilt, dataset, channels, rate)
    manifest = Manifest(
        name=out.name,
        family=family,
        arguments=given,
        task=_task(rebuilt, dataset, task),
        labels=_labels(rebuilt, dataset, labels),
        input=source,
        states=state_entries(rebuilt),
        decision=decision or Decision(),
        split=_subjects(dataset, split or {}),
        metrics=_metrics(metrics or {}),
        parameters=parameter_count(rebuilt),
        facts=dict(rebuilt.facts()),
        lineage=(
            stage_entry(
                "save_model",
                {"mapping": msgspec.to_builtins(mapping) if mapping else None},
                data=data,
                data_fingerprint=dataset.fingerprint() if dataset else None,
            ),
        ),
    )
    with new_folder(out, overwrite=overwrite) as staging:
        save_weights(rebuilt, staging)
        seal(staging, manifest)
    return open_folder(out)


def _task(model: StreamingModel, dataset: datasets.Dataset | None, task: str | None) -> str:
    if dataset and task not in (None, dataset.task):
        raise InputError(f"task {task!r}, but {dataset.name} has {dataset.task}s to answer: leave it out")
    possible = [each for each in (*([dataset.task] if dataset else []), *TASKS) if each in model.tasks]
    if task not in (None, *possible):
        raise InputError(f"task {task!r}: this model's task is {' or '.join(dict.fromkeys(possible))}")
    return task or possible[0]


def _family_of(model: StreamingModel) -> str:
    """The name under which the model's class can be imported again."""
    made = type(model)
    target = _importable(f"{made.__module__}:{made.__qualname__}")
    return next((name for name, builtin in FAMILIES.items() if builtin == target), target)


def _importable(family: str) -> str:
    module, _, name = family.partition(":")
    if module == "__main__":
        raise InputError(
            f"the model's class {name} is defined in the script that is running, where nobody else can import it: "
            "move it to a module of its own, or name one that has it with family='module:Class'"
        )
    return family


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the manifest keeps them."""
    kept = {}
    for name, value in given.items():
        try:
            kept[name] = msgspec.json.decode(msgspec.json.encode(value))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"argument {name!r} is {value!r:.60} ({error}): the manifest keeps numbers, text, lists and dicts"
            ) from None
    return kept


def _metrics(given: Mapping[str, float]) -> dict[str, float]:
    for name, value in given.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"metric {name!r} is {value!r:.60}: a finite number is needed")
    return {name: float(value) for name, value in given.items()}


def _rebuilt(model: StreamingModel, family: str, arguments: dict[str, Any]) -> StreamingModel:
    """The model as whoever opens the folder will build it, shown to answer as ``model`` does; float32, eval mode."""
    live = _copied(model).to("cpu", torch.float32).eval()
    made = build(family, live.input_size, live.output_size, dict(arguments), trust=True).to(torch.float32)
    try:
        made.load_state_dict(live.state_dict())
    except RuntimeError as error:
        misfits = _misfits(live.state_dict(), made.state_dict()) or str(error).splitlines()[0]
        raise InputError(
            f"{family} with arguments {arguments} is not the model to save, whose weights do not fit: {misfits}. Name "
            "in arguments whatever the model was built with"
        ) from None
    made.eval()
    what = f"{family} with arguments {arguments} and the same weights"
    for name in ("look_ahead", "tasks"):
        if getattr(made, name) != getattr(live, name):
            raise InputError(
                f"{what} has {name} {getattr(made, name)!r}, and the model to save {getattr(live, name)!r}: name it in "
                "arguments"
            )
    check_contract(made)
    _check_alike(live, made, what)
    return made


def _copied(model: StreamingModel) -> StreamingModel:
    """A copy to change. Torch does not copy what was computed with gradients, as a state in an attribute is."""
    for name, held in attributes(model).items():
        if any(isinstance(leaf, torch.Tensor) and not leaf.is_leaf for leaf, _ in held):
            raise InputError(
                f"the model keeps something that it computed in attribute {name!r}, which no stream carries: carry it "
                "in the state"
            )
    return copy.deepcopy(model)


def _misfits(live: State, made: State) -> str:
    """Which tensors are not of the same name and shape, at most a few of them."""
    found = []
    for name in dict.fromkeys((*live, *made)):
        ours, theirs = (list(held[name].shape) if name in held else "not there" for held in (live, made))
        if ours != theirs:
            found.append(f"{name} is {ours} in the model and {theirs} in what was built")
    more = f", and {len(found) - SHOWN_MISFITS} more" if len(found) > SHOWN_MISFITS else ""
    return ", ".join(found[:SHOWN_MISFITS]) + more


@torch.no_grad()
def _check_alike(live: StreamingModel, made: StreamingModel, what: str) -> None:
    """Refuse what takes another step than the model to save, from random states: an argument is missing then."""
    generator = torch.Generator().manual_seed(0)
    states = {name: tensor.shape for name, tensor in live.initial_state(1).items()}
    found = {name: tensor.shape for name, tensor in made.initial_state(1).items()}
    if states != found:
        raise InputError(f"{what} has the states {_shown(found)}, and the model to save {_shown(states)}")
    x = torch.randn(1, live.input_size, generator=generator)
    state = {name: torch.randn(shape, generator=generator) for name, shape in states.items()}
    (y, after), (made_y, made_after) = (stepped(each, x, state) for each in (live, made))
    for name, tensor in {"answer": y, **after}.items():
        if not alike(tensor, made_y if name == "answer" else made_after[name]):
            raise InputError(
                f"{what} takes another step than the model to save ({name} differs): name in arguments whatever the "
                "model was built with, and register as a buffer whatever else it computes with"
            )


def _shown(states: Mapping[str, torch.Size]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in states.items())


def _labels(model: StreamingModel, dataset: datasets.Dataset | None, labels: Sequence[str]) -> tuple[str, ...]:
    known = tuple(labels) or (dataset.labels if dataset else ())
    _check_given("labels", known, dataset)
    if len(known) != model.output_size:
        raise InputError(f"{len(known)} labels {list(known)} for a model of {model.output_size} outputs: one for each")
    _check_distinct("label", known)
    if dataset and known != dataset.labels:
        raise InputError(f"labels {list(known)}, but {dataset.name} has {list(dataset.labels)}: leave one of them out")
    return known


def _check_given(what: str, known: Sequence[str], dataset: datasets.Dataset | None) -> None:
    if not known and dataset is None:
        raise InputError(f"neither data nor {what} are given: give data=, or labels=, channels= and rate=")


def _check_distinct(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{what} {name!r} is of type {type(name).__name__}: text is needed")
        if names.count(name) > 1:
            raise InputError(f"{what} {name!r} is named {names.count(name)} times: each needs a name of its own")


def _input(
    model: StreamingModel, dataset: datasets.Dataset | None, channels: Sequence[str | Channel], rate: float | None
) -> Input:
    named = tuple(channel if isinstance(channel, Channel) else Channel(channel, "") for channel in channels)
    if dataset:
        ours = tuple(Channel(*pair) for pair in zip(dataset.channels, dataset.units, strict=True))
        given = {"channels": tuple(channel.name for channel in named), "rate": rate}
        for what, has in (("channels", dataset.channels), ("rate", dataset.rate)):
            if given[what] and given[what] != has:
                raise InputError(f"{what} {given[what]}, but {dataset.name} has {has}: leave one of them out")
        named, rate = ours, dataset.rate
    _check_given("channels", [channel.name for channel in named], dataset)
    samples = model.front.features.hop if isinstance(model, Listening) else 1
    if len(named) * samples != model.input_size:
        raise InputError(f"{len(named)} channels named for a model of {model.input_size} inputs: one for each")
    _check_distinct("channel", [channel.name for channel in named])
    if not rate or not 0 < rate < float("inf"):
        raise InputError(f"rate {rate}: samples a second (Hz) are needed, or data that says them")
    mean, std = model.input_mean.tolist(), (1 / model.input_scale).tolist()
    return Input(named, float(rate), Normalization(tuple(mean), tuple(std)), samples, model.look_ahead)


def _subjects(dataset: datasets.Dataset | None, split: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Who is in which part; subjects are text, as data names them, and numbers are taken as their text."""
    found = {}
    for part, subjects in split.items():
        if part not in PARTS:
            raise unknown("part of a split", part, PARTS)
        if isinstance(subjects, str):
            raise InputError(
                f"split has {subjects!r} as {part!r}: a list of subjects is needed, such as [{subjects!r}]"
            )
        found[part] = tuple(map(str, subjects))
        if dataset:
            dataset.only(found[part])
    return found
