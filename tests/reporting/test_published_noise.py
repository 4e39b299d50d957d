"""Published noise curves."""

import pytest

from maskclr_pl.reporting.published_noise import published_noise
from maskclr_pl.types import InputError


def test_published_curves_are_complete():
    curves = published_noise(["MaskCLR", "PoseConv3D"])
    sigma, top1 = curves["spatiotemporal_noise"]["PoseConv3D (published, NTU60-XSub)"]
    assert sigma == [i / 1000 for i in range(11)]
    assert (top1[0], top1[-1]) == (93.7, 15.2)
    everything = published_noise(["MaskCLR, class loss only", "MotionBERT-R", "MS-G3D", "AAGCN"])
    for methods in everything.values():
        assert all(len(x) == len(y) == 11 for x, y in methods.values())
    with pytest.raises(InputError, match="no published curve of 'x'; expected one of MaskCLR, "):
        published_noise(["x"])
