"""Spikes of a fingertip, packed eight to a byte."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import load, registered
from edgeseq.errors import InputError


@pytest.fixture
def made(tmp_path, save_npz):
    """``made(**changes)``: a file of the same format, and the random spikes in it."""

    def make(**changes):
        spikes = np.random.default_rng(0).integers(0, 2, (30, 5, 3), np.uint8)
        arrays = {
            "bits": np.packbits(spikes.reshape(30, -1), axis=1),
            "shape": np.array(spikes.shape),
            "y": np.arange(30, dtype=np.uint8) % 3,
            "labels": np.array(["A", "E", "I"]),
        }
        return save_npz(tmp_path / "braille7.npz", arrays, **changes), spikes

    return make


def test_its_bits_are_unpacked_to_segments_of_spikes(made):
    path, spikes = made()
    data = load(path)
    assert (data.name, data.task, data.rate, data.labels) == ("braille7", "segment", 200.0, ("A", "E", "I"))
    assert (data.channels, data.units) == (("taxel1", "taxel2", "taxel3"), ("spike",) * 3)
    assert data.licence == registered("braille7").facts.licence
    assert data.dealt
    np.testing.assert_array_equal(np.stack([r.x for r in data.recordings]), spikes)
    assert [int(r.y[0]) for r in data.recordings] == [k % 3 for k in range(30)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": None}, "key 'bits' is missing"),
        ({"shape": np.array([30, 5, 4])}, r"where 'shape' says \(30, 5, 4\)"),
        ({"shape": np.array([30, 15])}, "where 'shape' says"),
        ({"y": np.zeros(29, np.uint8)}, r"'y' \(29,\)"),
        ({"bits": np.zeros((30, 2), np.int16)}, "int16"),
        ({"y": np.full(30, 3, np.uint8)}, "label index 3 is outside"),
    ],
)
def test_a_file_of_another_format_is_refused(made, changes, said):
    path, _ = made(**changes)
    with pytest.raises(InputError, match=said):
        load(path)


def test_the_real_file_has_its_letters_its_frames_and_its_share_of_spikes(real):
    data = load(f"braille7={real('braille7')}")
    assert data.label_counts().tolist() == [128, 138, 130, 136, 126, 133, 129]
    assert {r.x.shape for r in data.recordings} == {(256, 12)}
    assert np.mean([r.x.mean() for r in data.recordings]) == pytest.approx(0.23, abs=0.005)
