"""Small files that would use much memory or time are refused in one line."""

import json
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.load import load_run, validated_state_dict
from maskclr_pl.inference.inputs import ReadOptions, list_videos
from maskclr_pl.reading import read_yaml
from maskclr_pl.runs.read import read_config, read_metrics
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.ctrgcn import CtrGcnSource
from maskclr_pl.types import InputError
from tests.helpers.recipe_tools import kind_of_store, save, start

DOUBLED = ["a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
DOUBLED += [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi")]  # noqa: B905
YAMLS = {
    "aliases": "\n".join([*DOUBLED, "joints: *i"]),
    "merged": "a: &a {x: 1}\n" + "\n".join(
        f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi")  # noqa: B905
    ),
    "of itself": "joints: &a [*a]",
    "brackets": "joints: " + "[" * 5000 + "]" * 5000,
    "a long file": "joints: [" + "a," * 600_000 + "]",
}  # fmt: skip


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_bombs_are_refused(name: str, tmp_path: Path) -> None:
    """Without limits, 9 lines of aliases expand to 1.7 GB, and brackets raise RecursionError."""
    (tmp_path / "config.yaml").write_text(YAMLS[name])
    (tmp_path / "s.yaml").write_text(YAMLS[name])
    began = time.process_time()
    for read, path in ((load_skeleton, tmp_path / "s.yaml"), (read_config, tmp_path)):
        with pytest.raises(InputError, match=r"nested more than 64 levels|larger than 1 MB"):
            read(path)
    assert time.process_time() - began < 5


def test_small_aliases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("near: &a [a, b]\njoints: *a\nedges: [*a]\n")
    assert load_skeleton(path).joints == ("a", "b")


def test_invalid_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    """YAML constructors raise various errors for dates and numbers."""
    for text in ("a: 2001-99-99", "a: " + "9" * 5000, "? [a]\n: 1", "? {}\n: 1", "a: !!python/x"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(InputError, match="not readable as YAML"):
            read_yaml(tmp_path / "a.yaml")


def test_nested_json_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected values by name"):
        read_metrics(tmp_path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Build an archive of 160 kB whose only array has 160 MB."""
    path = tmp_path_factory.mktemp("packed") / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("keypoint.npy", "w") as file,
    ):
        for _ in range(160):  # not even a header: it is refused before it is looked into
            file.write(bytes(1 << 20))
    return path.read_bytes()


def poses(path: Path) -> None:
    [entry] = list_videos(path, ReadOptions(True, SKELETONS["coco17"]))
    entry.read()


@pytest.mark.parametrize("read", [poses, CtrGcnSource, read_weights])
def test_archive_bombs_are_refused(
    read: Callable[[Path], None], packed: bytes, tmp_path: Path
) -> None:
    """1 MB of .npz can unpack to 1 GB; a checkpoint is such an archive, too."""
    path = tmp_path / "a.npz"
    path.write_bytes(packed)
    with pytest.raises(InputError, match="kB that unpack to 160 MB"):
        read(path)


def test_checkpoint_bombs_are_refused(tmp_path: Path) -> None:
    """A number in the settings, or an expanded tensor, can require terabytes."""
    store = kind_of_store(tmp_path, "coco17")
    data = ["data=custom", f"data.path={store}", "data.train_split=toy_train"]
    tiny = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.depth=1", "clip.frames=8"]
    run = start(
        *data, *tiny, "data.test_split=toy_test", "head=action_small", "masking=none", "loss=ce"
    )
    path = save(run, tmp_path / "a.ckpt")
    load_run(path)
    content = torch.load(path, weights_only=True)
    config = content["maskclr_pl"]["config"]
    for group, key, value in (
        ("backbone", "depth", 10**6),
        ("backbone", "dim", 2**20),
        ("backbone", "max_frames", 2**40),
        ("data", "frames", 10**9),
    ):
        before = config[group].get(key)
        config[group][key] = value
        torch.save(content, path)
        began = time.process_time()
        with pytest.raises(InputError, match=r"far larger than its weights|expected 1 to 10000"):
            load_run(path)
        assert time.process_time() - began < 5
        config[group][key] = before
    content["maskclr_pl"]["recording_frames"] = {"longest": "x"}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"recording_frames is .* expected whole numbers"):
        load_run(path)
    expanded = {"a": torch.zeros(1).expand(10**6, 10**6)}
    with pytest.raises(InputError, match="'a' in its state_dict is not a dense tensor"):
        validated_state_dict({"state_dict": expanded}, path)


class _Dtype:
    """A dtype whose state turns bytes into pointers."""

    def __reduce__(self):
        state = (3, "|", None, None, None, 8, 1, 63)
        return np.dtype, ("V8", False, True), state


class _Scalar:
    def __reduce__(self):
        return np._core.multiarray.scalar, (_Dtype(), b"\x01" * 8)


def test_forged_numpy_scalars_are_refused(tmp_path: Path) -> None:
    """NumPy's dtype accepts any state, including one that reads bytes as pointers."""
    path = tmp_path / "a.pth"
    torch.save({"best": np.float64(0.5), "epoch": np.int32(3)}, path)
    assert read_weights(path) == {"best": 0.5, "epoch": 3}
    torch.save({"best": _Scalar()}, path, pickle_protocol=pickle.DEFAULT_PROTOCOL)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        read_weights(path)
