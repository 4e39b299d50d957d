"""A user's own videos: pose files of the clips, and a CSV file with their labels."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.sources.io.files import file_hash, files_under, listing_hash
from maskclr_pl.sources.options import check_number, parse_frame_size, parse_path
from maskclr_pl.sources.poses.files import clip_name
from maskclr_pl.sources.poses.labels import check_overlaps, index_names, read_labels
from maskclr_pl.sources.poses.tables import clip_paths, is_table
from maskclr_pl.sources.poses.video import PoseVideo, read_poses
from maskclr_pl.sources.splitting import (
    Segment,
    Span,
    Splitter,
    shared_subject_notes,
    window_length,
)
from maskclr_pl.types import InputError


class PosesSource:
    """Recordings from a folder of pose files and a CSV file with their labels.

    The folder contains, for each clip, a file or a folder that `read_poses` reads; or the poses of
    all clips are in a table. The CSV file has the columns clip (name of the file or folder, with or
    without its extension), label and, if needed, split, subject, start and end (see `read_labels`).
    Files without a row are left out.

    Without a column `split`, about 30 % of the clips of each class form the test split: whole
    subjects if they are known, and whole videos where several rows are segments of one. The draw
    is reproducible; `division` changes it, and also replaces such a column.

    A recording is a clip, unless no class has three clips or a window is requested: then clips are
    cut into overlapping windows. A class without a clip to test on is divided in time before the
    windows are cut, so that no frame is in both splits.

    Args:
        path: Folder with the pose files of all clips, a single file, or a table.
        labels: The CSV file.
        frame_size: See `read_poses`.
        skeleton: Joint layout; by default that of the first clip. All have the same.
        max_persons: Persons kept in a recording, those with the largest summed score.
        window: Frames of a window; by default 64 where windows are needed, less in short clips.
        stride: Frames from one window to the next; half a window by default.
        units: Unit of the coordinates; None to detect it.
        division: Arguments of `Splitter`.

    Raises:
        InputError: If there are no such files, the CSV file does not match, or there are too few
            recordings.
    """

    parallel = True
    units: str | None = "pixels"  # persons are tracked by their distance in pixels

    def __init__(
        self,
        path: str | Path,
        labels: str | Path,
        frame_size: Sequence[int] | None = None,
        skeleton: str | Path | None = None,
        max_persons: int = 4,
        window: int | None = None,
        stride: int | None = None,
        units: str | None = None,
        division: Mapping[str, Any] | None = None,
    ):
        for option, value in (("max_persons", max_persons), ("window", window), ("stride", stride)):
            if value is not None:
                check_number(f"source.{option}", value, 1)
        self.path, self.labels = parse_path("input", path), parse_path("source.labels", labels)
        self.frame_size, self.max_persons = parse_frame_size(frame_size), max_persons
        self._layout, self._units = skeleton, units
        self._splitter = Splitter(**(division or {}))
        self._cached: tuple[str, PoseVideo] | None = None
        self.notes: list[str] = []
        self._rows = read_labels(labels)
        has_splits = any(row.split for row in self._rows)
        self._draws = not has_splits or self._splitter.by is not None
        if not self._draws:
            self._splitter.check_unused()
        check_overlaps(labels, self._rows)
        files = files_under(path, ".json")
        digest = listing_hash(files) + file_hash(labels)
        self.hash = hashlib.sha256(digest.encode()).hexdigest()
        self._match_files(clip_paths(self.path, files))
        self.class_names, self._labels = index_names([row.label for row in self._rows])
        first = self._first_video()
        self._form, self.notes = first.form, [*self.notes, *first.form.notes()]
        self.skeleton = first.skeleton if skeleton is None else load_skeleton(skeleton)
        self._segments = self._divide(window, stride)
        if self._draws:
            subjects = [self._rows[segment.row].subject for segment in self._segments]
            test = [segment.split == "test" for segment in self._segments]
            self.notes += shared_subject_notes(subjects, test)
        self.splits = self._split_names()
        self._cached = None  # keeps the object small for worker processes

    def __len__(self) -> int:
        return len(self._segments)

    def name(self, index: int) -> str:
        """Return `clip`, or `clip@start-end` for a segment of one."""
        row, _, start, end = self._segments[index]
        frames = "" if start is end is None else f"@{start or 0}-{'' if end is None else end}"
        return self._names[row] + frames

    def __getitem__(self, index: int) -> Recording:
        """Read one recording.

        Raises:
            InputError: If the poses cannot be read, have another format than the first clip, or
                show nobody.
        """
        segment = self._segments[index]
        path = self._paths[segment.row]
        video = self._read_video(segment.row)
        if len(video.skeleton) != len(self.skeleton):
            raise InputError(
                f"{path}: {len(video.skeleton)} joints ({video.skeleton.name}), but the first clip "
                f"has {len(self.skeleton)} ({self.skeleton.name}); make one store for each"
            )
        if video.form.unit != self._form.unit:
            raise InputError(
                f"{path}: {video.form.unit}, but the first clip has {self._form.unit}; pass units= "
                "if the detection is wrong, or make a store for each"
            )
        keypoint, score = video.clip(segment.start, segment.end, self.max_persons)
        if not len(keypoint):
            raise InputError(
                f"{path}: clip {self.name(index)!r} shows nobody; the frames of the file are "
                f"{video.first} to {video.end - 1}"
            )
        label, subject = self._labels[segment.row], self._subjects[segment.row]
        return Recording(
            self.name(index), label, keypoint, score, video.frame_size, subject=subject
        )

    def _read_video(self, row: int) -> PoseVideo:
        """Read the poses of a clip; the last clip is cached for its other windows."""
        name, path = self._names[row], self._paths[row]
        if self._cached is None or self._cached[0] != name:
            video = name if is_table(path) else None
            self._cached = (
                name,
                read_poses(path, self.frame_size, self._layout, video, self._units),
            )
        return self._cached[1]

    def _first_video(self) -> PoseVideo:
        """Read the first usable clip."""
        for row in range(len(self._rows)):
            with suppress(InputError):  # raised again when the clip is converted
                return self._read_video(row)
        return self._read_video(0)

    def _match_files(self, clips: dict[str, Path]) -> None:
        """Find the file of each row, and number the subjects."""
        self._names, self._paths = [], []
        lines: dict[tuple[str, int | None, int | None], int] = {}
        for row in self._rows:
            name = clip_name(row.clip)
            if name not in clips:
                examples = ", ".join(sorted(clips)[:3]) + (", ..." if len(clips) > 3 else "")
                raise InputError(
                    f"{self.labels}, line {row.line}: no file or folder {name[:60]!r} in "
                    f"{self.path}, which contains {examples}"
                )
            line = lines.setdefault((name, row.start, row.end), row.line)
            if line != row.line:
                raise InputError(
                    f"{self.labels}, line {row.line}: clip {name!r} again, as in line {line}; "
                    "expected one row for each clip, or different start and end"
                )
            self._names.append(name)
            self._paths.append(clips[name])
        unlabeled = sorted(set(clips) - set(self._names))
        if unlabeled:
            more = ", ..." if len(unlabeled) > 5 else ""
            self.notes.append(
                f"{len(unlabeled)} of {len(clips)} clips have no row in {self.labels} and are "
                f"left out: {', '.join(unlabeled[:5])}{more}"
            )
        subjects = [row.subject for row in self._rows]
        indices = index_names(subjects)[1]
        self._subjects = [i if name else -1 for i, name in zip(indices, subjects, strict=True)]

    def _divide(self, window: int | None, stride: int | None) -> list[Segment]:
        """Return the recordings, each with its split."""
        splits, untested = [row.split for row in self._rows], set[int]()
        if self._draws:
            splits, untested = self._draw_splits()
        segments = [
            Segment(i, split, row.start, row.end)
            for i, (row, split) in enumerate(zip(self._rows, splits, strict=True))
        ]
        if window is None and max(Counter(self._labels).values()) >= 3:
            self._note_classes("too few clips of %s to test on", untested)
            return segments
        spans, frames = self._spans(segments, untested)
        length = window or window_length(spans)
        stride = stride or max(1, length // 2)
        reason = "" if window else "no class has three clips, so "
        self.notes.append(f"{reason}clips are cut into windows of {length} frames, every {stride}")
        self._note_classes("for %s the beginning of each clip trains, the rest tests", untested)
        windows = [part for span in spans for part in span.windows(length, stride)]
        segments = [
            Segment(*part) for part in windows if part.has_person(frames[self._names[part.row]])
        ]
        if self._draws and self._splitter.by != "none":
            self._check_enough(segments)
        return segments

    def _draw_splits(self) -> tuple[list[str], set[int]]:
        """Return a split for each row, and the classes without a test row."""
        if self._splitter.by == "none":
            return ["all"] * len(self._rows), set()
        clips = {"clips": self._names, "segments of clips": [str(row.line) for row in self._rows]}
        subjects = [row.subject for row in self._rows]
        groupings = self._splitter.groupings(self._names, subjects, clips)
        test, grouping = self._splitter.draw(self._labels, groupings)
        if test.any():
            ignored = any(row.split for row in self._rows)
            reason = "column `split` is ignored" if ignored else "no column `split`"
            self.notes.append(
                f"{self.labels}: {reason}; {test.sum()} of {len(test)} rows were drawn for split "
                f"test, whole {grouping}; the others are split train"
            )
        tested = {label for label, in_test in zip(self._labels, test, strict=True) if in_test}
        splits = ["test" if in_test else "train" for in_test in test]
        return splits, set(self._labels) - tested

    def _spans(
        self, segments: Sequence[Segment], untested: set[int]
    ) -> tuple[list[Span], dict[str, np.ndarray]]:
        """Return the frames of the segments, and the sorted frames of each clip with a person.

        Segments of untested classes are divided in time.
        """
        spans: list[Span] = []
        frames: dict[str, np.ndarray] = {}
        for row, split, first, last in segments:
            video = self._read_video(row)
            frames[self._names[row]] = np.unique(video.frame)
            start = max(video.first, first or 0)
            end = video.end if last is None else min(video.end, last)
            if start >= end:
                raise InputError(
                    f"{self.labels}, line {self._rows[row].line}: no such frames; those of "
                    f"{self._paths[row]} are {video.first} to {video.end - 1}"
                )
            span = Span(row, split, start, end)
            spans += span.split_in_time() if self._labels[row] in untested else [span]
        return spans, frames

    def _split_names(self) -> dict[str, list[str]]:
        """Return the names of the recordings of each split."""
        splits: dict[str, list[str]] = {}
        lines: dict[str, int] = {}
        for index, segment in enumerate(self._segments):
            name, line = self.name(index), self._rows[segment.row].line
            if name in lines:
                raise InputError(
                    f"{self.labels}, lines {lines[name]} and {line}: overlapping frames give two "
                    f"windows {name}; pass another source.window"
                )
            lines[name] = line
            splits.setdefault(segment.split, []).append(name)
        return splits

    def _note_classes(self, text: str, labels: set[int]) -> None:
        if labels:
            self.notes.append(text % ", ".join(self.class_names[i] for i in sorted(labels)))

    def _check_enough(self, segments: Sequence[Segment]) -> None:
        labels = (self._labels[segment.row] for segment in segments if segment.split == "train")
        train = Counter(labels)
        test = sum(segment.split == "test" for segment in segments)
        if max(train.values(), default=0) < 2 or not test:
            raise InputError(
                f"{self.labels}: {train.total()} recordings to train and {test} to test on are too "
                "few; use more or longer clips, or pass a shorter source.window"
            )
