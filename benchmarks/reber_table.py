"""The rows of ``benchmarks/results/reber.json``, the thesis's numbers, and the tables that set one beside the other.

The numbers are those of the result files of H. Darji, "Investigating Sparsity in Recurrent Neural Networks",
https://github.com/harshildarji/thesis.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

RESULTS = Path(__file__).parent / "results" / "reber.json"
CELLS = ("tanh", "relu", "lstm", "gru")
SHARES = tuple(round(share / 10, 1) for share in range(1, 10))
GRAPHS = ("barabasi_albert", "watts_strogatz")
NUMBER = 20  # random graphs of each kind
ENGINES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
WITHIN = 0.001  # of the accuracy of the model that nothing was taken out of: what counts as the same
AUTOMATA = 9

Numbers = dict[str, float]

BASE = {"tanh": 93.73, "relu": 100.0, "lstm": 100.0, "gru": 100.0}  # percent of the test strings
PARAMETERS = {"tanh": 21_802, "relu": 21_802, "lstm": 67_702, "gru": 52_402}
PRUNED = {  # percent right after both matrices were pruned by 50 % to 90 %; by less it was about that of the base
    "tanh": (93.73, 93.73, 93.30, 91.92, 65.58),
    "relu": (99.76, 99.30, 98.58, 54.86, 50.30),
    "lstm": (100.0, 100.0, 80.29, 66.78, 49.49),
    "gru": (100.0, 99.98, 99.78, 99.36, 55.12),
}
RETRAINED = {"tanh": {0.9: 92.46}, "lstm": {0.9: 99.97}}  # after one epoch; of the others it is not known here
WIRED = {  # mean test accuracy of 100 graphs of each kind, percent
    "tanh": (84.2, 89.3),
    "relu": (72.8, 82.9),
    "lstm": (91.5, 97.6),
    "gru": (92.8, 98.4),
}
PROPERTIES = {  # correlation with test accuracy, by cell; "" where edgeseq's graphs have no such thing
    "layers": ("", (0.25, 0.30, 0.28, 0.34)),
    "nodes": ("nodes", (0.40, 0.44, 0.44, 0.49)),
    "edges": ("edges", (0.38, 0.43, 0.42, 0.49)),
    "source nodes": ("", (0.35, 0.47, 0.57, 0.74)),
    "sink nodes": ("", (0.14, 0.22, 0.06, -0.18)),
    "diameter": ("diameter", (-0.23, -0.27, -0.32, -0.20)),
    "density": ("density", (0.29, 0.15, 0.29, 0.34)),
    "mean shortest path": ("mean_shortest_path", (-0.27, -0.25, -0.36, -0.23)),
    "degree variance": ("degree_variance", (-0.28, -0.26, -0.39, -0.58)),
    "closeness, mean": ("closeness_mean", (0.30, 0.30, 0.39, 0.26)),
    "closeness, variance": ("closeness_variance", (-0.46, -0.39, -0.51, -0.67)),
    "node betweenness, mean": ("node_betweenness_mean", (-0.34, -0.37, -0.44, -0.32)),
    "node betweenness, variance": ("node_betweenness_variance", (-0.49, -0.41, -0.56, -0.52)),
    "edge betweenness, mean": ("edge_betweenness_mean", (-0.39, -0.39, -0.49, -0.39)),
    "edge betweenness, variance": ("edge_betweenness_variance", (-0.34, -0.30, -0.44, -0.26)),
}


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run. ``part``: base, weights, units, graph or speed; ``what``: the share that went, or the graph.

    ``models``: by model ("trained"; "pruned" and "retrained"; "dense", "zeros" and "smaller") its numbers. Accuracies
    are shares of strings: of the "validation" and the "test" strings, of those of each automaton ("automaton_3"), and
    of the valid test strings with one wrong letter, which are to be refused ("harder"). "parameters" are those that
    are there; "..._us" are medians of a step. ``facts``: the graph's properties, the sizes that are left of the widths,
    the shares that were chosen, or the epoch whose weights were kept. ``training``: epochs, batch, and the scale, which
    is the share of the thesis's number of strings.
    """

    part: str
    cell: str
    what: str
    seed: int
    models: dict[str, Numbers]
    facts: Numbers
    training: Numbers
    seconds: float
    recipe: str
    machine: str
    versions: dict[str, str]

    @property
    def place(self) -> tuple[str, str, str, int]:
        return (self.part, self.cell, self.what, self.seed)

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        return (*self.place, self.recipe)


def read(file: Path) -> list[Row]:
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.is_file() else []


def write(rows: Sequence[Row], file: Path) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    staging = file.with_suffix(".new")
    ordered = sorted(rows, key=lambda row: row.key)
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(file)


def merged(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with ``row`` in the place of one of an older recipe."""
    return [*(old for old in rows if old.place != row.place), row]


def found(rows: Sequence[Row], part: str, cell: str, what: str = "") -> list[Row]:
    """The rows of a run, one for each seed."""
    return [row for row in rows if (row.part, row.cell, row.what) == (part, cell, what)]


def mean(rows: Sequence[Row], model: str, name: str) -> float | None:
    """Over the seeds; None where there is nothing."""
    return statistics.mean(row.models[model][name] for row in rows) if rows else None


def largest_share(rows: Sequence[Row], part: str, cell: str, seed: int) -> float | None:
    """The largest share that can go so that retraining for one epoch gives the base's accuracy on the validation
    strings, within :data:`WITHIN`; 0 if none can, None while rows are missing.
    """
    base = [row for row in found(rows, "base", cell) if row.seed == seed]
    ladder = {share: [row for row in found(rows, part, cell, str(share)) if row.seed == seed] for share in SHARES}
    if not base or not all(ladder.values()):
        return None
    enough = base[0].models["trained"]["validation"] - WITHIN
    good = [share for share, (row,) in ladder.items() if row.models["retrained"]["validation"] >= enough]
    return max(good, default=0.0)


def trained(rows: Sequence[Row], part: str) -> str:
    """How the runs of a part were trained, in words."""
    own = [row.training for row in rows if row.part == part]
    said = {
        f"batches of {each['batch']:.0f}, {each['epochs']:.0f} epochs"
        + (f", {100 * each['scale']:g} % of the strings" if each["scale"] != 1 else "")
        for each in own
    }
    return "; ".join(sorted(said)) or "nothing yet"


def percent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first ``words`` columns are text; "" without lines."""
    if not lines:
        return ""
    rule = ["---" if i < words else "---:" for i in range(len(head))]
    return "\n".join(
        f"| {' | '.join(line)} |" if line is not rule else f"|{'|'.join(line)}|" for line in [head, rule, *lines]
    )


def base_table(rows: Sequence[Row]) -> str:
    """Each cell before anything is pruned: accuracy beside the thesis's, then by automaton, then of harder strings."""
    head = ["cell", "parameters", "thesis", "test", "thesis", *map(str, range(AUTOMATA)), "one letter wrong"]
    lines = []
    for cell in CELLS:
        own = found(rows, "base", cell)
        if own:
            automata = [percent(mean(own, "trained", f"automaton_{i}"), 1) for i in range(AUTOMATA)]
            counts = [f"{own[0].models['trained']['parameters']:,.0f}", f"{PARAMETERS[cell]:,}"]
            test = [percent(mean(own, "trained", "test")), f"{BASE[cell]:.2f}"]
            lines.append([cell, *counts, *test, *automata, percent(mean(own, "trained", "harder"), 1)])
    return markdown(head, lines)


def ladder_table(rows: Sequence[Row], part: str) -> str:
    """Test accuracy by the share that went, right after and after one epoch of retraining; what the thesis has too."""
    lines = []
    for cell in CELLS:
        ladder = [found(rows, part, cell, str(share)) for share in SHARES]
        if not any(ladder):
            continue
        lines += _thesis_lines(cell) if part == "weights" else []
        for said, model, name in _LADDER:
            lines.append([cell, said, *(percent(mean(own, model, name)) for own in ladder)])
        if part == "units":
            lines.append([cell, "parameters", *(_count(mean(own, "retrained", "parameters")) for own in ladder)])
    return markdown(["cell", "", *(f"{100 * share:.0f} %" for share in SHARES)], lines, words=2)


_LADDER = (
    ("right after", "pruned", "test"),
    ("after an epoch", "retrained", "test"),
    ("one letter wrong", "retrained", "harder"),
)


def _thesis_lines(cell: str) -> list[list[str]]:
    right_after = dict(zip(SHARES[-len(PRUNED[cell]) :], PRUNED[cell], strict=True))
    known = {"right after": right_after, "after an epoch": RETRAINED.get(cell, {})}
    return [
        [cell, f"{said} (thesis)", *(f"{numbers[share]:.2f}" if share in numbers else "" for share in SHARES)]
        for said, numbers in known.items()
        if numbers
    ]


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def speed_table(rows: Sequence[Row]) -> str:
    """What a step costs: dense, with as many zeros, and with as few units as give the same accuracy."""
    kinds = ("tight", "paced")
    timed = [f"{said}, {kind}" for said in ENGINES.values() for kind in kinds]
    lines = []
    for cell in CELLS:
        for row in found(rows, "speed", cell):
            for model, numbers in row.models.items():
                times = []
                for name in (f"{engine}_{kind}_us" for engine in ENGINES for kind in kinds):
                    own, dense = numbers[name], row.models["dense"][name]
                    times.append(f"{own:.1f} µs" if model == "dense" else f"{own:.1f} ({dense / own:.2f} ×)")
                size = f"{numbers['litert_bytes'] / 1000:.0f}"
                gone = f"{100 * row.facts[model]:.0f} %" if model in row.facts else ""
                lines.append([cell, model, gone, percent(numbers["test"]), _count(numbers["parameters"]),
                              _count(numbers["macs"]), size, *times])  # fmt: skip
    return markdown(["cell", "model", "gone", "test", "parameters", "MACs", "kB", *timed], lines, words=2)


def refused_cells(rows: Sequence[Row]) -> list[str]:
    """The cells that no stream can be answered with, whose steps have no times therefore."""
    return [cell for cell in CELLS if any("refused" in row.facts for row in found(rows, "speed", cell))]


def graph_table(rows: Sequence[Row]) -> str:
    """Mean test accuracy of the graphs of each kind, beside the thesis's."""
    lines = []
    for cell in CELLS:
        cells = []
        for i, kind in enumerate(GRAPHS):
            own = _wired(rows, cell, kind)
            scores = [row.models["trained"]["test"] for row in own]
            spread = f" ± {percent(statistics.stdev(scores), 1)}" if len(scores) > 1 else ""
            shown = f"{percent(statistics.mean(scores), 1)}{spread} ({len(own)})" if own else ""
            cells += [shown, f"{WIRED[cell][i]:.1f}"]
        lines += [[cell, *cells]] if any(cells[::2]) else []
    return markdown(["cell", *(each for kind in GRAPHS for each in (kind.replace("_", " "), "thesis"))], lines)


def correlation_table(rows: Sequence[Row]) -> str:
    """Pearson's correlation of test accuracy with each property, of all graphs of a cell, beside the thesis's."""
    columns = [correlations(_wired(rows, cell)) for cell in CELLS]
    lines = []
    for said, (name, thesis) in PROPERTIES.items():
        pairs = zip(columns, thesis, strict=True)
        lines.append([said, *(each for own, theirs in pairs for each in (_signed(own.get(name)), f"{theirs:+.2f}"))])
    head = ["property", *(each for cell in CELLS for each in (cell, "thesis"))]
    return markdown(head, lines if any(columns) else [])


def correlations(wired: Sequence[Row]) -> Mapping[str, float | None]:
    """By property; None where it, or the accuracy, is the same for all graphs; {} of fewer than three graphs."""
    if len(wired) < 3:
        return {}
    scores = np.array([row.models["trained"]["test"] for row in wired])
    made: dict[str, float | None] = {}
    for name in wired[0].facts:
        values = np.array([row.facts[name] for row in wired])
        same = bool(np.ptp(values) == 0 or np.ptp(scores) == 0)
        made[name] = None if same else float(np.corrcoef(values, scores)[0, 1])
    return made


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _wired(rows: Sequence[Row], cell: str, kind: str = "") -> list[Row]:
    return [row for row in rows if (row.part, row.cell) == ("graph", cell) and row.what.startswith(kind)]
