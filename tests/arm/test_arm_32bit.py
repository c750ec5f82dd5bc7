"""32-bit ARM: Debian's Python and its numpy 1, and tflite-runtime, which is the only runtime there."""

from __future__ import annotations

import json

import pytest

from .conftest import CHECKED
from .test_arm_parity import compared

pytestmark = pytest.mark.arm
PROCESSOR = "cortex-a7"
NAMES = ("har_watch", "har_watch_fp32", "lstm-fp32", "lstm-int8", "s4d-fp32", "l2mu-fp32")


@pytest.fixture(scope="module")
def python(board_python):
    return board_python(PROCESSOR)


def test_the_machine_says_what_it_is(python):
    facts = json.loads(python.say("-m", "edgeseq.devices", "facts", "har_watch", "--json"))
    assert (facts["machine"], facts["core"], facts["python_bits"]) == ("armv7l", "Cortex-A7", 32)
    assert facts["versions"]["numpy"].startswith("1.")
    assert facts["provenance"] == "emulated-functional"
    assert set(facts["engines"]) == {"tflite-runtime", "numpy"}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_checks_itself_in_tflite_runtime(name, on_arm):
    said = on_arm(PROCESSOR, NAMES, CHECKED)[0][name]
    assert said["passed"], said
    assert said["unchecked"] == ["model.onnx"]
    assert {"tflite-runtime teacher-forced", "tflite-runtime free-running"} <= {link["name"] for link in said["links"]}


@pytest.mark.parametrize("engine", ["numpy", "tflite-runtime"])
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_answers_as_numpy_does_here(name, engine, on_arm, references):
    link = compared(references(name), engine, on_arm(PROCESSOR, NAMES, CHECKED)[1][name], here="numpy")
    assert link.passed, link
