"""Attention of a model, drawn on the bodies it sees.

As on the MaskCLR poster, the importance of a joint is divided by the maximum in its clip, and
colors go from blue to red. The released script saturates at a third of the maximum (`gain=3`),
which makes all joints red where attention is flat, so the default saturates at the maximum. The
size of a dot encodes the same value for color-blind readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from maskclr_pl.figures.drawing import fit, page, torso, write
from maskclr_pl.figures.style import ignore_missing_glyphs, save, shorten
from maskclr_pl.files import atomic_path
from maskclr_pl.skeletons.skeleton import Skeleton

_FPS, _MAX_FRAMES = 15, 100  # of an animation
_BONE_COLOR = "0.72"
_Poses = tuple[np.ndarray, np.ndarray, np.ndarray]  # points, visible, relative importance


@dataclass(frozen=True)
class AttendedClip:
    """A clip as a model sees it, with the attention of the model."""

    name: str
    true: str
    """Name of its class."""
    predicted: str | None
    """Name of the predicted class; None if the model is not a classifier."""
    points: Float[np.ndarray, "M T V 2"]
    """Points in any unit, y up."""
    visible: Bool[np.ndarray, "M T V"]
    importance: Float[np.ndarray, "M T V"]
    """Importance >= 0; zeros for absent persons."""

    def captions(self) -> list[str]:
        """Return name, true class and predicted class as text."""
        predicted = [] if self.predicted is None else [f"predicted: {self.predicted}"]
        return [self.name, f"true: {self.true}", *predicted]

    def relative_importance(self) -> Float[np.ndarray, "M T V"]:
        """Return importance divided by its maximum in the clip, in [0, 1]."""
        return self.importance / max(self.importance.max(), 1e-12)


def attention_colors(
    relative: Float[np.ndarray, "*shape"], gain: float = 1
) -> Float[np.ndarray, "*shape 3"]:
    """Return colors with red r = min(1, gain * relative), green 0, blue 1 - r."""
    red = np.minimum(1, gain * relative)
    return np.stack([red, np.zeros_like(red), 1 - red], axis=-1)


def attention_sizes(relative: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return areas of dots in square points, from 3 to 55."""
    return 3 + 52 * relative**1.5


def attention_strip(
    clips: Sequence[AttendedClip], skeleton: Skeleton, path: Path, columns: int = 8, gain: float = 1
) -> list[Path]:
    """Draw each clip as a row of up to `columns` poses from the first to the last frame.

    All poses of a clip have the same scale. For `gain`, see `attention_colors`.
    """
    side, across, down, margin = 1.45, 1.66, 2.05, 0.15  # inches
    figure, axes = page(columns * across + 2 * margin, len(clips) * down + 0.6)
    _draw_legend(axes, margin, len(clips) * down + 0.33, gain)
    for row, clip in enumerate(clips):
        bottom = (len(clips) - 1 - row) * down + 0.25
        frames = np.linspace(0, clip.points.shape[1] - 1, columns).round().astype(int)
        frames = np.unique(frames)
        left = margin + across * np.arange(len(frames))
        visible, relative = clip.visible[:, frames], clip.relative_importance()[:, frames]
        points = fit(clip.points[:, frames], visible, side)
        points += np.stack([left, np.full(len(frames), bottom)], axis=1)[:, None]
        bones = list(_bones(points, visible, skeleton))
        axes.add_collection(LineCollection(bones, colors=_BONE_COLOR, linewidths=1.3, zorder=1))
        dots, colors, sizes = _dots(points, visible, relative, gain)
        axes.scatter(
            dots[:, 0], dots[:, 1], s=sizes, c=colors, linewidths=0.4, edgecolors="white", zorder=2
        )
        text = "   ".join(shorten(caption, 60) for caption in clip.captions())
        write(axes, margin, bottom + side + 0.18, text, size=9)
        for x, frame in zip(left + side / 2, frames, strict=True):
            write(axes, x, bottom - 0.18, f"frame {frame}", size=6.5, color="0.4", ha="center")
        between = left[1:] - (across - side) / 2
        axes.vlines(between, bottom, bottom + side, color="0.9", linewidth=0.8, zorder=0)
    return save(figure, path)


def attention_animation(
    clips: Sequence[AttendedClip], skeleton: Skeleton, path: Path, columns: int = 2, gain: float = 1
) -> list[Path]:
    """Draw up to about four clips side by side as a GIF with 15 frames per second.

    Clips with more than 100 frames are subsampled, shorter clips repeat. For `gain`, see
    `attention_colors`.
    """
    side, across, down, margin = 2.7, 3.2, 3.55, 0.15  # inches
    rows = -(-len(clips) // columns)
    figure, axes = page(max(min(columns, len(clips)) * across, 4.6) + margin, rows * down + 0.45)
    _draw_legend(axes, margin, rows * down + 0.2, gain)
    poses: list[_Poses] = []
    for i, clip in enumerate(clips):
        left = margin + across * (i % columns)
        bottom = down * (rows - 1 - i // columns) + margin
        step = -(-clip.points.shape[1] // _MAX_FRAMES)
        visible = clip.visible[:, ::step]
        points = fit(clip.points[:, ::step], visible, side) + np.array([left, bottom])
        poses.append((points, visible, clip.relative_importance()[:, ::step]))
        for line, caption in enumerate(clip.captions()):
            y = bottom + side + 0.48 - 0.17 * line
            write(axes, left, y, shorten(caption, 50), size=8)
    first, *rest = _render_frames(figure, axes, poses, skeleton, gain)
    with atomic_path(path) as partial:
        first.save(partial, save_all=True, append_images=rest, duration=round(1000 / _FPS), loop=0)
    return [path]


def _render_frames(
    figure: Figure, axes: Axes, poses: Sequence[_Poses], skeleton: Skeleton, gain: float
) -> list[Image.Image]:
    """Render the static text once, and draw bones and joints of each frame on top."""
    canvas = FigureCanvasAgg(figure)
    lines = LineCollection([], colors=_BONE_COLOR, linewidths=1.8, animated=True)
    dots = axes.scatter([], [], linewidths=0.5, edgecolors="white", animated=True)
    axes.add_collection(lines)
    with ignore_missing_glyphs():
        canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    images, palette = [], _palette()
    for t in range(max(points.shape[1] for points, _, _ in poses)):
        now = [
            (points[:, [k]], visible[:, [k]], relative[:, [k]])
            for points, visible, relative in poses
            for k in [t % points.shape[1]]
        ]
        bones = [_bones(points, visible, skeleton) for points, visible, _ in now]
        joints = [_dots(points, visible, relative, gain) for points, visible, relative in now]
        offsets, colors, sizes = map(np.concatenate, zip(*joints, strict=True))
        lines.set_segments(list(np.concatenate(bones)))
        dots.set(offsets=offsets, facecolors=colors, sizes=1.8 * sizes)
        canvas.restore_region(background)
        axes.draw_artist(lines)
        axes.draw_artist(dots)
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        images.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
    return images


def _bones(
    points: Float[np.ndarray, "M F V 2"], visible: Bool[np.ndarray, "M F V"], skeleton: Skeleton
) -> Float[np.ndarray, "S 2 2"]:
    """Return the bones with two visible ends as segments."""
    ends = np.array([*skeleton.bones, *torso(skeleton)], dtype=int).reshape(-1, 2)
    segments: np.ndarray = points[:, :, ends][visible[:, :, ends].all(-1)]
    return segments


def _dots(
    points: Float[np.ndarray, "M F V 2"],
    visible: Bool[np.ndarray, "M F V"],
    relative: Float[np.ndarray, "M F V"],
    gain: float,
) -> tuple[Float[np.ndarray, "S 2"], Float[np.ndarray, "S 3"], Float[np.ndarray, " S"]]:
    """Return positions, colors and sizes of the visible joints."""
    values = relative[visible]
    return points[visible], attention_colors(values, gain), attention_sizes(values)


def _draw_legend(axes: Axes, x: float, y: float, gain: float) -> None:
    """Draw the dots of seven values."""
    values = np.linspace(0, 1, 7)
    write(axes, x, y, "attention received:", size=8, va="center")
    dots = x + 1.35 + 0.24 * np.arange(len(values))
    axes.scatter(
        dots,
        np.full(len(values), y),
        s=attention_sizes(values),
        c=attention_colors(values, gain),
        linewidths=0,
    )
    for i, text in ((0, "0"), (3, "1/2"), (6, "1")):
        write(axes, dots[i], y - 0.17, text, size=6.5, ha="center", va="center")
    write(axes, dots[-1] + 0.2, y, "of the clip's maximum", size=8, va="center")


def _palette() -> Image.Image:
    """Create one palette for all frames: the dot colors, these mixed with white, and grays."""
    ramp, tints = attention_colors(np.linspace(0, 1, 60)), np.linspace(0, 0.75, 4)
    mixed = np.concatenate([white + (1 - white) * ramp for white in tints])
    grays = np.linspace(0, 1, 256 - len(mixed))[:, None].repeat(3, 1)
    image = Image.new("P", (1, 1))
    image.putpalette((255 * np.concatenate([mixed, grays])).round().astype(np.uint8).tobytes())
    return image
