"""Options that several verbs have, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseq.cli.output import counted, not_negative

Seed = Annotated[int, typer.Option(help="Seed of everything random.", callback=counted)]
Config = Annotated[Path | None, typer.Option(help="Settings from a .toml or .json file; --set comes after.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model folder OUT.")]
Trust = Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Exit with 5, writing nothing, if macro-F1 on the validation subjects falls by more.",
        callback=not_negative,
    ),
]
