"""Animations of skeletons with predicted actions.

Drawn with Pillow, which renders a hundred frames in a fraction of a second.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw, ImageFont

from maskclr_pl.figures.drawing import torso
from maskclr_pl.figures.style import COLORS
from maskclr_pl.files import atomic_path
from maskclr_pl.skeletons.skeleton import Skeleton

_LONG_SIDE, _MIN_SHORT_SIDE = 460, 240  # pixels
_TOP, _MARGIN = 46, 40  # pixels above for the caption, and around the bodies
_FONT_SIZE = 14
_MAX_SECONDS, _MIN_SECONDS = 0.2, 0.04  # per frame

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Caption(NamedTuple):
    """Text for frames [start, end)."""

    start: int
    end: int
    person: int | None
    """Number of the person; None for the whole scene."""
    text: str


def write_annotated_gif(
    path: Path,
    frames: Int[np.ndarray, " F"],
    keypoint: Float[np.ndarray, "P F V C"],
    visible: Bool[np.ndarray, "P F V"],
    persons: Int[np.ndarray, " P"],
    skeleton: Skeleton,
    captions: Sequence[Caption],
    *,
    y_down: bool,
    seconds: float = 1 / 15,
    clock: Sequence[str] | None = None,
) -> None:
    """Write a GIF of numbered bodies with captions.

    Of overlapping captions, the one whose center is nearest to the frame is shown. Captions of a
    person are drawn next to the person, those of the scene at the top.

    Args:
        path: GIF file to write.
        frames: Numbers of the frames.
        keypoint: Joints, of which x and y are drawn.
        visible: Visible joints.
        persons: Number of each person.
        skeleton: Joint layout.
        captions: Texts to show.
        y_down: True if y points down.
        seconds: Duration of a frame.
        clock: Text for each frame; by default its number.
    """
    points, size = _to_pixels(keypoint[..., :2] * (1, 1 if y_down else -1), visible)
    font = ImageFont.load_default(_FONT_SIZE)
    bones = np.array([*skeleton.bones, *torso(skeleton)] or [(0, 0)])
    images = []
    for i, frame in enumerate(frames):
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        draw.text((8, 6), clock[i] if clock else f"frame {frame}", fill="#606060", font=font)
        if text := _caption_at(captions, int(frame), None):
            draw.text((8, 24), _fit_text(text, size[0] - 16, font), fill="black", font=font)
        for row, person in enumerate(persons):
            if visible[row, i].any():
                color = COLORS[int(person) % len(COLORS)]
                _draw_body(draw, points[row, i], visible[row, i], bones, color)
                text = _caption_at(captions, int(frame), int(person))
                label = f"person {person}" + (f": {text}" if text else "")
                _draw_label(draw, points[row, i][visible[row, i]], label, color, font, size)
        images.append(image.quantize(64, dither=Image.Dither.NONE))
    with atomic_path(path) as partial:
        images[0].save(
            partial,
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * min(max(seconds, _MIN_SECONDS), _MAX_SECONDS)),
            loop=0,
        )


def _to_pixels(
    points: Float[np.ndarray, "P F V 2"], visible: Bool[np.ndarray, "P F V"]
) -> tuple[Float[np.ndarray, "P F V 2"], tuple[int, int]]:
    """Scale points to an image that shows all but outliers; return points and (width, height)."""
    low, high = np.percentile(points[visible], (0.5, 99.5), axis=0)
    extent = np.maximum(high - low, 1e-6)
    scale = (_LONG_SIDE - 2 * _MARGIN) / extent.max()
    inner = np.maximum(extent * scale, _MIN_SHORT_SIDE - 2 * _MARGIN)
    shift = _MARGIN + (inner - extent * scale) / 2 + (0, _TOP)
    width, height = (inner + 2 * _MARGIN + (0, _TOP)).round().astype(int)
    return (points - low) * scale + shift, (int(width), int(height))


def _caption_at(captions: Sequence[Caption], frame: int, person: int | None) -> str:
    matches = [c for c in captions if c.person == person and c.start <= frame < c.end]
    nearest = min(matches, key=lambda c: abs(c.start + c.end - 1 - 2 * frame), default=None)
    return nearest.text if nearest else ""


def _draw_body(
    draw: ImageDraw.ImageDraw,
    points: Float[np.ndarray, "V 2"],
    visible: Bool[np.ndarray, " V"],
    bones: Int[np.ndarray, "E 2"],
    color: str,
) -> None:
    for a, b in bones[visible[bones].all(1)]:
        draw.line([*points[a], *points[b]], fill=color, width=3)
    for x, y in points[visible]:
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=color)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    points: Float[np.ndarray, "J 2"],
    text: str,
    color: str,
    font: Font,
    size: tuple[int, int],
) -> None:
    """Draw text above a body, inside of the image."""
    text = _fit_text(text, size[0] - 8, font)
    width = font.getlength(text)
    x = min(max(4.0, points[:, 0].mean() - width / 2), size[0] - width - 4)
    y = min(max(_TOP, points[:, 1].min() - _FONT_SIZE - 8), size[1] - _FONT_SIZE - 6)
    draw.rectangle((x - 2, y - 1, x + width + 2, y + _FONT_SIZE + 3), fill="white")
    draw.text((x, y), text, fill=color, font=font)


def _fit_text(text: str, width: float, font: Font) -> str:
    """Cut a text to a width in pixels."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
