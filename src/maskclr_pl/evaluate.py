"""`python -m maskclr_pl.evaluate ckpt_path=RUN`: accuracy on clean and perturbed test clips."""

import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from maskclr_pl.checkpoint import checkpoint_path, load_run
from maskclr_pl.cli import log, plain, verb
from maskclr_pl.evaluation.corruptions import Corruption
from maskclr_pl.evaluation.results import keep_older, write_table
from maskclr_pl.evaluation.robustness import mean_over_levels, robustness, summarise
from maskclr_pl.figures.curves import robustness_curves
from maskclr_pl.methods import Classifier
from maskclr_pl.trained import batches_of, data_of, device_named, run_folder_of
from maskclr_pl.types import InputError


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
    data = data_of(info, plain(cfg.data))
    device = device_named(cfg.device)
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
        batches_of(method, data, data.test, device),
        data.test.names,
        corruptions,
        draws=cfg.draws,
        seed=cfg.seed,
        coordinates=2 if data.store.coordinates == "pixels" else 3,
    )
    folder = Path(cfg.output_dir) if cfg.output_dir else run_folder_of(path)
    _write(folder, rows, corruptions)
    _show(rows, time.monotonic() - start)
    log.info("table      %s", folder / "robustness.csv")
    if corruptions:
        log.info("figure     %s", folder / "figures" / "robustness.png")
    log.info("next       python -m maskclr_pl.report runs=[%s,ANOTHER_RUN]", folder)


def _write(folder: Path, rows: list[dict[str, Any]], corruptions: list[Corruption]) -> None:
    table = folder / "robustness.csv"
    if older := keep_older(table):  # nothing is lost
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
