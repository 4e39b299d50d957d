"""`python -m maskclr_pl.evaluate ckpt_path=RUN`: accuracy on clean and perturbed test clips."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.checkpoint import checkpoint_path, load_run
from maskclr_pl.cli import log, plain, verb
from maskclr_pl.data import Store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.evaluation.corruptions import Corruption
from maskclr_pl.evaluation.results import write_table
from maskclr_pl.evaluation.robustness import mean_over_levels, robustness, summarise
from maskclr_pl.figures.curves import robustness_curves
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import Batch, InputError


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate one checkpoint; writes robustness.csv and a figure."""
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    method, info = load_run(path, cfg.trusted)
    if not isinstance(method, Classifier):
        raise InputError(
            f"{path}: {type(method).__name__} tells no classes apart; type python -m "
            f"maskclr_pl.train method=linear_probe init_from={cfg.ckpt_path} (and its backbone=)"
        )
    data = _data(cfg, info)
    device = _device(cfg.device)
    method.to(device)
    corruptions: list[Corruption] = [hydra.utils.instantiate(c) for c in cfg.corruption]
    passes = 1 + cfg.draws * sum(len(corruption.levels) for corruption in corruptions)
    log.info(
        "evaluating %s on %d clips of %s: %d passes over them, on %s",
        *(path, len(data.test), data.store.path, passes, device.type),
    )
    start = time.monotonic()
    rows = robustness(
        lambda clip, batch: method.predict_clips(clip, batch).logits,
        _batches(method, data, device),
        data.test.names,
        corruptions,
        draws=cfg.draws,
        seed=cfg.seed,
        coordinates=2 if data.store.coordinates == "pixels" else 3,
    )
    folder = Path(cfg.output_dir) if cfg.output_dir else _run_folder(path)
    _write(folder, rows, corruptions)
    _show(rows, time.monotonic() - start)
    log.info("table      %s", folder / "robustness.csv")
    if corruptions:
        log.info("figure     %s", folder / "figures" / "robustness.png")
    log.info("next       python -m maskclr_pl.report runs=[%s,ANOTHER_RUN]", folder)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: {str(error).splitlines()[0]}; type device=cpu") from None
    return device


def _data(cfg: DictConfig, info: dict[str, Any]) -> SkeletonDataModule:
    """The data module of the checkpoint, with what the user changed."""
    settings = dict(info["config"]["data"])
    settings |= {key: value for key, value in plain(cfg.data).items() if value is not None}
    if not Path(settings["path"]).exists():
        raise InputError(
            f"{settings['path']}: no such file; type data.path=STORE.h5 for the data to evaluate on"
        )
    data: SkeletonDataModule = hydra.utils.instantiate(OmegaConf.create(settings), _convert_="all")
    trained_on = Skeleton.from_dict(info["source_skeleton"])
    if data.store.skeleton.joints != trained_on.joints:
        raise InputError(
            f"{data.store.path} has skeleton {data.store.skeleton.name} "
            f"({len(data.store.skeleton)} joints), the model was trained on {trained_on.name} "
            f"({len(trained_on)} joints)"
        )
    trained_in = info["config"]["augment"]["coordinates"]
    if data.store.coordinates != trained_in:
        raise InputError(
            f"{data.store.path} holds {data.store.coordinates}, the model was trained on "
            f"{trained_in}"
        )
    _same_classes(data.store, info["class_names"])
    return data


def _same_classes(store: Store, trained_on: list[str]) -> None:
    names = store.class_names
    if len(names) != len(trained_on):
        raise InputError(
            f"{store.path} has {len(names)} classes, the model was trained on {len(trained_on)}"
        )
    for number, (here, there) in enumerate(zip(names, trained_on, strict=True)):
        if here != there:
            raise InputError(
                f"{store.path}: class {number} is {here!r}, the model was trained on {there!r}; "
                "scores would mean nothing"
            )


def _batches(method: Method, data: SkeletonDataModule, device: torch.device) -> Iterator[Batch]:
    for batch in data.test_dataloader():
        yield method.transfer_batch_to_device(batch, device, 0)


def _run_folder(checkpoint: Path) -> Path:
    return (
        checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    )


def _write(folder: Path, rows: list[dict[str, Any]], corruptions: list[Corruption]) -> None:
    table = folder / "robustness.csv"
    if table.is_file():  # nothing is lost
        number = 1
        while (older := folder / f"robustness.{number}.csv").exists():
            number += 1
        table.rename(older)
        log.info("kept       the earlier table as %s", older)
    write_table(table, rows)
    units = {corruption.name: corruption.unit for corruption in corruptions}
    robustness_curves({folder.name: summarise(rows)}, units, folder / "figures" / "robustness.png")


def _show(rows: list[dict[str, Any]], seconds: float) -> None:
    summary = summarise(rows)
    log.info("clean      top1 %.2f   (%.0f s)", summary["clean"][0.0][0], seconds)
    for name, levels in summary.items():
        if name != "clean":
            cells = "   ".join(
                f"{level:g}: {mean:.1f} ± {spread:.1f}"
                for level, (mean, spread) in levels.items()
                if level > 0
            )
            log.info("%-22s mean %.1f      %s", name, mean_over_levels(levels), cells)


if __name__ == "__main__":
    main()
