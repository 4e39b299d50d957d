"""Predictions for videos as text, table rows and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskclr_pl.inference.videos import Video, Window
from maskclr_pl.text import ellipsize

LOW_SCORE = 0.3
"""Scores below count as low."""


@dataclass
class Prediction:
    """The most likely classes of a window, with their probabilities."""

    window: Window
    top: list[tuple[str, float]] = field(default_factory=list)

    def text(self) -> str:
        """The most likely class and its probability."""
        return "".join(f"{name} {probability:.2f}" for name, probability in self.top[:1])


@dataclass
class VideoPredictions:
    """A video and the predictions for its windows."""

    video: Video
    file: str
    note: str
    """Conversions of coordinates and joint layout."""
    predictions: list[Prediction]

    def facts(self) -> dict[str, Any]:
        """Frames, persons, and shares of missing joints and low scores."""
        missing, low = self.video.missing_and_low(LOW_SCORE)
        return {
            "video": self.video.name,
            "file": self.file,
            "frames": list(self.video.span),
            "persons": self.video.num_persons,
            "joints": self.note,
            "joints_not_found": round(missing, 4),
            f"scores_below_{LOW_SCORE:g}": None if low is None else round(low, 4),
        }

    def heading(self) -> str:
        """The facts in one line."""
        facts = self.facts()
        (first, end), low = facts["frames"], facts[f"scores_below_{LOW_SCORE:g}"]
        parts = [
            self.video.name,
            _count(end - first, "frame"),
            _count(facts["persons"], "person"),
            self.note,
            f"{100 * facts['joints_not_found']:.1f} % of joints missing",
        ]
        if low is not None:
            parts.append(f"{100 * low:.1f} % with a score below {LOW_SCORE:g}")
        return "   ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_time(frame: int, fps: float) -> str:
    """Time of a frame as MM:SS.s."""
    tenths = round(10 * frame / fps)
    return f"{tenths // 600:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def format_span(window: Window, fps: float | None) -> str:
    """First and last frame of a window, or its start and end time."""
    if fps is not None:
        return f"{format_time(window.start, fps)}-{format_time(window.end, fps)}"
    if window.end == window.start + 1:
        return f"frame {window.start}"
    return f"frames {window.start}-{window.end - 1}"


def format_persons(window: Window, limit: int = 4) -> str:
    """Numbers of the persons in a window."""
    numbers = ", ".join(map(str, window.persons[:limit]))
    more = f" +{len(window.persons) - limit}" if len(window.persons) > limit else ""
    return f"person{'' if len(window.persons) == 1 else 's'} {numbers}{more}"


def text_lines(
    results: Iterable[VideoPredictions], fps: float | None, with_name: bool
) -> list[str]:
    """One line for each window, in aligned columns."""
    cells = [
        [
            *([ellipsize(result.video.name, 28)] if with_name else []),
            format_span(prediction.window, fps),
            format_persons(prediction.window),
            *(f"{ellipsize(name, 24)} {share:.2f}" for name, share in prediction.top),
        ]
        for result in results
        for prediction in result.predictions
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def table_rows(results: Iterable[VideoPredictions], fps: float | None) -> list[dict[str, Any]]:
    """One flat row for each window; `end` is the number of the last frame + 1."""
    rows = []
    for result in results:
        for window, top in ((item.window, item.top) for item in result.predictions):
            row: dict[str, Any] = {
                "video": result.video.name,
                "persons": " ".join(map(str, window.persons)),
                **_times(window, fps),
                "seen": round(window.visible, 4),
            }
            for rank, (name, probability) in enumerate(top, 1):
                row[f"action_{rank}"] = name
                row[f"probability_{rank}"] = round(probability, 6)
            rows.append(row)
    return rows


def json_entries(results: Sequence[VideoPredictions], fps: float | None) -> list[dict[str, Any]]:
    """One entry for each video, with its facts and the predictions for its windows."""
    return [
        {
            **result.facts(),
            "answers": [
                {
                    **_times(window, fps),
                    "persons": list(window.persons),
                    "seen": round(window.visible, 4),
                    "top": [{"action": name, "probability": p} for name, p in top],
                }
                for window, top in ((item.window, item.top) for item in result.predictions)
            ],
        }
        for result in results
    ]


def _times(window: Window, fps: float | None) -> dict[str, Any]:
    times: dict[str, Any] = {"start": window.start, "end": window.end}
    if fps is not None:
        times["start_seconds"] = round(window.start / fps, 3)
        times["end_seconds"] = round(window.end / fps, 3)
    return times
