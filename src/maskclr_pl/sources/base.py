"""Interface of a source: a data set in its published format."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton


@runtime_checkable
class Source(Protocol):
    """Recordings by index; the constructor reads names and tables, not the poses."""

    hash: str
    """SHA-256 of the content, or, for a folder, of the names and sizes of its files."""
    splits: dict[str, list[str]]
    """Split name -> recording names, as the files define them; empty if they do not."""
    class_names: Sequence[str] | None
    """One name per class if the files define them."""
    skeleton: Skeleton | None
    """Joint layout if the files define it."""
    notes: Sequence[str]
    """One line each for files left out on purpose and assumed values."""
    units: str | None
    """Unit of the coordinates, one of `units.UNITS`, if the format defines it; None to detect it
    from the values."""
    parallel: bool
    """True if reading a recording is slow enough for worker processes. Such a source must be
    picklable and hold no open file."""

    def __len__(self) -> int:
        """Return the number of recordings."""

    def name(self, index: int) -> str:
        """Return the name of a recording, unique in the source."""

    def __getitem__(self, index: int) -> Recording:
        """Read one recording.

        Raises:
            InputError: If it cannot be used; the message names the file and the recording.
        """
