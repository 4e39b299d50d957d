"""The run folder of a training: where it is and what it holds before the first step."""

import os
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.cli import refuse_run, run_folder
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.files import write_atomically
from maskclr_pl.runs.environment import collect_environment, write_environment
from maskclr_pl.runs.history import rewind_history
from maskclr_pl.runs.results import write_lines
from maskclr_pl.training.progress import Progress


def choose_run_dir(cfg: DictConfig) -> Path:
    """Return the run folder; the other processes of a run (DDP) share that of the first."""
    if cfg.resume:
        return Path(cfg.resume)
    if os.environ.get("LOCAL_RANK", "0") != "0" and "MASKCLR_RUN_FOLDER" in os.environ:
        return Path(os.environ["MASKCLR_RUN_FOLDER"])
    folder = run_folder(cfg.output_dir, "train")
    os.environ["MASKCLR_RUN_FOLDER"] = str(folder)
    return folder


def create_run_dir(
    folder: Path,
    cfg: DictConfig,
    trainer: L.Trainer,
    data: SkeletonDataModule,
    overrides: Sequence[str],
) -> None:
    """Write what is known before the training: environment, labeled clips, configuration.

    Raises:
        InputError: If the folder holds another run.
    """
    if not cfg.resume:
        refuse_run(folder)
    command = ["python", "-m", "maskclr_pl.train", *overrides]
    values = collect_environment(data, trainer.strategy.root_device, trainer.world_size, command)
    write_environment(folder, values, new=not cfg.resume)
    if cfg.data.label_fraction is not None:
        write_lines(folder / "labeled.txt", data.train.names)
    # written last: a folder with config.yaml is a run that can be resumed
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())


def resume_history(folder: Path, progress: Progress | None) -> list[str]:
    """Cut metrics.csv back to the checkpoint that training resumes from; return notes."""
    if progress is None:
        return rewind_history(folder, before=0)
    notes = rewind_history(
        folder,
        progress.step,
        progress.row or None,
        repeated=progress.epochs if progress.middle else None,
    )
    return [f"note: {note}" for note in notes]
