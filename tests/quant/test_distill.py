"""The objective of distillation: what it is, whom it asks, and what a student learns from it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, split_by_subject
from edgeseq.errors import InputError
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import build
from edgeseq.quant.distill import Distillation, distillation, distilling
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch, Carry
from edgeseq.training.evaluate import logits
from edgeseq.training.loop import CrossEntropy, fit
from edgeseq.training.settings import Settings

RATE, LABELS, CHANNELS = 20.0, 3, 2
EARLY = st.none() | st.just(0.0) | st.floats(1e-3, 1.0)
TINY = Settings(rounds=3, steps=4, batch=8, crop=1.0, settle=0.1, average=0.5)


def gru(seed, hidden=6, inputs=CHANNELS, **arguments):
    torch.manual_seed(seed)
    model = build("rnn", inputs, LABELS, {"hidden": hidden, **arguments})
    torch.nn.init.normal_(model.readout.weight)  # answers that differ from frame to frame
    return model


def waves(seconds=4.0):
    """Three frequencies by four subjects; the first is twice as frequent."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE)) / RATE
    recordings = []
    for subject in "1234":
        for label, frequency in ((0, 0.6), (0, 0.6), (1, 2.0), (2, 5.0)):
            x = np.sin(2 * np.pi * frequency * t[:, None] + rng.uniform(0, 6, CHANNELS))
            x = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
            recordings.append(Recording(x, np.full(len(t), label, np.int16), subject, subject))
    return Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, ("slow", "middle", "fast"))


DATA = waves()


@pytest.fixture
def split():
    return split_by_subject(DATA, test=["3"], validation=["4"])


def batch(seed=0, crops=4, frames=9, carry=False):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(crops, frames, CHANNELS)).astype(np.float32))
    y = torch.from_numpy(rng.integers(-1, LABELS, (crops, frames)))
    y[:, 1] = 0  # something is scored in every crop
    age = torch.arange(frames).repeat(crops, 1)
    age[:, frames // 2 :] -= frames // 2  # a seam in the middle
    carried = Carry(torch.from_numpy(rng.permutation(crops)), torch.from_numpy(rng.random(crops) < 0.6))
    return Batch(x, y, age, carried if carry else None)


def loss(how, teachers, student, crops, settings=TINY):
    """The losses of ``crops`` in turn, the student's state carried as the loop carries it."""
    losses, state = [], None
    with distilling(student, teachers, DATA, settings, how) as objective:
        for drawn in crops:
            starts = drawn.carry.starts(student, state) if drawn.carry and state else None
            answers, state = respond(student, drawn, starts)
            losses.append(objective(answers, drawn).item())
    return losses if len(losses) > 1 else losses[0]


def log_softmax(y):
    shifted = y - y.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def by_hand(how, teachers, student, drawn, settings):
    y, age = drawn.y.numpy(), drawn.age.numpy()
    q, *ps = [m.eval()(drawn.x)[0].detach().numpy().astype(np.float64) for m in (student, *teachers)]
    counts = DATA.label_counts()
    weights = counts.sum() / (LABELS * counts) if settings.class_weights else np.ones(LABELS)
    smoothing, soft, hard, total = settings.label_smoothing, 0.0, 0.0, 0.0
    for b, t in zip(*np.nonzero(y >= 0), strict=True):
        w = weights[y[b, t]]
        mean = np.mean([np.exp(log_softmax(p[b, t] / how.temperature)) for p in ps], 0)
        kl = (mean * (np.log(mean) - log_softmax(q[b, t] / how.temperature))).sum()
        soft += w * kl * (1 - np.exp(-age[b, t] / (how.early * RATE)) if how.early else 1)
        plain = log_softmax(q[b, t])
        hard -= w * (1 - smoothing) * plain[y[b, t]] + smoothing / LABELS * (weights * plain).sum()
        total += w
    return how.soft * how.temperature**2 * soft / total + how.hard * hard / total


@given(
    how=st.builds(
        Distillation,
        temperature=st.floats(0.5, 8),
        soft=st.floats(0, 2),
        hard=st.floats(0, 2),
        early=EARLY,
    ),
    settings=st.builds(Settings, class_weights=st.booleans(), label_smoothing=st.floats(0, 0.5)),
    teachers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_loss_is_the_formula(how, settings, teachers, seed):
    models = [gru(i) for i in range(teachers)]
    student, drawn = gru(9, hidden=4), batch(seed)
    expected = by_hand(how, models, student, drawn, settings)
    assert loss(how, models, student, [drawn], settings) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("early", [0.0, 0.2])
def test_of_a_sequence_the_mean_of_the_logits_over_scored_frames_is_compared(early):
    teacher, student, drawn = gru(0).eval(), gru(1).eval(), batch()
    how = Distillation(level="sequence", soft=1.0, hard=0.0, temperature=3.0, early=early)
    y = drawn.y.numpy()
    trust = 1 - np.exp(-drawn.age.numpy() / (early * RATE)) if early else np.ones(y.shape)
    p, q = (m(drawn.x)[0].detach().numpy().astype(np.float64) for m in (teacher, student))
    weights = CrossEntropy.of(DATA, TINY).frame_weights(drawn.y).numpy()
    total = 0.0
    for b in range(len(y)):
        share = trust[b] * (y[b] >= 0)
        log_p, log_q = (log_softmax(share @ z[b] / share.sum() / 3) for z in (p, q))
        total += (weights[b] * trust[b]).sum() * 9 * (np.exp(log_p) * (log_p - log_q)).sum()
    assert loss(how, [teacher], student, [drawn]) == pytest.approx(total / weights.sum(), rel=1e-4)


@pytest.mark.parametrize("level", ["frame", "sequence"])
def test_one_teacher_twice_is_that_teacher(level):
    how = Distillation(level=level)
    once, twice = (loss(how, [gru(0)] * n, gru(1), [batch()]) for n in (1, 2))
    assert once == pytest.approx(twice, rel=1e-6)


@pytest.mark.parametrize("level", ["frame", "sequence"])
def test_a_teacher_carries_its_state_as_the_student_does(level):
    """A student that is the teacher has nothing to learn from it, in the batches that go on from others as well."""
    how = Distillation(soft=1.0, hard=0.0, hidden=1.0, level=level)
    crops = [batch(i, carry=i > 0) for i in range(4)]
    assert loss(how, [gru(0)], gru(0), crops) == pytest.approx([0.0] * 4, abs=1e-5)


def test_a_student_that_forgets_differs_from_a_teacher_that_carries_on():
    model = gru(0)
    with distilling(model, [gru(0)], DATA, TINY, Distillation(soft=1.0, hard=0.0)) as objective:
        losses = [objective(model(b.x)[0], b).item() for b in (batch(0), batch(1, carry=True), batch(2))]
    assert losses[1] > 1e-3
    assert [losses[0], losses[2]] == pytest.approx([0.0, 0.0], abs=1e-5)


def test_dropout_of_a_teacher_is_off():
    teacher = gru(0, dropout=0.9)
    once, again = (loss(Distillation(hidden=1.0), [teacher.train()], gru(1), [batch()]) for _ in range(2))
    assert once == again == loss(Distillation(hidden=1.0), [gru(0)], gru(1), [batch()])


class Delayed(StreamingModel):
    """A teacher of one layer whose answer at call t is what ``model`` says of frame t - look_ahead."""

    def __init__(self, model, look_ahead):
        super().__init__(model.input_size, model.output_size)
        self.layer, self.readout, self.look_ahead = model.layers[0], model.readout, look_ahead

    def initial_state(self, batch):
        size = self.readout.in_features
        return {"hidden": torch.zeros(batch, size), "waiting": torch.zeros(batch, self.look_ahead, size)}

    def step(self, x, state):
        y, following = self.forward(x[:, None], state)
        return y[:, 0], following

    def forward(self, x, state=None):
        state = self.initial_state(len(x)) if state is None else state
        h, _ = self.layer(x, (state["hidden"],))
        line = torch.cat([state["waiting"], h], 1)
        following = {"hidden": h[:, -1], "waiting": line[:, x.shape[1] :]}
        return self.readout(line[:, : x.shape[1]]), following


@pytest.mark.parametrize("level", ["frame", "sequence"])
@given(late=st.integers(1, 8), early=EARLY)
def test_a_teacher_that_looks_ahead_is_asked_about_the_same_frames(level, late, early):
    """It equals one that does not, where both answer; the last frames have the labels only."""
    crops = [batch(i, frames=12, carry=i > 0) for i in range(3)]
    for drawn in crops:
        drawn.y[:, 12 - late :] = -1
    how = Distillation(soft=1.0, hard=0.5, hidden=0.5, level=level, early=early)
    same = msgspec.structs.replace(how, early=late / RATE if early is None else early)
    delayed = loss(how, [Delayed(gru(0), late)], gru(1), crops)
    expected = loss(same, [gru(0)], gru(1), crops)
    assert delayed == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_frames_that_a_teacher_has_not_answered_keep_their_labels():
    drawn, late, how = batch(frames=12), 5, Distillation(soft=1.0, hard=1.0)
    drawn.y[:, -late:] = 1
    plain = CrossEntropy.of(DATA, TINY)
    with distilling(gru(1), [Delayed(gru(0), late)], DATA, TINY, how) as objective:
        answers = torch.randn(4, 12, LABELS)
        changed = answers.clone()
        changed[:, -late:] += torch.randn(4, late, LABELS)
        difference = objective(changed, drawn) - objective(answers, drawn)
    assert float(difference) == pytest.approx(float(plain(changed, drawn) - plain(answers, drawn)), abs=1e-5)
    assert abs(float(difference)) > 1e-3


def test_a_crop_too_short_for_the_look_ahead_is_refused():
    with pytest.raises(InputError, match="12 frames ahead says nothing in a crop of 12: make crop longer"):
        loss(Distillation(), [Delayed(gru(0), 12)], gru(1), [batch(frames=12)])


@pytest.mark.parametrize("level", ["frame", "sequence"])
@given(late=st.integers(0, 6), ahead=st.integers(1, 6), early=EARLY)
def test_a_student_that_looks_ahead_learns_of_the_same_frames(level, late, ahead, early):
    """It equals one that does not, where both answer: the last frames of a crop are not learned from."""
    crops = [batch(i, frames=12, carry=i > 0) for i in range(3)]
    for drawn in crops:
        drawn.y[:, 12 - max(late, ahead) :] = -1
    how = Distillation(soft=1.0, hard=0.5, hidden=0.5, level=level, early=early)
    same = msgspec.structs.replace(how, early=max(0, late - ahead) / RATE if early is None else early)
    delayed = loss(how, [Delayed(gru(0), late)], Delayed(gru(1), ahead), crops)
    assert delayed == pytest.approx(loss(same, [gru(0)], gru(1), crops), rel=1e-4, abs=1e-6)


def headless(model):
    model.readout = torch.nn.Identity()
    return model


def test_hidden_layers_are_compared_at_unit_variance():
    teacher, student, drawn = gru(0).eval(), gru(1).eval(), batch()
    inputs = []
    for model in (student, teacher):
        h = model.initial_state(4)["layers.0.hidden"]
        seen = model.layers[0](model.normalize(drawn.x), (h,))[0].detach().numpy()
        inputs.append(seen / seen[drawn.y.numpy() >= 0].std(ddof=1))
    weights = CrossEntropy.of(DATA, TINY).frame_weights(drawn.y).numpy()
    expected = (np.square(inputs[0] - inputs[1]).mean(-1) * weights).sum() / weights.sum()
    found = loss(Distillation(soft=0.0, hard=0.0, hidden=2.0), [teacher], student, [drawn])
    assert found == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("student", "teachers", "message"),
    [
        (gru(0, hidden=6), [gru(1, hidden=8)], "6 units into the student's read-out, 8 into the teacher's"),
        (gru(0), [gru(1), gru(2)], "one teacher, and there are 2"),
        (gru(0), [headless(gru(1))], "the teacher, a Rnn, has no linear readout"),
    ],
)
def test_hidden_layers_that_cannot_be_compared_are_refused(student, teachers, message):
    with pytest.raises(InputError, match=message), distilling(student, teachers, DATA, TINY, Distillation(hidden=1.0)):
        pass


def test_nothing_is_left_on_the_models_after_the_block():
    student, teacher = gru(0), gru(1)
    with distilling(student, [teacher], DATA, TINY, Distillation(hidden=1.0)):
        assert student.readout._forward_pre_hooks
    assert not student.readout._forward_pre_hooks
    assert not teacher.readout._forward_pre_hooks


def test_a_teacher_of_other_data_is_refused():
    with (
        pytest.raises(InputError, match=r"teacher has \(channels, labels\) \(3, 3\), the student \(2, 3\)"),
        distilling(gru(0), [gru(1, inputs=3)], DATA, TINY, Distillation()),
    ):
        pass
    with pytest.raises(InputError, match="at least one teacher"), distilling(gru(0), [], DATA, TINY, Distillation()):
        pass


class Stop(Exception):
    pass


def taught(split, folder, how, teachers=(), stop_after=None, student=None):
    student = student or gru(1, hidden=5, dropout=0.2)

    def report(ended, steps):
        if ended is not None and ended.number == stop_after:
            raise Stop

    try:
        with distilling(student, teachers or [gru(0, dropout=0.5)], split.train, TINY, how) as objective:
            fit(student, split, TINY, 0, folder / "c", "a", objective=objective, report=report)
    except Stop:
        return None
    (folder / "c").unlink()
    return student.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_labels_alone_give_the_weights_of_plain_training(split, tmp_path):
    plain = gru(1, hidden=5, dropout=0.2)
    fit(plain, split, TINY, 0, tmp_path / "p", "a")
    assert same(taught(split, tmp_path, Distillation(soft=0.0, hard=1.0)), plain.state_dict())
    assert not same(taught(split, tmp_path, Distillation()), plain.state_dict())


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_an_interrupted_run_ends_in_the_same_weights(split, tmp_path, hidden):
    how = Distillation(hidden=hidden)
    whole = taught(split, tmp_path, how, student=gru(1, hidden=6), teachers=[gru(0)])
    assert taught(split, tmp_path, how, stop_after=0, student=gru(1, hidden=6), teachers=[gru(0)]) is None
    assert (tmp_path / "c").is_file()
    assert same(whole, taught(split, tmp_path, how, student=gru(1, hidden=6), teachers=[gru(0)]))


def agreement(level, *models):
    """Share of frames, or of whole recordings, that two models answer alike."""
    answers = [logits(model, DATA.recordings) for model in models]
    if level == "sequence":
        answers = [[y.mean(0, keepdims=True) for y in found] for found in answers]
    ours, theirs = (np.concatenate(found).argmax(-1) for found in answers)
    return (ours == theirs).mean()


@pytest.mark.parametrize("level", ["frame", "sequence"])
def test_a_student_learns_to_imitate_a_teacher_without_labels(split, tmp_path, level):
    settings = Settings(rounds=3, steps=30, batch=8, crop=2.0, settle=0.4, average=0.5, learning_rate=0.03)
    teacher, student = gru(0), gru(1)
    fit(teacher, split, settings, 0, tmp_path / "t", "teacher")
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    at_first = agreement(level, teacher, student)
    how = Distillation(soft=1.0, hard=0.0, level=level)
    with distilling(student, [teacher], split.train, settings, how) as objective:
        history = fit(student, split, settings, 0, tmp_path / "s", "student", objective=objective)
    assert history[-1].loss < 0.3 * history[0].loss
    assert agreement(level, teacher, student) > max(0.75, at_first + 0.2)
    assert same(before, teacher.state_dict())
    assert not teacher.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temprature": 1}, "Did you mean 'temperature'"),
        ({"level": "frames"}, "unknown level 'frames'. Did you mean 'frame'"),
        ({"temperature": 0}, "distillation settings"),
        ({"soft": -0.1}, "distillation settings"),
        ({"hidden": "much"}, "distillation settings"),
        ({"early": -1.0}, "distillation settings"),
        ({"soft": 0, "hard": 0}, "nothing to learn"),
    ],
)
def test_settings_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        distillation(changes)


def test_settings_are_changed_by_name():
    assert distillation({"temperature": 4, "early": 0.5}) == Distillation(temperature=4.0, early=0.5)
