"""Comparison of image sizes with the poses in the images."""

import numpy as np

from maskclr_pl.data.store.reader import Store
from maskclr_pl.inspection.measure import joint_extent

_MAX_BEYOND = 0.05  # share of joints far beyond the image that an estimator may guess
_CORNER = 1 / 3  # part of both sides that poses stay in if the image size is too large
_MIN_CLIPS = 8  # fewer may all show one person in one place
_SPREAD = 0.6  # smallest coordinates relative to the largest: persons use the whole corner
_ADVICE = "pass frame_size=[HEIGHT,WIDTH] of the videos, or correct img_shape"


def image_size_notes(store: Store) -> list[str]:
    """Note image sizes that are too small or far too large for the poses.

    Returns:
        A line, or none.
    """
    if store.frame_size is None:
        return []
    low, high, beyond = joint_extent(store)
    if beyond > _MAX_BEYOND:
        height, width = store.frame_size.max(0)
        return [
            f"{beyond:.0%} of the joints are far outside of their images ({_ranges(low, high)}; "
            f"images up to {width} x {height}): the image size looks too small; {_ADVICE}"
        ]
    return _too_large(store, low, high)


def too_large(store: Store) -> list[str]:
    """Note images that are far too large: all joints of all clips are in the top left ninth.

    Persons must also come near the left and upper sides, which a small person somewhere in a large
    image does not. Stores of few clips, or of images of several sizes (which are not passed by
    hand), are not judged.

    Returns:
        A line, or none.
    """
    if store.frame_size is None:
        return []
    low, high, _ = joint_extent(store)
    return _too_large(store, low, high)


def _too_large(store: Store, low: np.ndarray, high: np.ndarray) -> list[str]:
    assert store.frame_size is not None
    height, width = store.frame_size[0]
    one_size = bool((store.frame_size == store.frame_size[0]).all())
    in_corner = (high > 0).all() and (high <= _CORNER * np.array([width, height])).all()
    spread = (low <= _SPREAD * high).all()
    if not (len(store) >= _MIN_CLIPS and one_size and in_corner and spread):
        return []
    return [
        f"all joints of all clips are in the top left corner of the {width} x {height} image, in a "
        f"ninth of it ({_ranges(low, high)}): the image size looks too large; {_ADVICE}"
    ]


def _ranges(low: np.ndarray, high: np.ndarray) -> str:
    return f"x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}"
