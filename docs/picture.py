r"""Draw docs/assets/masking.gif: the attention of a trained model, and its masked pathway.

python -m maskclr_pl.train experiment=demo clip.frames=32 trainer.max_epochs=14 \
    masking.strategy.tube_length=8 output_dir=runs/picture
python docs/picture.py runs/picture data/synthetic_demo.h5 docs/assets/masking.gif
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from maskclr_pl.checkpoint.load import load_run
from maskclr_pl.data import Store
from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.figures.drawing import torso
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Method

ACTIONS = ("wave right", "clap")
FRAMES = 32
MILLISECONDS = 90
SEED = 2


class Clip(NamedTuple):
    """One person in one clip."""

    poses: np.ndarray
    """(T, V, 2), y up, in [-1, 1]."""
    visible: np.ndarray
    """(T, V) joints that the pose estimator found."""
    attention: np.ndarray
    """(T, V) importance, from 0 (smallest of the clip) to 1 (largest)."""
    mask: np.ndarray
    """(T, V), True = masked."""


def read_clip(method: Method, store: Store, action: str) -> Clip:
    """Run the standard pathway on a test clip and draw its mask."""
    label = store.class_names.index(action)
    rows = [row for row in store.rows("test") if store.recording(int(row)).label == label]
    data = ClipDataset(store, np.array(rows), FRAMES, persons=1, train=False)
    best = max(range(len(data)), key=lambda i: (data[i]["clip"][..., 2] > 0).sum())
    x = method.preprocess(collate([data[best]])["clip"])[:, 0]  # (1, T, V, 3)
    with torch.no_grad():
        importance = method.backbone(x, with_importance=True).importance  # (1, T, V)
    masking = AttentionGuidedMasking(ratio=0.3, scope="tube", tube_length=8)
    generator = torch.Generator().manual_seed(SEED + label)
    mask = masking(x, importance, method.backbone.stride, generator)[0].numpy()
    importance = importance[0].numpy()
    attention = (importance - importance.min()) / np.ptp(importance)
    poses = x[0, ..., :2].numpy() * (1, -1)
    visible = (x[0, ..., 2] > 0).numpy()
    return Clip(poses, visible, attention, mask)


def draw(axes, clip: Clip, t: int, bones: np.ndarray, masked: bool) -> None:
    """One pathway of a clip in one frame."""
    pose, visible = clip.poses[t], clip.visible[t]
    hidden = clip.mask[t] & visible & masked
    seen = visible & ~hidden
    bones = bones[visible[bones].all(1)]
    kept = seen[bones].all(1)
    axes.add_collection(
        LineCollection(pose[bones[~kept]], colors="0.87", linewidths=1.2, linestyles=":")
    )
    axes.add_collection(LineCollection(pose[bones[kept]], colors="0.55", linewidths=2))
    sizes = 28 + 130 * clip.attention[t]
    colors = mpl.colormaps["coolwarm"](clip.attention[t])
    axes.scatter(
        *pose[seen].T, s=sizes[seen], c=colors[seen], edgecolors="white", linewidths=0.8, zorder=3
    )
    axes.scatter(
        *pose[hidden].T, s=38, facecolors="white", edgecolors="0.7", linewidths=1, zorder=3
    )


def main(run: str, store: str, output: str) -> None:
    """Write the animation."""
    method, _ = load_run(Path(run) / "checkpoints" / "best.ckpt")
    clips = [read_clip(method, Store(store), action) for action in ACTIONS]
    bones = np.array([*method.skeleton.bones, *torso(method.skeleton)])
    figure = Figure(figsize=(9, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    images = []
    for t in range(FRAMES):
        figure.clear()
        panels = figure.subplots(1, 2 * len(clips))
        figure.subplots_adjust(0, 0.09, 1, 0.88, 0, 0)
        for i, axes in enumerate(panels):
            clip, masked = clips[i // 2], bool(i % 2)
            draw(axes, clip, t, bones, masked)
            seen = clip.poses[clip.visible]
            low, high = seen.min(0), seen.max(0)
            side = (high - low).max() / 2 * 1.12
            x, y = (low + high) / 2
            axes.set(xlim=(x - side, x + side), ylim=(y - side, y + side), aspect="equal")
            axes.axis("off")
            title = "masked pathway" if masked else f"{ACTIONS[i // 2]}: standard pathway"
            axes.set_title(title, size=10)
        note = "color and size: attention received     hollow: masked, drawn by attention"
        figure.text(0.5, 0.03, note, ha="center", size=8.5, color="0.35")
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    palette = images[0].quantize(64, method=Image.Quantize.FASTOCTREE)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    first.save(
        output, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, optimize=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
