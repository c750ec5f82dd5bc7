"""ECG5000 from the archive's text files, old and new, with and without its test part."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import default_split, load
from edgeseq.data.split import OFFICIAL, RULE
from edgeseq.errors import InputError

TRAIN = (20, 15, 10, 10, 2)  # beats of each label
TEST = (5, 4, 3, 2, 1)


def beats(counts):
    """Labels (R,) from 1 and beats (R, 140)."""
    y = np.repeat(np.arange(1, 6), counts)
    return y, np.random.default_rng(sum(counts)).normal(size=(len(y), 140)).astype(np.float32)


def ts(counts):
    head = ["# The archive's words", "@problemName ECG5000", "@timestamps false", "@classLabel true 1 2 3 4 5", "@data"]
    return "\n".join([*head, *(f"{','.join(map(str, x.tolist()))}:{y}" for y, x in zip(*beats(counts), strict=True))])


def txt(counts):
    return "\n".join(
        "  " + "  ".join(f"{value:.9e}" for value in (y, *x.tolist())) for y, x in zip(*beats(counts), strict=True)
    )


def tsv(counts):
    return "\n".join("\t".join(map(str, (y, *x.tolist()))) for y, x in zip(*beats(counts), strict=True))


FORMATS = {".ts": ts, ".txt": txt, ".tsv": tsv}


def write(folder, suffix, *, test=False):
    folder.mkdir(exist_ok=True)
    for part, counts in (("TRAIN", TRAIN), *([("TEST", TEST)] if test else [])):
        (folder / f"ECG5000_{part}{suffix}").write_text(FORMATS[suffix](counts) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_form_is_the_same_data(tmp_path, suffix):
    y, x = beats(TRAIN)
    np.savez(tmp_path / "ecg5000.npz", x=x, y=y - 1)
    expected = load(f"ecg5000={tmp_path / 'ecg5000.npz'}")
    data = load(f"ecg5000={write(tmp_path / 'text', suffix)}")
    assert data.fingerprint() == expected.fingerprint()
    assert (data.rate, data.task, data.label_counts().tolist()) == (140.0, "segment", list(TRAIN))
    np.testing.assert_array_equal(data.recordings[3].x[:, 0], x[3])
    assert default_split(data).rule == RULE


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_archives_test_part_is_the_official_one(tmp_path, suffix):
    split = default_split(load(f"ecg5000={write(tmp_path, suffix, test=True)}"))
    assert split.rule == OFFICIAL
    assert split.test.label_counts().tolist() == list(TEST)
    assert (split.train.label_counts() + split.validation.label_counts()).tolist() == list(TRAIN)
    assert split.train.label_counts().all()
    np.testing.assert_allclose(split.validation.label_counts(), np.array(TRAIN) / 5, atol=1)
    np.testing.assert_array_equal(np.stack([r.x[:, 0] for r in split.test.recordings]), beats(TEST)[1])


@pytest.mark.parametrize(
    ("suffix", "line", "said"),
    [
        (".ts", ",".join(["0.5"] * 140), r"line 63: no label stands behind a colon"),
        (".ts", ",".join(["0.5"] * 139) + ":1", r"line 63: 140 columns, and 141 are needed"),
        (".ts", ",".join(["0.5"] * 139 + ["?"]) + ":1", r"line 63: '\?' is not a finite number"),
        (".ts", ",".join(["0.5"] * 140) + ":6", r"line 63: the label is 6, and ECG5000 has 1 to 5"),
        (".txt", " ".join(["1"] * 140), r"line 58: 140 columns, and 141 are needed"),
        (".txt", "0 " + " ".join(["1"] * 140), r"line 58: the label is 0"),
        (".tsv", "1.5\t" + "\t".join(["1"] * 140), r"line 58: the label is 1\.5"),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(tmp_path, suffix, line, said):
    path = write(tmp_path, suffix) / f"ECG5000_TRAIN{suffix}"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load(f"ecg5000={path}")


def test_a_ts_file_without_its_data_line_is_refused(tmp_path):
    path = write(tmp_path, ".ts") / "ECG5000_TRAIN.ts"
    path.write_text(path.read_text(encoding="utf-8").replace("@data\n", ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"ECG5000_TRAIN\.ts: there is no line @data"):
        load(f"ecg5000={path}")


def test_an_empty_test_file_is_refused(tmp_path):
    (write(tmp_path, ".ts", test=True) / "ECG5000_TEST.ts").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"ECG5000_TEST\.ts: it is empty"):
        load(f"ecg5000={tmp_path}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": None}, "key 'y' is missing"),
        ({"y": np.zeros(3, np.uint8)}, r"'y' uint8 \(3,\)"),
        ({"x": np.zeros(57, np.float32)}, r"'x' is float32 \(57,\)"),
        ({"y": np.full(57, 5)}, "label index 5 is outside"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path, save_npz, changes, said):
    y, x = beats(TRAIN)
    save_npz(tmp_path / "ecg5000.npz", {"x": x, "y": y - 1}, **changes)
    with pytest.raises(InputError, match=said):
        load(f"ecg5000={tmp_path}")


def test_every_fold_of_the_real_beats_trains_on_every_label(real):
    data = load(f"ecg5000={real('ecg5000')}")
    for fold in range(5):
        split = default_split(data, fold)
        assert split.train.label_counts().all()
        assert len(split.test.recordings) == 100
