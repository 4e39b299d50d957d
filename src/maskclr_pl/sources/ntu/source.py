"""The raw skeleton files of NTU RGB+D 60 and 120, one `.skeleton` text file per clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.io.files import files_under, listing_hash
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.ntu.actors import Slots, actors, assemble
from maskclr_pl.sources.ntu.parser import Body, parse
from maskclr_pl.sources.options import parse_path
from maskclr_pl.types import InputError

_IMAGE = (1080, 1920)  # of the colour camera, (height, width)
_LARGEST = 1 << 24  # bytes; the longest clips, 300 frames of several people, have some 5 million


class NtuSkeletonSource:
    """Recordings from raw NTU RGB+D files.

    Args:
        path: A folder with `.skeleton` files, also in folders in it, or one such file. The samples
            on the official list of missing skeletons are left out.
        coordinates: "metres" for (x, y, z) in camera space, "pixels" for (x, y) in the image of the
            colour camera with the tracking state of the sensor as score: 1 tracked, 0.5 inferred,
            0 not tracked or without a place in the image.

    Attributes:
        notes: How many files were left out, as a line for the user.

    Raises:
        InputError: If there are no files, or one is not named as the set names them.
    """

    splits: dict[str, list[str]] = {}  # noqa: RUF012  # a constant: the files give none
    class_names: Sequence[str] | None = None
    units: str | None = None
    skeleton: Skeleton | None = None
    parallel = True

    def __init__(self, path: str | Path, coordinates: Literal["metres", "pixels"] = "metres"):
        if coordinates not in ("metres", "pixels"):
            raise InputError(f"coordinates={coordinates}: expected metres or pixels")
        self.pixels = coordinates == "pixels"
        found = files_under(parse_path("input", path), ".skeleton")
        files = [file for file in found if _sample(file) not in ntu.MISSING]
        if not files:
            raise InputError(f"{path}: all files are on the official list of missing skeletons")
        missing = len(found) - len(files)
        left_out = f"{missing} files on the official list of missing skeletons left out"
        self.notes = [left_out] if missing else []
        self.hash = listing_hash(files)
        self._files = [str(file) for file in files]  # sent to other processes faster than paths

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The file name without its extension."""
        return Path(self._files[index]).stem

    def __getitem__(self, index: int) -> Recording:
        """Read one file.

        Raises:
            InputError: If it cannot be read, is not in the format, or no frame has a body.
        """
        file, name = self._files[index], self.name(index)
        keypoint, score, frame_size = read_actors(file, self.pixels)
        return Recording(name, ntu.label(name), keypoint, score, frame_size, **ntu.ids(name))


def read_actors(
    file: str, pixels: bool
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int] | None]:
    """The actors in a raw file, whatever its name.

    Args:
        file: `.skeleton` file.
        pixels: Read their places in the colour image instead of metres.

    Returns:
        keypoint: (M, T, 25, 2 or 3), frames in which nobody is left out.
        score: (M, T, 25) with pixels.
        frame_size: (height, width) with pixels.

    Raises:
        InputError: If it cannot be read, is not in the format, or no frame has a body.
    """
    slots = actors(parse(_content(file), file, color=pixels))
    if not slots:
        raise InputError(f"{file}: there is no body in any of its frames")
    if pixels:
        return *_image(slots), _IMAGE
    return assemble(slots, lambda body: body.joints), None, None


def _sample(file: Path) -> str:
    match = ntu.NTU_NAME.search(file.stem)
    if match is None:
        raise InputError(
            f"{file}: the class of a clip is known from the name of its file; expected "
            "SsssCcccPpppRrrrAaaa.skeleton such as S001C002P003R001A001.skeleton"
        )
    return match[0]


def _image(slots: Slots) -> tuple[np.ndarray, np.ndarray]:
    """(M, T, 25, 2) pixels and (M, T, 25) scores."""
    keypoint = assemble(slots, _color)
    score = assemble(slots, lambda body: body.state.astype(np.float32) / 2)
    score[~np.isfinite(keypoint).all(-1)] = 0
    keypoint[score == 0] = 0
    return keypoint, score


def _color(body: Body) -> np.ndarray:
    assert body.color is not None
    return body.color


def _content(file: str) -> bytes:
    try:
        if not Path(file).is_file():  # a pipe would be waited for
            raise InputError(f"{file}: not there any more, or not a file")
        with open(file, "rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if len(data) > _LARGEST:
        raise InputError(f"{file}: larger than any recording ({_LARGEST >> 20} MB)")
    return data
