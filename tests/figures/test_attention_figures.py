"""Drawings of attention."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from maskclr_pl.figures import attention as figures
from maskclr_pl.figures.attention import (
    AttendedClip,
    attention_animation,
    attention_colors,
    attention_sizes,
    attention_strip,
)
from tests.helpers.protocol_tools import (
    CHAIN,
)


def kept(monkeypatch, module) -> list[Figure]:
    figures_: list[Figure] = []
    monkeypatch.setattr(module, "save", lambda figure, path: figures_.append(figure) or [path])
    return figures_


def attended(visible: np.ndarray, importance: np.ndarray) -> AttendedClip:
    points = np.random.default_rng(0).normal(size=(*visible.shape, 2))
    return AttendedClip("name$", "日本", None, points, visible, importance)


def test_attention_colors_and_sizes():
    assert attention_colors(np.array([0, 0.25, 1.0])).tolist() == [
        [0, 0, 1],
        [0.25, 0, 0.75],
        [1, 0, 0],
    ]
    poster = attention_colors(np.array([0, 1 / 6, 1 / 3, 1.0]), gain=3)
    assert np.allclose(poster, [[0, 0, 1], [0.5, 0, 0.5], [1, 0, 0], [1, 0, 0]])
    assert (np.diff(attention_sizes(np.linspace(0, 1, 9))) > 0).all()


def test_invisible_joints_are_not_drawn(tmp_path, monkeypatch):
    drawn = kept(monkeypatch, figures)
    visible = np.ones((2, 4, 3), bool)
    visible[1], visible[0, 2], visible[0, 3, 1] = False, False, False
    attention_strip([attended(visible, np.ones((2, 4, 3)))], CHAIN, tmp_path / "x.png")
    _, bones, dots, _ = drawn[0].axes[0].collections
    assert len(dots.get_offsets()) == 3 + 3 + 2
    assert len(bones.get_segments()) == 2 + 2 + 1


@pytest.mark.parametrize("frames", [1, 7, 250])
def test_the_animation(tmp_path, frames):
    """As many frames as the clip has, at most 100; the same colors as the strip."""
    visible = np.ones((1, frames, 3), bool)
    importance = np.zeros((1, frames, 3))
    importance[:, :, 1] = 1
    clips = [attended(visible, importance), attended(visible[:, :1], importance[:, :1])]
    [path] = attention_animation(clips, CHAIN, tmp_path / "x.gif")
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == min(frames, 84 if frames == 250 else frames)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels[0, 0] == 255).all()
    red, blue = (np.abs(pixels - color).max(-1) < 30 for color in ([255, 0, 0], [0, 0, 255]))
    assert red.sum() > 50
    assert blue.sum() > 3


def test_empty_clips_and_zero_attention_are_drawn(tmp_path):
    nothing = np.zeros((2, 3, 3))
    clips = [attended(nothing.astype(bool), nothing), attended(nothing == 0, nothing)]
    assert len(attention_strip(clips, CHAIN, tmp_path / "x.png")) == 2
    assert attention_animation(clips, CHAIN, tmp_path / "x.gif")[0].stat().st_size > 1000
