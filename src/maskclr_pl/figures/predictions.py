"""Skeletons in motion, with what a model said of them.

Drawn with Pillow: an animation of a hundred frames takes a fraction of a second.
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

_LONGER, _SHORTER = 460, 240  # sides in pixels: the longer one, and what the shorter has at least
_TOP, _MARGIN = 46, 40  # pixels above for the caption, and around the bodies
_LETTER = 14
_SLOWEST, _FASTEST = 0.2, 0.04  # seconds that a picture stays


class Caption(NamedTuple):
    """What was said of frames [start, end)."""

    start: int
    end: int
    person: int | None
    """Whom it is about; None for all together."""
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
    """Write a GIF of bodies, each with its number, and the caption that fits the frame best.

    Of windows that overlap, the one whose middle is nearest is shown. What is said of one person
    stands at that person, what is said of all in the line at the top.

    Args:
        path: GIF to write.
        frames: Numbers of the frames that are shown.
        keypoint: x and y are shown.
        visible: Which joints are there.
        persons: Number of each person.
        skeleton: Joints.
        captions: What was said.
        y_down: Whether y points down.
        seconds: From one picture to the next.
        clock: A text for each frame; by default its number.
    """
    points, size = _placed(keypoint[..., :2] * (1, 1 if y_down else -1), visible)
    font = ImageFont.load_default(_LETTER)
    bones = np.array([*skeleton.bones, *torso(skeleton)] or [(0, 0)])
    pictures = []
    for at, frame in enumerate(frames):
        picture = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(picture)
        when = clock[at] if clock else f"frame {frame}"
        draw.text((8, 6), when, fill="#606060", font=font)
        if text := _said(captions, int(frame), None):
            draw.text((8, 24), _cut(text, size[0] - 16, font), fill="black", font=font)
        for row, person in enumerate(persons):
            if visible[row, at].any():
                colour = COLORS[int(person) % len(COLORS)]
                _body(draw, points[row, at], visible[row, at], bones, colour)
                text = _said(captions, int(frame), int(person))
                label = f"person {person}" + (f": {text}" if text else "")
                _label(draw, points[row, at][visible[row, at]], label, colour, font, size)
        pictures.append(picture.quantize(64, dither=Image.Dither.NONE))
    with atomic_path(path) as partial:
        pictures[0].save(
            partial,
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * min(max(seconds, _FASTEST), _SLOWEST)),
            loop=0,
        )


def _placed(
    points: Float[np.ndarray, "P F V 2"], visible: Bool[np.ndarray, "P F V"]
) -> tuple[Float[np.ndarray, "P F V 2"], tuple[int, int]]:
    """Places in a picture that shows all but the most distant joints, and (width, height) of it."""
    seen = points[visible]
    low, high = np.percentile(seen, (0.5, 99.5), axis=0)
    extent = np.maximum(high - low, 1e-6)
    scale = (_LONGER - 2 * _MARGIN) / extent.max()
    inner = np.maximum(extent * scale, _SHORTER - 2 * _MARGIN)
    shift = _MARGIN + (inner - extent * scale) / 2 + (0, _TOP)
    width, height = (inner + 2 * _MARGIN + (0, _TOP)).round().astype(int)
    return (points - low) * scale + shift, (int(width), int(height))


def _said(captions: Sequence[Caption], frame: int, person: int | None) -> str:
    fitting = [one for one in captions if one.person == person and one.start <= frame < one.end]
    nearest = min(fitting, key=lambda one: abs(one.start + one.end - 1 - 2 * frame), default=None)
    return nearest.text if nearest else ""


def _body(
    draw: ImageDraw.ImageDraw,
    points: Float[np.ndarray, "V 2"],
    visible: Bool[np.ndarray, " V"],
    bones: Int[np.ndarray, "E 2"],
    colour: str,
) -> None:
    for a, b in bones[visible[bones].all(1)]:
        draw.line([*points[a], *points[b]], fill=colour, width=3)
    for x, y in points[visible]:
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=colour)


def _label(
    draw: ImageDraw.ImageDraw,
    points: Float[np.ndarray, "J 2"],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A text above a body, inside the picture."""
    text = _cut(text, size[0] - 8, font)
    width = font.getlength(text)
    x = min(max(4.0, points[:, 0].mean() - width / 2), size[0] - width - 4)
    y = min(max(_TOP, points[:, 1].min() - _LETTER - 8), size[1] - _LETTER - 6)
    draw.rectangle((x - 2, y - 1, x + width + 2, y + _LETTER + 3), fill="white")
    draw.text((x, y), text, fill=colour, font=font)


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as there is room for."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
