"""The raw skeleton files of NTU RGB+D 60 and 120, one `.skeleton` text file per clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.io.files import files_under, listing_hash
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.ntu.actors import select_actors, stack_actors
from maskclr_pl.sources.ntu.parser import Body, parse
from maskclr_pl.sources.options import parse_path
from maskclr_pl.types import InputError

_COLOR_IMAGE = (1080, 1920)  # (height, width) of the color camera
_MAX_BYTES = 1 << 24  # the longest clips, 300 frames of several people, have some 5 million


class NtuSkeletonSource:
    """Recordings from raw NTU RGB+D files.

    Args:
        path: A folder searched recursively for `.skeleton` files, or one such file. Samples on the
            official list of missing skeletons are left out with a note.
        coordinates: "metres" for (x, y, z) in camera space, "pixels" for (x, y) in the image of the
            color camera with the tracking state of the sensor as score: 1 tracked, 0.5 inferred,
            0 not tracked or without a position in the image.

    Raises:
        InputError: If there are no files, or a file name is not a sample name.
    """

    splits: dict[str, list[str]] = {}  # noqa: RUF012  # a constant: the files define none
    class_names: Sequence[str] | None = None
    units: str | None = None
    skeleton: Skeleton | None = None
    parallel = True

    def __init__(self, path: str | Path, coordinates: Literal["metres", "pixels"] = "metres"):
        if coordinates not in ("metres", "pixels"):
            raise InputError(f"coordinates={coordinates}: expected metres or pixels")
        self.pixels = coordinates == "pixels"
        all_files = files_under(parse_path("input", path), ".skeleton")
        files = [file for file in all_files if _sample_name(file) not in ntu.MISSING]
        if not files:
            raise InputError(f"{path}: all files are on the official list of missing skeletons")
        missing = len(all_files) - len(files)
        note = f"{missing} files on the official list of missing skeletons left out"
        self.notes = [note] if missing else []
        self.hash = listing_hash(files)
        self._files = [str(file) for file in files]  # strings are sent to workers faster than paths

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Return the file name without its extension."""
        return Path(self._files[index]).stem

    def __getitem__(self, index: int) -> Recording:
        """Read one file.

        Raises:
            InputError: If it cannot be read, is malformed, or no frame has a body.
        """
        file, name = self._files[index], self.name(index)
        keypoint, score, frame_size = read_actors(file, self.pixels)
        label = ntu.sample_label(name)
        return Recording(name, label, keypoint, score, frame_size, **ntu.sample_ids(name))


def read_actors(
    file: str, pixels: bool
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int] | None]:
    """Read the actors in a raw file of any name.

    Args:
        file: `.skeleton` file.
        pixels: Read positions in the color image instead of meters.

    Returns:
        keypoint: (M, T, 25, 2 or 3), without the frames that have no person.
        score: (M, T, 25) with pixels.
        frame_size: (height, width) with pixels.

    Raises:
        InputError: If it cannot be read, is malformed, or no frame has a body.
    """
    slots = select_actors(parse(_read_bytes(file), file, color=pixels))
    if not slots:
        raise InputError(f"{file}: there is no body in any of its frames")
    if not pixels:
        return stack_actors(slots, lambda body: body.joints), None, None
    keypoint = stack_actors(slots, _color)
    score = stack_actors(slots, lambda body: body.state.astype(np.float32) / 2)
    score[~np.isfinite(keypoint).all(-1)] = 0
    keypoint[score == 0] = 0
    return keypoint, score, _COLOR_IMAGE


def _sample_name(file: Path) -> str:
    match = ntu.NTU_NAME.search(file.stem)
    if match is None:
        raise InputError(
            f"{file}: the class is read from the file name; expected SsssCcccPpppRrrrAaaa.skeleton "
            "such as S001C002P003R001A001.skeleton"
        )
    return match[0]


def _color(body: Body) -> np.ndarray:
    assert body.color is not None
    return body.color


def _read_bytes(file: str) -> bytes:
    try:
        if not Path(file).is_file():  # opening a pipe would block
            raise InputError(f"{file}: no longer exists, or is not a file")
        with open(file, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{file}: larger than any recording ({_MAX_BYTES >> 20} MB)")
    return data
