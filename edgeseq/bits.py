"""Streams of small numbers as bits: of fixed width, or Huffman coded; and which places of a tensor are taken. No torch.

A Huffman stream brings its own code: the lowest symbol, how many symbols follow it, and for each of them the length of
its code word in 4 bits (0: it does not occur). The words follow from the lengths alone (a canonical code): shorter ones
first, those of one length in the order of their symbols. Words have at most 15 bits; the lengths are the best under
that bound (Larmore, Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", JACM 1990).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
LONGEST = 15  # bits of a code word
BLOCK = 1 << 16  # bits that are looked at together
ESCAPE = 255  # as a gap: so many places that are not taken, and none that is


def pack_fixed(symbols: Symbols, bits: int) -> bytes:
    """``symbols (n,)``, each below 2^bits, in ``bits`` bits each, the highest first, and 0 to fill the last byte."""
    return np.packbits(np.unpackbits(symbols[:, None], axis=1)[:, 8 - bits :]).tobytes()


def unpack_fixed(raw: bytes, count: int, bits: int) -> Symbols:
    """What :func:`pack_fixed` was given.

    Raises:
        ValueError: ``raw`` has not the bytes that ``count`` symbols take.
    """
    if len(raw) != -(-count * bits // 8):
        raise ValueError(f"{count} symbols of {bits} bits in {len(raw)} bytes")
    found = np.unpackbits(np.frombuffer(raw, np.uint8), count=count * bits).reshape(count, bits)
    whole = np.zeros((count, 8), np.uint8)
    whole[:, 8 - bits :] = found
    return np.packbits(whole)


def pack_huffman(symbols: Symbols) -> bytes:
    """``symbols (n,)``, at least one: the code, then the words, the highest bit first."""
    lengths = code_lengths(np.bincount(symbols, minlength=256))
    used = np.flatnonzero(lengths)
    low, high = int(used[0]), int(used[-1])
    table = bytes([low, high - low]) + pack_fixed(lengths[low : high + 1], 4)
    of_each = lengths[symbols].astype(np.int64)
    ends = np.cumsum(of_each)
    index = np.arange(ends[-1]) - np.repeat(ends - of_each, of_each)  # of a bit in its word
    words = np.repeat(_words(lengths)[symbols], of_each)
    bits = (words >> (np.repeat(of_each, of_each) - 1 - index)) & 1
    return table + np.packbits(bits.astype(np.uint8)).tobytes()


def unpack_huffman(raw: bytes, count: int) -> Symbols:
    """The ``count`` symbols that :func:`pack_huffman` was given.

    Raises:
        ValueError: ``raw`` is no such stream, or one of another length.
    """
    lengths, stream = _table(raw)
    total = 8 * len(stream)
    if count > total:
        raise ValueError(f"{count} symbols in {total} bits")
    # What each window of 15 bits starts with: symbol and length. A code of one symbol fills half of them.
    used = np.lexsort((np.arange(256), lengths))[np.count_nonzero(lengths == 0) :].astype(np.uint8)
    symbol_of = np.repeat(used, 1 << (LONGEST - lengths[used].astype(np.int64)))
    if len(used) == 1:
        symbol_of = np.repeat(used, 1 << LONGEST)
    data = np.frombuffer(stream + bytes(3), np.uint8).astype(np.uint32)
    found = np.empty(count, np.uint8)
    done = at = 0
    while done < count:
        places = np.arange(at, min(at + BLOCK, total))
        first = places >> 3
        bits = data[first] << 16 | data[first + 1] << 8 | data[first + 2]
        symbols = symbol_of[(bits >> (24 - LONGEST - (places & 7)).astype(np.uint32)) & ((1 << LONGEST) - 1)]
        starts, passed = _starts(lengths[symbols].tolist(), count - done)
        if not starts:
            raise ValueError("the stream ends too early")
        found[done : done + len(starts)] = symbols[starts]
        done, at = done + len(starts), at + passed
    if not 0 <= total - at < 8:
        raise ValueError("the stream is of another length")
    return found


def _starts(lengths: list[int], most: int) -> tuple[list[int], int]:
    """Where words start, given how long the word would be that starts at each bit; and where the next one does."""
    starts: list[int] = []
    at = 0
    while at < len(lengths) and len(starts) < most:
        starts.append(at)
        at += lengths[at]
    return starts, at


def code_lengths(counts: NDArray[np.int64]) -> Symbols:
    """The lengths ``(256,)`` of the code words for symbols that occur ``counts (256,)`` times; 0 of those that do not.

    By package-merge: of the coins of each length, those that are cheapest together.
    """
    singles = sorted(((int(counts[s]), (int(s),)) for s in np.flatnonzero(counts)), key=_weight)
    lengths = np.zeros(256, np.uint8)
    if len(singles) == 1:
        lengths[singles[0][1][0]] = 1
        return lengths
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        row = sorted([*singles, *packages], key=_weight)
        packages = [(a + b, left + right) for (a, left), (b, right) in zip(row[::2], row[1::2], strict=False)]
    for _, symbols in packages[: len(singles) - 1]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def _weight(coin: tuple[int, tuple[int, ...]]) -> int:
    return coin[0]


def _words(lengths: Symbols) -> NDArray[np.int64]:
    """The canonical code word ``(256,)`` of each symbol."""
    words = np.zeros(256, np.int64)
    word = previous = 0
    for symbol in sorted(np.flatnonzero(lengths), key=lambda s: (lengths[s], s)):
        word <<= int(lengths[symbol]) - previous
        words[symbol], previous = word, int(lengths[symbol])
        word += 1
    return words


def _table(raw: bytes) -> tuple[Symbols, bytes]:
    """The lengths ``(256,)`` of a stream's code, and the words behind it."""
    if len(raw) < 2 or raw[0] + raw[1] > 255:
        raise ValueError("no Huffman code")
    count = raw[1] + 1
    end = 2 + (count + 1) // 2
    lengths = np.zeros(256, np.uint8)
    lengths[raw[0] : raw[0] + count] = unpack_fixed(raw[2:end], count, 4)
    used = lengths[lengths > 0].astype(np.int64)
    complete = (1 << (LONGEST - used)).sum() == 1 << LONGEST
    if not complete and used.tolist() != [1]:  # of a complete code every string of bits means something
        raise ValueError("no Huffman code")
    return lengths, raw[end:]


def to_gaps(taken: NDArray[np.bool_]) -> Symbols:
    """Which places ``(n,)`` are taken, as the numbers of free places ahead of each of them, in bytes.

    255 stands for so many free places with no taken one behind them. Fewer than 255 at the end are not written.
    """
    places = np.flatnonzero(taken)
    free = np.append(np.diff(places, prepend=-1) - 1, len(taken) - 1 - (places[-1] if len(places) else -1))
    escapes, rest = free // ESCAPE, free % ESCAPE
    gaps = np.full(int(escapes.sum()) + len(places), ESCAPE, np.uint8)
    gaps[np.cumsum(escapes[:-1] + 1) - 1] = rest[:-1]
    return gaps


def from_gaps(gaps: Symbols, count: int) -> NDArray[np.bool_]:
    """The ``count`` places that :func:`to_gaps` was given.

    Raises:
        ValueError: ``gaps`` are those of another number of places.
    """
    ends = np.cumsum(np.where(gaps == ESCAPE, ESCAPE, gaps.astype(np.int64) + 1))
    last = int(ends[-1]) if len(ends) else 0
    if not 0 <= count - last < ESCAPE:
        raise ValueError(f"gaps of {last} places, and {count} are there")
    taken = np.zeros(count, np.bool_)
    taken[ends[gaps != ESCAPE] - 1] = True
    return taken
