"""docs/families.md is what the code does: every row is made again, and the table can say no."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from edgeseq.errors import GateFailed
from edgeseq.models.registry import FAMILIES

DOCS = Path(__file__).parents[1] / "docs"
MAKE = runpy.run_path(str(DOCS / "make_families.py"))
MEND = "run python docs/make_families.py"


@pytest.fixture(scope="module")
def document():
    return (DOCS / "families.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("variant", sorted(MAKE["sizes"]()))
def test_a_row_says_what_its_family_does(variant, document, tmp_path):
    line, refused = MAKE["row"](variant, tmp_path)
    assert line in document, MEND
    assert [f"- {reason}" for reason in refused] == [
        said for said in document.splitlines() if said.startswith(f"- `{variant}`")
    ], MEND


def test_the_document_has_every_variant_and_no_other(document):
    rows = {variant: (line_of(document, variant), []) for variant in MAKE["sizes"]()}
    table, _, reasons = document.partition("\n\n- ")
    assert MAKE["document"](rows).rstrip() == table.rstrip(), MEND
    assert all(
        "no" in line_of(document, reason.split("`")[1]).split(" | ") for reason in reasons.splitlines() if reason
    )


def test_every_built_in_family_has_a_row():
    assert {family for family, _ in MAKE["sizes"]().values()} == set(FAMILIES)


def test_a_cell_says_no_where_the_proof_does_not_hold(tmp_path):
    def fails(source, out, **_):
        raise GateFailed(f"{out.name} is another model")

    run, real = MAKE["row"].__globals__, MAKE["export"]
    run["export"] = fails
    try:
        line, refused = MAKE["row"]("gru", tmp_path)
    finally:
        run["export"] = real
    assert line.split(" | ")[2:6] == ["no"] * 4
    assert refused == [f"`gru` in {precision}: {precision}-export is another model" for precision in ("fp32", "int8")]


def line_of(document, variant):
    found = [line for line in document.splitlines(keepends=True) if line.startswith(f"| `{variant}` |")]
    assert len(found) == 1, f"{variant}: {MEND}"
    return found[0]
