"""A user's own videos: what a pose estimator found in each, and a CSV file with the labels."""

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
from maskclr_pl.sources.poses.labels import check_overlaps, numbered, read_labels
from maskclr_pl.sources.poses.tables import clip_paths, is_table
from maskclr_pl.sources.poses.video import PoseVideo, read_poses
from maskclr_pl.sources.splitting import (
    Part,
    Span,
    Splitter,
    has_person,
    shared_subject_notes,
    window_length,
)
from maskclr_pl.types import InputError


class PosesSource:
    """Recordings from a folder of pose files and a CSV file with their labels.

    The folder has, for each clip, a file or a folder that `read_poses` reads; or the poses of all
    clips are in a table. The CSV file has the columns clip (name of the file or folder, with or
    without its ending), label and, if needed, split, subject, start and end (see `read_labels`).
    Files without a row are left out.

    Without a column `split`, about 30 % of the clips of each class test, whole persons where the
    subjects are given, and whole videos where several rows are parts of one. The draw is always
    the same; `division` asks for another, also in the place of such a column.

    A recording is a clip, unless no class has three or a window is asked for: then clips are cut
    into overlapping windows. A class without a clip to test on is divided in time before the
    windows are cut, so that no frame is on both sides.

    Args:
        path: Folder with the pose files of all clips, a single file, or a table.
        labels: The CSV file.
        frame_size: See `read_poses`.
        skeleton: Joint layout; by default that of the first clip. All have the same.
        max_persons: Persons kept in a recording, those seen best.
        window: Frames of a window; where there must be some, by default 64, or less in short clips.
        stride: Frames from one window to the next; half a window by default.
        units: Unit of the coordinates; None: their values tell.
        division: Arguments of `Splitter`.

    Raises:
        InputError: If there are no such files, the CSV file does not fit, or it is too little.
    """

    parallel = True
    units: str | None = "pixels"  # persons are followed by their distance in pixels

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
        self._division = Splitter(**(division or {}))
        self._read: tuple[str, PoseVideo] | None = None
        self.notes: list[str] = []
        self._rows = read_labels(labels)
        columned = any(row.split for row in self._rows)
        self._drawn = not columned or self._division.by is not None
        if not self._drawn:
            self._division.check_unused()
        check_overlaps(labels, self._rows)
        files = files_under(path, ".json")
        digest = listing_hash(files) + file_hash(labels)
        self.hash = hashlib.sha256(digest.encode()).hexdigest()
        self._match(clip_paths(self.path, files))
        self.class_names, self._labels = numbered([row.label for row in self._rows])
        subjects = [row.subject for row in self._rows]
        self._subjects = [
            place if subject else -1
            for subject, place in zip(subjects, numbered(subjects)[1], strict=True)
        ]
        first = self._first_video()
        self._form, self.notes = first.form, [*self.notes, *first.form.notes()]
        self.skeleton = first.skeleton if skeleton is None else load_skeleton(skeleton)
        self._parts = self._divide(window, stride)
        if self._drawn:
            seen = [self._rows[part.row].subject for part in self._parts]
            self.notes += shared_subject_notes(seen, [part.split == "test" for part in self._parts])
        self.splits = self._splits()
        self._read = None  # what is sent to other processes should be small

    def __len__(self) -> int:
        return len(self._parts)

    def name(self, index: int) -> str:
        """`clip`, or `clip@start-end` for a part of one."""
        row, _, start, end = self._parts[index]
        frames = "" if start is end is None else f"@{start or 0}-{'' if end is None else end}"
        return self._names[row] + frames

    def __getitem__(self, index: int) -> Recording:
        """Read one recording.

        Raises:
            InputError: If the poses cannot be read, have another joint layout than the first clip,
                or nobody is in them.
        """
        part = self._parts[index]
        path = self._paths[part.row]
        video = self._video(part.row)
        if len(video.skeleton) != len(self.skeleton):
            raise InputError(
                f"{path}: {len(video.skeleton)} joints ({video.skeleton.name}), but the first clip "
                f"has {len(self.skeleton)} ({self.skeleton.name}); make one store for each"
            )
        if video.form.unit != self._form.unit:
            raise InputError(
                f"{path}: {video.form.unit}, but the first clip has {self._form.unit}; make a "
                "store for each, or pass units= if the values mislead"
            )
        keypoint, score = video.clip(part.start, part.end, self.max_persons)
        if not len(keypoint):
            raise InputError(
                f"{path}: clip {self.name(index)!r} has nobody in it; the frames of the file are "
                f"{video.first} to {video.end - 1}"
            )
        return Recording(
            self.name(index),
            self._labels[part.row],
            keypoint,
            score,
            video.frame_size,
            subject=self._subjects[part.row],
        )

    def _video(self, row: int) -> PoseVideo:
        """The poses of a clip; those read last are kept, for its other windows."""
        name, path = self._names[row], self._paths[row]
        if self._read is None or self._read[0] != name:
            video = name if is_table(path) else None
            how = self.frame_size, self._layout, video, self._units
            self._read = name, read_poses(path, *how)
        return self._read[1]

    def _first_video(self) -> PoseVideo:
        """The first clip that can be read."""
        for row in range(len(self._rows)):
            with suppress(InputError):  # raised again when it is its turn
                return self._video(row)
        return self._video(0)

    def _match(self, clips: dict[str, Path]) -> None:
        """Find the file of each row."""
        self._names, self._paths = [], []
        lines: dict[tuple[str, int | None, int | None], int] = {}
        for row in self._rows:
            name = clip_name(row.clip)
            if name not in clips:
                some = ", ".join(sorted(clips)[:3])
                raise InputError(
                    f"{self.labels}, line {row.line}: no file or folder {name[:60]!r} in "
                    f"{self.path}, which has {some}{', ...' if len(clips) > 3 else ''}"
                )
            key = name, row.start, row.end
            if key in lines:
                raise InputError(
                    f"{self.labels}, line {row.line}: clip {name!r} again, as in line "
                    f"{lines[key]}; expected one row for each clip, or different start and end"
                )
            lines[key] = row.line
            self._names.append(name)
            self._paths.append(clips[name])
        unlabelled = sorted(set(clips) - set(self._names))
        if unlabelled:
            more = ", ..." if len(unlabelled) > 5 else ""
            self.notes.append(
                f"{len(unlabelled)} of {len(clips)} clips have no row in {self.labels} and are "
                f"left out: {', '.join(unlabelled[:5])}{more}"
            )

    def _divide(self, window: int | None, stride: int | None) -> list[Part]:
        """The recordings, each with its split."""
        splits, untested = [row.split for row in self._rows], set[int]()
        if self._drawn:
            splits, untested = self._draw()
        parts = [
            Part(i, split, row.start, row.end)
            for i, (row, split) in enumerate(zip(self._rows, splits, strict=True))
        ]
        if window is None and max(Counter(self._labels).values()) >= 3:
            self._note("too few clips of %s to test on", untested)
            return parts
        spans, seen = self._spans(parts, untested)
        length = window or window_length(spans)
        stride = stride or max(1, length // 2)
        why = "" if window else "no class has three clips, so "
        self.notes.append(f"{why}clips are cut into windows of {length} frames, every {stride}")
        self._note("for %s the beginning of each clip trains, the rest tests", untested)
        cut = [part for span in spans for part in span.windows(length, stride)]
        found = [Part(*part) for part in cut if has_person(part, seen[self._names[part.row]])]
        if self._drawn and self._division.by != "none":
            self._check(found)
        return found

    def _splits(self) -> dict[str, list[str]]:
        """Names of the recordings of each split."""
        splits: dict[str, list[str]] = {}
        lines: dict[str, int] = {}
        for index, part in enumerate(self._parts):
            name, line = self.name(index), self._rows[part.row].line
            if name in lines:
                raise InputError(
                    f"{self.labels}, lines {lines[name]} and {line}: their frames overlap, so that "
                    f"both give {name}; type another source.window"
                )
            lines[name] = line
            splits.setdefault(part.split, []).append(name)
        return splits

    def _note(self, text: str, labels: set[int]) -> None:
        if labels:
            self.notes.append(text % ", ".join(self.class_names[i] for i in sorted(labels)))

    def _draw(self) -> tuple[list[str], set[int]]:
        """A split for each row, and the classes without a row to test on."""
        if self._division.by == "none":
            return ["all"] * len(self._rows), set()
        clips = {"clips": self._names, "parts of clips": [str(row.line) for row in self._rows]}
        subjects = [row.subject for row in self._rows]
        groups = self._division.groupings(self._names, subjects, clips)
        test, used = self._division.draw(self._labels, groups)
        if test.any():
            unused = any(row.split for row in self._rows)
            column = (
                "has a column `split`, which is not used" if unused else "has no column `split`"
            )
            self.notes.append(
                f"{self.labels} {column}: {test.sum()} of {len(test)} rows were drawn "
                f"for split test, whole {used}; the others are split train"
            )
        tested = {label for label, chosen in zip(self._labels, test, strict=True) if chosen}
        return ["test" if chosen else "train" for chosen in test], set(self._labels) - tested

    def _spans(
        self, parts: Sequence[Part], untested: set[int]
    ) -> tuple[list[Span], dict[str, np.ndarray]]:
        """The frames of the parts, those of untested classes divided in time.

        Also, of each clip, the frames in which somebody is seen, sorted.
        """
        spans, seen = [], {}
        for part in parts:
            path = self._paths[part.row]
            video = self._video(part.row)
            seen[self._names[part.row]] = np.unique(video.frame)
            start = max(video.first, part.start or 0)
            end = video.end if part.end is None else min(video.end, part.end)
            if start >= end:
                raise InputError(
                    f"{self.labels}, line {self._rows[part.row].line}: no such frames; those of "
                    f"{path} are {video.first} to {video.end - 1}"
                )
            span = Span(part.row, part.split, start, end)
            spans += span.in_time() if self._labels[part.row] in untested else [span]
        return spans, seen

    def _check(self, parts: Sequence[Part]) -> None:
        train = Counter(self._labels[part.row] for part in parts if part.split == "train")
        test = sum(part.split == "test" for part in parts)
        if max(train.values(), default=0) < 2 or not test:
            raise InputError(
                f"{self.labels}: {train.total()} recordings to train and {test} to test on, which "
                "is too little; expected more or longer clips, or a shorter source.window"
            )
