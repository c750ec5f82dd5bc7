"""What every engine offers, and what all of them check when they load a file.

Shape letters: C values in a frame, S elements in the packed state, K logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import GateFailed, InputError, MissingDependency
from edgeseq.folder import NEXT_STATE, STATE, X, Y
from edgeseq.manifest import Manifest

Floats = NDArray[np.float32]
Facts = dict[str, str | int]

THREADS = "EDGESEQ_THREADS"  # of the environment, so that processes that this one starts inherit it

# What a runtime raises that is absent, or was built for another numpy.
BROKEN_RUNTIME = (ImportError, AttributeError, SystemError)

# What assigning to a memoryview raises for anything that is not a float32 array of exactly its shape.
NOT_A_FRAME = (TypeError, ValueError, BufferError, NotImplementedError)


class MissingRuntime(MissingDependency):
    """A runtime is not installed, or is installed and does not work here; the message says how to mend it."""

    def __init__(self, engine: str, package: str, install: str, error: BaseException) -> None:
        reason = "is not installed"
        if not isinstance(error, ModuleNotFoundError):
            from edgeseq.devices.engines.diagnosis import another, too_old_for  # here: no step needs it

            said = str(error.__cause__ or error)
            lacks = too_old_for(said)
            reason = lacks or f"is installed but does not work here ({said})"
            install = another(package) if lacks else install
        # The base class names an extra of ours; a runtime may be a package of its own or need another numpy.
        Exception.__init__(self, f"engine {engine} needs {package}, which {reason}: {install}")


class NoRuntime(MissingDependency):
    """No runtime here runs any of a folder's model files; the message has the reason of each."""

    def __init__(self, purpose: str, reasons: Iterable[str]) -> None:
        Exception.__init__(self, f"{purpose} needs a runtime that works here; {'; '.join(reasons)}")


@dataclass(frozen=True)
class Engine:
    """One loaded model with its carried state.

    ``step`` takes a frame (C,) or (1, C) and returns logits (K,), which the next call may overwrite; a float32 array
    (C,) is the fastest. It raises InputError for any other shape and looks at nothing else. C is the file's
    :func:`input_width` here. ``get_state`` returns a copy (S,); ``set_state`` takes (S,). ``facts`` says which runtime,
    version and number of threads.
    """

    name: str
    step: Callable[[Any], Floats]
    get_state: Callable[[], Floats]
    set_state: Callable[[Any], None]
    facts: Facts


def thread_count() -> int:
    """How many threads an engine may use: EDGESEQ_THREADS, or 1. A step of microseconds gains nothing from more.

    Raises:
        InputError: it is set to anything but a whole number from 1 on.
    """
    said = os.environ.get(THREADS, "1")
    if not (said.isascii() and said.isdigit() and int(said) > 0):
        raise InputError(f"{THREADS} is {said!r}: a number of threads is needed, 1 or more")
    return int(said)


def frame_width(manifest: Manifest) -> int:
    """C: the values in the frame that one step takes."""
    return manifest.input.width


def input_width(manifest: Manifest) -> int:
    """The values that a model file takes: a frame, and of a model that looks ahead whether there is one, 1 or 0."""
    return frame_width(manifest) + (manifest.input.look_ahead > 0)


def expected_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The shapes that a model file's four tensors must have, by name."""
    states = (1, manifest.state_size)
    return {X: (1, input_width(manifest)), STATE: states, Y: (1, len(manifest.labels)), NEXT_STATE: states}


def check_tensors(file: Path, manifest: Manifest, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare a file's tensors, name -> (dtype, shape), with the manifest.

    Raises:
        GateFailed: naming the first tensor that is missing or differs.
    """
    for name, shape in expected_shapes(manifest).items():
        if name not in found:
            have = ", ".join(sorted(found))
            raise GateFailed(f"{file} has no tensor {name!r} (it has {have}): export the model anew")
        if found[name] != ("float32", shape):
            dtype, other = found[name]
            raise GateFailed(
                f"{file}: tensor {name!r} is {dtype}{list(other)}, the manifest says float32{list(shape)}: "
                "the file belongs to another model, or must be exported anew"
            )


def frame_buffer(width: int) -> tuple[Floats, Any]:
    """A frame (1, C) and a memoryview of its C values (typed Any: mypy does not know that arrays are buffers).

    Assigning to the whole view is the cheapest copy that cannot broadcast: it takes a float32 array (C,), nothing else.
    """
    frame = np.zeros((1, width), np.float32)
    return frame, memoryview(frame[0])


def as_frame(x: Any, width: int) -> Floats:
    """Anything that holds exactly one frame, as float32 (C,): the slow way in, for lists, float64 and (1, C).

    Raises:
        InputError: another shape, or not real numbers.
    """
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise InputError(f"a frame of {width} numbers is needed, not {type(x).__name__}: {error}") from None
    if array.shape not in ((width,), (1, width)):
        raise InputError(f"a frame has shape {array.shape}: ({width},) or (1, {width}) is needed")
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise InputError(f"a frame holds {array.dtype}: real numbers are needed")
    return np.ascontiguousarray(array.reshape(width), np.float32)


def as_state(state: Any, size: int) -> Floats:
    """A copy of a packed state, float32 (1, S).

    Raises:
        InputError: another number of elements.
    """
    array = np.array(state, np.float32)
    if array.shape not in ((size,), (1, size)):
        raise InputError(f"a state has shape {array.shape}: ({size},) is needed")
    return array.reshape(1, size)


def initial_state(manifest: Manifest) -> Floats:
    """The packed state (S,) that a stream starts from."""
    state = np.zeros(manifest.state_size, np.float32)
    for entry in manifest.states:
        state[entry.offset : entry.offset + entry.size] = entry.initial
    return state
