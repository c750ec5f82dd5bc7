"""The quantizers of quantized distillation: the authors' own numbers, and what holds for any weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn.functional import cross_entropy

from edgeseq.quant.distill import by_frame
from edgeseq.quant.quantizer import (
    SMALLEST_RANGE,
    at_points,
    even_levels,
    even_values,
    mean_code_length,
    nearest,
    quantile_points,
    quantized,
    scaled,
    shared_out,
)

EPS = np.finfo(np.float32).eps
WEIGHTS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=32))


@pytest.fixture(scope="module", params=["shipped", "whole"])
def vectors(request):
    """The authors' vectors: those that are shipped with the tests, or all of them where the folder is there."""
    named = os.environ.get("EDGESEQ_REFERENCE")
    whole = (Path(named) if named else Path(__file__).parents[3] / "shared" / "reference") / "quantizer.npz"
    if request.param == "whole" and not whole.is_file():
        assert not named, f"EDGESEQ_REFERENCE names {named}, which has no {whole.name}"
        pytest.skip(f"no reference vectors {whole.name}: set EDGESEQ_REFERENCE to their folder")
    with np.load(whole if request.param == "whole" else Path(__file__).with_name("quantizer_reference.npz")) as stored:
        return dict(stored)


def cases(vectors, room):
    """Prefix, weights and bucket of each case of a room."""
    found = sorted({"/".join(key.split("/")[:3]) for key in vectors if key.startswith(f"{room}/") and "/b" in key})
    for prefix in found:
        weights = torch.from_numpy(vectors[f"uniform/{prefix.split('/')[1]}/x"]).flatten()
        yield prefix, weights, 256 if prefix.endswith("b256") else 0
    assert found


def settings_of(vectors, prefix, kind):
    """The number behind ``kind`` in the keys below a prefix: bits, or points."""
    names = {key.split("/")[3] for key in vectors if key.startswith(f"{prefix}/{kind}")}
    assert names
    return sorted(int(name.removeprefix(kind)) for name in names)


# -- the authors' numbers -------------------------------------------------------------------------------------------


def test_even_levels_and_values_are_the_authors(vectors):
    for prefix, weights, bucket in cases(vectors, "uniform"):
        buckets = scaled(weights, bucket)
        np.testing.assert_array_equal(buckets.alpha.flatten(), vectors[f"{prefix}/alpha"])
        np.testing.assert_array_equal(buckets.beta.flatten(), vectors[f"{prefix}/beta"])
        for bits in settings_of(vectors, prefix, "bits"):
            levels = even_levels(buckets.unit, bits).flatten()[: len(weights)]
            np.testing.assert_array_equal(levels, vectors[f"{prefix}/bits{bits}/level"].ravel())
            np.testing.assert_allclose(
                quantized(weights, bits, bucket), vectors[f"{prefix}/bits{bits}/q"].ravel(), rtol=1e-6, atol=1e-7
            )


def test_learned_points_their_assignment_values_and_gradients_are_the_authors(vectors):
    for prefix, weights, bucket in cases(vectors, "nonuniform"):
        buckets = scaled(weights, bucket)
        for count in settings_of(vectors, prefix, "s"):
            expected = {
                name: vectors[f"{prefix}/s{count}/{name}"] for name in ("points", "q", "upstream", "grad_points")
            }
            first = quantile_points(buckets, count)
            np.testing.assert_allclose(first, vectors[f"{prefix}/s{count}/points_init_quantile"], rtol=1e-6, atol=1e-7)
            points = torch.from_numpy(expected["points"]).requires_grad_()
            chosen = nearest(buckets.unit, points.detach()).flatten()[: len(weights)]
            np.testing.assert_array_equal(chosen, vectors[f"{prefix}/s{count}/assign"].ravel())
            found = at_points(buckets, points)
            np.testing.assert_allclose(found.detach(), expected["q"].ravel(), rtol=1e-6, atol=1e-7)
            found.backward(torch.from_numpy(expected["upstream"]).flatten())
            size = np.abs(expected["grad_points"]).max()
            np.testing.assert_allclose(points.grad, expected["grad_points"], rtol=1e-6, atol=1e-6 * size)


def test_huffman_codes_are_as_long_as_the_authors(vectors):
    keys = [key for key in vectors if key.startswith("huffman/")]
    assert keys
    for key in keys:
        parts = key.split("/")[1:-1]
        if parts[0] == "nonuniform":
            levels = vectors["/".join([*parts, "assign"])].ravel()
        else:  # of all inputs together
            inputs = sorted({name.split("/")[1] for name in vectors if name.startswith("uniform/")})
            levels = np.concatenate([vectors[f"uniform/{i}/{'/'.join(parts[1:])}/level"].ravel() for i in inputs])
        assert mean_code_length(np.bincount(levels, minlength=256)) == pytest.approx(vectors[key], abs=1e-9)


def test_points_are_shared_out_as_the_authors_do(vectors):
    of_points = [i for i in range(3) if vectors[f"alloc/{i}/initial_is_points"]]
    assert of_points
    for i in of_points:
        found = shared_out(vectors[f"alloc/{i}/grad_norms"].tolist(), int(vectors[f"alloc/{i}/initial"]))
        assert found == vectors[f"alloc/{i}/result"].tolist()


def test_the_loss_is_the_authors_but_for_the_mean_over_classes(vectors):
    """Theirs divides the KL by the number of classes too; ours is the mean over frames of the sum ("batchmean")."""
    temperatures = sorted({int(key.split("/")[1][1:]) for key in vectors if key.startswith("kd/T")})
    student = torch.from_numpy(vectors["kd/student_logits"])
    teacher, labels = (torch.from_numpy(vectors[f"kd/{name}"]) for name in ("teacher_logits", "labels"))
    weight, ones, classes = float(vectors["kd/weight_teacher"]), torch.ones(len(labels), 1), student.shape[1]
    for t in temperatures:
        answers = student.clone().requires_grad_()
        soft = by_frame(answers[:, None], [teacher[:, None]], ones, ones, t)
        assert soft.item() == pytest.approx(t**2 * vectors[f"kd/T{t}/kl_batchmean"], rel=1e-5)
        assert soft.item() / classes == pytest.approx(t**2 * vectors[f"kd/T{t}/kl_elementwise_mean"], rel=1e-5)
        loss = weight * soft / classes + (1 - weight) * cross_entropy(answers, labels)
        assert loss.item() == pytest.approx(float(vectors[f"kd/T{t}/loss"]), rel=1e-5)
        loss.backward()
        np.testing.assert_allclose(answers.grad, vectors[f"kd/T{t}/grad_student"], rtol=1e-4, atol=1e-6)


# -- what holds for any weights -------------------------------------------------------------------------------------


@given(WEIGHTS, st.integers(1, 8), st.integers(0, 12))
def test_levels_are_in_range_and_no_weight_moves_by_more_than_half_a_step(weights, bits, bucket):
    buckets = scaled(torch.from_numpy(weights), bucket)
    levels, top = even_levels(buckets.unit, bits), 2**bits - 1
    assert ((levels >= 0) & (levels <= top) & (levels == levels.round())).all()
    rounding = 4 * EPS * np.abs(weights).max()  # of float32 numbers of this size
    moved = (buckets.back(even_values(levels, bits)) - torch.from_numpy(weights)).abs()
    half = (buckets.alpha / top / 2).expand_as(buckets.unit).flatten()[: len(weights)]
    constant = (buckets.unit.amax(1, keepdim=True) < 1e-9).expand_as(buckets.unit).flatten()[: len(weights)]
    assert (moved <= torch.where(constant, SMALLEST_RANGE, half * (1 + 4 * EPS)) + rounding).all()


@given(WEIGHTS, st.integers(1, 8), st.integers(0, 12))
def test_what_is_rounded_stays_where_it_is_but_for_float_errors(weights, bits, bucket):
    """Not bit for bit: (max - min) + min is not max in float32, so that α may be another in its last place."""
    once = quantized(torch.from_numpy(weights), bits, bucket)
    twice = quantized(once, bits, bucket)
    assert (twice - once).abs().max() <= 8 * EPS * np.abs(weights).max() + SMALLEST_RANGE


@given(WEIGHTS, arrays(np.float32, st.integers(1, 9), elements=st.floats(-0.25, 1.25, width=32)), st.integers(0, 12))
def test_no_point_is_nearer_than_the_chosen_one(weights, points, bucket):
    points, buckets = torch.from_numpy(np.sort(points)), scaled(torch.from_numpy(weights), bucket)
    chosen = points[nearest(buckets.unit, points)]
    distances = (buckets.unit[..., None] - points).abs()
    assert ((buckets.unit - chosen).abs() <= distances.amin(-1)).all()


def test_of_two_points_as_near_it_is_the_upper_one():
    points = torch.tensor([0.0, 0.5, 1.0])
    assert nearest(torch.tensor([[0.25, 0.75, 0.2499, 2.0, -1.0]]), points).tolist() == [[1, 2, 0, 2, 0]]


@given(WEIGHTS, st.integers(2, 9), st.integers(0, 12))
def test_a_point_gets_alpha_times_what_its_weights_get(weights, count, bucket):
    buckets = scaled(torch.from_numpy(weights), bucket)
    points = quantile_points(buckets, count).requires_grad_()
    upstream = torch.from_numpy(np.random.default_rng(0).normal(size=len(weights)).astype(np.float32))
    at_points(buckets, points).backward(upstream)
    expected = torch.zeros(count, dtype=torch.float64)
    alpha = buckets.alpha.expand_as(buckets.unit).flatten()
    for i, point in enumerate(nearest(buckets.unit, points.detach()).flatten()[: len(weights)]):
        expected[point] += alpha[i].double() * upstream[i].double()
    np.testing.assert_allclose(points.grad, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) + 1e-6)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.integers(4, 256))
def test_all_points_are_shared_out_and_half_are_everyones(norms, mean):
    found = shared_out(norms, mean)
    assert sum(found) == mean * len(norms)
    assert min(found) >= mean // 2 - 1
    assert found[int(np.argmax(norms))] >= max(found) - 1  # which had the excess taken from it


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=24))
def test_a_huffman_code_is_less_than_a_bit_longer_than_the_entropy(counts):
    padded = np.array(counts + [0] * (256 - len(counts)))
    share = padded[padded > 0] / max(padded.sum(), 1)
    entropy = float(-(share * np.log2(share)).sum())
    found = mean_code_length(padded)
    assert found == 0 if not padded.any() else entropy - 1e-9 <= found <= entropy + 1


def test_nothing_is_quantized_to_nothing():
    assert quantized(torch.zeros(0), 4, 256).shape == (0,)
