"""weights.packed: every tensor comes back bit for bit, from about the bytes that it is worth, or is refused."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeseq.errors import InputError
from edgeseq.packed import Bucketed, Plain, Rows, Sparse
from edgeseq.packed_file import DTYPES, FORMAT, MAGIC, PRELUDE, list_packed, read_packed, smaller, write_packed

often = settings(max_examples=60, deadline=None, derandomize=True)
float32 = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12)


@st.composite
def plain(draw):
    return Plain(draw(arrays(np.dtype(draw(st.sampled_from(DTYPES))), draw(shapes))))


@st.composite
def sparse(draw):
    return Sparse(draw(arrays(np.float32, draw(shapes), elements=float32, fill=st.just(np.float32(0)))))


@st.composite
def rows(draw):
    limit = draw(st.sampled_from((1, 7, 100, 127)))
    shape = draw(st.tuples(st.integers(0, 9), st.integers(0, 40)))
    levels = arrays(
        np.int8, shape, elements=st.integers(-limit, limit), fill=st.just(0) if draw(st.booleans()) else None
    )
    top = arrays(np.float32, shape[0], elements=st.floats(2**-13, 2**13, width=32))
    return Rows(draw(levels), draw(top), limit)


@st.composite
def bucketed(draw):
    shape, bits, bucket = draw(shapes), draw(st.integers(1, 8)), draw(st.sampled_from((0, 1, 7, 256)))
    present = draw(st.none() | arrays(np.bool_, shape))
    count = int(np.prod(shape)) if present is None else int(present.sum())
    buckets = -(-count // (bucket or max(count, 1)))
    known = draw(st.integers(1, 2**bits))
    finite = st.floats(-1e3, 1e3, width=32)
    points = draw(st.none() | arrays(np.float32, known, elements=finite))
    levels = arrays(np.uint8, count, elements=st.integers(0, (2**bits if points is None else known) - 1))
    alpha, beta = (draw(arrays(np.float32, buckets, elements=finite)) for _ in range(2))
    return Bucketed(shape, draw(levels), bits, bucket, alpha, beta, points, present)


def parts(coded):
    """What a coding is made of, to compare bit for bit."""
    found = {name: getattr(coded, name) for name in coded.__dataclass_fields__}
    return {
        name: (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("packed") / "weights.packed"


@often
@given(coded=st.lists(plain() | sparse() | rows() | bucketed(), max_size=4))
def test_what_was_written_is_read(file, coded):
    tensors = {f"tensor.{i}": each for i, each in enumerate(coded)}
    write_packed(file, tensors)
    found = read_packed(file)
    assert list(found) == list(tensors)
    for name, each in tensors.items():
        assert type(found[name]) is type(each)
        assert parts(found[name]) == parts(each)
        assert found[name].decoded().tobytes() == each.decoded().tobytes()
    listed = list_packed(file)
    assert [(each.name, each.shape) for each in listed] == [(k, v.decoded().shape) for k, v in tensors.items()]


def test_rows_stand_for_their_levels_and_their_ends_for_the_top_itself():
    top = np.float32([0.3, 1e-4])
    found = Rows(np.int8([[7, -7, 0, 3], [0, 0, 1, -7]]), top, 7).decoded()
    assert found.dtype == np.float32
    step = top / np.float32(7)
    expected = [[top[0], -top[0], 0, 3 * step[0]], [0, 0, step[1], -top[1]]]
    assert found.tolist() == np.float32(expected).tolist()


def test_buckets_are_of_the_numbers_that_are_present_and_points_take_the_place_of_even_ones():
    present = np.array([[True, False, True], [True, True, False]])
    alpha, beta = np.float32([2, 10]), np.float32([1, -5])
    levels = np.uint8([0, 3, 1, 2])
    even = Bucketed((2, 3), levels, 2, 3, alpha, beta, present=present).decoded()
    third = np.float32(1) / np.float32(3)
    assert even.tolist() == [[1, 0, 3], [third * np.float32(2) + np.float32(1), np.float32(2 * third) * 10 - 5, 0]]
    points = np.float32([0, 0.25, 0.5, 1])
    learned = Bucketed((4,), levels, 2, 0, alpha[:1], beta[:1], points).decoded()
    assert learned.tolist() == [1, 3, 1.5, 2]


# -- how large --------------------------------------------------------------------------------------------------------


def entropy(symbols):
    share = np.unique(symbols, return_counts=True)[1] / symbols.size
    return float(-(share * np.log2(share)).sum())


def size(coded, file):
    write_packed(file, {"w": coded})
    assert file.stat().st_size < list_packed(file)[0].size + 80
    return list_packed(file)[0].size


@pytest.mark.parametrize(("limit", "spread"), [(127, 12.0), (127, 1.2), (7, 1.5)])
def test_levels_take_little_more_than_their_entropy(file, limit, spread):
    drawn = np.random.default_rng(0).normal(0, spread, (100, 300))
    levels = np.clip(np.rint(drawn), -limit, limit).astype(np.int8)
    bits = 8 * (size(Rows(levels, np.ones(100, np.float32), limit), file) - 400) / levels.size
    assert entropy(levels) < bits < 1.05 * entropy(levels) + 0.05


@pytest.mark.parametrize(("limit", "bits"), [(127, 8), (7, 4)])
def test_levels_that_no_code_makes_shorter_take_their_bits_and_nothing_else(file, limit, bits):
    levels = np.resize(np.arange(-limit, limit + 1), (20, 30)).astype(np.int8)
    assert size(Rows(levels, np.ones(20, np.float32), limit), file) == 20 * 30 * bits // 8 + 80


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_zeros_cost_what_their_places_tell(file, density):
    rng = np.random.default_rng(0)
    taken = rng.random((200, 200)) < density
    values = np.where(taken, rng.normal(size=taken.shape), 0).astype(np.float32)
    places = 8 * (size(Sparse(values), file) - 4 * taken.sum()) / taken.size
    assert entropy(taken) < places < 1.06 * entropy(taken) + 0.01
    levels = np.where(taken, np.clip(np.rint(rng.normal(0, 30, taken.shape)), -127, 127), 0).astype(np.int8)
    bits = 8 * (size(Rows(levels, np.ones(200, np.float32), 127), file) - 800) / levels.size
    assert bits < 1.12 * entropy(levels) + 0.02


def test_a_tensor_is_kept_without_zeros_only_where_that_is_smaller():
    values = np.ones((10, 10), np.float32)
    assert isinstance(smaller(values), Plain)
    values[3:] = 0
    assert isinstance(smaller(values), Sparse)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(file):
    """A file with a tensor of each kind."""
    rng = np.random.default_rng(0)
    levels = np.clip(np.rint(rng.normal(0, 9, (20, 40))), -127, 127).astype(np.int8)
    present = rng.random((30, 9)) < 0.2
    count = int(present.sum())
    one = np.ones(1, np.float32)
    tensors = {
        "plain": Plain(rng.normal(size=(3, 4)).astype(np.float32)),
        "sparse": Sparse(present.astype(np.float32)),
        "dense": Rows(levels, np.ones(20, np.float32), 127),
        "holes": Rows(levels * (rng.random(levels.shape) < 0.1), np.ones(20, np.float32), 127),
        "buckets": Bucketed((30, 9), np.zeros(count, np.uint8), 4, 0, one, one, one, present),
    }
    path = file.with_name("whole")
    write_packed(path, tensors)
    return path.read_bytes()


def test_a_damaged_byte_is_found_wherever_it_is(whole, file):
    for at in (*range(PRELUDE.size), *range(PRELUDE.size, len(whole), 7)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"weights\.packed"):
            read_packed(file)


def test_a_file_of_another_length_is_refused(whole, file):
    for length in range(0, len(whole), 11):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="make the folder anew"):
            read_packed(file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="make the folder anew"):
        read_packed(file)


def repaired(raw, header=None):
    """The file with a checksum that is right again, as of somebody who means it; and with another header."""
    magic, version, length, _ = PRELUDE.unpack_from(raw)
    body = raw[PRELUDE.size :]
    if header is not None:
        packed = zlib.compress(msgspec.msgpack.encode(header))
        body, length = packed + body[length:], len(packed)
    return PRELUDE.pack(magic, version, length, zlib.crc32(body)) + body


def test_damage_under_a_right_checksum_is_refused_or_read_as_other_numbers(whole, file):
    length = PRELUDE.unpack_from(whole)[2]
    header = msgspec.msgpack.decode(zlib.decompress(whole[PRELUDE.size : PRELUDE.size + length]))
    refused = 0
    places = range(PRELUDE.size, len(whole), 5)
    for at in places:
        file.write_bytes(repaired(whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :]))
        try:
            read_packed(file)
        except InputError:
            refused += 1
    assert length / 10 < refused < len(places)  # the header is deflated, which is checked; other numbers are numbers
    for row, entry in enumerate(header):
        for column, value in enumerate(entry):
            for other in (2**40, -1, None, [2**30, 2**30, 2**30], "no", 0, [2**40, 0, 1], [2**40, 8, 1]):
                changed = [*header[:row], [*entry[:column], other, *entry[column + 1 :]], *header[row + 1 :]]
                file.write_bytes(repaired(whole, changed))
                harmless = (column == 1 and other == "no") or value == other
                if harmless or (column == 6 and row == 4) or (column == 5 and other == 2**40):
                    continue  # a name; the size of a bucket that holds all
                with pytest.raises(InputError, match=r"weights\.packed"):
                    read_packed(file)


@pytest.mark.parametrize("tag", [0, 1, 2, 3])
def test_a_header_that_promises_more_than_there_is_allocates_nothing(file, tag):
    huge, stream = [2**40], [2**40, 0, 6]
    rest = {0: ["<f4"], 1: [stream], 2: [127, stream, None], 3: [8, 0, stream, 0, None]}[tag]
    payload = bytes([0, 1, 0x11, 0, 0, 0])
    header = zlib.compress(msgspec.msgpack.encode([[tag, "w", huge, 6, *rest]]))
    file.write_bytes(repaired(PRELUDE.pack(MAGIC, FORMAT, len(header), 0) + header + payload))
    tracemalloc.start()
    with pytest.raises(InputError):
        read_packed(file)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5e6


def test_a_header_that_inflates_without_end_is_refused(file):
    bomb = zlib.compress(bytes(1 << 26), 9)
    file.write_bytes(repaired(PRELUDE.pack(MAGIC, FORMAT, len(bomb), 0) + bomb))
    with pytest.raises(InputError, match="header is too large"):
        read_packed(file)


def test_a_newer_format_says_to_upgrade(whole, file):
    magic, version, *rest = PRELUDE.unpack_from(whole)
    file.write_bytes(PRELUDE.pack(magic, version + 1, *rest) + whole[PRELUDE.size :])
    with pytest.raises(InputError, match=rf"has format {version + 1}, this edgeseq reads {version}: upgrade edgeseq"):
        read_packed(file)


def test_format_0_is_none(whole, file):
    magic, _, *rest = PRELUDE.unpack_from(whole)
    file.write_bytes(PRELUDE.pack(magic, 0, *rest) + whole[PRELUDE.size :])
    with pytest.raises(InputError, match="make the folder anew"):
        list_packed(file)


def test_a_dtype_that_is_not_known_is_refused_when_the_header_is_opened(file):
    entry = [0, "w", [2], 8, "|O4"]
    header = zlib.compress(msgspec.msgpack.encode([entry]), 9)
    file.write_bytes(repaired(PRELUDE.pack(MAGIC, FORMAT, len(header), 0) + header + bytes(8)))
    for read in (list_packed, read_packed):
        with pytest.raises(InputError, match=r"'\|O4'"):
            read(file)


def test_truth_values_are_0_or_1(file):
    write_packed(file, {"w": Plain(np.array([True, False, True]))})
    assert read_packed(file)["w"].decoded().tolist() == [True, False, True]
    file.write_bytes(repaired(file.read_bytes()[:-1] + b"\2"))
    with pytest.raises(InputError, match="w has truth values beside 0 and 1"):
        read_packed(file)


def test_what_is_no_such_file_is_refused(file):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_packed(file.with_name("absent"))
    file.write_bytes(b"a text of more than twenty bytes, which is something else")
    with pytest.raises(InputError, match="does not start as one"):
        read_packed(file)


@pytest.mark.parametrize(
    "wrong",
    [
        Rows(np.int8([[8]]), np.ones(1, np.float32), 7),
        Bucketed((2,), np.uint8([0]), 2, 0, np.ones(1, np.float32), np.ones(1, np.float32)),
        Bucketed((1,), np.uint8([4]), 2, 0, np.ones(1, np.float32), np.ones(1, np.float32)),
        Bucketed((3,), np.uint8([1, 1, 1]), 2, 2, np.ones(1, np.float32), np.ones(1, np.float32)),
        Plain(np.array(["text"])),
    ],
    ids=["level", "count", "bits", "buckets", "dtype"],
)
def test_parts_that_do_not_fit_together_are_not_written(wrong, file):
    file.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="w "):
        write_packed(file, {"w": wrong})
    assert not file.exists()


def test_it_is_read_where_torch_cannot_be_imported(whole, file):
    file.write_bytes(whole)
    barred = "import sys; sys.modules.update(dict.fromkeys(('torch', 'brevitas', 'onnx')))"
    read = f"from edgeseq.packed_file import read_packed; print(*read_packed({str(file)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{barred}; {read}"], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.stdout.split() == ["plain", "sparse", "dense", "holes", "buckets"], done.stderr
