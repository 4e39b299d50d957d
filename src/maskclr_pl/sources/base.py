"""What a source is: a data set in the form in which people have it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton


@runtime_checkable
class Source(Protocol):
    """Recordings by number; making one looks at names and tables, not at the poses."""

    hash: str
    """SHA-256 of the content, or, for a folder, of the names and sizes of its files."""
    splits: dict[str, list[str]]
    """Split name -> recording names, as the files give them; empty if they do not."""
    class_names: Sequence[str] | None
    """One name per class where the files give them."""
    skeleton: Skeleton | None
    """Joint layout where the files tell it."""
    notes: Sequence[str]
    """What its user should know, a line each: files left out on purpose, values assumed."""
    units: str | None
    """Unit of the coordinates, one of `units.UNITS`, where the format says it; None: their values
    tell."""
    parallel: bool
    """Whether reading a recording takes long enough to be worth a process of its own. Such a
    source is sent to other processes, so it must be picklable and hold no open file."""

    def __len__(self) -> int:
        """Number of recordings."""

    def name(self, index: int) -> str:
        """Name of a recording, unique in the source."""

    def __getitem__(self, index: int) -> Recording:
        """Read one recording.

        Raises:
            InputError: If it cannot be used; the message names the file and the recording.
        """
