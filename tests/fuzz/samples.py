"""Small valid samples of every format, and how to read them."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.data import Recording, write_store
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources import Source
from maskclr_pl.sources.ctrgcn import CtrGcnSource
from maskclr_pl.sources.kinetics import KineticsSource
from maskclr_pl.sources.ntu.source import NtuSkeletonSource
from maskclr_pl.sources.poses.source import PosesSource
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.sources.stgcn import StgcnJsonSource
from tests.helpers.commands import pyskl_file
from tests.helpers.pose_tools import FORMATS, table, truth
from tests.reference import ntu_skeleton


class Sample(NamedTuple):
    """A sample: `make` writes it to an empty folder, `read` returns its source.

    `read` is None for a store, and for files that `use(folder, output)` reads like a command.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Source] | None
    skeleton: str = "coco17"
    use: Callable[[Path, Path], None] | None = None


def _save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(pickle.dumps(content, 4))


def _pyskl(folder: Path) -> None:
    pyskl_file(folder / "data.pkl", 4)


def _pyskl_lists(folder: Path) -> None:
    """Write the older layout: protocol 2, a file for each split, values as lists."""
    for split in ("train", "val"):
        clip = {"filename": split, "label": 1, "keypoint": np.ones((1, 2, 17, 2)).tolist()}
        more = {"keypoint_score": np.ones((1, 2, 17)), "img_shape": [240, 320], "subject": 3}
        (folder / f"{split}.pkl").write_bytes(pickle.dumps([clip | more], 2))


def _kinetics(folder: Path) -> None:
    rng, items, parts = np.random.default_rng(0), [], {}
    for i, name in enumerate("abc"):
        frame = np.array([1, 1, 3, 3, 3], np.int16)
        item = {"frame_dir": name, "label": i, "img_shape": (240, 320), "total_frames": 9}
        box = rng.uniform(0.4, 1, len(frame)).astype(np.float16)
        items.append({**item, "frame_inds": frame, "box_score": box, "raw_file": "kp/part.pkl"})
        parts[name] = {"keypoint": rng.uniform(0.1, 200, (5, 17, 3)).astype(np.float16)}
    _save(folder / "kp" / "c.pkl", parts.pop("c"))
    _save(folder / "kp" / "part.pkl", parts)
    _save(
        folder / "index.pkl", {"split": {"train": ["a", "b"], "val": ["c"]}, "annotations": items}
    )


def _ntu(folder: Path) -> None:
    person = partial(ntu_skeleton.person, values=5)
    for name, bodies in (
        ("S001C001P001R001A001", {7: person(range(14)), 8: person(range(2, 14), x=2, seed=1)}),
        ("sub/S001C002P003R001A060", {7: person(range(3))}),
    ):
        path = folder / f"{name}.skeleton"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(ntu_skeleton.write(bodies, 14))


def _ctrgcn(folder: Path, save: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 150)).astype(np.float32)
    x[:, 4:] = x[2, :, 75:] = 0
    y = np.eye(60)[[3, 59, 0, 1, 1]]
    save(folder / "ntu.npz", x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:])


def _stgcn(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def person() -> dict[str, list[float]]:
        pose, score = rng.random(36).round(3), rng.random(18).round(3)
        return {"pose": pose.tolist(), "score": score.tolist()}

    for i, (split, name) in enumerate((("train", "a"), ("train", "b"), ("val", "c"))):
        data = [{"frame_index": t + 1, "skeleton": [person() for _ in range(t)]} for t in range(3)]
        clip = {"data": data, "label": "yoga" if i else "zumba", "label_index": i and 1}
        _save(folder / f"kinetics_{split}" / f"{name}.json", clip)
    entry = {"has_skeleton": True, "label": "yoga", "label_index": 1}
    train = {"a": {**entry, "label": "zumba", "label_index": 0}, "b": entry}
    _save(folder / "kinetics_train_label.json", train)
    _save(folder / "kinetics_val_label.json", {"c": entry, "d": entry})


def _poses(folder: Path, tool: Callable[..., Path], joints: int) -> None:
    """Write three clips of one class and one of another."""
    for i in range(4):
        made = folder / f"made{i}"
        made.mkdir()
        path = tool(made, truth(joints, 4 + i))
        (folder / "poses").mkdir(exist_ok=True)
        path.rename(folder / "poses" / (f"clip{i}" if path == made else f"clip{i}.json"))
        if path != made:
            made.rmdir()
    rows = ["clip,label,split,subject,start,end", "clip0,a,train,x,,", "clip1,a,train,x,1,4"]
    rows += ["clip2,a,test,y,,", "clip3,b,train,y,,5"]
    if joints != 17:  # no splits defined
        rows = [",".join(row.split(",")[:2]) for row in rows]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def _table(folder: Path) -> None:
    """Write the same clips to one table."""
    table(folder / "all.csv", {f"clip{i}": truth(17, 4 + i) for i in range(4)})
    rows = ["clip,label,split", "clip0,a,train", "clip1,a,train", "clip2,a,test", "clip3,b,train"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def _read_table(folder: Path) -> Source:
    return PosesSource(folder / "all.csv", folder / "labels.csv", (720, 1280))


def _read_poses(folder: Path, window: int | None) -> Source:
    return PosesSource(folder / "poses", folder / "labels.csv", (720, 1280), None, 4, window)


def _store(folder: Path, channels: int) -> None:
    rng, clips = np.random.default_rng(0), []
    for i in range(6):
        keypoint = rng.uniform(1, 9, (1 + i % 2, 3 + i, 17, channels)).astype(np.float32)
        score, size = np.ones(keypoint.shape[:3], np.float16), (480, 640)
        kind = (score, size) if channels == 2 else (None, None)
        clips.append(Recording(f"clip{i}", i % 3, keypoint, *kind, subject=i))
    splits = {"train": ["clip0", "clip1", "clip4", "gone"], "test": ["clip5"]}
    options: dict[str, Any] = {"splits": splits, "class_names": ["a", "b", "c"]}
    skeleton = SKELETONS["coco17"]
    write_store(folder / "s.h5", clips, skeleton=skeleton, on_error="skip", **options)


def samples() -> dict[str, list[Sample]]:
    """Return the samples of each source."""
    layouts = {17: "coco17", 18: "openpose18", 25: "body25", 26: "halpe26"}
    forms = [
        Sample("pyskl", _pyskl, lambda folder: PysklSource(folder / "data.pkl")),
        Sample(
            "pyskl lists",
            _pyskl_lists,
            lambda folder: PysklSource([folder / "train.pkl", folder / "val.pkl"]),
        ),
        Sample(
            "kinetics",
            _kinetics,
            lambda folder: KineticsSource(folder / "index.pkl", folder / "kp", valid_ratio=0.1),
        ),
        *(
            Sample(
                f"ntu_skeleton {what}", _ntu, partial(NtuSkeletonSource, coordinates=what), "ntu25"
            )
            for what in ("metres", "pixels")
        ),
        *(
            Sample(
                f"ctrgcn {save.__name__}",
                partial(_ctrgcn, save=save),
                lambda folder: CtrGcnSource(folder / "ntu.npz"),
                "ntu25",
            )
            for save in (np.savez, np.savez_compressed)
        ),
        Sample("stgcn_json", _stgcn, StgcnJsonSource, "openpose18"),
        *(
            Sample(
                f"poses {tool.__name__} {joints}",
                partial(_poses, tool=tool, joints=joints),
                partial(_read_poses, window=None if joints == 17 else 3),
                layouts[joints],
            )
            for tool, joints in FORMATS
        ),
        Sample("poses table", _table, _read_table),
        Sample("store 2D", partial(_store, channels=2), None),
        Sample("store 3D", partial(_store, channels=3), None),
    ]
    sources: dict[str, list[Sample]] = {}
    for sample in forms:
        sources.setdefault(sample.name.split()[0], []).append(sample)
    return sources
