"""A table as all pages know it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from edgeseq.devices.report.numbers import NONE


@dataclass(frozen=True)
class Column:
    """A column; ``group`` is a heading that it shares with its neighbours."""

    title: str
    number: bool = True
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its heading. ``notes`` are sentences below."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def blocks(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """Neighbouring rows with one heading, by heading, without it."""
        blocks = [(name, list(rows)) for name, rows in itertools.groupby(self.rows, key=lambda row: row[0])]
        return [(name, [row[1:] for row in rows]) for name, rows in blocks]

    def without_empty(self, *titles: str) -> Table:
        """The table without those of the named columns that hold nothing."""
        filled = [any(row[i] != NONE for row in self.rows) for i in range(len(self.columns))]
        kept = [f or column.title not in titles for f, column in zip(filled, self.columns, strict=True)]
        columns = tuple(itertools.compress(self.columns, kept))
        return replace(self, columns=columns, rows=tuple(tuple(itertools.compress(row, kept)) for row in self.rows))

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings above the columns and how many columns each spans; empty where there is none."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


def text(*titles: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(title, number=False) for title in titles)


def numbers(*titles: str, group: str = "") -> tuple[Column, ...]:
    """Columns of numbers, under one heading if ``group`` is given."""
    return tuple(Column(title, group=group) for title in titles)
