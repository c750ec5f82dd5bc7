"""Commands of edgeseq in this process, for the tests of every room, and what they leave behind."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from edgeseq.cli import app as application


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output, which must be one JSON document and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        assert self.out.count("\n") == 1
        return found


def call(*arguments: object, stdin: str = "") -> Done:
    """A command in this process: without the second that a new one takes to import torch."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.delenv("FORCE_COLOR", raising=False)
        code = application.run([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())
