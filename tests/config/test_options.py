import math
import subprocess
import sys

import pytest

from maskclr_pl.sources.options import check_number, parse_frame_size, parse_path
from maskclr_pl.types import InputError


@pytest.mark.parametrize(
    "size", [7, 1.5, True, "ab", [], [1], [1, 2, 3], ["a", "b"], [1.5, 2], [0, 5], {"a": 1}]
)
def test_what_is_no_image_size(size):
    with pytest.raises(InputError, match=r"^frame_size=.*: expected \[HEIGHT,WIDTH\] in pixels$"):
        parse_frame_size(size)


@pytest.mark.parametrize("size", [[math.nan, 5], [None, 5], [True, 5], [2**40, 5], [-1, 5]])
def test_sides_that_are_none(size):
    with pytest.raises(InputError, match="expected"):
        parse_frame_size(size)


def test_image_sizes():
    assert parse_frame_size([480, 640]) == parse_frame_size((480, 640)) == (480, 640)
    assert parse_frame_size(None) is None


@pytest.mark.parametrize("path", [7, None, True, 1.5, ["a.pkl", "b.pkl"], [], {"a": 1}])
def test_what_is_no_path(path):
    with pytest.raises(InputError, match=r"^input=.*: expected the name of one file or folder$"):
        parse_path("input", path)


@pytest.mark.parametrize("value", ["abc", None, True, [1], math.nan, math.inf, 0.49, 0.91])
def test_what_is_no_number_of_a_range(value):
    with pytest.raises(InputError, match=r"^source\.x=.*: expected a number from 0\.5 to 0\.9$"):
        check_number("source.x", value, 0.5, 0.9)


@pytest.mark.parametrize("value", ["1", None, True, 1.0, 0, -1, math.nan])
def test_what_is_no_whole_number(value):
    with pytest.raises(InputError, match=r"^source\.x=.*: expected a whole number from 1$"):
        check_number("source.x", value, 1)


def test_numbers_of_the_range():
    check_number("x", 1, 1)
    check_number("x", 10**20, 1)
    check_number("x", 0.5, 0.5, 0.9)
    check_number("x", 1, 0.0, 1.0)


WRONG = """
from maskclr_pl.sources.ctrgcn import CtrGcnSource
from maskclr_pl.sources.kinetics import KineticsSource
from maskclr_pl.sources.ntu.source import NtuSkeletonSource
from maskclr_pl.sources.poses.source import PosesSource
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.sources.stgcn import StgcnJsonSource
from maskclr_pl.types import InputError
for source, options in [
    *((source, {"path": path}) for path in (7, None, [[1]], [], {"a": 1}) for source in
      (CtrGcnSource, KineticsSource, NtuSkeletonSource, PysklSource, StgcnJsonSource)),
    *((PosesSource, {"path": path, "labels": "x.csv"}) for path in (7, ["a", "b"])),
    (PosesSource, {"path": "x", "labels": 7}),
    (PosesSource, {"path": "x", "labels": "x", "window": "abc"}),
    *((source, {"path": "x", "frame_size": size}) for size in (7, "ab", ["a", "b"]) for source in
      (KineticsSource, PysklSource, StgcnJsonSource)),
    (KineticsSource, {"path": "x", "box_threshold": "abc"}),
    (KineticsSource, {"path": "x", "max_persons": 1.5}),
    (KineticsSource, {"path": "x", "valid_ratio": None}),
    (StgcnJsonSource, {"path": "x", "persons": float("nan")}),
    (StgcnJsonSource, {"path": "x", "frame_size": None}),
    (NtuSkeletonSource, {"path": "x", "coordinates": ["metres"]}),
]:
    try:
        source(**options)
    except InputError as error:
        expected = ": expected" in str(error) or "pass frame_size=" in str(error)
        print("clear" if expected else f"{source.__name__} {options}: {error}")
    else:
        print("accepted", source, options)
"""


def test_sources_refuse_values_of_another_type():
    """In a process of its own: here the annotations are checked, which users do not have."""
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, timeout=99)
    assert done.stderr == ""
    assert set(done.stdout.splitlines()) == {"clear"}
