"""t-SNE and principal components of features."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from maskclr_pl.figures import features as figures
from maskclr_pl.figures.features import draw_features, project
from maskclr_pl.types import InputError

pytestmark = pytest.mark.figures


def blobs(classes: int = 3, each: int = 8, spread: float = 0.05, seed: int = 0):
    """Directions around one axis per class."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), each)
    features = np.eye(classes, classes + 2)[label] + spread * rng.normal(
        size=(len(label), classes + 2)
    )
    return (5 * features).astype(np.float32), label


@settings(max_examples=8)
@given(st.integers(2, 4), st.floats(0.05, 2), st.integers(0, 99))
def test_agreement_and_silhouette_match_loops(classes, spread, seed):
    features, label = blobs(classes, 7, spread, seed)
    result = project(features, label, "pca")
    unit = [row / np.linalg.norm(row) for row in features.astype(float)]
    distance = np.array([[np.linalg.norm(a - b) for b in unit] for a in unit])
    shares, widths = [], []
    for i, row in enumerate(distance):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: row[j])[:10]
        shares.append(np.mean(label[others] == label[i]))
        own = np.mean([row[j] for j in range(len(row)) if label[j] == label[i] and j != i])
        next_ = min(row[label == k].mean() for k in range(classes) if k != label[i])
        widths.append((next_ - own) / max(next_, own))
    assert result.agreement == pytest.approx(np.mean(shares))
    assert result.silhouette == pytest.approx(np.mean(widths), abs=1e-5)


def test_pca_matches_svd():
    """Projections on the two right singular vectors of the centered unit features."""
    features, label = blobs()
    result = project(features, label, "pca")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    assert np.allclose(np.abs(result.points), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    share = 100 * s[0] ** 2 / (s**2).sum()
    assert result.axes[0] == f"component 1 ({share:.0f} % of variance)"


def test_tsne_is_deterministic_and_preserves_clusters():
    features, label = blobs()
    first, again = (project(features, label, "tsne", seed=3) for _ in range(2))
    assert np.array_equal(first.points, again.points)
    distance = np.linalg.norm(first.points[:, None] - first.points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (label[distance.argmin(1)] == label).all()


def test_invalid_features_are_refused():
    features, label = blobs(3, 3)
    with pytest.raises(
        InputError, match="features of 9 clips: expected finite features of at least 10"
    ):
        project(features, label)
    features, label = blobs()
    features[3, 1] = np.nan
    with pytest.raises(InputError, match="expected finite features"):
        project(features, label)
    assert np.isnan(project(blobs(1, 12)[0], np.zeros(12, int), "pca").silhouette)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure) or [path])
    return kept


@pytest.mark.parametrize("classes", [2, 20])
def test_classes_have_unique_styles(drawn, classes):
    runs = {"a$": blobs(classes, 6), "b": blobs(classes, 6, 0.5)}
    names = [f"${k}" for k in range(classes)]
    draw_features(runs, names, Path("x.png"), "pca")
    [figure] = drawn
    assert len(figure.axes) == 2
    looks = set()
    for axes, (name, (_, label)) in zip(figure.axes, runs.items(), strict=True):
        assert axes.get_title().startswith(f"{name}\n")
        shown = {one.get_label(): one for one in axes.collections}
        for k in range(classes):
            assert len(shown[f"${k}"].get_offsets()) == (label == k).sum()
            look = to_hex(shown[f"${k}"].get_facecolor()[0]), shown[f"${k}"].get_paths()[0]
            looks.add((look[0], look[1].vertices.tobytes()))
    assert len(looks) == classes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_only_the_largest_classes_are_colored(drawn):
    features, label = blobs(26, 2)
    more = np.repeat(np.arange(3, 23), 2)  # these 20 have four clips each
    extra = blobs(26, 2, seed=1)[0][6:46]
    features, label = np.concatenate([features, extra]), np.concatenate([label, more])
    draw_features({"run": (features, label)}, [f"c{k}" for k in range(30)], Path("x.png"), "pca")
    [figure] = drawn
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [f"c{k}" for k in range(3, 23)]
    assert "26 classes (20 of 26 in color)" in figure.get_suptitle()
    gray = figure.axes[0].collections[0]
    assert len(gray.get_offsets()) == 12


def test_files_are_written(tmp_path):
    files = draw_features({"run": blobs()}, ["日本", "$x", "b\n"], tmp_path / "t.png", "pca")
    assert [file.name for file in files] == ["t.png", "t.svg"]
    assert all(file.stat().st_size > 5000 for file in files)
