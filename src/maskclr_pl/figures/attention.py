"""What a model attends to, on the bodies that it sees.

As on the poster of MaskCLR, the importance of a joint is divided by the maximum of its clip, and
colours go from blue to red. The released script has red for everything above a third
(`gain=3`); where attention is flat that makes all joints red, so the default goes up to the
maximum. The size of a dot says the same, so that nothing depends on telling red from blue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from maskclr_pl.figures.drawing import fit, page, torso, write
from maskclr_pl.figures.style import any_letters, save, short
from maskclr_pl.files import atomic_path
from maskclr_pl.skeletons.skeleton import Skeleton

_FPS, _LONGEST = 15, 100  # of an animation, in frames
_BONE = "0.72"
_Poses = tuple[np.ndarray, np.ndarray, np.ndarray]  # points, visible, relative importance


@dataclass(frozen=True)
class AttendedClip:
    """A clip as a model sees it, and what the model attends to."""

    name: str
    true: str
    """Its class."""
    predicted: str | None
    """What the model says; None for one that names no classes."""
    points: Float[np.ndarray, "M T V 2"]
    """In any unit, y up."""
    visible: Bool[np.ndarray, "M T V"]
    importance: Float[np.ndarray, "M T V"]
    """>= 0; zeros for persons who are not there."""

    def lines(self) -> list[str]:
        """What stands above it."""
        said = [] if self.predicted is None else [f"predicted: {self.predicted}"]
        return [self.name, f"true: {self.true}", *said]

    def relative(self) -> Float[np.ndarray, "M T V"]:
        """Importance divided by its maximum in the clip, in [0, 1]."""
        return self.importance / max(self.importance.max(), 1e-12)


def attention_colors(
    relative: Float[np.ndarray, "*shape"], gain: float = 1
) -> Float[np.ndarray, "*shape 3"]:
    """Red r = min(1, gain * relative), green 0, blue 1 - r."""
    red = np.minimum(1, gain * relative)
    return np.stack([red, np.zeros_like(red), 1 - red], axis=-1)


def attention_sizes(relative: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Area of a dot in square points: from 3 to 55."""
    return 3 + 52 * relative**1.5


def attention_strip(
    clips: Sequence[AttendedClip], skeleton: Skeleton, path: Path, columns: int = 8, gain: float = 1
) -> list[Path]:
    """Clips as rows of poses, from the first frame to the last; all of a clip at the same scale.

    Args:
        clips: A row each.
        skeleton: Their joints.
        path: PNG to write (an SVG goes beside it).
        columns: Poses of a clip; fewer if it is shorter.
        gain: See `attention_colors`.
    """
    side, across, down, margin = 1.45, 1.66, 2.05, 0.15
    figure, axes = page(columns * across + 2 * margin, len(clips) * down + 0.6)
    _legend(axes, margin, len(clips) * down + 0.33, gain)
    for row, clip in enumerate(clips):
        bottom = (len(clips) - 1 - row) * down + 0.25
        frames = np.linspace(0, clip.points.shape[1] - 1, columns).round().astype(int)
        frames = np.unique(frames)
        placed = fit(clip.points[:, frames], clip.visible[:, frames], side)
        placed[..., 0] += (margin + across * np.arange(len(frames)))[:, None]
        placed[..., 1] += bottom
        visible, relative = clip.visible[:, frames], clip.relative()[:, frames]
        lines = _bones(placed, visible, skeleton)
        axes.add_collection(LineCollection(list(lines), colors=_BONE, linewidths=1.3, zorder=1))
        points, colours, sizes = _dots(placed, visible, relative, gain)
        look: dict[str, Any] = {"linewidths": 0.4, "edgecolors": "white", "zorder": 2}
        axes.scatter(points[:, 0], points[:, 1], s=sizes, c=colours, **look)
        text = "   ".join(short(line, 60) for line in clip.lines())
        write(axes, margin, bottom + side + 0.18, text, size=9)
        for i, frame in enumerate(frames):
            x = margin + across * i + side / 2
            write(axes, x, bottom - 0.18, f"frame {frame}", size=6.5, color="0.4", ha="center")
        between = margin + across * np.arange(1, len(frames)) - (across - side) / 2
        axes.vlines(between, bottom, bottom + side, color="0.9", linewidth=0.8, zorder=0)
    return save(figure, path)


def attention_animation(
    clips: Sequence[AttendedClip], skeleton: Skeleton, path: Path, columns: int = 2, gain: float = 1
) -> list[Path]:
    """Clips side by side as a GIF, at 15 frames a second; a shorter clip starts again.

    Args:
        clips: At most four or so; those of more than 100 frames are thinned.
        skeleton: Their joints.
        path: GIF to write.
        columns: Clips in a row.
        gain: See `attention_colors`.
    """
    side, across, down, margin = 2.7, 3.2, 3.55, 0.15
    rows = -(-len(clips) // columns)
    figure, axes = page(max(min(columns, len(clips)) * across, 4.6) + margin, rows * down + 0.45)
    _legend(axes, margin, rows * down + 0.2, gain)
    moving = []
    for i, clip in enumerate(clips):
        left = margin + across * (i % columns)
        bottom = down * (rows - 1 - i // columns) + margin
        step = -(-clip.points.shape[1] // _LONGEST)
        visible = clip.visible[:, ::step]
        placed = fit(clip.points[:, ::step], visible, side) + np.array([left, bottom])
        moving.append((placed, visible, clip.relative()[:, ::step]))
        for number, line in enumerate(clip.lines()):
            height = bottom + side + 0.48 - 0.17 * number
            write(axes, left, height, short(line, 50), size=8)
    first, *rest = _frames(figure, axes, moving, skeleton, gain)
    with atomic_path(path) as partial:
        first.save(partial, save_all=True, append_images=rest, duration=round(1000 / _FPS), loop=0)
    return [path]


def _frames(
    figure: Figure, axes: Axes, moving: Sequence[_Poses], skeleton: Skeleton, gain: float
) -> list[Image.Image]:
    """The texts are drawn once; a frame is a copy of them with bones and joints on top."""
    canvas = FigureCanvasAgg(figure)
    lines = LineCollection([], colors=_BONE, linewidths=1.8, animated=True)
    dots = axes.scatter([], [], linewidths=0.5, edgecolors="white", animated=True)
    axes.add_collection(lines)
    with any_letters():
        canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    images, palette = [], _palette()
    for t in range(max(points.shape[1] for points, _, _ in moving)):
        now = [(p[:, [k]], v[:, [k]], r[:, [k]]) for p, v, r in moving for k in [t % p.shape[1]]]
        segments = [_bones(points, visible, skeleton) for points, visible, _ in now]
        places, colours, sizes = map(
            np.concatenate, zip(*(_dots(*clip, gain) for clip in now), strict=True)
        )
        lines.set_segments(list(np.concatenate(segments)))
        dots.set(offsets=places, facecolors=colours, sizes=1.8 * sizes)
        canvas.restore_region(background)
        axes.draw_artist(lines)
        axes.draw_artist(dots)
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        images.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
    return images


def _bones(
    points: Float[np.ndarray, "M F V 2"], visible: Bool[np.ndarray, "M F V"], skeleton: Skeleton
) -> Float[np.ndarray, "S 2 2"]:
    """Bones whose ends are both there."""
    ends = np.array([*skeleton.bones, *torso(skeleton)], dtype=int).reshape(-1, 2)
    drawn: np.ndarray = points[:, :, ends][visible[:, :, ends].all(-1)]
    return drawn


def _dots(
    points: Float[np.ndarray, "M F V 2"],
    visible: Bool[np.ndarray, "M F V"],
    relative: Float[np.ndarray, "M F V"],
    gain: float,
) -> tuple[Float[np.ndarray, "S 2"], Float[np.ndarray, "S 3"], Float[np.ndarray, " S"]]:
    """Places, colours and sizes of the joints that are there."""
    seen = relative[visible]
    return points[visible], attention_colors(seen, gain), attention_sizes(seen)


def _legend(axes: Axes, x: float, y: float, gain: float) -> None:
    """Dots as they are drawn, for seven values."""
    values = np.linspace(0, 1, 7)
    write(axes, x, y, "attention received:", size=8, va="center")
    places = x + 1.35 + 0.24 * np.arange(len(values))
    look: dict[str, Any] = {"s": attention_sizes(values), "c": attention_colors(values, gain)}
    axes.scatter(places, np.full(len(values), y), linewidths=0, **look)
    for i, text in ((0, "0"), (3, "1/2"), (6, "1")):
        write(axes, places[i], y - 0.17, text, size=6.5, ha="center", va="center")
    write(axes, places[-1] + 0.2, y, "of the clip's maximum", size=8, va="center")


def _palette() -> Image.Image:
    """Colours of the dots, these and blacks mixed with white: the same for all frames of a GIF."""
    ramp, steps = attention_colors(np.linspace(0, 1, 60)), np.linspace(0, 0.75, 4)
    mixed = np.concatenate([white + (1 - white) * ramp for white in steps])
    greys = np.linspace(0, 1, 256 - len(mixed))[:, None].repeat(3, 1)  # few: Pillow rounds
    image = Image.new("P", (1, 1))
    image.putpalette((255 * np.concatenate([mixed, greys])).round().astype(np.uint8).tobytes())
    return image
