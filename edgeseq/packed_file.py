"""Writing and reading weights.packed (:mod:`edgeseq.packed` says what is in it). No torch."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq import bits as streams
from edgeseq.errors import InputError
from edgeseq.packed import Array, Bucketed, Coded, Floats, Plain, Rows, Sparse

MAGIC = b"edgepack"
FORMAT = 1
PRELUDE = struct.Struct("<8sIII")  # magic, format, size of the header as it is written, CRC-32 of all that follows
LARGEST_HEADER = 1 << 24
PLACES_SIZE = 8  # bytes of the header, about, that say how the places of a Sparse are written
Dtype = Literal["<f4", "<f8", "<f2", "|i1", "|u1", "<i2", "<i4", "<i8", "|b1"]
DTYPES = get_args(Dtype)

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
Shape = Annotated[tuple[Natural, ...], msgspec.Meta(max_length=16)]
Taken = NDArray[np.bool_]
Made = TypeVar("Made")


class _Stream(msgspec.Struct, frozen=True, array_like=True):
    """``count`` symbols in ``size`` bytes, of ``bits`` bits each (0: Huffman coded)."""

    count: Natural
    bits: Annotated[int, msgspec.Meta(ge=0, le=8)]
    size: Natural


class _PlainEntry(msgspec.Struct, frozen=True, array_like=True, tag=0):
    name: str
    shape: Shape
    size: Natural
    dtype: Dtype


class _SparseEntry(msgspec.Struct, frozen=True, array_like=True, tag=1):
    name: str
    shape: Shape
    size: Natural
    places: _Stream


class _RowsEntry(msgspec.Struct, frozen=True, array_like=True, tag=2):
    name: str
    shape: Shape
    size: Natural
    limit: Annotated[int, msgspec.Meta(ge=1, le=127)]
    levels: _Stream
    places: _Stream | None


class _BucketedEntry(msgspec.Struct, frozen=True, array_like=True, tag=3):
    name: str
    shape: Shape
    size: Natural
    bits: Annotated[int, msgspec.Meta(ge=1, le=8)]
    bucket: Natural
    levels: _Stream
    points: Annotated[int, msgspec.Meta(ge=0, le=256)]
    places: _Stream | None


_Entry = _PlainEntry | _SparseEntry | _RowsEntry | _BucketedEntry


@dataclass(frozen=True)
class Listed:
    """A tensor of weights.packed without its numbers: ``coding`` for people, ``size`` in bytes beside the header.

    ``coded``: not as it is.
    """

    name: str
    shape: tuple[int, ...]
    coding: str
    size: int
    coded: bool


def write_packed(path: str | Path, tensors: Mapping[str, Coded]) -> None:
    """Write ``tensors`` to the file ``path``; equal tensors give equal bytes.

    Raises:
        ValueError: a tensor whose parts do not fit together.
    """
    made = [_encoded(name, coded) for name, coded in tensors.items()]
    header = zlib.compress(msgspec.msgpack.encode([entry for entry, _ in made]), 9)
    body = header + b"".join(payload for _, payload in made)
    Path(path).write_bytes(PRELUDE.pack(MAGIC, FORMAT, len(header), zlib.crc32(body)) + body)


def read_packed(path: str | Path) -> dict[str, Coded]:
    """The tensors of a weights.packed, by name; ``decoded()`` of each gives its numbers.

    Raises:
        InputError: the file cannot be read, is no such file, is of a newer format, or is damaged.
    """

    def read(raw: bytes) -> dict[str, Coded]:
        entries, rest = _opened(raw)
        found: dict[str, Coded] = {}
        for entry in entries:
            source, rest = _Reader(rest[: entry.size]), rest[entry.size :]
            found[entry.name] = _decoded(entry, source)
            source.finish()
        return found

    return _from_file(path, read)


def list_packed(path: str | Path) -> tuple[Listed, ...]:
    """What a weights.packed holds, and how large each tensor is in it.

    Raises:
        InputError: as of :func:`read_packed`.
    """

    def read(raw: bytes) -> tuple[Listed, ...]:
        entries, _ = _opened(raw)
        return tuple(Listed(e.name, e.shape, _coding(e), e.size, not isinstance(e, _PlainEntry)) for e in entries)

    return _from_file(path, read)


def smaller(values: Floats) -> Plain | Sparse:
    """A float32 tensor without its zeros, where that is smaller, or as it is."""
    sparse = Sparse(values)
    return sparse if len(_encoded("", sparse)[1]) + PLACES_SIZE < values.nbytes else Plain(values)


def _from_file(path: str | Path, read: Callable[[bytes], Made]) -> Made:
    try:
        return read(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except _NewerError as error:
        raise InputError(f"{path} {error}") from None
    except (ValueError, msgspec.MsgspecError, zlib.error) as error:
        raise InputError(f"{path} is no weights.packed that can be read ({error}): make the folder anew") from None


def _opened(raw: bytes) -> tuple[list[_Entry], memoryview]:
    """The entries of the header, and what follows it."""
    _require(len(raw) >= PRELUDE.size, f"it has {len(raw)} bytes")
    magic, version, size, crc = PRELUDE.unpack_from(raw)
    _require(magic == MAGIC and version > 0, "it does not start as one")
    if version > FORMAT:
        raise _NewerError(f"has format {version}, this edgeseq reads {FORMAT}: upgrade edgeseq")
    body = memoryview(raw)[PRELUDE.size :]
    _require(zlib.crc32(body) == crc and size <= len(body), "it was changed or cut off after it was written")
    inflate = zlib.decompressobj()
    header = inflate.decompress(body[:size], LARGEST_HEADER)
    _require(inflate.eof, "its header is too large or has no end")
    entries = msgspec.msgpack.decode(header, type=list[_Entry])
    _require(sum(e.size for e in entries) == len(body) - size, "its tensors have other sizes than its header says")
    _require(len({entry.name for entry in entries}) == len(entries), "two of its tensors have one name")
    return entries, body[size:]


class _NewerError(Exception):
    """The file may be whole, and means nothing to this edgeseq."""


class _Reader:
    """Takes what a tensor is made of, piece by piece."""

    def __init__(self, raw: memoryview) -> None:
        self._rest = raw

    def take(self, size: int) -> bytes:
        if size > len(self._rest):
            raise ValueError(f"a tensor lacks {size - len(self._rest)} bytes")
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return taken

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(count * kind.itemsize), kind).astype(kind.newbyteorder("="))

    def symbols(self, stream: _Stream) -> streams.Symbols:
        raw = self.take(stream.size)
        if not stream.count or stream.bits:
            return streams.unpack_fixed(raw, stream.count, stream.bits)
        return streams.unpack_huffman(raw, stream.count)

    def places(self, stream: _Stream, count: int) -> Taken:
        symbols = self.symbols(stream)
        if stream.bits != 1:
            return streams.from_gaps(symbols, count)
        _require(stream.count == count, "a bitmap has another size than its tensor")
        return symbols.astype(np.bool_)

    def finish(self) -> None:
        _require(not len(self._rest), "a tensor has bytes to spare")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _stream(symbols: streams.Symbols, bits: int) -> tuple[_Stream, bytes]:
    """``symbols`` below 2^bits, in the shorter way."""
    fixed = streams.pack_fixed(symbols, bits)
    coded = streams.pack_huffman(symbols) if len(symbols) else fixed
    if len(coded) < len(fixed):
        return _Stream(len(symbols), 0, len(coded)), coded
    return _Stream(len(symbols), bits, len(fixed)), fixed


def _places(taken: Taken) -> tuple[_Stream, bytes]:
    """Which places are taken, flat: a bitmap (a stream of 1 bit each), or gaps."""
    bitmap = streams.pack_fixed(taken.reshape(-1).astype(np.uint8), 1)
    stream, gaps = _stream(streams.to_gaps(taken.reshape(-1)), 8)
    return (stream, gaps) if len(gaps) < len(bitmap) else (_Stream(taken.size, 1, len(bitmap)), bitmap)


def _little(values: Array) -> bytes:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()


def _encoded(name: str, coded: Coded) -> tuple[_Entry, bytes]:
    if isinstance(coded, Sparse):
        return _encoded_sparse(name, coded)
    if isinstance(coded, Rows):
        return _encoded_rows(name, coded)
    if isinstance(coded, Bucketed):
        return _encoded_bucketed(name, coded)
    values = coded.values
    dtype = values.dtype.newbyteorder("<").str
    _require(dtype in DTYPES, f"{name} is of {values.dtype}")
    return _PlainEntry(name, values.shape, values.nbytes, cast(Dtype, dtype)), _little(values)


def _encoded_sparse(name: str, coded: Sparse) -> tuple[_Entry, bytes]:
    taken = np.asarray(coded.values, order="C").view(np.uint32) != 0  # of -0.0 too
    places, marks = _places(taken)
    payload = marks + _little(coded.values[taken])
    return _SparseEntry(name, coded.values.shape, len(payload), places), payload


def _encoded_rows(name: str, coded: Rows) -> tuple[_Entry, bytes]:
    levels, limit = coded.levels.astype(np.int64).reshape(-1), coded.limit
    _require(bool((np.abs(levels) <= limit).all()), f"{name} has levels beyond {limit}")
    bits = (2 * limit).bit_length()
    stream, payload = _stream((levels + limit).astype(np.uint8), bits)
    places, marks = _places(levels != 0)
    other, present = _stream((levels[levels != 0] + limit).astype(np.uint8), bits)
    apart = len(marks) + len(present) < len(payload)
    payload = (marks + present if apart else payload) + _little(coded.top)
    chosen, where = (other, places) if apart else (stream, None)
    return _RowsEntry(name, coded.levels.shape, len(payload), limit, chosen, where), payload


def _encoded_bucketed(name: str, coded: Bucketed) -> tuple[_Entry, bytes]:
    levels = coded.levels.reshape(-1)
    places, payload = (None, b"") if coded.present is None else _places(coded.present)
    there = math.prod(coded.shape) if coded.present is None else int(coded.present.sum())
    known = 2**coded.bits if coded.points is None else len(coded.points)
    _require(len(levels) == there, f"{name} has {len(levels)} levels for {there} numbers")
    _require(not len(levels) or int(levels.max()) < min(known, 2**coded.bits), f"{name} has levels that mean nothing")
    buckets = _buckets(len(levels), coded.bucket)
    _require(len(coded.alpha) == len(coded.beta) == buckets, f"{name} has not an α and a β for each of {buckets}")
    stream, symbols = _stream(levels, coded.bits)
    points = np.zeros(0, np.float32) if coded.points is None else coded.points
    payload += symbols + _little(coded.alpha) + _little(coded.beta) + _little(points)
    entry = (name, coded.shape, len(payload), coded.bits, coded.bucket, stream, len(points), places)
    return _BucketedEntry(*entry), payload


def _buckets(count: int, bucket: int) -> int:
    return -(-count // (bucket or max(count, 1)))


def _decoded(entry: _Entry, source: _Reader) -> Coded:
    if isinstance(entry, _SparseEntry):
        return _decoded_sparse(entry, source)
    if isinstance(entry, _RowsEntry):
        return _decoded_rows(entry, source)
    if isinstance(entry, _BucketedEntry):
        return _decoded_bucketed(entry, source)
    truth = entry.dtype == "|b1"
    values = source.array("|u1" if truth else entry.dtype, math.prod(entry.shape)).reshape(entry.shape)
    _require(not truth or int(values.max(initial=0)) <= 1, f"{entry.name} has truth values beside 0 and 1")
    return Plain(values.astype(np.bool_) if truth else values)


def _decoded_sparse(entry: _SparseEntry, source: _Reader) -> Sparse:
    taken = source.places(entry.places, math.prod(entry.shape))
    values = np.zeros(taken.size, np.float32)
    values[taken] = source.array("<f4", int(taken.sum()))
    return Sparse(values.reshape(entry.shape))


def _levels(entry: _RowsEntry | _BucketedEntry, known: int, source: _Reader) -> tuple[streams.Symbols, Taken | None]:
    """The levels of a tensor that are written, each one of ``known``; and whose they are, if not all."""
    count = math.prod(entry.shape)
    taken = None if entry.places is None else source.places(entry.places, count)
    symbols = source.symbols(entry.levels)
    _require(len(symbols) == (count if taken is None else int(taken.sum())), f"{entry.name} lacks levels")
    _require(not len(symbols) or int(symbols.max()) < known, f"{entry.name} has levels that mean nothing")
    return symbols, taken


def _decoded_rows(entry: _RowsEntry, source: _Reader) -> Rows:
    _require(len(entry.shape) > 0, f"{entry.name} has no rows")
    symbols, taken = _levels(entry, 2 * entry.limit + 1, source)
    levels = np.zeros(len(symbols) if taken is None else len(taken), np.int8)
    levels[slice(None) if taken is None else taken] = symbols.astype(np.int16) - entry.limit
    return Rows(levels.reshape(entry.shape), source.array("<f4", entry.shape[0]), entry.limit)


def _decoded_bucketed(entry: _BucketedEntry, source: _Reader) -> Bucketed:
    levels, taken = _levels(entry, min(entry.points or 2**entry.bits, 2**entry.bits), source)
    buckets = _buckets(len(levels), entry.bucket)
    alpha, beta = source.array("<f4", buckets), source.array("<f4", buckets)
    points = source.array("<f4", entry.points) if entry.points else None
    present = None if taken is None else taken.reshape(entry.shape)
    return Bucketed(entry.shape, levels, entry.bits, entry.bucket, alpha, beta, points, present)


def _coding(entry: _Entry) -> str:
    """For people."""
    if isinstance(entry, _PlainEntry):
        return str(np.dtype(entry.dtype))
    if isinstance(entry, _SparseEntry):
        there = (entry.size - entry.places.size) / 4
        return f"float32, {100 * there / max(math.prod(entry.shape), 1):.0f} % not 0"
    each = 8 * entry.levels.size / max(entry.levels.count, 1)
    huffman = "" if entry.levels.bits else f", Huffman coded ({each:.2f} bits each)"
    zeros = ", zeros apart" if entry.places else ""
    if isinstance(entry, _RowsEntry):
        return f"int{(entry.limit + 1).bit_length()} a row{huffman}{zeros}"
    points = " learned" if entry.points else ""
    buckets = f" in buckets of {entry.bucket}" if entry.bucket else ""
    return f"{entry.bits} bits{points}{buckets}{huffman}{zeros}"
