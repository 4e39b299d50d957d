"""The loggers of a run: build them, open them with its configuration, close them with its results.

This is the only module that imports wandb, and only for `logger=wandb`.
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
from maskclr_pl.text import one_line
from maskclr_pl.tracking.dashboard import build_dashboard
from maskclr_pl.tracking.upload import log_results
from maskclr_pl.types import InputError

BY_EPOCH = ("train", "val", "test", "masked")
"""Prefixes of the metrics that W&B plots over epochs; others are plotted over steps."""


def make_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Build the loggers of a configuration, writing into a run folder.

    Unset W&B settings (id, name, group, tags) are filled in in place: the id is saved with the
    configuration, so that resuming the run folder continues the same W&B run.

    Raises:
        InputError: If W&B is configured but cannot be used.
    """
    if "wandb" in cfg.logger:
        check_wandb()
        node = cfg.logger.wandb
        for key, value in _identity(to_container(cfg), folder).items():
            if not node.get(key):
                with open_dict(node):
                    node[key] = value
    # Lightning would upload last.ckpt as the best
    special: dict[str, dict[str, Any]] = {"wandb": {"log_model": False}}
    return [
        hydra.utils.instantiate(node, save_dir=str(folder), **special.get(name, {}))
        for name, node in cfg.logger.items()
    ]


def run_loggers(folder: Path, trusted: Iterable[str] = ()) -> list[Logger]:
    """Build the loggers that a run was trained with, except for metrics.csv, to add to them.

    Args:
        folder: Run folder.
        trusted: Further packages whose classes may be instantiated.

    Raises:
        InputError: If there is no such logger, its class is not trusted, or W&B cannot be used.
    """
    config = read_config(folder)
    refuse_untrusted(config, folder / "config.yaml", trusted_packages(trusted, whole_run=True))
    loggers = config.get("logger")
    nodes = {
        name: node
        for name, node in (loggers.items() if isinstance(loggers, dict) else ())
        if name != "csv" and isinstance(node, dict) and "_target_" in node
    }
    if not nodes:
        raise InputError(
            f"{folder}: trained without a logger that accepts later results; train with "
            "logger=wandb or logger=tensorboard"
        )
    return make_loggers(OmegaConf.create({**config, "logger": nodes}), folder)


def check_wandb() -> None:
    """Check that W&B is installed and logged in, without asking for a key.

    Raises:
        InputError: If it is not, with the command to run.
    """
    try:
        import wandb
    except ImportError:
        raise InputError(
            "logger=wandb: wandb is missing; run pip install wandb, or pass logger=tensorboard"
        ) from None
    mode = wandb.setup().settings.mode
    if mode not in ("offline", "dryrun", "disabled") and not wandb.login(
        prompt=False, verify=False
    ):
        raise InputError(
            "logger=wandb: this machine is not logged in to W&B; run wandb login, or set "
            "WANDB_MODE=offline to work without an account"
        )


def _identity(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Id, name, group, job type and tags of a W&B run; runs of other seeds share a group."""
    row, benchmark = table_row(config), benchmark_name(config)
    path = folder.resolve()
    job_of_sweep = path.name.isdigit() or (path.parent / "jobs").is_dir()
    return {
        # chosen by the agent in a W&B sweep
        "id": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
        "name": f"{path.parent.name}/{path.name}" if job_of_sweep else path.name,
        "group": f"{row.method} {row.backbone} {benchmark}"[:128],
        "job_type": row.protocol[:64],
        "tags": [tag[:64] for tag in dict.fromkeys((row.method, row.backbone, benchmark))],
    }


@contextmanager
def tracked(loggers: Sequence[Logger], folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Open loggers with the configuration; at the end log the results and close them.

    Args:
        loggers: Loggers of the run folder.
        folder: Run folder.
        config: Plain values of the run's configuration.

    Raises:
        InputError: If W&B cannot start the run.
    """
    _open(loggers, config)
    try:
        yield
        log_results(loggers, folder)
        if config["logger"].get("wandb", {}).get("log_model"):
            _log_model(loggers, folder)
    except BaseException:
        close_loggers(loggers, failed=True)
        raise
    close_loggers(loggers)


def log_later_results(loggers: Sequence[Logger], folder: Path, since: float) -> None:
    """Log the new files of a run folder with `run_loggers`, and close them.

    Args:
        loggers: Loggers of the run.
        folder: Folder of the new files.
        since: Earliest modification time of the new files, in seconds since 1970.
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
        if not isinstance(logger, CSVLogger):  # its folder has config.yaml
            logger.log_hyperparams(dict(config))


def _start_wandb(logger: WandbLogger) -> None:
    import wandb

    try:
        run = logger.experiment
    except wandb.Error as error:
        raise InputError(
            f"logger=wandb: {one_line(error)}; set WANDB_MODE=offline to upload later"
        ) from None
    run.define_metric("epoch")
    for prefix in BY_EPOCH:
        run.define_metric(f"{prefix}/*", step_metric="epoch")


@rank_zero_only
def _log_model(loggers: Sequence[Logger], folder: Path) -> None:
    """Log the best checkpoint and the configuration as an artifact of type model."""
    import wandb

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            name = f"model-{logger.experiment.id}"
            artifact = wandb.Artifact(name, type="model", metadata=read_metrics(folder))
            artifact.add_file(str(folder / "checkpoints" / "best.ckpt"))
            artifact.add_file(str(folder / "config.yaml"))
            logger.experiment.log_artifact(artifact, aliases=["best"])


def save_dashboard(folder: Path) -> str:
    """Save the dashboard for the W&B project of a run; return its address.

    Raises:
        InputError: If W&B cannot be used, or the run was not trained with it.
    """
    check_wandb()
    import wandb

    space = build_dashboard(folder)
    try:
        space.save()
    except wandb.Error as error:
        raise InputError(f"kind=dashboard: {one_line(error)}") from None
    return str(space.url)


@rank_zero_only
def close_loggers(loggers: Sequence[Logger], failed: bool = False) -> None:
    """Finish W&B runs, so that the next run in this process starts a new one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.finish(exit_code=int(failed))
            if run.offline:  # a resumed run has several folders
                parts = Path(run.dir).parents[1].glob(f"offline-run-*-{run.id}")
                log.info("wandb      wandb sync %s", shlex.join(map(str, sorted(parts))))
            elif run.url:
                log.info("wandb      %s", run.url)
