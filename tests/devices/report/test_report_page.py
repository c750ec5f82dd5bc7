from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from edgeseq.devices.report.changes import changes
from edgeseq.devices.report.document import Baseline, Following
from edgeseq.devices.report.markdown import escape, markdown
from edgeseq.devices.report.page import confusion, page, unbroken
from edgeseq.errors import MissingDependency
from edgeseq.events import EventScores
from edgeseq.manifest import Decision
from edgeseq.metrics import Scores

EVIL = "<script>alert('x')</script>"


class Elements(HTMLParser):
    """The elements of a page, its ids, and whether all of them are closed in order."""

    VOID = ("meta", "br", "link", "img", "use")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(make_report, make_model, quantized, make_row):
    model = make_model(engines=(make_row(), make_row("onnxruntime", tight=9, paced=30)))
    return make_report(model, quantized(model))


def test_a_page_is_whole_and_needs_nothing_else(report):
    content = page(report)
    elements = Elements(content)
    assert elements.open == []
    tags = [tag for tag, _ in elements.found]
    assert not {"script", "link", "img", "iframe", "object"} & set(tags)
    assert not re.search(r"https?:|src=|@import|url\((?!#)", content)
    assert dict(elements.found)["html"]["lang"] == "en"
    assert "<title>gru-export and gru-int8 · edgeseq report</title>" in content
    ids = [attributes["id"] for _, attributes in elements.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", content)) <= set(ids)
    assert tags.count("svg") == 2
    for tag, attributes in elements.found:
        assert tag != "th" or "scope" in attributes
        assert attributes.get("role") != "img" or attributes["aria-label"].startswith("Durations of a step of gru-")


def test_equal_reports_give_equal_bytes(report):
    assert page(report) == page(report)
    assert markdown(report) == markdown(report)


def test_a_name_cannot_become_an_element(make_report, make_model, make_row):
    row = make_row(EVIL, file=EVIL)
    model = make_model(EVIL, labels=(EVIL, "run"), arguments={EVIL: EVIL}, engines=(row,), unscored=EVIL)
    made = make_report(model)
    content = page(made)
    assert "<script" not in content
    assert "&lt;script&gt;" in content
    assert "script" not in [tag for tag, _ in Elements(content).found]
    assert not re.search(r"(?<!\\)<", markdown(made))


def test_the_drawing_keeps_its_text_and_takes_the_colours_of_the_page(report):
    content = page(report)
    drawn = "".join(re.findall(r"<svg.*?</svg>", content, re.DOTALL))
    assert ">LiteRT</text>" in drawn
    assert ">ONNX Runtime</text>" in drawn
    assert "var(--tight)" in drawn
    assert "var(--paced)" in drawn
    assert not re.search(r"#[0-9a-f]{6}\b", drawn)
    assert "font-family" not in drawn
    assert "<style" not in drawn


def test_an_emulated_board_is_not_drawn(make_report, make_model, emulated):
    made = make_report(emulated(make_model()))
    assert "<svg" not in page(made)
    for content in (page(made), markdown(made)):
        assert "is emulated: no times are shown" in content


def test_a_confusion_matrix_has_shares_of_each_true_label_and_their_counts(make_report, make_model, make_row):
    counted = Scores(0.7, 0.7, 40, ((30, 10), (0, 0)))
    model = make_model(labels=("walking", "run"), engines=(make_row(scores=counted),))
    matrix = confusion(model)
    assert matrix is not None
    assert matrix.upright
    assert [[(cell.share, cell.count, cell.right) for cell in cells] for _, _, cells in matrix.rows] == [
        [(0.75, 30, True), (0.25, 10, False)],
        [(0.0, 0, False), (0.0, 0, True)],
    ]
    content = page(make_report(model))
    assert 'title="walking answered run: 10 of 40 frames, 25.0 %">25</td>' in content
    assert "| walking | 75 | 25 | 40 |" in markdown(make_report(model))


def test_of_segments_a_confusion_matrix_counts_segments(make_report, make_model, make_row):
    counted = Scores(0.7, 0.7, 40, ((30, 10), (0, 0)))
    made = make_report(make_model(task="segment", engines=(make_row(scores=counted),)))
    content = page(made)
    assert 'title="walk answered run: 10 of 40 segments, 25.0 %"' in content
    assert '<th scope="col" class="n">segments</th>' in content
    assert "percent of its segments by the answer they got" in content
    assert "| true | walk | run | segments |" in markdown(made)
    assert "percent of each true label’s segments:" in markdown(made)


def test_a_tuned_model_stands_with_its_event_scores_before_and_after(make_report, make_model):
    names = ("delay_median", "delay_p90", "missed", "false_switches_per_hour", "event_f1", "accuracy_decided")
    after, before = (0.16, 0.5, 0.125, 40.0, 0.9, 0.75), (1.25, 2.5, 0.25, 10.0, 0.6, 0.875)
    metrics = {f"test_{name}": value for name, value in zip(names, after, strict=True)}
    metrics |= {f"test_{name}_before": value for name, value in zip(names, before, strict=True)}
    plain = make_model()
    tuned = make_model("tuned", "e", metrics={**plain.metrics, **metrics}, decision=Decision(0.25, enter=0.6))
    made = make_report(plain, tuned)
    assert changes(made).rows == (
        ("tuned", "before", "1.25", "2.50", "25.0", "10.0", "0.600", "87.5"),
        ("tuned", "tuned", "0.16", "0.50", "12.5", "40.0", "0.900", "75.0"),
    )
    for content in (page(made), markdown(made)):
        assert "tuned answers by smoothing 0.25 s, enter 0.6, dwell 0 s." in content.replace("\u00a0", " ")
        assert "0.600" in content
    assert "How it follows changes" in page(made)
    assert "follows changes" not in page(make_report(plain))


def follows(rule, f1, **changed):
    fields = {"delay_median": 0.5, "delay_p90": 1.5, "missed": 0.125, "false_switches_per_hour": 40.0}
    fields |= {"events": 26, "hours": 0.25, "f1": f1, "accuracy": 0.75, "unknown": 0.0}
    return Following(rule, EventScores(**{**fields, **changed}), 5)


def test_models_stand_with_how_they_follow_changes_beside_the_forest(make_report, make_model):
    calm = Decision(smoothing=1.0)
    model = make_model(following=(follows(Decision(), 0.25), follows(calm, 0.5, delay_median=None, missed=1.0)))
    better = make_model("better", "e", following=(follows(Decision(), 0.9),))
    forest = Baseline(
        name="random forest",
        models=("gru-export", "better"),
        following=(follows(Decision(), 0.3), follows(Decision(1.0), 0.6)),
    )
    made = make_report(model, better, baselines=(forest,))
    assert changes(made).rows == (
        ("gru-export", "each frame", "0.50", "1.50", "12.5", "40.0", "0.250", "75.0"),
        ("gru-export", "smoothed 1 s", "–", "1.50", "100.0", "40.0", "0.500", "75.0"),
        ("better", "each frame", "0.50", "1.50", "12.5", "40.0", "0.900", "75.0"),
        ("random forest", "each frame", "0.50", "1.50", "12.5", "40.0", "0.300", "75.0"),
        ("random forest", "smoothed 1 s", "0.50", "1.50", "12.5", "40.0", "0.600", "75.0"),
    )
    for content in (page(made), markdown(made)):
        text = content.replace("\u00a0", " ")
        assert "Of 26 changes in 15 minutes of the people tested, whose recordings were joined in 5 orders" in text
        assert text.count("Of 26 changes") == 1
        assert "The random forest follows changes better than gru-export, by the F1 of each frame" in text
        assert "The random forest follows changes better than gru-export, by the F1 of their rules." in text


def test_models_that_were_followed_on_other_people_say_on_how_many_changes_each(make_report, make_model):
    one = make_model(following=(follows(Decision(), 0.25),))
    other = make_model("other", "e", following=(follows(Decision(), 0.25, events=9),), split={"test": ("p1",)})
    notes = changes(make_report(one, other)).notes
    assert notes[0].startswith("gru-export: Of 26 changes")
    assert notes[1].startswith("other: Of 9 changes")


def test_a_tuned_model_that_was_followed_here_keeps_what_torch_found_of_the_rule_before(make_report, make_model):
    before = {"delay_median_before": 1.25, "event_f1_before": 0.6}
    metrics = {f"test_{name}": value for name, value in {**before, "event_f1": 0.9}.items()}
    rule = Decision(0.25, enter=0.6)
    model = make_model(metrics=metrics, decision=rule, following=(follows(Decision(), 0.25), follows(rule, 0.875)))
    assert changes(make_report(model)).rows == (
        ("gru-export", "each frame", "0.50", "1.50", "12.5", "40.0", "0.250", "75.0"),
        ("gru-export", "before", "1.25", "–", "–", "–", "0.600", "–"),
        ("gru-export", "tuned", "0.50", "1.50", "12.5", "40.0", "0.875", "75.0"),
    )


def test_what_is_missing_is_said_on_both_pages(make_report, make_model, make_row):
    made = make_report(make_model(proof=(), engines=(make_row(right=None),), unscored="the data is gone"))
    for content in (page(made), markdown(made)):
        assert "was not measured here: the data is gone" in content
        assert "holds no proof" in content
        assert "Energy: none" in content
    assert "What is taken for what" not in page(made)


def test_every_number_of_the_latency_table_is_on_both_pages(report):
    for content in (page(report), markdown(report)):
        for value in ("12.0", "18.0", "24.0", "60.0", "120", "240"):
            assert value in content


def test_tables_of_markdown_have_as_many_cells_in_each_row(report):
    lines = markdown(replace(report, models=(replace(report.models[0], name="a|b"),))).splitlines()
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    rules = [i for i, line in enumerate(lines) if re.match(r"\| -{3}", line)]
    assert len(rules) >= 8
    for at in rules:
        assert widths[at - 1] == widths[at] == widths[at + 1]
    assert escape("a|b *c*\n# d") == r"a\|b \*c\* \# d"


def test_units_stay_with_their_numbers():
    assert unbroken("in 12.0 µs at 50 Hz, 81.0 %; 2 people, 3 sided") == (
        "in 12.0\u00a0µs at 50\u00a0Hz, 81.0\u00a0%; 2\u00a0people, 3 sided"
    )


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_what_draws_it_a_page_says_what_to_install(report, monkeypatch, package):
    for name in (package, f"{package}.figure"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingDependency, match=rf"needs {package}.*edgeseq\[train\]"):
        page(report)
