"""MNIST from its four idx files and from our file of them; pixel by pixel, in rows and permuted."""

from __future__ import annotations

import gzip

import msgspec
import numpy as np
import pytest

from edgeseq.data import default_split, load, registered
from edgeseq.data.sets.mnist import SEED
from edgeseq.data.split import OFFICIAL
from edgeseq.errors import InputError

COUNTS = {"train": 60, "t10k": 12}


def digits(part):
    count = COUNTS[part]
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def idx(array, magic=None):
    """The bytes of an idx file."""
    head = [0x0800 + array.ndim if magic is None else magic, *array.shape]
    return np.array(head, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mnist"
    place.mkdir()
    for part in COUNTS:
        images, labels = digits(part)
        (place / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return place


def zipped(folder):
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


def arrays():
    return dict(zip(("x_train", "y_train", "x_test", "y_test"), (*digits("train"), *digits("t10k")), strict=True))


def test_digits_come_pixel_by_pixel(folder):
    images, labels = digits("train")
    rows, permuted = load(f"smnist={folder}"), load(f"psmnist={folder}")
    assert (rows.task, rows.channels, rows.units, rows.rate) == ("segment", ("pixel",), ("pixel",), 784.0)
    order = np.random.default_rng(SEED).permutation(784)
    for k in (0, 49, 50, 59):
        expected = images[k].reshape(784, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(rows.recordings[k].x, expected)
        np.testing.assert_array_equal(permuted.recordings[k].x, expected[order])
        assert set(rows.recordings[k].y.tolist()) == {labels[k]}


def test_the_test_part_is_its_own_and_the_last_training_digits_are_chosen_on(folder):
    split = default_split(load(f"psmnist={folder}"))
    assert [len(part.recordings) for part in (split.train, split.validation, split.test)] == [50, 10, 12]
    assert split.rule == OFFICIAL


@pytest.mark.parametrize("name", ["psmnist", "smnist"])
def test_all_forms_are_the_same_data(folder, tmp_path, save_npz, name):
    plain = load(f"{name}={folder}").fingerprint()
    assert load(f"{name}={save_npz(tmp_path / 'mnist.npz', arrays())}").fingerprint() == plain
    assert load(f"{name}={zipped(folder)}").fingerprint() == plain
    raw = tmp_path / "MNIST" / "raw"
    raw.parent.mkdir()
    folder.rename(raw)
    assert load(f"{name}={raw.parents[1] / 'MNIST' / 'raw'}").fingerprint() == plain


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte is missing, gzipped or not"):
        load(f"psmnist={folder}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (idx(digits("train")[0], magic=0x0802), r"its magic number is 0x00000802, and that of images is 0x00000803"),
        (gzip.compress(idx(digits("train")[0]), mtime=0), r"its magic number is 0x1f8b.*its name must end in \.gz"),
        (b"", r"its magic number is 0x00000000"),
        (idx(digits("train")[0])[:-1], r"it says \(60, 28, 28\), which are 47040 bytes, and has 47039"),
        (idx(digits("train")[0]) + b"\0", r"which are 47040 bytes, and has 47041"),
        (idx(digits("train")[0][:, :14]), r"images are uint8 \(60, 14, 28\)"),
        (idx(digits("train")[0][1:]), r"images are uint8 \(59, 28, 28\), and their labels \(60,\)"),
    ],
)
def test_a_file_that_is_not_of_the_format_is_refused(folder, content, said):
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=said):
        load(f"psmnist={folder}")


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"x" * 500, mtime=0)[:-9]])
def test_a_damaged_gzip_is_refused(folder, content):
    zipped(folder)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz: it cannot be read"):
        load(f"psmnist={folder}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_test": None}, "key 'y_test' is missing"),
        ({"y_test": np.zeros(11, np.uint8)}, r"images are uint8 \(12, 28, 28\), and their labels \(11,\)"),
        ({"x_train": digits("train")[0] / 255}, "images are float64"),
        ({"y_test": np.full(12, 10, np.uint8)}, "label index 10 is outside"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path, save_npz, changes, said):
    path = save_npz(tmp_path / "mnist.npz", arrays(), **changes)
    with pytest.raises(InputError, match=said):
        load(f"smnist={path}")


def test_both_orders_are_of_the_same_digits():
    permuted, rows = (registered(name).facts for name in ("psmnist", "smnist"))
    assert msgspec.structs.replace(permuted, name=rows.name, summary=rows.summary) == rows
