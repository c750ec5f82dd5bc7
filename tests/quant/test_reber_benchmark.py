"""The benchmark of Reber strings: strings like the thesis's, pruning as in the thesis, rows that resume."""

from __future__ import annotations

import importlib
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
NAMES = ("reber", "reber_runs", "reber_models", "reber_strings", "reber_table", "processes", "side_by_side")
SHARE = 0.03  # of the thesis's number of strings


@pytest.fixture(scope="module")
def reber():
    """The benchmark, with threads in the place of processes, and its modules by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    module = importlib.import_module("reber")
    module.modules = {name: sys.modules[name] for name in NAMES if name in sys.modules}
    module.modules["processes"].one_process = lambda: ThreadPoolExecutor(1)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in module.modules:
        del sys.modules[name]


@pytest.fixture(scope="module")
def strings(reber):
    return reber.modules["reber_strings"]


@pytest.fixture(scope="module")
def models(reber):
    return reber.modules["reber_models"]


@pytest.fixture(scope="module")
def runs(reber):
    return reber.modules["reber_runs"]


@pytest.fixture(scope="module")
def tables(reber):
    return reber.modules["reber_table"]


@pytest.fixture(scope="module")
def published():
    with np.load(Path(__file__).with_name("reber_reference.npz")) as held:
        return {name: held[name] for name in held.files}


@pytest.fixture(scope="module")
def parts(strings):
    return strings.data_set(seed=0, scale=SHARE)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(runs, work):
    """The row of a base that was trained for an epoch, on few strings, and its task."""
    made = task(runs, work, "base")
    return made, runs.run(made)


def task(runs, work, part, what="", cell="gru", **changes):
    short = {"epochs": 1, "graph_epochs": 1, "scale": SHARE, "tight_seconds": 0.05, "paced_seconds": 0.05}
    return runs.Task(part, cell, what, 0, runs.Setup(**{**short, **changes}), work)


def all_of(parts):
    return parts.train, parts.validation, parts.test


def test_the_automata_are_those_of_the_published_strings(strings, published):
    assert np.array_equal(strings.ARCS, published["automaton/arcs"])
    assert ["".join(map(bytes.decode, row)) for row in published["automaton/labels"]] == list(strings.LETTERS)
    for text, valid, automaton in zip(published["strings"], published["labels"], published["generator"], strict=True):
        assert strings.accepts(text.decode(), strings.LETTERS[automaton])
        assert strings.accepts(text.decode()) == bool(valid)


def test_drawn_strings_are_as_long_as_the_published_ones(strings, published):
    """By the largest distance between the distributions of lengths, which 0.1 % of such samples exceed by chance."""
    coin, taken = strings.coins(np.random.default_rng(0)), set()
    lengths = np.char.str_len(published["strings"])
    for automaton in range(1, 9):
        count = strings.COUNTS[automaton]
        drawn = np.array([len(text) for text in strings.distinct(strings.LETTERS[automaton], count, coin, taken)])
        theirs = lengths[published["generator"] == automaton]
        at = np.arange(11, 60)
        apart = np.abs((drawn[:, None] <= at).mean(0) - (theirs[:, None] <= at).mean(0)).max()
        assert apart < 1.95 * np.sqrt(1 / len(drawn) + 1 / len(theirs))


def test_counts_are_the_published_ones(strings, published):
    """Those of automata 5 to 8 are told from the sample: no other division into halves of a thousand fits better."""
    assert sum(strings.COUNTS[1:]) == strings.COUNTS[0] == 12_500
    sample = np.bincount(published["generator"], minlength=9)[5:]
    expected = np.array(strings.COUNTS[5:]) * 500 / 12_500
    assert ((sample - expected) ** 2 / expected).sum() < 7.8  # chi squared of three degrees of freedom, 5 %


def test_no_string_is_there_twice_and_the_labels_are_right(strings, parts):
    texts = [text for part in all_of(parts) for text in strings.decoded(part)]
    labels = np.concatenate([part.labels for part in all_of(parts)])
    assert len(set(texts)) == len(texts) == 750
    assert [strings.accepts(text) for text in texts] == labels.astype(bool).tolist()
    assert min(map(len, texts)) >= strings.SHORTEST


def test_a_seed_draws_the_same_strings_again_and_another_one_others(strings, parts, tmp_path):
    again, other = strings.data_set(0, SHARE), strings.data_set(1, SHARE)
    kept = [strings.kept_data_set(tmp_path / "strings.npz", 0, SHARE) for _ in range(2)]
    for name in ("train", "validation", "test", "harder"):
        texts = [strings.decoded(getattr(each, name)) for each in (parts, again, *kept, other)]
        assert texts[0] == texts[1] == texts[2] == texts[3] != texts[4]


def test_a_harder_string_is_a_tested_valid_one_with_one_wrong_letter(strings, parts):
    valid = strings.decoded(parts.test.part(np.flatnonzero(parts.test.labels)))
    harder = strings.decoded(parts.harder)
    assert not parts.harder.labels.any()
    for ours, theirs in zip(harder, valid, strict=True):
        assert not any(strings.accepts(ours, letters) for letters in strings.LETTERS)
        assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 1
        assert set(ours) <= set("BETPSXV")


@given(seed=st.integers(0, 2**32), size=st.integers(1, 40))
def test_batches_have_every_string_once(models, parts, seed, size):
    drawn = list(models.batches(parts.train, size, np.random.default_rng(seed)))
    assert sorted(np.concatenate(drawn)) == list(range(len(parts.train)))
    assert max(map(len, drawn)) <= size


@pytest.mark.parametrize("family", ["EmbeddedRnn", "EmbeddedSparseRnn"])
def test_an_answer_hangs_on_nothing_behind_the_last_letter(models, strings, parts, family):
    model = models.made(getattr(models, family), 0).eval()
    texts = strings.decoded(parts.test)
    short = min(texts, key=len)
    alone, among = (models.answers(model, strings.encoded(each, [0] * len(each))) for each in ([short], texts))
    assert torch.allclose(alone[0], among[texts.index(short)], atol=1e-6)


def test_the_base_has_the_size_of_the_thesis_but_for_letters_that_are_not_in_it(models, tables):
    for cell, theirs in tables.PARAMETERS.items():
        model = models.made(models.EmbeddedRnn, 0, cell=cell)
        assert sum(p.numel() for p in model.parameters()) == theirs - (128 - 26) * 50


def test_a_base_row_scores_every_automaton_and_keeps_its_model(trained):
    made, row = trained
    numbers = row.models["trained"]
    assert {f"automaton_{i}" for i in range(9)} <= numbers.keys()
    assert made.base.is_file()
    assert row.key == made.key
    assert row.training == {"epochs": 1, "batch": 32, "scale": SHARE}


def test_weights_go_from_the_recurrent_layers_alone_and_stay_gone(models, runs, trained, work):
    model = runs.trained(trained[0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    runs.without_weights(model, 0.9)
    parts = trained[0].parts()
    mask = {name: tensor.clone() for name, tensor in model.masks().items()}
    assert mask.keys() == {f"layers.{i}.from_{side}" for i in range(3) for side in ("input", "hidden")}
    sizes = sum(each.numel() for each in mask.values())
    assert sum(int((~each).sum()) for each in mask.values()) == round(0.9 * sizes)
    kept = min(before[f"{name}.weight"][each].abs().min() for name, each in mask.items() if each.any())
    gone = max(before[f"{name}.weight"][~each].abs().max() for name, each in mask.items())
    assert kept >= gone  # one threshold for all
    runs.more_epoch(trained[0], model, parts.train)
    after = model.state_dict()
    assert all((after[f"{name}.weight"][~each] == 0).all() for name, each in mask.items())
    assert not torch.equal(after["readout.weight"], before["readout.weight"])
    assert bool((model.embedding.weight != 0).all())


def test_units_that_go_take_their_parameters_with_them(runs, trained, work):
    row = runs.run(task(runs, work, "units", "0.5"))
    before, after = (trained[1].models["trained"], row.models["retrained"])
    assert after["parameters"] <= 0.5 * before["parameters"]
    assert set(row.facts) == {"layers.0.hidden", "layers.1.hidden", "layers.2.hidden", "embedding"}


@pytest.mark.parametrize("kind", ["watts_strogatz", "barabasi_albert"])
def test_graphs_are_connected_and_in_the_range_of_the_thesis(runs, kind):
    for number in range(8):
        made = runs.graph(f"{kind} {number}")
        facts = runs.properties(made)
        n = made["nodes"]
        assert 10 <= n <= 50
        assert made == runs.graph(f"{kind} {number}")
        edges = n * (n // 5 // 2) if kind == "watts_strogatz" else (n // 10) * (n - n // 10)
        assert facts["edges"] == edges
        assert np.isfinite(facts["mean_shortest_path"])


def test_a_graph_is_trained_and_its_properties_stand_in_the_row(runs, work):
    row = runs.run(task(runs, work, "graph", "barabasi_albert 0", cell="tanh"))
    assert 0 <= row.models["trained"]["test"] <= 1
    assert row.facts["nodes"] == runs.graph("barabasi_albert 0")["nodes"]


@pytest.mark.slow
def test_files_of_the_same_accuracy_are_timed_side_by_side(runs, trained, work, tables):
    made = runs.Task("speed", "gru", "", 0, trained[0].setup, work, (0.5, 0.5))
    row = runs.run(made)
    dense, zeros, smaller = (row.models[name] for name in ("dense", "zeros", "smaller"))
    assert dense["macs"] == zeros["macs"] > smaller["macs"]
    assert zeros["parameters"] < dense["parameters"]
    assert all(row.models[name][f"{engine}_paced_us"] > 0 for name in row.models for engine in tables.ENGINES)
    lines = tables.speed_table([row]).splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("| gru | smaller | 50 % |")


def made_row(tables, part="base", cell="gru", what="", recipe="r", facts=None, seconds=10.0, **models):
    training = {"epochs": 50.0, "batch": 32.0, "scale": 1.0}
    versions = dict.fromkeys(("python", "edgeseq", "torch"), "1")
    return tables.Row(part, cell, what, 0, models, facts or {}, training, seconds, recipe, "m", versions)


def ladder(tables, scores, base=1.0, part="weights"):
    rows = [made_row(tables, trained={"validation": base})]
    return rows + [
        made_row(tables, part, what=str(share), retrained={"validation": score})
        for share, score in zip(tables.SHARES, scores, strict=False)
    ]


def test_the_share_that_is_timed_is_the_largest_with_the_accuracy_of_the_base(tables):
    scores = [1.0, 0.9, 1.0, 1.0, 0.9991, 0.9989, 0.9, 0.5, 0.5]
    assert tables.largest_share(ladder(tables, scores), "weights", "gru", 0) == 0.5
    assert tables.largest_share(ladder(tables, [0.9] * 9), "weights", "gru", 0) == 0.0
    assert tables.largest_share(ladder(tables, scores[:-1]), "weights", "gru", 0) is None
    assert tables.largest_share(ladder(tables, scores)[1:], "weights", "gru", 0) is None


def test_correlations_are_pearsons_and_none_where_nothing_varies(tables):
    values = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.9)]
    rows = [
        made_row(tables, "graph", what=f"watts_strogatz {i}", facts={"nodes": x, "edges": 3.0}, trained={"test": y})
        for i, (x, y) in enumerate(values)
    ]
    found = tables.correlations(rows)
    assert found["nodes"] == pytest.approx(np.corrcoef(*zip(*values, strict=True))[0, 1])
    assert found["edges"] is None
    assert tables.correlations(rows[:2]) == {}
    line = next(line for line in tables.correlation_table(rows).splitlines() if line.startswith("| nodes |"))
    assert line == "| nodes |  | +0.40 |  | +0.44 |  | +0.44 | +0.83 | +0.49 |"


def test_what_depends_on_a_model_that_is_not_there_waits_for_it(reber, runs, tmp_path):
    waiting = reber.ready(task(runs, tmp_path, "weights", "0.5"), [])
    assert not waiting.failed
    assert "run the part base" in str(waiting)


def test_shares_to_be_timed_wait_for_the_ladders(reber, runs, tables, trained, work):
    made = task(runs, work, "speed")
    assert "run the parts weights and units" in str(reber.ready(made, []))
    rows = ladder(tables, [1.0] * 9) + ladder(tables, [1.0] * 3 + [0.5] * 6, part="units")
    assert reber.ready(made, rows).shares == (0.9, 0.3)


def program(reber, monkeypatch, capsys, *given):
    monkeypatch.setattr(sys, "argv", ["reber.py", *map(str, given)])
    code = reber.main()
    return (*capsys.readouterr(), code)


def test_a_run_goes_on_where_it_was_and_trains_a_lost_model_again(reber, monkeypatch, capsys, tmp_path):
    said = ["--cells", "tanh", "--epochs", 1, "--scale", SHARE, "--jobs", 1]
    said += ["--work", tmp_path / "work", "--out", tmp_path / "rows.json", "--parts", "base"]
    _, error, code = program(reber, monkeypatch, capsys, *said, "--budget", "1s")
    assert "missing: base tanh" in error
    assert code == 0
    out, error, code = program(reber, monkeypatch, capsys, *said)
    assert "| tanh |" in out
    assert error.startswith("base tanh seed 0: trained ")
    _, error, _ = program(reber, monkeypatch, capsys, *said)
    assert error == ""
    (kept,) = (tmp_path / "work").glob("*.safetensors")
    kept.unlink()
    monkeypatch.setattr(reber, "SHARES", (0.5,))
    _, error, code = program(reber, monkeypatch, capsys, *said, "weights")
    assert [line.split(":")[0] for line in error.splitlines()] == ["base tanh seed 0", "weights tanh 0.5 seed 0"]
    assert code == 0


def test_the_page_is_made_of_the_committed_rows():
    page = runpy.run_path(str(ROOT / "docs" / "make_reber.py"))["document"]()
    assert (ROOT / "docs" / "reber.md").read_text(encoding="utf-8") == page, "run python docs/make_reber.py"


def test_what_was_not_run_is_said_on_the_page(tables):
    document = runpy.run_path(str(ROOT / "docs" / "make_reber.py"))["document"]
    assert document([]).count("Not run yet.") == 6
    rows = [
        made_row(
            tables, trained={"test": 0.5, "harder": 0.25, "parameters": 9.0} | {f"automaton_{i}": 1.0 for i in range(9)}
        )
    ]
    assert "| gru | 9 | 52,402 | 50.00 | 100.00 |" in document(rows)
    assert "batches of 32, 50 epochs" in document(rows)
