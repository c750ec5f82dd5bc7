"""What a verb prints: results on standard output, everything else on standard error.

rich leaves colours and bars out where the output is not a terminal, and colours where NO_COLOR is set.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edgeseq.errors import EdgeseqError, InputError, MissingDependency
from edgeseq.folder import Folder

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")]
Document = dict[str, Any]


class Show:
    """Where a verb prints. With ``json`` the results go to standard error too: standard output is for the document."""

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.notes = Console(stderr=True, highlight=False)
        self.out = self.notes if json else Console(highlight=False)
        if self.out.is_terminal and self.notes.is_terminal:
            self.notes = self.out  # one screen: a bar on one console would tear the lines of the other

    def line(self, text: str = "", style: str | None = None) -> None:
        """A line of the result; never broken, so that paths and commands can be copied."""
        self.out.print(Text(text, style or ""), soft_wrap=True)

    def text(self, text: str) -> None:
        """A sentence of the result, wrapped at the terminal's width."""
        self.out.print(Text(text))

    def note(self, text: str) -> None:
        """A line about what is going on."""
        self.notes.print(Text(text, "dim"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """A warning, wrapped at the terminal's width: a sentence or more, unlike what is going on."""
        self.notes.print(Text(f"warning: {text}", "dim"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
        """A table; a column whose name starts with ``>`` holds numbers."""
        if title:
            self.line(title, "bold")
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False, header_style="bold")
        for column in columns:
            numbers = column.startswith(">")
            made.add_column(
                column.removeprefix(">"), justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
            )
        for row in rows:
            made.add_row(*(Text(cell, "bold red" if cell == "FAILED" else "") for cell in row))
        self.out.print(made)
        self.line()

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and what they are, one below the other."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        for name, value in rows:
            grid.add_row(Text(name), Text(value))
        self.out.print(grid)

    def bar(self) -> Progress:
        """A progress bar with a field ``news``; nothing where standard error is not a terminal."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
            console=self.notes,
            transient=True,
            disable=not self.notes.is_terminal,
        )

    def wrote(self, path: Path, size: int, clock: Clock) -> None:
        """The line about what a verb wrote."""
        self.line(f"wrote {path} ({kilobytes(size)}) in {clock.seconds:.1f} s", "green")

    def wrote_folder(self, folder: Folder, clock: Clock) -> Document:
        """The line about the model folder that a verb wrote, and what its document begins with."""
        size = size_of(folder)
        self.wrote(folder.path, size, clock)
        return {"folder": str(folder.path), "hash": folder.hash, "seconds": clock.seconds, "bytes": size}

    def next(self, *command: str | Path) -> None:
        """The command to type after this one."""
        self.line(f"next: {typed(*command)}", "bold")


class Failed(Exception):
    """An error that leaves more to say in JSON than its message: the document that goes out with it."""

    def __init__(self, error: EdgeseqError, document: Document) -> None:
        super().__init__(str(error))
        self.error, self.document = error, document


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far, to the millisecond."""
        return round(time.perf_counter() - self._start, 3)


def positive(value: float | None) -> float | None:
    """An option's number, refused where it is not above 0 or has no end."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"a number above 0 is needed, not {value:g}")
    return value


def not_negative(value: float | None) -> float | None:
    """An option's number, refused where it is below 0 or has no end."""
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"a number, 0 or more, is needed, not {value:g}")
    return value


def counted(value: int | None) -> int | None:
    """An option's whole number, refused where it is below 0, or larger than torch and JSON can hold."""
    if value is not None and not 0 <= value < 2**63:
        raise typer.BadParameter(f"0 or more is needed (and below 2**63), not {value}")
    return value


def need(purpose: str, extra: str, *packages: str) -> None:
    """Raise MissingDependency, with the line that installs it, for the first package that cannot be imported."""
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise MissingDependency(package, extra, purpose) from None


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        import_module(package)
    except (ImportError, OSError):  # OSError: its shared library is not to be had
        return False
    return True


def typed(*command: str | Path) -> str:
    """A command of edgeseq as one types it here: by name if the shell finds it, else by its path."""
    program = "edgeseq" if shutil.which("edgeseq") or Path(sys.argv[0]).name != "edgeseq" else _shown(sys.argv[0])
    return shlex.join([program, *map(str, command)])


def _shown(program: str) -> str:
    path = Path(program)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def listed(text: str | None) -> tuple[str, ...]:
    """``a,b,c`` as a tuple.

    Raises:
        InputError: an entry is empty.
    """
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"{text!r} has an empty entry: write the names with commas between them, as in a,b,c")
    return names


def size_of(folder: Folder) -> int:
    """Bytes of everything in a model folder that its manifest lists."""
    return sum((folder.path / name).stat().st_size for name in folder.manifest.files)


def kilobytes(size: int) -> str:
    """Bytes for people, in thousands."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def percent(share: float | None, digits: int = 1) -> str:
    """A share for people; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"
