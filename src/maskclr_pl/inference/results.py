"""Answers of a classifier about videos: as lines, as a table, as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskclr_pl.inference.inputs import Video
from maskclr_pl.inference.windows import Window, found_share, frames_of, persons_in

LOW = 0.3
"""Scores below count as low."""


@dataclass
class Prediction:
    """What was said of a piece of a video."""

    piece: Window
    top: list[tuple[str, float]] = field(default_factory=list)
    """The most likely classes with their probabilities."""

    def text(self) -> str:
        """The most likely class with its probability."""
        return "   ".join(f"{name} {share:.2f}" for name, share in self.top[:1])


@dataclass
class VideoPredictions:
    """A video and what was said of it."""

    video: Video
    file: str
    note: str
    """What became of the joints of its layout."""
    answers: list[Prediction]

    def facts(self) -> dict[str, Any]:
        """Frames, persons, and how well the joints were found."""
        first, end = frames_of(self.video.poses)
        missing, low = found_share(self.video.poses, LOW)
        return {
            "video": self.video.name,
            "file": self.file,
            "frames": [first, end],
            "persons": persons_in(self.video.poses),
            "joints": self.note,
            "joints_not_found": round(missing, 4),
            f"scores_below_{LOW:g}": None if low is None else round(low, 4),
        }

    def heading(self, name: str) -> str:
        """The facts in one line."""
        facts = self.facts()
        frames, low = facts["frames"][1] - facts["frames"][0], facts[f"scores_below_{LOW:g}"]
        parts = [
            f"{name}   {_count(frames, 'frame')}   {_count(facts['persons'], 'person')}",
            self.note,
            f"{100 * facts['joints_not_found']:.1f} % of joints not found",
        ]
        if low is not None:
            parts.append(f"{100 * low:.1f} % with a score below {LOW:g}")
        return "   ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def format_time(frame: int, fps: float) -> str:
    """Minutes and seconds of a frame."""
    tenths = round(10 * frame / fps)
    return f"{tenths // 600:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def span(piece: Window, fps: float | None) -> str:
    """When a piece is: its first and last frame, or minutes and seconds."""
    if fps is None and piece.end == piece.start + 1:
        return f"frame {piece.start}"
    if fps is None:
        return f"frames {piece.start}-{piece.end - 1}"
    return f"{format_time(piece.start, fps)}-{format_time(piece.end, fps)}"


def who(piece: Window, most: int = 4) -> str:
    """The numbers of the persons in a piece."""
    shown = ", ".join(map(str, piece.persons[:most]))
    more = f" +{len(piece.persons) - most}" if len(piece.persons) > most else ""
    return f"person{'' if len(piece.persons) == 1 else 's'} {shown}{more}"


def text_lines(
    answered: Iterable[VideoPredictions], fps: float | None, with_name: bool
) -> list[str]:
    """A line for each answer, in columns."""
    cells = [
        [
            *([_short(one.video.name, 28)] if with_name else []),
            span(answer.piece, fps),
            who(answer.piece),
            *(f"{_short(name, 24)} {share:.2f}" for name, share in answer.top),
        ]
        for one in answered
        for answer in one.answers
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def table_rows(answered: Iterable[VideoPredictions], fps: float | None) -> list[dict[str, Any]]:
    """A flat row for each answer. `end` is the number of the first frame after the piece."""
    rows = []
    for one in answered:
        for answer in one.answers:
            row: dict[str, Any] = {
                "video": one.video.name,
                "persons": " ".join(map(str, answer.piece.persons)),
                **_times(answer.piece, fps),
                "seen": round(answer.piece.seen, 4),
            }
            for rank, (name, share) in enumerate(answer.top, 1):
                row |= {f"action_{rank}": name, f"probability_{rank}": round(share, 6)}
            rows.append(row)
    return rows


def json_entries(answered: Sequence[VideoPredictions], fps: float | None) -> list[dict[str, Any]]:
    """A dict for each video, with its facts and answers."""
    return [
        {
            **one.facts(),
            "answers": [
                {
                    **_times(answer.piece, fps),
                    "persons": list(answer.piece.persons),
                    "seen": round(answer.piece.seen, 4),
                    "top": [{"action": name, "probability": p} for name, p in answer.top],
                }
                for answer in one.answers
            ],
        }
        for one in answered
    ]


def _times(piece: Window, fps: float | None) -> dict[str, Any]:
    times: dict[str, Any] = {"start": piece.start, "end": piece.end}
    if fps is not None:
        times |= {
            "start_seconds": round(piece.start / fps, 3),
            "end_seconds": round(piece.end / fps, 3),
        }
    return times
