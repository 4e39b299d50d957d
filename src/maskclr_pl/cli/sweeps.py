"""Sweeps (`-m`): a failed job does not stop the others, and repeating the command runs the rest.

The sweep folder is named after the overrides that all jobs share, and a job after the others.
`jobs/` in the sweep folder has a JSON file per job (see `Job`).
"""

import json
import secrets
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

from maskclr_pl.cli.errors import USER_ERRORS, error_line, log
from maskclr_pl.cli.jobs import CALL, Job, fail, job_of, short_hash
from maskclr_pl.cli.sweep_table import show
from maskclr_pl.cli.values import check_groups
from maskclr_pl.command_line import hydra_value, override
from maskclr_pl.errors import InputError

_LAUNCHER = ("launcher=", "hydra.launcher", "hydra/launcher", "hydra.sweep.")
"""Overrides that do not affect the results of jobs."""

_SEARCHES = ("hparams_search", "hydra/sweeper")


@contextmanager
def sweep_arguments(command: str) -> Iterator[None]:
    """Add sweep folder, job names and summary to the command line of a sweep, if it is one."""
    argv = list(sys.argv)
    if {"-m", "--multirun"}.isdisjoint(argv) and "hydra.mode=MULTIRUN" not in argv:
        yield
        return
    sys.argv = [*argv, *_additions(command, argv[1:])]
    check = Sweeper.validate_batch_is_legal

    def keep_legal(sweeper: Sweeper, batch: list[Sequence[str]]) -> None:
        """Drop jobs that cannot be composed instead of ending the sweep."""
        broken = []
        for overrides in list(batch):
            try:
                check_groups(overrides, command)
                check(sweeper, [overrides])
            except USER_ERRORS as error:
                batch.remove(overrides)
                broken.append((overrides, error))
        if broken and not batch:
            raise broken[0][1]
        assert sweeper.config is not None
        for overrides, reason in broken:
            job = job_of(sweeper.config, list(overrides), number=-1)
            fail(job, error_line(reason, command), Path(sweeper.config.hydra.sweep.dir))

    # Hydra has no hook for this, and another sweeper would have to be a plugin
    Sweeper.validate_batch_is_legal = keep_legal  # type: ignore[assignment,method-assign]
    try:
        yield
    except KeyboardInterrupt:
        log.info("continue   python -m maskclr_pl.%s %s", command, shlex.join(argv[1:]))
        raise
    finally:
        Sweeper.validate_batch_is_legal = check  # type: ignore[method-assign]
        sys.argv = argv


def _additions(command: str, words: Sequence[str]) -> list[str]:
    """Return overrides for Hydra with which a repeated sweep finds its earlier jobs."""
    overrides = _parsed(words)
    fixed = [one for one in overrides if not one.is_sweep_override()]
    keys = {one.key_or_group for one in overrides}
    shared = hydra_value([one.get_key_element() for one in fixed])
    additions = [
        "+hydra.callbacks.sweep._target_=maskclr_pl.cli.sweeps.SweepSummary",
        f"+hydra.job.env_set.{CALL}=call_{secrets.token_hex(4)}",
        f"hydra.job.config.override_dirname.exclude_keys={shared}",
    ]
    if keys.isdisjoint(_SEARCHES):  # a search draws its values, and numbers its trials
        if "hydra.sweep.subdir" not in keys:
            additions.append("hydra.sweep.subdir=.")
        if "hydra.sweep.dir" not in keys:
            same = sorted(
                one.input_line or ""
                for one in fixed
                if not str(one.input_line).startswith(_LAUNCHER)
            )
            same += [word for word in words if word.startswith("--") and word != "--multirun"]
            additions.append(f"hydra.sweep.dir=runs/sweep/{command}_{short_hash(same)}")
    output_dir = [one for one in fixed if one.key_or_group == "output_dir"]
    if output_dir and "${" not in str(output_dir[0].value()) and len(overrides) > len(fixed):
        folder = output_dir[0].value()
        raise InputError(
            f"output_dir={folder}: all jobs of the sweep would write into this folder; leave it "
            "out, or pass one per job, such as 'output_dir=runs/own/seed_${seed}'"
        )
    return additions


def _parsed(words: Sequence[str]) -> list[Override]:
    parser, overrides = OverridesParser.create(), []
    for word in words:
        if not word.startswith("-"):
            try:
                overrides += parser.parse_overrides([word])
            except HydraException:  # Hydra reports it later
                continue
    return overrides


class SweepSummary(Callback):
    """Print a table of the jobs at the end of a sweep, and those that failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table; exit with code 2 if a job failed, 1 if it was a bug."""
        try:
            self._show(config, kwargs["config_name"])
        except Exception:  # Hydra would turn it into a warning and exit code 0
            traceback.print_exc()
            sys.exit(1)

    def _show(self, config: DictConfig, command: str) -> None:
        folder = Path(config.hydra.sweep.dir)
        call = config.hydra.job.env_set[CALL]
        files = (folder / "jobs").glob("*.json")
        jobs = [Job(**json.loads(path.read_text())) for path in files]
        jobs = [job for job in jobs if job.sweep == call]
        jobs.sort(key=lambda job: (job.number < 0, job.number, job.name))
        if skipped := sum(job.skipped for job in jobs):
            log.info(
                "note: finished before: %d jobs skipped; pass another %s, or delete their "
                "folders, to run them again",
                *(skipped, override("hydra.sweep.dir", "FOLDER")),
            )
        show(jobs, command)
        log.info("%s", folder)
        if failed := [job for job in jobs if job.status != "finished"]:
            for job in failed:
                sys.stderr.write(f"failed     {job.name}: {job.error or job.status}\n")
            again = "; the same command runs only what is missing" if command == "train" else ""
            sys.stderr.write(f"error: {len(failed)} of {len(jobs)} jobs failed{again}\n")
            sys.exit(1 if any(job.bug for job in failed) else 2)
