from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_operators_document_is_what_the_code_says():
    made = subprocess.run(
        [sys.executable, DOCS / "make_operators.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
