"""Jobs of a sweep: name, run, skip or resume them; each is recorded in a file."""

import hashlib
import json
import os
import re
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from maskclr_pl.cli.errors import error_line, is_user_error, log
from maskclr_pl.errors import InputError
from maskclr_pl.files import is_running, write_atomically

CALL = "MASKCLR_SWEEP"
"""Environment variable that identifies the call of a command that runs a job."""


@dataclass
class Job:
    """State of a job, as stored in its file in `jobs/`."""

    name: str
    overrides: list[str]
    setting: str
    """Overrides that the jobs do not share, without the seed."""
    number: int
    sweep: str
    """Last call that ran it."""
    folder: str
    """Run folder of the job, or of the model it uses."""
    host: str
    process: int
    status: str = "running"
    """running, finished, failed, stopped"""
    claimed: bool = False
    """True if the folder was free when the job first ran, so the run in it belongs to the job."""
    skipped: bool = False
    """Finished in an earlier call."""
    value: float | None = None
    """Value that the command returned to the sweeper."""
    objective: str | None = None
    error: str | None = None
    bug: bool = False

    def save(self, sweep_dir: Path) -> None:
        """Write the file of this job."""
        path = sweep_dir / "jobs" / f"{self.name}.json"
        write_atomically(path, json.dumps(asdict(self), indent=2).encode())


def is_multirun() -> bool:
    """Return True inside a job of a sweep (`-m`)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def holds_run(folder: Path) -> bool:
    """Return True if a folder holds a run or other results."""
    from maskclr_pl.runs import read  # imports torch, which takes seconds

    return read.holds_run(folder)


def short_hash(words: Sequence[str]) -> str:
    """Return eight hexadecimal digits for a list of texts."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def job_folder() -> Path:
    """Return the folder that the sweep assigns to the job of this process."""
    config = HydraConfig.get()
    if config.sweep.subdir != ".":
        return Path(config.runtime.output_dir)
    job = job_of(HydraConfig.instance().cfg, list(config.overrides.task), config.job.num)
    return Path(config.sweep.dir) / job.name


def job_of(config: Any, overrides: list[str], number: int) -> Job:
    """Describe a job of a sweep.

    Args:
        config: Configuration with the `hydra` node.
        overrides: Overrides of the job, without those of Hydra.
        number: Position in the sweep; -1 for a job that cannot be composed.
    """
    hydra_config = config.hydra
    shared = set(hydra_config.job.config.override_dirname.exclude_keys)
    own = sorted(one for one in overrides if one.partition("=")[0] not in shared)
    name = "__".join(own).replace("=", "_") or str(max(number, 0))
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:120]
    if hydra_config.sweep.subdir != "." and number >= 0:  # named by the user, or by a search
        subdir = os.path.relpath(hydra_config.runtime.output_dir, hydra_config.sweep.dir)
        name = plain = subdir.replace(os.sep, "_")
    return Job(
        name=plain if plain == name else f"{plain}_{short_hash(own)}",
        overrides=overrides,
        setting=" ".join(one for one in own if not one.startswith("seed=")),
        number=number,
        sweep=hydra_config.job.env_set.get(CALL, ""),
        folder="",
        host=socket.gethostname(),
        process=os.getpid(),
    )


def run_job(main: Callable[[DictConfig], Any], cfg: DictConfig, command: str) -> float | None:
    """Run one job of a sweep and record its outcome.

    A training that finished in an earlier call is skipped; one that was stopped is resumed.

    Args:
        main: The command.
        cfg: Configuration of the job.
        command: Name of the command.

    Returns:
        Value returned by `main`; None for a job that failed.

    Raises:
        KeyboardInterrupt: If the user ends the sweep.
    """
    config = HydraConfig.instance().cfg
    hydra_config = HydraConfig.get()
    sweep_dir = Path(hydra_config.sweep.dir)
    job = job_of(config, list(hydra_config.overrides.task), hydra_config.job.num)
    log.info("job        %s", job.name)
    try:
        own = cfg.get("output_dir") or job_folder()
        if command == "train":
            if cfg.resume == "auto":  # the default in sweeps
                cfg.resume = None
            job.folder = str(cfg.resume or own)
            if cfg.resume is None:
                _skip_or_resume(job, sweep_dir, cfg)
        else:
            job.folder = str(cfg.get("ckpt_path") or own)
        if not job.skipped:
            job.save(sweep_dir)
            job.value, job.objective = main(cfg), cfg.get("objective")
            job.status = "finished"
    except Exception as error:
        job.bug = not is_user_error(error)
        if job.bug or os.environ.get("MASKCLR_TRACEBACK"):
            traceback.print_exc()
        bug = f"{type(error).__name__}: {' '.join(str(error).split())}"
        fail(job, bug if job.bug else error_line(error, command), sweep_dir)
        return None
    except KeyboardInterrupt:
        job.status = "stopped"
        job.save(sweep_dir)
        raise
    job.save(sweep_dir)
    return job.value


def fail(job: Job, reason: str, sweep_dir: Path) -> None:
    """Record and print that a job failed."""
    job.status, job.error = "failed", reason
    job.save(sweep_dir)
    log.info("failed     %s: %s", job.name, reason)


def _skip_or_resume(job: Job, sweep_dir: Path, cfg: DictConfig) -> None:
    """Skip or resume a training that an earlier call of the command started.

    Raises:
        InputError: If another process is training it, or another job has its name.
    """
    folder, name = Path(job.folder), job.name
    job.claimed = not holds_run(folder)
    path = sweep_dir / "jobs" / f"{name}.json"
    if not path.is_file():
        return
    before = Job(**json.loads(path.read_text()))
    job.name = f"{name}_refused"  # keeps the file of the other job
    if sorted(before.overrides) != sorted(job.overrides):
        raise InputError(
            f"{sweep_dir} has {name} with other overrides ({' '.join(before.overrides)}); pass "
            "another hydra.sweep.dir="
        )
    if before.status == "running" and before.host == job.host and is_running(before.process):
        raise InputError(f"{job.folder}: process {before.process} is training it")
    job.name = name
    if before.folder != job.folder or not before.claimed:
        return
    job.claimed = True
    if before.status == "finished" and (folder / "metrics.json").is_file():
        job.status, job.skipped = before.status, True
        job.value, job.objective = before.value, before.objective
        log.info("           finished before: skipped")
        return
    if holds_run(folder):
        cfg.resume = str(folder)
        log.info("           started before: resumed")
