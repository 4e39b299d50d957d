"""Figures of the content of a store."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from maskclr_pl.data import Recording, Store
from maskclr_pl.data.contents import Inspection, protocols
from maskclr_pl.figures.classes import class_counts
from maskclr_pl.figures.drawing import fit, page, torso, write
from maskclr_pl.figures.style import COLORS, ignore_missing_glyphs, shorten
from maskclr_pl.files import atomic_path
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.visibility import visible_joints

_SIDES = {"left": COLORS[0], "right": COLORS[1], "middle": "#404040"}
_WHITE = np.array([0.0, 0.55, 0.75])  # share of white in the colors of each person
_LINE: dict[str, Any] = {"linewidths": 1.6, "capstyle": "round"}
_FPS, _MAX_FRAMES = 15, 100  # of an animation


def draw_overview(store: Store, inspection: Inspection, folder: Path) -> list[Path]:
    """Draw `classes.png` (and SVG), `clips.png` and `clips.gif` of a store; return the files.

    The last two are omitted if no clip shows a body. Of cross-validation folds (protocols that
    differ in the final number), the first one is shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folds: dict[str, list[str]] = {}
    for name, splits in protocols(inspection.splits).items():
        folds.setdefault(re.sub(r"\d+$", "", name), splits)
    counts = {name: {s: inspection.counts(s) for s in splits} for name, splits in folds.items()}
    files, names = [folder / "classes.png"], inspection.class_names
    clips = [store.recording(int(i)) for i in examples(inspection, 8)]
    y_down = inspection.y_down
    with ignore_missing_glyphs():
        class_counts(counts or {"": {"all": inspection.counts()}}, names, files[0])
        if clips:
            files += [folder / "clips.png", folder / "clips.gif"]
            contact_sheet(clips, store.skeleton, names, files[1], y_down=y_down)
            animation(clips[::2], store.skeleton, names, files[2], y_down=y_down)
    return files


def examples(inspection: Inspection, number: int) -> Int[np.ndarray, " E"]:
    """Return up to `number` clips that show a body, of evenly spaced classes."""
    rows = np.flatnonzero(inspection.visible)
    rows = rows[np.argsort(inspection.label[rows], kind="stable")]
    classes, first, members = np.unique(
        inspection.label[rows], return_index=True, return_counts=True
    )
    if len(classes) >= number:
        return rows[first[np.linspace(0, len(classes) - 1, number).round().astype(int)]]
    rank_in_class = np.arange(len(rows)) - np.repeat(first, members)
    selected = np.argsort(rank_in_class, kind="stable")[:number]
    return rows[np.sort(selected)]


def contact_sheet(
    clips: Sequence[Recording],
    skeleton: Skeleton,
    class_names: Sequence[str],
    path: Path,
    *,
    y_down: bool,
    columns: int = 8,
) -> None:
    """Draw each clip as a row of up to `columns` poses from the first to the last frame (PNG only).

    x and y are drawn; all poses of a clip have the same scale.
    """
    side, across, down, margin = 1.3, 1.4, 1.8, 0.15  # inches
    figure, axes = page(columns * across + 2 * margin, len(clips) * down + 0.4)
    _draw_legend(axes, margin, len(clips) * down + 0.15)
    for row, clip in enumerate(clips):
        bottom = (len(clips) - 1 - row) * down + 0.2
        frames = np.linspace(0, clip.keypoint.shape[1] - 1, columns).round().astype(int)
        frames = np.unique(frames)
        left = margin + across * np.arange(len(frames))
        corner = np.stack([left, np.full(len(frames), bottom)], 1)
        points, visible = _fit_poses(clip, frames, y_down, side)
        segments, colors = _segments(points + corner[:, None], visible, skeleton)
        axes.add_collection(LineCollection(list(segments), colors=colors, **_LINE))
        write(axes, margin, bottom + side + 0.12, _title(clip, class_names), size=8)
        for x, frame in zip(left + side / 2, frames, strict=True):
            write(axes, x, bottom - 0.12, f"{frame}", size=6, color="0.5", ha="center")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130)


def animation(
    clips: Sequence[Recording],
    skeleton: Skeleton,
    class_names: Sequence[str],
    path: Path,
    *,
    y_down: bool,
) -> None:
    """Draw up to about four clips side by side as a GIF with 15 frames per second.

    Long clips are subsampled to at most 100 frames; shorter clips repeat.
    """
    side, margin = 2.2, 0.1  # inches
    figure, axes = page(len(clips) * side, side + 0.35)
    longest = max(clip.keypoint.shape[1] for clip in clips)
    step = -(-longest // _MAX_FRAMES)
    lines, poses = LineCollection([], **_LINE), []
    axes.add_collection(lines)
    for i, clip in enumerate(clips):
        corner = np.array([i * side + margin, margin])
        frames = np.arange(0, clip.keypoint.shape[1], step)
        points, visible = _fit_poses(clip, frames, y_down, side - 2 * margin)
        poses.append((points + corner, visible))
        write(axes, corner[0], side + 0.08, _title(clip, class_names, 32), size=8)
    writer = PillowWriter(fps=_FPS)
    with atomic_path(path) as partial, writer.saving(figure, str(partial), dpi=80):
        for t in range(-(-longest // step)):
            bodies = []
            for points, visible in poses:
                frame = [t % points.shape[1]]
                bodies.append(_segments(points[:, frame], visible[:, frame], skeleton))
            lines.set_segments([segment for segments, _ in bodies for segment in segments])
            lines.set_color([tuple(color) for _, colors in bodies for color in colors])
            writer.grab_frame()


def _fit_poses(
    clip: Recording, frames: Int[np.ndarray, " F"], y_down: bool, side: float
) -> tuple[Float[np.ndarray, "M F V 2"], Bool[np.ndarray, "M F V"]]:
    """Return points with y up, centered in a square, and visible joints."""
    points = clip.keypoint[:, frames].astype(np.float64)
    score = None if clip.score is None else clip.score[:, frames]
    visible = np.isfinite(points).all(-1) & visible_joints(points, score)
    return fit(points[..., :2] * (1, -1 if y_down else 1), visible, side), visible


def _segments(
    points: Float[np.ndarray, "M F V 2"], visible: Bool[np.ndarray, "M F V"], skeleton: Skeleton
) -> tuple[Float[np.ndarray, "S 2 2"], Float[np.ndarray, "S 3"]]:
    """Return bones with two visible ends and dots of joints as segments, and their colors."""
    dots = [(i, i) for i in range(len(skeleton))]
    ends = np.array([*skeleton.bones, *torso(skeleton), *dots])
    prefix = [name.partition("_")[0] for name in skeleton.joints]
    crossing = {("left", "right"), ("right", "left")}
    sides = ["middle" if (prefix[a], prefix[b]) in crossing else prefix[a] for a, b in ends]
    colors = np.array([to_rgb(_SIDES.get(side, _SIDES["middle"])) for side in sides])
    white = _WHITE[np.minimum(np.arange(len(points)), len(_WHITE) - 1)][:, None, None, None]
    colors = np.broadcast_to(white + (1 - white) * colors, (*visible.shape[:2], *colors.shape))
    shown = visible[:, :, ends].all(-1)
    segments = points[:, :, ends][shown]
    segments[:, 1, 0] += 1e-3  # lines of length zero are not drawn
    return segments, colors[shown]


def _title(clip: Recording, class_names: Sequence[str], length: int = 110) -> str:
    return shorten(f"{clip.name}   {class_names[clip.label]}", length)


def _draw_legend(axes: Axes, x: float, y: float) -> None:
    for text, color in (*_SIDES.items(), ("paler: other persons", "0.6")):
        write(axes, x, y, text, size=8, color=color, weight="bold")
        x += 0.1 + 0.075 * len(text)
