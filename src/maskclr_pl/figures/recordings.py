"""Pictures of what a store contains."""

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
from maskclr_pl.data.store.reader import found_joints
from maskclr_pl.figures.classes import class_counts
from maskclr_pl.figures.drawing import fit, page, torso, write
from maskclr_pl.figures.style import COLORS, any_letters
from maskclr_pl.files import atomic_path
from maskclr_pl.skeletons.skeleton import Skeleton

_SIDES = {"left": COLORS[0], "right": COLORS[1], "middle": "#404040"}
_WHITE = np.array([0.0, 0.55, 0.75])  # mixed into the colour of the first, second, other persons
_LINE: dict[str, Any] = {"linewidths": 1.6, "capstyle": "round"}
_FPS, _LONGEST = 15, 100  # of an animation, in frames


def draw_overview(store: Store, found: Inspection, folder: Path) -> list[Path]:
    """All pictures of a store: clips per class, a contact sheet, moving clips.

    Of the folds of a cross-validation (names that differ in the number at the end) one is shown.

    Args:
        store: The store.
        found: What `inspect` found in it.
        folder: Where `classes.png` (and SVG), `clips.png` and `clips.gif` are written.

    Returns:
        The files; only the first of them if no clip shows a body.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folds: dict[str, list[str]] = {}
    for name, splits in protocols(found.splits).items():
        folds.setdefault(re.sub(r"\d+$", "", name), splits)
    counts = {name: {part: found.counts(part) for part in parts} for name, parts in folds.items()}
    files, names = [folder / "classes.png"], found.class_names
    clips = [store.recording(int(i)) for i in examples(found, 8)]
    with any_letters():
        class_counts(counts or {"": {"all": found.counts()}}, names, files[0])
        if clips:
            files += [folder / "clips.png", folder / "clips.gif"]
            contact_sheet(clips, store.skeleton, names, files[1], y_down=found.y_down)
            animation(clips[::2], store.skeleton, names, files[2], y_down=found.y_down)
    return files


def examples(found: Inspection, number: int) -> Int[np.ndarray, " E"]:
    """Clips that show a body, of classes spread over all; fewer if there are not so many."""
    rows = np.flatnonzero(found.visible)
    rows = rows[np.argsort(found.label[rows], kind="stable")]
    classes, first, members = np.unique(found.label[rows], return_index=True, return_counts=True)
    turn = np.arange(len(rows)) - np.repeat(first, members)  # how many of the class come before
    if len(classes) >= number:
        return rows[first[np.linspace(0, len(classes) - 1, number).round().astype(int)]]
    chosen = np.argsort(turn, kind="stable")[:number]
    return rows[np.sort(chosen)]


def contact_sheet(
    clips: Sequence[Recording],
    skeleton: Skeleton,
    class_names: Sequence[str],
    path: Path,
    *,
    y_down: bool,
    columns: int = 8,
) -> None:
    """Clips as rows of poses, from the first frame to the last; all of a clip at the same scale.

    Args:
        clips: A row each; x and y are shown.
        skeleton: Their joints.
        class_names: One name per class.
        path: PNG to write.
        y_down: Whether y points down.
        columns: Poses of a clip; fewer if it is shorter.
    """
    side, across, down, margin = 1.3, 1.4, 1.8, 0.15  # inches
    figure, axes = page(columns * across + 2 * margin, len(clips) * down + 0.4)
    _legend(axes, margin, len(clips) * down + 0.15)
    for row, clip in enumerate(clips):
        bottom = (len(clips) - 1 - row) * down + 0.2
        frames = np.linspace(0, clip.keypoint.shape[1] - 1, columns).round().astype(int)
        frames = np.unique(frames)
        left = margin + across * np.arange(len(frames))
        corner = np.stack([left, np.full(len(frames), bottom)], 1)
        points, visible = _poses(clip, frames, y_down, side)
        segments, colours = _segments(points + corner[:, None], visible, skeleton)
        axes.add_collection(LineCollection(list(segments), colors=colours, **_LINE))
        write(axes, margin, bottom + side + 0.12, _title(clip, class_names), size=8)
        for x, frame in zip(left, frames, strict=True):
            write(axes, x + side / 2, bottom - 0.12, f"{frame}", size=6, color="0.5", ha="center")
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
    """Clips side by side as a GIF, at 15 frames a second; a short clip starts again.

    Args:
        clips: At most four or so; of long ones every other frame, or fewer, so that it has at
            most 100.
        skeleton: Their joints.
        class_names: One name per class.
        path: GIF to write.
        y_down: Whether y points down.
    """
    side, margin = 2.2, 0.1  # inches
    figure, axes = page(len(clips) * side, side + 0.35)
    longest = max(clip.keypoint.shape[1] for clip in clips)
    step = -(-longest // _LONGEST)
    lines, moving = LineCollection([], **_LINE), []
    axes.add_collection(lines)
    for i, clip in enumerate(clips):
        corner = np.array([i * side + margin, margin])
        frames = np.arange(0, clip.keypoint.shape[1], step)
        points, visible = _poses(clip, frames, y_down, side - 2 * margin)
        moving.append((points + corner, visible))
        write(axes, corner[0], side + 0.08, _title(clip, class_names, 32), size=8)
    writer = PillowWriter(fps=_FPS)
    with atomic_path(path) as partial, writer.saving(figure, str(partial), dpi=80):
        for t in range(-(-longest // step)):
            drawn = [
                _segments(p[:, [t % p.shape[1]]], v[:, [t % p.shape[1]]], skeleton)
                for p, v in moving
            ]
            lines.set_segments([segment for segments, _ in drawn for segment in segments])
            lines.set_color([tuple(colour) for _, colours in drawn for colour in colours])
            writer.grab_frame()


def _poses(
    clip: Recording, frames: Int[np.ndarray, " F"], y_down: bool, side: float
) -> tuple[Float[np.ndarray, "M F V 2"], Bool[np.ndarray, "M F V"]]:
    """Points with y up, their common box in the middle of a square, and which joints are there."""
    points = clip.keypoint[:, frames].astype(np.float64)
    score = None if clip.score is None else clip.score[:, frames]
    visible = np.isfinite(points).all(-1)
    visible &= found_joints(points, score)
    return fit(points[..., :2] * (1, -1 if y_down else 1), visible, side), visible


def _segments(
    points: Float[np.ndarray, "M F V 2"], visible: Bool[np.ndarray, "M F V"], skeleton: Skeleton
) -> tuple[Float[np.ndarray, "S 2 2"], Float[np.ndarray, "S 3"]]:
    """Bones whose ends are both there, and a dot for each joint, with their colours."""
    dots = [(i, i) for i in range(len(skeleton))]
    ends = np.array([*skeleton.bones, *torso(skeleton), *dots])
    side = [name.partition("_")[0] for name in skeleton.joints]
    other = {("left", "right"), ("right", "left")}
    looks = ["middle" if (side[a], side[b]) in other else side[a] for a, b in ends]
    colours = np.array([to_rgb(_SIDES.get(look, _SIDES["middle"])) for look in looks])
    white = _WHITE[np.minimum(np.arange(len(points)), len(_WHITE) - 1)][:, None, None, None]
    colours = np.broadcast_to(white + (1 - white) * colours, (*visible.shape[:2], *colours.shape))
    drawn = visible[:, :, ends].all(-1)
    segments = points[:, :, ends][drawn]
    segments[:, 1, 0] += 1e-3  # a line without length would not be drawn
    return segments, colours[drawn]


def _title(clip: Recording, class_names: Sequence[str], longest: int = 110) -> str:
    text = f"{clip.name}   {class_names[clip.label]}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _legend(axes: Axes, x: float, y: float) -> None:
    for text, colour in (*_SIDES.items(), ("paler: other persons", "0.6")):
        write(axes, x, y, text, size=8, color=colour, weight="bold")
        x += 0.1 + 0.075 * len(text)
