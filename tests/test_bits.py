"""Streams of small numbers: what goes in comes out, code words are as short as they can be, damage is found."""

from __future__ import annotations

import heapq
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq import bits
from edgeseq.bits import (
    LONGEST,
    code_lengths,
    from_gaps,
    pack_fixed,
    pack_huffman,
    to_gaps,
    unpack_fixed,
    unpack_huffman,
)

often = settings(max_examples=100, deadline=None, derandomize=True)
symbols = st.binary(min_size=1, max_size=300) | st.lists(st.sampled_from((3, 3, 3, 4, 200)), min_size=1).map(bytes)


def array(raw):
    return np.frombuffer(raw, np.uint8)


def huffman_bits(counts):
    """Bits of all words of an unbounded Huffman code, by the book."""
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    total = 0 if len(heap) > 1 else sum(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@often
@given(raw=st.binary(max_size=50), width=st.integers(1, 8))
def test_fixed_width_comes_back(raw, width):
    values = array(raw) >> (8 - width)
    packed = pack_fixed(values, width)
    assert len(packed) == -(-len(values) * width // 8)
    assert unpack_fixed(packed, len(values), width).tolist() == values.tolist()
    with pytest.raises(ValueError):
        unpack_fixed(packed + b"\0", len(values), width)


@often
@given(raw=symbols)
def test_huffman_comes_back_and_is_as_short_as_it_can_be(raw):
    values = array(raw)
    packed = pack_huffman(values)
    assert unpack_huffman(packed, len(values)).tolist() == values.tolist()
    counts = np.bincount(values, minlength=256)
    assert int((counts * code_lengths(counts)).sum()) == huffman_bits(counts)
    table = 2 + (values.max() - values.min() + 2) // 2
    assert len(packed) == table + -(-huffman_bits(counts) // 8)


def test_streams_longer_than_a_block_come_back():
    values = np.clip(np.random.default_rng(0).normal(100, 20, 3 * bits.BLOCK), 0, 255).astype(np.uint8)
    assert np.array_equal(unpack_huffman(pack_huffman(values), len(values)), values)


def test_words_stay_within_their_bound_and_still_make_a_complete_code():
    counts = np.zeros(256, np.int64)
    counts[:30] = 2 ** np.arange(30)
    lengths = code_lengths(counts)[:30].astype(int)
    assert lengths.max() == LONGEST
    assert (2.0**-lengths).sum() == 1
    assert (np.diff(lengths) <= 0).all()
    assert huffman_bits(counts) < (counts[:30] * lengths).sum() < 1.01 * huffman_bits(counts)


@often
@given(raw=symbols, at=st.integers(0, 10**6), change=st.integers(1, 255))
def test_damage_gives_an_error_or_as_many_symbols(raw, at, change):
    damaged = bytearray(pack_huffman(array(raw)))
    damaged[at % len(damaged)] ^= change
    with suppress(ValueError):
        assert unpack_huffman(bytes(damaged), len(raw)).shape == (len(raw),)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff\x01\x11\0", b"\0\x01\x22\0", b"\0\0\x20\0", b"\0\x01\x00\0"])
def test_what_is_no_code_is_refused(raw):
    with pytest.raises(ValueError, match="no Huffman code"):
        unpack_huffman(raw, 2)


@pytest.mark.parametrize("count", [1, 8, 13, 10**12])
def test_another_number_of_symbols_is_refused(count):
    packed = pack_huffman(array(b"abcdabcdab"))  # words of 2 bits: 20, and 4 to fill a byte
    with pytest.raises(ValueError):
        unpack_huffman(packed, count)


@often
@given(places=st.lists(st.integers(0, 2000), unique=True, max_size=20), more=st.integers(0, 1000))
def test_gaps_say_which_places_are_taken(places, more):
    taken = np.zeros(max(places, default=-1) + 1 + more, np.bool_)
    taken[places] = True
    gaps = to_gaps(taken)
    assert np.array_equal(from_gaps(gaps, len(taken)), taken)
    assert len(gaps) <= len(places) + len(taken) // 255
    for wrong in (len(taken) + 255, 10**12):
        with pytest.raises(ValueError):
            from_gaps(gaps, wrong)
    if places:
        with pytest.raises(ValueError):
            from_gaps(gaps, max(places))
