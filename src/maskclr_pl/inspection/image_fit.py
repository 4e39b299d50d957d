"""Comparison of image sizes with the poses in the images."""

import numpy as np

from maskclr_pl.data.store.reader import Store
from maskclr_pl.inspection.measure import joint_extent

_MOST_BEYOND = 0.05  # share of joints far beyond the image that is no estimator's guess
_CORNER = 1 / 3  # part of both sides that nobody ever leaves if the image is stated too large
_CLIPS = 8  # fewer may all be of one person at one place
_ROAMED = 0.6  # and the lowest coordinates as a part of the largest: people use all of that corner
_ADVICE = "pass frame_size=[HEIGHT,WIDTH] of the videos, or correct img_shape"


def image_size_notes(store: Store) -> list[str]:
    """Say that image sizes do not fit the poses: too small for them, or far too large.

    Returns:
        A line, or none.
    """
    if store.frame_size is None:
        return []
    low, high, beyond = joint_extent(store)
    if beyond > _MOST_BEYOND:
        height, width = store.frame_size.max(0)
        return [
            f"{beyond:.0%} of the joints are far outside of their images ({_seen(low, high)}; "
            f"images up to {width} x {height}): the image size looks too small; {_ADVICE}"
        ]
    return _too_large(store, low, high)


def too_large(store: Store) -> list[str]:
    """Say that all images are far too large: all joints of all clips are in one corner of them.

    That is the top left ninth, and people spread there from near the left and upper sides. A
    small person somewhere in a large image is none of that: it does not come near both. Of a few
    clips no note is given; nor where images differ in size, since nobody states those by hand.

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
    cornered = (high > 0).all() and (high <= _CORNER * np.array([width, height])).all()
    roamed = (low <= _ROAMED * high).all()
    if not (len(store) >= _CLIPS and one_size and cornered and roamed):
        return []
    return [
        f"all joints of all clips are in the top left corner of the {width} x {height} image, in a "
        f"ninth of it ({_seen(low, high)}): the image size looks too large; {_ADVICE}"
    ]


def _seen(low: np.ndarray, high: np.ndarray) -> str:
    return f"x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}"
