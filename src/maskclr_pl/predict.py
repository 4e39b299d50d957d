"""`python -m maskclr_pl.predict ckpt_path=RUN input=POSES`: classify the actions in pose files.

From Python: `maskclr_pl.predict.load(RUN)(clip)`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from maskclr_pl.checkpoint.load import checkpoint_path, load_classifier
from maskclr_pl.checkpoint.restore import select_device
from maskclr_pl.cli import command, log, refuse_results, results_folder, run_folder
from maskclr_pl.config.container import to_container
from maskclr_pl.figures.predictions import Caption, write_annotated_gif
from maskclr_pl.files import write_atomically
from maskclr_pl.inference.inputs import ReadOptions, VideoEntry, find_inputs, list_videos
from maskclr_pl.inference.predictor import MAX_MISSING, Predictor, softmax, top_classes
from maskclr_pl.inference.results import (
    Prediction,
    VideoPredictions,
    format_time,
    json_entries,
    table_rows,
    text_lines,
)
from maskclr_pl.runs.results import write_table
from maskclr_pl.sources.options import check_number
from maskclr_pl.sources.units import parse_unit
from maskclr_pl.types import InputError

_MAX_LINES = 40  # predictions printed
_MAX_HEADINGS = 12  # videos printed with a heading
_MAX_GIFS, _MAX_GIF_FRAMES = 8, 120


def load(
    path: str | Path,
    device: str | None = None,
    trusted: Iterable[str] = (),
    max_missing: float = MAX_MISSING,
) -> Predictor:
    """Load a trained classifier; `load(RUN)(clip)` returns class probabilities.

    Args:
        path: Run folder (its best checkpoint), or a checkpoint file.
        device: cpu, cuda, ...; by default a GPU if available.
        trusted: Packages, besides ours and torch, whose classes the checkpoint may use.
        max_missing: Largest share of the model's joints that the layout of a clip may lack.

    Returns:
        A `Predictor`: called with (M, T, V, 2) pixels or (M, T, V, 3) meters it returns (K,)
        probabilities; `top(clip, k=5)` returns names as well; `class_names` and `skeleton` are
        those of the training data.

    Raises:
        InputError: If there is no such checkpoint, or it is not a classifier.
    """
    method, info = load_classifier(checkpoint_path(path), trusted)
    return Predictor(method, info, select_device(device), max_missing)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Classify the actions in files; write JSON, CSV and optional animations."""
    run(cfg)


def run(cfg: DictConfig) -> Path:
    """Classify the actions in files and return the folder with the results."""
    values = to_container(cfg)  # raises if a value is missing
    _check(cfg)
    folder = run_folder(cfg.output_dir, "predict")
    refuse_results(folder)  # before the work
    files = find_inputs(values["input"])
    checkpoint = checkpoint_path(cfg.ckpt_path, cfg.which)
    predictor = load(checkpoint, cfg.device, values["trusted"], cfg.max_missing)
    options = ReadOptions(
        pixels=predictor.coordinates == "pixels",
        layout=predictor.skeleton,
        skeleton=cfg.skeleton,
        frame_size=values["frame_size"],
        split=cfg.split,
        units=parse_unit(cfg.units),
    )
    results, skipped = read_videos(cfg, predictor, files, options)
    classify(predictor, results, cfg.top)
    with results_folder(folder, cfg):
        write_results(cfg, folder, predictor, results, skipped)
        _print_results(cfg, results, skipped)
        drawn = _draw_videos(cfg, folder, predictor, results) if cfg.gif else []
    log.info("table      %s", folder / "predictions.csv")
    log.info("JSON       %s", folder / "predictions.json")
    if drawn:
        log.info("animated   %s", ", ".join(map(str, drawn)))
    else:
        log.info("next       gif=true draws the skeletons with their predictions")
    return folder


def _check(cfg: DictConfig) -> None:
    parse_unit(cfg.units)
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


def read_videos(
    cfg: DictConfig, predictor: Predictor, files: Sequence[Path], options: ReadOptions
) -> tuple[list[VideoPredictions], list[str]]:
    """Read the videos in files, cut them into windows and convert these to the model's layout.

    Returns:
        The videos, whose predictions are empty yet, and an error message for each skipped file.

    Raises:
        InputError: If a file cannot be used and `on_error=stop`, or no file can.
    """
    results: list[VideoPredictions] = []
    skipped: list[str] = []

    @contextmanager
    def skip_errors() -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if cfg.on_error == "stop":
                raise
            skipped.append(str(error))

    for file in files:
        with skip_errors():
            for entry in list_videos(file, options):
                with skip_errors():
                    results.append(_read_video(cfg, predictor, entry))
    if results:
        return results, skipped
    if not skipped:
        raise InputError(f"no recordings in {', '.join(map(str, files[:3]))}")
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    raise InputError(f"none of the files can be used: {skipped[0]}{more}")


def _read_video(cfg: DictConfig, predictor: Predictor, entry: VideoEntry) -> VideoPredictions:
    file = str(entry.file)
    video = entry.read().validate(
        lambda recording, skeleton: predictor.validate(replace(recording, name=file), skeleton)
    )
    first, end = video.span
    length = cfg.window or predictor.window
    if cfg.window is None and cfg.stride is None and end - first <= predictor.longest:
        length = None  # the whole video
    max_persons = cfg.max_persons if cfg.per_person else predictor.persons
    predictions = []
    for window in video.windows(length, cfg.stride, cfg.per_person, max_persons):
        recording = predictor.convert(replace(window.recording, name=file), video.skeleton)
        predictions.append(Prediction(window._replace(recording=recording)))
    if not predictions:
        raise InputError(f"{file}: no person is visible in {entry.name}")
    note = "; ".join([*video.notes, predictor.describe_layout(video.skeleton)])
    return VideoPredictions(video, file, note, predictions)


def classify(predictor: Predictor, results: Sequence[VideoPredictions], k: int) -> None:
    """Fill in the k most likely classes of every window, in batches across videos."""
    predictions = [prediction for result in results for prediction in result.predictions]
    logits = predictor.logits(prediction.window.recording for prediction in predictions)
    # computed before any is filled in, so that an error leaves all of them empty
    for prediction, row in zip(predictions, list(logits), strict=True):
        prediction.top = top_classes(softmax(row), predictor.class_names, k)


def write_results(
    cfg: DictConfig,
    folder: Path,
    predictor: Predictor,
    results: Sequence[VideoPredictions],
    skipped: Sequence[str],
) -> None:
    """Write predictions.csv and predictions.json."""
    write_table(folder / "predictions.csv", table_rows(results, cfg.fps))
    content = {
        "checkpoint": str(checkpoint_path(cfg.ckpt_path, cfg.which)),
        "class_names": predictor.class_names,
        "videos": json_entries(results, cfg.fps),
        "left_out": list(skipped),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "predictions.json", text.encode(errors="backslashreplace"))


def _print_results(
    cfg: DictConfig, results: Sequence[VideoPredictions], skipped: Sequence[str]
) -> None:
    """Print a heading and the predictions of each video; for many videos, one table."""
    few = len(results) <= _MAX_HEADINGS
    if few:
        blocks = [(result.heading(), text_lines([result], cfg.fps, False)) for result in results]
    else:
        notes = " | ".join(dict.fromkeys(result.note for result in results))
        blocks = [(f"{len(results)} videos   {notes}", text_lines(results, cfg.fps, True))]
    remaining = _MAX_LINES
    for heading, lines in blocks:
        log.info("%s", heading)
        for line in lines[:remaining]:
            log.info("  %s", line)
        if len(lines) > remaining:
            log.info("  ... %d more in the table", len(lines) - remaining)
        remaining = max(0, remaining - len(lines))
    automatic = cfg.window is None and cfg.stride is None and not cfg.per_person
    if automatic and any(len(result.predictions) > 1 for result in results):
        log.info("note: videos much longer than the training recordings were cut into windows")
    if few and not cfg.per_person and any(result.video.num_persons > 1 for result in results):
        log.info("note: all persons of a video are classified jointly; per_person=true separates")
    for message in skipped:
        log.info("left out   %s", message)


def _draw_videos(
    cfg: DictConfig, folder: Path, predictor: Predictor, results: Sequence[VideoPredictions]
) -> list[Path]:
    """Draw an animation of each of the first videos."""
    paths = []
    for number, result in enumerate(results[:_MAX_GIFS]):
        name = re.sub(r"[^\w.-]+", "_", result.video.name)[:60]
        paths.append(folder / f"{number:02d}_{name}.gif")
        _draw_video(cfg, paths[-1], result, y_down=predictor.coordinates == "pixels")
    if len(results) > _MAX_GIFS:
        log.info("note: the first %d of %d videos are drawn", _MAX_GIFS, len(results))
    return paths


def _draw_video(cfg: DictConfig, path: Path, result: VideoPredictions, y_down: bool) -> None:
    first, end = result.video.span
    step = -(-(end - first) // _MAX_GIF_FRAMES)
    frames = np.arange(first, end, step)
    windows = [prediction.window for prediction in result.predictions]
    persons = np.unique([person for window in windows for person in window.persons])
    keypoint, visible = result.video.poses_at(frames, persons)
    write_annotated_gif(
        path,
        frames,
        keypoint,
        visible,
        persons,
        result.video.skeleton,
        captions=[
            Caption(
                window.start,
                window.end,
                window.persons[0] if cfg.per_person else None,
                prediction.text(),
            )
            for window, prediction in zip(windows, result.predictions, strict=True)
        ],
        y_down=y_down,
        seconds=step / (cfg.fps or 15),
        clock=[format_time(int(frame), cfg.fps) for frame in frames] if cfg.fps else None,
    )


if __name__ == "__main__":
    main()
