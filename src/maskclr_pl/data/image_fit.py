"""Comparison of image sizes with the poses in the images."""

import numpy as np

from maskclr_pl.data.measuring import extent
from maskclr_pl.data.store import Store

_MOST_BEYOND = 0.05  # share of joints far beyond the image that is no estimator's guess
_CORNER = 0.5  # part of both sides that nobody ever leaves if the image is stated too large
_ROAMED = 0.6  # and the lowest coordinates as a part of the largest: people use all of that corner


def image_size_notes(store: Store) -> list[str]:
    """Say that image sizes do not fit the poses: too small for them, or far too large.

    An image is too large if all joints of all clips are in its top left quarter, and spread there
    from near the left and upper sides. A small person somewhere in a large image is not: it does
    not come near both. Where images differ in size, the sizes were not typed by hand, and only too
    small ones are noticed.

    Returns:
        A line, or none.
    """
    if store.frame_size is None:
        return []
    low, high, beyond = extent(store)
    if not np.isfinite(low).all():
        return []
    height, width = store.frame_size.max(0)
    seen = f"x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}"
    advice = "pass frame_size=[HEIGHT,WIDTH] of the videos, or correct img_shape"
    if beyond > _MOST_BEYOND:
        return [
            f"{beyond:.0%} of the joints are far outside of their images ({seen}; images up to "
            f"{width} x {height}): the image size looks too small; {advice}"
        ]
    one_size = bool((store.frame_size == store.frame_size[0]).all())
    cornered = (high <= _CORNER * np.array([width, height])).all()
    if one_size and cornered and (low <= _ROAMED * high).all() and (high > 0).all():
        return [
            f"all joints of all clips are in the top left quarter of the {width} x {height} image "
            f"({seen}): the image size looks too large; {advice}"
        ]
    return []
