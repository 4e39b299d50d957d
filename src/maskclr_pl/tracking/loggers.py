"""The loggers of a run: made, opened with its configuration, closed with its figures and tables.

This is the only module that imports wandb, and it does so only when `logger=wandb` was asked for.
"""

import os
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.cli import log
from maskclr_pl.config.container import to_container
from maskclr_pl.config.trust import refuse_untrusted, trusted_packages
from maskclr_pl.runs.describe import benchmark_name, table_row
from maskclr_pl.runs.read import read_config, read_metrics
from maskclr_pl.tracking.dashboard import build_dashboard
from maskclr_pl.tracking.upload import log_results
from maskclr_pl.types import InputError

BY_EPOCH = ("train", "val", "test", "masked")
"""Prefixes of the metrics that W&B draws over epochs (other charts: over steps)."""


def make_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers that a configuration names, writing into a run folder.

    What W&B is to know of the run and nobody typed is filled in, in place: saved with the
    configuration, the id continues the same W&B run when the run folder is resumed.

    Raises:
        InputError: If W&B is asked for and cannot be used.
    """
    if "wandb" in cfg.logger:
        check_wandb()
        node = cfg.logger.wandb
        for key, value in _identity(to_container(cfg), folder).items():
            if not node.get(key):
                with open_dict(node):
                    node[key] = value
    # Lightning would take last.ckpt for the best
    special: dict[str, dict[str, Any]] = {"wandb": {"log_model": False}}
    return [
        hydra.utils.instantiate(node, save_dir=str(folder), **special.get(name, {}))
        for name, node in cfg.logger.items()
    ]


def run_loggers(folder: Path, trusted: Iterable[str] = ()) -> list[Logger]:
    """The loggers that a run was trained with (metrics.csv aside), to be continued.

    Args:
        folder: Of the run.
        trusted: Further packages whose classes may be made.

    Raises:
        InputError: If there is none, it is not trusted, or W&B cannot be used.
    """
    config = read_config(folder)
    refuse_untrusted(config, folder / "config.yaml", trusted_packages(trusted, whole_run=True))
    given = config.get("logger")
    nodes = {
        name: node
        for name, node in (given.items() if isinstance(given, dict) else ())
        if name != "csv" and isinstance(node, dict) and "_target_" in node
    }
    if not nodes:
        raise InputError(
            f"{folder}: was trained without a logger that could take more; train with "
            "logger=wandb or logger=tensorboard"
        )
    return make_loggers(OmegaConf.create({**config, "logger": nodes}), folder)


def check_wandb() -> None:
    """Refuse W&B where it is missing or not logged in, without asking for a key.

    Raises:
        InputError: With what to type.
    """
    try:
        import wandb
    except ImportError:
        raise InputError(
            "logger=wandb: wandb is not installed; type pip install wandb, or logger=tensorboard"
        ) from None
    mode = wandb.setup().settings.mode
    if mode not in ("offline", "dryrun", "disabled") and not wandb.login(
        prompt=False, verify=False
    ):
        raise InputError(
            "logger=wandb: this machine is not logged in to W&B; type wandb login, or set "
            "WANDB_MODE=offline to need no account"
        )


def _identity(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a W&B run is called and found by; seeds share a group."""
    row, benchmark = table_row(config), benchmark_name(config)
    path = folder.resolve()
    job_of_sweep = path.name.isdigit() or (path.parent / "jobs").is_dir()
    return {
        # in a W&B sweep the agent chooses it
        "id": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
        "name": f"{path.parent.name}/{path.name}" if job_of_sweep else path.name,
        "group": f"{row.method} {row.backbone} {benchmark}"[:128],
        "job_type": row.protocol[:64],
        "tags": [tag[:64] for tag in dict.fromkeys((row.method, row.backbone, benchmark))],
    }


@contextmanager
def tracked(loggers: Sequence[Logger], folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Open loggers with the configuration; hand the run folder over to them and close them.

    Args:
        loggers: Made for the run folder.
        folder: The run folder.
        config: Plain values of the run's configuration.

    Raises:
        InputError: If W&B cannot start the run.
    """
    _open(loggers, config)
    try:
        yield
        log_results(loggers, folder)
        if config["logger"].get("wandb", {}).get("log_model"):
            _keep_model(loggers, folder)
    except BaseException:
        close_loggers(loggers, failed=True)
        raise
    close_loggers(loggers)


def log_later_results(loggers: Sequence[Logger], folder: Path, since: float) -> None:
    """Hand what was added to a run folder over to `run_loggers` and close them.

    Args:
        loggers: Of the run.
        folder: Where the new files are.
        since: When the first of them may have been written (seconds since 1970).
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _start_wandb(logger)
    log_results(loggers, folder, since)
    close_loggers(loggers)


@rank_zero_only
def _open(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _start_wandb(logger)
        if not isinstance(logger, CSVLogger):  # which has config.yaml beside it
            logger.log_hyperparams(dict(config))


def _start_wandb(logger: WandbLogger) -> None:
    import wandb

    try:
        run = logger.experiment
    except wandb.Error as error:
        raise InputError(
            f"logger=wandb: {' '.join(str(error).split())}; set WANDB_MODE=offline to upload later"
        ) from None
    run.define_metric("epoch")
    for prefix in BY_EPOCH:
        run.define_metric(f"{prefix}/*", step_metric="epoch")


@rank_zero_only
def _keep_model(loggers: Sequence[Logger], folder: Path) -> None:
    """The best checkpoint and the configuration as an artifact of type model."""
    import wandb

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            name = f"model-{logger.experiment.id}"
            artifact = wandb.Artifact(name, type="model", metadata=read_metrics(folder))
            artifact.add_file(str(folder / "checkpoints" / "best.ckpt"))
            artifact.add_file(str(folder / "config.yaml"))
            logger.experiment.log_artifact(artifact, aliases=["best"])


def save_dashboard(folder: Path) -> str:
    """Make the `build_dashboard` for the W&B project of a run; its address.

    Raises:
        InputError: If W&B cannot be used, or the run was not trained with it.
    """
    check_wandb()
    import wandb

    space = build_dashboard(folder)
    try:
        space.save()
    except wandb.Error as error:
        raise InputError(f"kind=dashboard: {' '.join(str(error).split())}") from None
    return str(space.url)


@rank_zero_only
def close_loggers(loggers: Sequence[Logger], failed: bool = False) -> None:
    """End W&B runs: a second run in this process must not continue this one's."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.finish(exit_code=int(failed))
            if run.offline:  # a run that was continued has several folders
                parts = Path(run.dir).parents[1].glob(f"offline-run-*-{run.id}")
                log.info("wandb      wandb sync %s", shlex.join(map(str, sorted(parts))))
            elif run.url:
                log.info("wandb      %s", run.url)
