"""Every family's files on ARM processors: they check themselves, and answer as they do on this machine."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.devices.compare import Comparison, parts_of, rounds, steps_of
from edgeseq.devices.engines import ENGINES
from edgeseq.folder import pretrained
from edgeseq.program import Program

from .conftest import CHECKED, FAMILIES

pytestmark = pytest.mark.arm
PROCESSORS = ("cortex-a53", "cortex-a72", "cortex-a76")
CHECKED_ON = "cortex-a72"  # of the others it is shown that they answer bit for bit the same
NAMES = (*pretrained(), *FAMILIES)


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request):
    return request.param


@pytest.fixture(scope="module")
def answers(on_arm):
    """``answers(processor)``: by folder, what every engine there answered."""
    return lambda processor: on_arm(processor, NAMES, CHECKED if processor == CHECKED_ON else 0)[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_checks_itself_in_both_runtimes(name, on_arm):
    said = on_arm(CHECKED_ON, NAMES, CHECKED)[0][name]
    assert said["passed"], said
    assert said["code"] == 0
    assert not said["unchecked"]
    links = {link["name"] for link in said["links"]}
    assert links >= {
        f"{engine} {kind}" for engine in ("litert", "onnxruntime") for kind in ("teacher-forced", "free-running")
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_answers_as_it_does_here(name, processor, answers, references):
    reference, found = references(name), answers(processor)[name]
    assert found.keys() == reference.answers.keys()
    for engine in sorted({key.rpartition(".")[0] for key in found}):
        link = compared(reference, engine, found)
        assert link.passed, link


def compared(reference, engine, found, here=None):
    """An engine's steps there against its own here, or another's, by the tolerances that hold between two engines."""
    manifest, program = reference.folder.manifest, Program.read(reference.folder.path)
    comparison = Comparison(parts_of(len(manifest.labels), [(e.name, e.size) for e in manifest.states]))
    sides = (reference.answers, here or engine), (found, engine)
    both = [np.hstack([answers[f"{name}.y"], answers[f"{name}.after"]]) for answers, name in sides]
    for expected, answered, near in zip(*both, reference.near, strict=True):
        comparison.add(expected.astype(float), answered.astype(float), bool(near))
    return comparison.link(engine, steps_of(program), exact=ENGINES[engine].exact or not rounds(program))


@pytest.mark.parametrize("name", NAMES)
def test_kernels_with_and_without_dot_products_answer_alike(name, answers):
    """The A76 has instructions for int8 that the A53 and A72 lack, so that other kernels run: bit for bit the same."""
    first, *others = (answers(processor)[name] for processor in PROCESSORS)
    for other in others:
        for key, values in first.items():
            np.testing.assert_array_equal(other[key], values, err_msg=key)
