"""Reber strings, and strings of eight other automata, as the thesis's data set has them; drawn anew by a seed.

The data are those of H. Darji, "Investigating Sparsity in Recurrent Neural Networks": 12,500 strings of Reber's
grammar, and 12,500 of eight automata with the same arcs and other letters. There is no generator beside the thesis's
own file: this one was made to agree with that file. Every string is B, then a path from state 0 to state 5 that takes
either arc of each state with the same probability, then E; none is shorter than 11 letters or there twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from numpy.typing import NDArray

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHORTEST = 11  # letters, B and E among them
ARCS = ((0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 4), (3, 2), (3, 5), (4, 3), (4, 5))
END = 5
LETTERS = (  # of the ten arcs: Reber's grammar, and the automata that the invalid strings come from
    *("TPSXTVXSPV", "PTSXTVXSPV", "TPSXTVPVXS", "TPTVSXXSPV", "TPXSVTXSPV"),
    *("ACDFJIHGLK", "MNOQWVURZY", "MOOQCAURFD", "QNMNCAURFD"),
)
# Strings of each. Those of 5 to 8 are 7,000 together; how they divide is told from a sample of 288.
COUNTS = (12_500, 1_500, 1_500, 2_000, 500, 2_000, 2_000, 1_500, 1_500)
TRAINING = 0.75  # of all strings; the others are tested on
VALIDATION = 0.1  # of the training strings, on which whatever is chosen is chosen

Codes = NDArray[np.int64]  # (N, T): indices into ALPHABET, zeros behind a string's last letter
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Strings:
    """``codes (N, T)`` of ``lengths (N)``; ``labels (N)``: 1 valid, 0 not; ``generators (N)``: the automaton, 0..8."""

    codes: Codes
    lengths: Indices
    labels: Indices
    generators: Indices

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, which: Indices) -> Strings:
        """Some of the strings, as long as the longest of them."""
        lengths = self.lengths[which]
        return Strings(self.codes[which, : lengths.max()], lengths, self.labels[which], self.generators[which])


@dataclass(frozen=True)
class Parts:
    """What is learned from, what is chosen on, what is tested on; and the tested valid strings with a wrong letter."""

    train: Strings
    validation: Strings
    test: Strings
    harder: Strings


def accepts(text: str, letters: str = LETTERS[0]) -> bool:
    """Whether the automaton with these ``letters`` of :data:`ARCS` generates ``text``, of any length."""
    if text[:1] != "B" or text[-1:] != "E" or len(text) < 2:
        return False
    state = 0
    for letter in text[1:-1]:
        arcs = [i for i, arc in enumerate(ARCS) if arc[0] == state and letters[i] == letter]
        if not arcs:
            return False
        state = ARCS[arcs[0]][1]  # no state has two arcs with the same letter
    return state == END


def coins(rng: np.random.Generator) -> Iterator[int]:
    """0 or 1 with the same probability, for ever; drawn thousands at a time, which is much faster."""
    while True:
        yield from rng.integers(2, size=4096).tolist()


def drawn(letters: str, coin: Iterator[int]) -> str:
    """One string of the automaton with these ``letters``, which tosses a ``coin`` at each state."""
    state, text = 0, ["B"]
    while state != END:
        arc = 2 * state + next(coin)  # ARCS has the two of each state beside each other
        text.append(letters[arc])
        state = ARCS[arc][1]
    return "".join([*text, "E"])


def distinct(letters: str, count: int, coin: Iterator[int], taken: set[str]) -> list[str]:
    """``count`` strings that are long enough and not yet ``taken``; they are then."""
    found: list[str] = []
    while len(found) < count:
        text = drawn(letters, coin)
        if len(text) >= SHORTEST and text not in taken:
            taken.add(text)
            found.append(text)
    return found


def changed(text: str, rng: np.random.Generator) -> str:
    """A valid string with one letter between B and E exchanged for another of Reber's, so that no automaton has it.

    Those of the others are what is learned to refuse.
    """
    letters = sorted(set(LETTERS[0]))
    while True:
        place, letter = int(rng.integers(1, len(text) - 1)), letters[rng.integers(len(letters))]
        made = text[:place] + letter + text[place + 1 :]
        if not any(accepts(made, each) for each in LETTERS):
            return made


def encoded(texts: Sequence[str], generators: Sequence[int]) -> Strings:
    """The strings as indices; those of automaton 0 are the valid ones."""
    lengths = np.array([len(text) for text in texts])
    codes = np.zeros((len(texts), lengths.max()), np.int64)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ALPHABET.index(letter) for letter in text]
    origins = np.array(generators, np.int64)
    return Strings(codes, lengths, (origins == 0).astype(np.int64), origins)


def decoded(strings: Strings) -> list[str]:
    """The strings as text."""
    pairs = zip(strings.codes, strings.lengths, strict=True)
    return ["".join(ALPHABET[code] for code in row[:length]) for row, length in pairs]


def data_set(seed: int = 0, scale: float = 1.0) -> Parts:
    """All strings, drawn and divided by ``seed``; ``scale`` is the share of the thesis's number of them."""
    rng = np.random.default_rng(seed)
    taken: set[str] = set()
    coin = coins(rng)
    texts, generators = [], []
    for automaton, count in enumerate(COUNTS):
        own = distinct(LETTERS[automaton], round(scale * count), coin, taken)
        texts += own
        generators += [automaton] * len(own)
    strings, order = encoded(texts, generators), rng.permutation(len(texts))
    learned = round(TRAINING * len(order))
    chosen_on = round(VALIDATION * learned)
    test = strings.part(order[learned:])
    valid = decoded(test.part(np.flatnonzero(test.labels)))
    wrong = encoded([changed(text, rng) for text in valid], [0] * len(valid))
    return Parts(
        strings.part(order[chosen_on:learned]),
        strings.part(order[:chosen_on]),
        test,
        Strings(wrong.codes, wrong.lengths, np.zeros_like(wrong.labels), wrong.generators),
    )


def kept_data_set(file: Path, seed: int = 0, scale: float = 1.0) -> Parts:
    """The same, from ``file`` if it is there, where it is kept: to draw it takes seconds."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn_now = data_set(seed, scale)
        fields = {
            f"{part.name}/{name}": array
            for part in dataclasses.fields(Parts)
            for name, array in vars(getattr(drawn_now, part.name)).items()
        }
        with NamedTemporaryFile(dir=file.parent, suffix=".npz", delete=False) as staging:
            np.savez(staging, **fields)
        Path(staging.name).replace(file)
    with np.load(file) as held:
        names = [field.name for field in dataclasses.fields(Strings)]
        return Parts(
            **{
                part.name: Strings(*(held[f"{part.name}/{name}"] for name in names))
                for part in dataclasses.fields(Parts)
            }
        )
