import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.losses import (
    ClassContrast,
    CrossEntropy,
    SampleContrast,
    SupervisedContrast,
    WeightedSum,
)
from maskclr_pl.losses.contrastive import class_nt_xent, nt_xent, supervised_contrast
from maskclr_pl.types import Prediction
from tests.reference import losses as oracle

TERMS = {
    "ce": CrossEntropy(),
    "sample": SampleContrast(),
    "class": ClassContrast(),
    "class_raw": ClassContrast(normalize=False),
    "supcon": SupervisedContrast(),
}
CONTRASTS = [name for name in TERMS if name != "ce"]
# float32 against double precision: a similarity is off by 1e-7 / tau, and tau >= 0.07
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def views(n: int, width: int = 6, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Two views of different norms, and labels."""
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, width, generator=rng) * torch.tensor([0.3, 4.0]).view(2, 1, 1)
    return a, a * 0.5 + b, torch.randint(classes, (n,), generator=rng) * 7 + 2


def predictions(a: Tensor, b: Tensor, classes: int = 24) -> tuple[Prediction, Prediction]:
    """Predictions with these embeddings and logits made of them."""
    weight = torch.sin(torch.arange(a.shape[1] * classes).float()).view(-1, classes)
    return tuple(Prediction(z.float() @ weight, z) for z in (a, b))


sizes = st.tuples(st.integers(1, 7), st.integers(2, 6), st.integers(0, 999), st.integers(1, 4))


@given(sizes, st.sampled_from([0.07, 0.1, 0.5, 1.0]))
def test_contrasts_against_the_oracle(size, tau):
    a, b, label = views(*size)
    arrays = a.numpy(), b.numpy()
    y = label.numpy()
    np.testing.assert_allclose(nt_xent(a, b, tau), oracle.nt_xent(*arrays, tau), **CLOSE)
    for normalize in (True, False):
        np.testing.assert_allclose(
            class_nt_xent(a, b, label, tau, normalize),
            oracle.class_nt_xent(*arrays, y, tau, normalize),
            **CLOSE,
        )
    for base in (None, 0.07):
        np.testing.assert_allclose(
            supervised_contrast(a, b, label, tau, base),
            oracle.supervised_contrast(*arrays, y, tau, base),
            **CLOSE,
        )


@given(sizes, st.sampled_from([0.0, 0.1]))
def test_cross_entropy_against_the_oracle(size, smoothing):
    a, b, label = views(*size)
    standard, masked = predictions(a, b)
    one, two = (
        oracle.cross_entropy(view.logits.numpy(), label.numpy(), smoothing)
        for view in (standard, masked)
    )
    both = CrossEntropy(label_smoothing=smoothing)
    first = CrossEntropy("standard", label_smoothing=smoothing)
    np.testing.assert_allclose(both(standard, masked, label), (one + two) / 2, **CLOSE)
    np.testing.assert_allclose(both(standard, None, label), one, **CLOSE)
    np.testing.assert_allclose(first(standard, masked, label), one, **CLOSE)


def golden() -> tuple[Tensor, Tensor, Tensor]:
    i, j = torch.arange(4.0).view(-1, 1), torch.arange(6.0)
    return (
        torch.sin(1.3 * i + 0.7 * j),
        torch.sin(1.3 * i + 0.7 * j + 0.3),
        torch.tensor([0, 0, 1, 2]),
    )


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda a, b, y: nt_xent(a, b, 0.5), 0.640326),
        (lambda a, b, y: nt_xent(a, b, 0.1), 0.017289),
        (lambda a, b, y: supervised_contrast(a, b, y, 0.07, 0.07), 2.932988),
        (lambda a, b, y: supervised_contrast(a, b, y, 0.1, 0.07), 2.954394),
        (lambda a, b, y: supervised_contrast(a, b, y, 0.1, 0.1), 2.068075),
        (lambda a, b, y: class_nt_xent(a, b, y, 0.5, normalize=False), 0.365654),
        (lambda a, b, y: class_nt_xent(a, b, y, 0.5, normalize=True), 0.355704),
    ],
)
def test_published_values(loss, expected):
    assert loss(*golden()).item() == pytest.approx(expected, abs=2e-6)  # six decimals, float32


@given(sizes, st.sampled_from([0.1, 0.5]))
def test_class_contrast_of_different_labels_is_nt_xent(size, tau):
    a, b, _ = views(*size)
    label = torch.arange(len(a)).flip(0) * 3
    expected = nt_xent(a, b, tau)
    for value in (
        class_nt_xent(a, b, label, tau, normalize=True),
        class_nt_xent(a, b, label, tau, normalize=False),
        supervised_contrast(a, b, label, tau),
    ):
        torch.testing.assert_close(value, expected, **CLOSE)


def test_class_contrast_of_one_class_is_0():
    a, b, _ = views(5)
    a.requires_grad_()
    loss = class_nt_xent(a, b, torch.full((5,), 3), 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)  # log-sum-exp of one term
    torch.testing.assert_close(a.grad, torch.zeros_like(a), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONTRASTS)
def test_one_clip_gives_a_finite_0(name):
    a, b, label = views(1)
    a.requires_grad_()
    loss = TERMS[name](*predictions(a, b), label)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("name", CONTRASTS)
def test_no_clip_gives_a_finite_0(name):
    a, b, label = views(0)
    a.requires_grad_()
    loss = TERMS[name](*predictions(a, b), label)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("zeros", ["one row", "one view", "all"])
def test_zero_vectors_are_finite(name, zeros):
    a, b, label = views(5)
    if zeros == "one row":
        a[2] = 0
    else:
        a = torch.zeros_like(a)
        b = torch.zeros_like(b) if zeros == "all" else b
    a.requires_grad_()
    b.requires_grad_()
    loss = TERMS[name](*predictions(a, b), label)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


def test_a_zero_vector_has_cosine_0_with_everything():
    a, b, label = views(4)
    a[1] = 0
    arrays = a.numpy(), b.numpy()
    np.testing.assert_allclose(nt_xent(a, b, 0.5), oracle.nt_xent(*arrays, 0.5), **CLOSE)
    np.testing.assert_allclose(
        class_nt_xent(a, b, label, 0.5),
        oracle.class_nt_xent(*arrays, label.numpy(), 0.5, True),
        **CLOSE,
    )


@given(sizes, st.randoms(use_true_random=False), st.sampled_from(sorted(TERMS)))
def test_permuting_the_clips_changes_nothing(size, random, name):
    a, b, label = views(*size)
    order = random.sample(range(len(a)), len(a))
    expected = TERMS[name](*predictions(a, b), label)
    value = TERMS[name](*predictions(a[order], b[order]), label[order])
    torch.testing.assert_close(value, expected, **CLOSE)


@given(sizes, st.sampled_from(CONTRASTS))
def test_renaming_the_classes_changes_nothing(size, name):
    a, b, label = views(*size)
    expected = TERMS[name](*predictions(a, b), label)
    value = TERMS[name](*predictions(a, b), 100 - label)
    torch.testing.assert_close(value, expected, **CLOSE)


@given(sizes, st.sampled_from(CONTRASTS))
def test_losses_are_symmetric_in_the_views(size, name):
    a, b, label = views(*size)
    standard, masked = predictions(a, b)
    expected = TERMS[name](standard, masked, label)
    torch.testing.assert_close(TERMS[name](masked, standard, label), expected, **CLOSE)


@pytest.mark.parametrize("name", [name for name in CONTRASTS if name != "class_raw"])
def test_losses_are_invariant_to_embedding_norm(name):
    a, b, label = views(6)
    norms = torch.linspace(0.1, 9, 6).unsqueeze(1)
    expected = TERMS[name](*predictions(a, b), label)
    value = TERMS[name](*predictions(a * norms, b / norms), label)
    torch.testing.assert_close(value, expected, **CLOSE)


@pytest.mark.parametrize("name", TERMS)
def test_both_pathways_get_a_gradient(name):
    a, b, label = views(6)
    a.requires_grad_()
    b.requires_grad_()
    TERMS[name](*predictions(a, b), label).backward()
    assert a.grad.any()
    assert b.grad.any()


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def default_type(request):
    """The default type of a training in `32-true` and in `bf16-true`."""
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", TERMS)
def test_low_precision_input_is_computed_in_float32(name, default_type):
    a, b, label = views(6)
    a, b = a.bfloat16(), b.bfloat16()
    loss = TERMS[name](*predictions(a, b), label)
    assert loss.dtype == torch.float32
    expected = TERMS[name](*predictions(a.float(), b.float()), label)
    torch.testing.assert_close(loss, expected, **CLOSE)


@pytest.mark.parametrize("name", TERMS)
def test_losses_ignore_autocast(name):
    """Mixed precision computes the loss inside its context too."""
    a, b, label = views(12, 32)
    pair = predictions(a, b)
    expected = TERMS[name](*pair, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = TERMS[name](*pair, label)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, **CLOSE)


@pytest.mark.parametrize("name", CONTRASTS)
def test_extreme_temperature_is_finite(name):
    a, b, label = views(6)
    term = type(TERMS[name])(temperature=1e-3)  # exp(1000) overflows without log-sum-exp
    assert term(*predictions(a, b), label).isfinite()


def test_weighted_sum():
    terms = {"ce": CrossEntropy(), "sample": SampleContrast(), "class": ClassContrast()}
    loss = WeightedSum(terms, {"sample": 0.25, "class": 3.0})
    a, b, label = views(6)
    standard, masked = predictions(a, b)
    values = loss(standard, masked, label)
    assert set(values) == {"loss", "loss_ce", "loss_sample", "loss_class"}
    for name, term in terms.items():
        assert values[f"loss_{name}"] == term(standard, masked, label)
    total = values["loss_ce"] + 0.25 * values["loss_sample"] + 3 * values["loss_class"]
    torch.testing.assert_close(values["loss"], total)
    assert loss.uses_masked
    assert not WeightedSum({"ce": CrossEntropy()}).uses_masked


def test_weighted_sum_without_a_masked_pathway():
    loss = WeightedSum({"ce": CrossEntropy(), "sample": SampleContrast()}, {"ce": 2.0})
    a, b, label = views(6)
    standard, _ = predictions(a, b)
    values = loss(standard, None, label)
    assert set(values) == {"loss", "loss_ce"}
    torch.testing.assert_close(values["loss"], 2 * values["loss_ce"])


def test_a_weight_without_a_term_is_refused():
    with pytest.raises(ValueError, match="smaple"):
        WeightedSum({"sample": SampleContrast()}, {"smaple": 1.0})


@pytest.mark.parametrize("make", [SampleContrast, ClassContrast, SupervisedContrast])
def test_temperature_must_be_positive(make):
    with pytest.raises(ValueError, match="temperature"):
        make(temperature=0.0)


def test_terms_have_no_parameters():
    assert all(isinstance(term, nn.Module) for term in TERMS.values())
    assert not any(list(term.parameters()) for term in TERMS.values())
