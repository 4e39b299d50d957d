"""embed: features of any method, in a file that can be read back."""

from functools import partial

import h5py
import numpy as np
import pytest
import torch

from maskclr_pl.analysis.features import ClipFeatures, read_features, write_features
from maskclr_pl.checkpoint.load import load_run
from maskclr_pl.checkpoint.restore import restore_data
from maskclr_pl.data import Store
from maskclr_pl.methods import MaskedAutoencoder
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused


def test_features_of_a_run(tmp_path, toy_run, capsys):
    command = partial(in_process, cwd=toy_run, capsys=capsys)
    fixed = ["ckpt_path=run", "device=cpu", f"output={tmp_path / 'f.h5'}", "data.batch_size=3"]
    command("embed", *fixed)
    result = read_features(tmp_path / "f.h5")
    store = Store(toy_run / "poses.h5")
    rows = store.rows("test")
    assert result.name == [store.name(int(row)) for row in rows]
    assert result.label.tolist() == store.label[rows].tolist()
    assert result.features.dtype == np.float32
    assert result.attributes["split"] == "test"
    assert result.attributes["source_sha256"] == store.source_hash
    assert result.attributes["class_names"] == ["0", "1"]
    assert result.attributes["run"] == "run"
    method, info = load_run(toy_run / "run/checkpoints/best.ckpt")
    data = restore_data(info, {"path": str(toy_run / "poses.h5")})
    [batch] = data.test_dataloader()
    x, clip_index = method.pack(method.preprocess(batch["clip"]), batch)
    with torch.no_grad():
        tokens = method.encode(x).tokens.numpy()
    for clip, features in enumerate(result.features):
        expected = tokens[clip_index.numpy() == clip].mean((0, 1, 2))
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    # an earlier file is kept; other splits
    printed = command("embed", *fixed, "split=train")
    assert "kept " in printed
    assert (tmp_path / "f.1.h5").is_file()
    trained = read_features(tmp_path / "f.h5")
    assert set(trained.name).isdisjoint(result.name)
    told = refused("embed", *fixed, "split=dev", cwd=toy_run, capsys=capsys)
    assert "expected test, train, val, or a split of poses.h5: test, train" in told


def test_features_of_a_method_without_classes(tmp_path, toy_run, capsys):
    """A pre-training run, by default into its own folder."""
    command = partial(in_process, cwd=toy_run, capsys=capsys)
    data = ["data=custom", "data.path=poses.h5", "data.train_split=train", "data.test_split=test"]
    model = ["method=mamp", "augment=motionbert", "backbone.dim=16", "backbone.depth=1"]
    model += [
        "backbone.heads=2",
        "method.decoder.depth=1",
        "clip.frames=8",
        "data.num_workers=0",
    ]
    out = tmp_path / "mamp"
    command("train", *data, *model, "debug=fast", f"output_dir={out}")
    command("embed", f"ckpt_path={out}", "which=last", "device=cpu")
    result = read_features(out / "features.h5")
    assert result.attributes["method"] == MaskedAutoencoder.__name__
    assert result.features.shape == (8, 16)
    assert np.ptp(result.features, axis=0).max() > 0


def test_files(tmp_path):
    names = ["a", "ü", "c\nd"]
    there = ClipFeatures(
        np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 0, 1]), names, {"run": "x"}
    )
    write_features(tmp_path / "deep/f.h5", there)
    result = read_features(tmp_path / "deep/f.h5")
    np.testing.assert_array_equal(result.features, there.features)
    assert (result.name, result.label.tolist(), result.attributes) == (
        names,
        [1, 0, 1],
        {"run": "x"},
    )
    assert [one.name for one in (tmp_path / "deep").iterdir()] == ["f.h5"]
    with pytest.raises(InputError, match=r"no such file; run python -m maskclr_pl\.embed"):
        read_features(tmp_path / "g.h5")
    (tmp_path / "g.h5").write_text("text")
    with pytest.raises(InputError, match="not a feature file"):
        read_features(tmp_path / "g.h5")
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(InputError, match="not a feature file"):
        read_features(tmp_path / "h.h5")
