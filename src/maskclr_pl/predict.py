"""`python -m maskclr_pl.predict ckpt_path=RUN input=POSES`: which actions are in files of poses.

From Python: `maskclr_pl.predict.load(RUN)(clip)`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from maskclr_pl.checkpoint.load import checkpoint_path, load_run
from maskclr_pl.checkpoint.restore import select_device
from maskclr_pl.cli import command, log, refuse_results, results_folder, run_folder
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Recording
from maskclr_pl.figures.predictions import Caption, write_annotated_gif
from maskclr_pl.files import write_atomically
from maskclr_pl.inference.inputs import ReadOptions, Video, VideoEntry, find_inputs, list_videos
from maskclr_pl.inference.predictor import MAX_MISSING, Predictor, softmax, top_classes
from maskclr_pl.inference.results import (
    Prediction,
    VideoPredictions,
    format_time,
    json_entries,
    table_rows,
    text_lines,
)
from maskclr_pl.inference.windows import cut_windows, frames_of, poses_at
from maskclr_pl.methods import Classifier
from maskclr_pl.runs.results import write_table
from maskclr_pl.sources.options import check_number
from maskclr_pl.sources.units import check_unit
from maskclr_pl.types import InputError

_SHOWN = 40  # lines of answers on the screen
_HEADINGS = 12  # videos that have a line of their own there
_ANIMATIONS, _PICTURES = 8, 120  # how many are drawn, and of how many frames each


def load(
    path: str | Path,
    device: str | None = None,
    trusted: Iterable[str] = (),
    max_missing: float = MAX_MISSING,
) -> Predictor:
    """A trained classifier that can be asked about poses: `load(RUN)(clip)` are probabilities.

    Args:
        path: Run folder (its best checkpoint), or a checkpoint file.
        device: cpu, cuda, ...; by default a GPU if there is one.
        trusted: Packages, beyond ours and torch, whose classes the checkpoint may name.
        max_missing: Largest share of the model's joints that the layout of a clip may lack.

    Returns:
        See `Predictor`: called with (M, T, V, 2) pixels or (M, T, V, 3) metres it returns (K,)
        probabilities; `top(clip, k=5)` names the classes; `class_names` and `skeleton` are those
        of the training data.

    Raises:
        InputError: If there is no such checkpoint, or it tells no classes apart.
    """
    file = checkpoint_path(path)
    method, info = load_run(file, trusted)
    if not isinstance(method, Classifier):
        raise InputError(
            f"{file}: {type(method).__name__} learns without labels and has no classes; use "
            f"{shell_command('train', 'method=finetune', init_from=path)} first"
        )
    return Predictor(method, info, select_device(device), max_missing)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Name the actions in files; writes them as JSON and CSV, and as animations."""
    values = to_container(cfg)  # says what is missing
    _check(cfg)
    folder = run_folder(cfg.output_dir, "predict")
    refuse_results(folder)  # before anything is computed
    files = find_inputs(values["input"])
    predictor = load(
        checkpoint_path(cfg.ckpt_path, cfg.which), cfg.device, values["trusted"], cfg.max_missing
    )
    how = ReadOptions(
        predictor.coordinates == "pixels",
        predictor.skeleton,
        cfg.skeleton,
        values["frame_size"],
        cfg.split,
        cfg.units,
    )
    answered: list[VideoPredictions] = []
    problems: list[str] = []
    asked = _asked(cfg, predictor, _readable(cfg, files, how, problems), problems, answered)
    probabilities = [softmax(logits) for logits in predictor.logits(asked)]
    if not answered:
        raise InputError(_nothing(problems, files))
    waiting = (answer for one in answered for answer in one.answers)
    for answer, shares in zip(waiting, probabilities, strict=True):
        answer.top = top_classes(shares, predictor.class_names, cfg.top)
    with results_folder(folder, cfg):
        _write(cfg, folder, predictor, answered, problems)
        _show(cfg, answered, problems)
        drawn = _animate(cfg, folder, predictor, answered) if cfg.gif else []
    log.info("table      %s", folder / "predictions.csv")
    log.info("JSON       %s", folder / "predictions.json")
    if drawn:
        log.info("animated   %s", ", ".join(map(str, drawn)))
    else:
        log.info("next       gif=true draws the skeletons with what was said of them")


def _check(cfg: DictConfig) -> None:
    check_unit(cfg.units)
    if cfg.on_error not in ("stop", "skip"):
        raise InputError(f"on_error={cfg.on_error}: expected stop or skip")
    for key in ("per_person", "gif"):
        if not isinstance(cfg[key], bool):
            raise InputError(f"{key}={cfg[key]}: expected true or false")
    for key in ("window", "stride", "max_persons", "top"):
        if cfg[key] is not None:
            check_number(key, cfg[key], 1)
    check_number("max_missing", cfg.max_missing, 0.0, 1.0)
    if cfg.fps is not None:
        check_number("fps", cfg.fps, 0.001, 100_000.0)


def _readable(
    cfg: DictConfig, files: Iterable[Path], how: ReadOptions, problems: list[str]
) -> Iterator[VideoEntry]:
    """The videos in the files; a file that cannot be read stops the command or is a problem."""
    for file in files:
        try:
            yield from list_videos(file, how)
        except InputError as error:
            if cfg.on_error == "stop":
                raise
            problems.append(str(error))


def _asked(
    cfg: DictConfig,
    predictor: Predictor,
    videos: Iterable[VideoEntry],
    problems: list[str],
    answered: list[VideoPredictions],
) -> Iterator[Recording]:
    """The pieces of the videos as the model takes them; `answered` gets a place for each."""
    for entry in videos:
        try:
            video = entry.read()
            if isinstance(video.poses, Recording):  # as a whole, before it is cut
                named = replace(video.poses, name=str(entry.file))
                video = video._replace(poses=predictor.usable(named, video.skeleton))
            window = _window(cfg, predictor, video)
            most = cfg.max_persons if cfg.per_person else predictor.persons
            found = list(cut_windows(video.poses, window, cfg.stride, cfg.per_person, most))
            if not found:
                raise InputError(f"{entry.file}: nobody is seen in {entry.name}")
            fitted = [
                predictor.fitted(replace(piece.recording, name=str(entry.file)), video.skeleton)
                for piece in found
            ]
            note = "; ".join([*video.notes, predictor.layout_note(video.skeleton)])
        except InputError as error:
            if cfg.on_error == "stop":
                raise
            problems.append(str(error))
            continue
        answered.append(
            VideoPredictions(video, str(entry.file), note, [Prediction(piece) for piece in found])
        )
        yield from fitted


def _window(cfg: DictConfig, predictor: Predictor, video: Video) -> int | None:
    """Frames of a window, None for the whole video."""
    first, end = frames_of(video.poses)
    if cfg.window is None and cfg.stride is None and end - first <= predictor.longest:
        return None
    window: int = cfg.window or predictor.window
    return window


def _nothing(problems: Sequence[str], files: Sequence[Path]) -> str:
    if not problems:
        return f"no recordings in {', '.join(map(str, files[:3]))}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"none of the files can be used: {problems[0]}{more}"


def _write(
    cfg: DictConfig,
    folder: Path,
    predictor: Predictor,
    answered: Sequence[VideoPredictions],
    problems: Sequence[str],
) -> None:
    write_table(folder / "predictions.csv", table_rows(answered, cfg.fps))
    content = {
        "checkpoint": str(checkpoint_path(cfg.ckpt_path, cfg.which)),
        "class_names": predictor.class_names,
        "videos": json_entries(answered, cfg.fps),
        "left_out": list(problems),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "predictions.json", text.encode(errors="backslashreplace"))


def _show(cfg: DictConfig, answered: Sequence[VideoPredictions], problems: Sequence[str]) -> None:
    """Headings with the answers below them; for many videos the answers alone."""
    if few := len(answered) <= _HEADINGS:
        blocks = [
            (one.heading(one.video.name), text_lines([one], cfg.fps, False)) for one in answered
        ]
    else:
        notes = " | ".join(dict.fromkeys(one.note for one in answered))
        blocks = [(f"{len(answered)} videos   {notes}", text_lines(answered, cfg.fps, True))]
    left = _SHOWN
    for heading, rows in blocks:
        log.info("%s", heading)
        for row in rows[:left]:
            log.info("  %s", row)
        hidden = len(rows) - max(left, 0)
        if hidden > 0:
            log.info("  ... %d more in the table", hidden)
        left = max(0, left - len(rows))
    cut = [one for one in answered if cfg.window is None and len(one.answers) > 1]
    if cut and not cfg.per_person and cfg.stride is None:
        log.info("note: much longer than what the model was trained on: cut into windows")
    if few and not cfg.per_person and any(one.facts()["persons"] > 1 for one in answered):
        log.info("note: per_person=true asks about each person alone")
    for problem in problems:
        log.info("left out   %s", problem)


def _animate(
    cfg: DictConfig, folder: Path, predictor: Predictor, answered: Sequence[VideoPredictions]
) -> list[Path]:
    """An animation of each of the first videos."""
    drawn = []
    for number, one in enumerate(answered[:_ANIMATIONS]):
        name = re.sub(r"[^\w.-]+", "_", one.video.name)[:60]
        drawn.append(folder / f"{number:02d}_{name}.gif")
        _draw(cfg, drawn[-1], one, y_down=predictor.coordinates == "pixels")
    if len(answered) > _ANIMATIONS:
        log.info("note: the first %d of %d videos are drawn", _ANIMATIONS, len(answered))
    return drawn


def _draw(cfg: DictConfig, path: Path, one: VideoPredictions, y_down: bool) -> None:
    first, end = frames_of(one.video.poses)
    step = -(-(end - first) // _PICTURES)
    frames = np.arange(first, end, step)
    pieces_of = [answer.piece for answer in one.answers]
    persons = np.unique([person for piece in pieces_of for person in piece.persons])
    captions = [
        Caption(piece.start, piece.end, piece.persons[0] if cfg.per_person else None, text)
        for piece, text in zip(pieces_of, (answer.text() for answer in one.answers), strict=True)
    ]
    write_annotated_gif(
        *(path, frames, *poses_at(one.video.poses, frames, persons), persons, one.video.skeleton),
        captions,
        y_down=y_down,
        seconds=step / (cfg.fps or 15),
        clock=[format_time(int(frame), cfg.fps) for frame in frames] if cfg.fps else None,
    )


if __name__ == "__main__":
    main()
