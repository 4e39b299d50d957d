"""One training, from its configuration to its test result."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from maskclr_pl.checkpoint.load import run_metadata
from maskclr_pl.cli import locked_folder, log, log_file, silence_lightning
from maskclr_pl.config.container import to_container
from maskclr_pl.runs.read import holds_run
from maskclr_pl.tracking.loggers import make_loggers, tracked
from maskclr_pl.training.assemble import assemble
from maskclr_pl.training.fit import DeadRank, fit_and_test
from maskclr_pl.training.plan import choose_monitor, describe_best, plan
from maskclr_pl.training.preflight import check_only, log_requirements
from maskclr_pl.training.progress import resume_lines
from maskclr_pl.training.resume import find_run_to_resume
from maskclr_pl.training.run_folder import choose_run_dir, create_run_dir, resume_history
from maskclr_pl.training.summary import log_result, log_setup
from maskclr_pl.training.trainer import build_trainer, check_strategy


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """Train, test and write a run folder; see `maskclr_pl.train.run`."""
    silence_lightning()
    cfg.resume = find_run_to_resume(cfg.resume, cfg.output_dir)
    with ExitStack() as stack:
        if cfg.resume and holds_run(Path(cfg.resume)) and not cfg.check_only:
            _lock(Path(cfg.resume), stack)  # before its checkpoints are read
        setup = assemble(cfg, overrides)
        cfg, method, data, progress, lines = (
            setup.cfg,
            setup.method,
            setup.data,
            setup.progress,
            setup.lines,
        )
        monitor, notes = choose_monitor(cfg, data)
        folder = choose_run_dir(cfg)
        cfg.output_dir = str(folder)
        trainer = build_trainer(
            cfg, folder, monitor, logger=False if cfg.check_only else make_loggers(cfg, folder)
        )
        check_strategy(trainer, str(cfg.trainer.strategy))
        data.check_devices(trainer.world_size)
        schedule = plan(cfg, trainer, method, data, progress)
        lines += [f"note: {note}" for note in (*notes, *schedule.notes)]
        if cfg.check_only:
            log_setup(cfg, data, method, lines)
            check_only(cfg, trainer, method, data, schedule.epochs, overrides)
            return None

        method.metadata = run_metadata(
            to_container(cfg),
            data.store.skeleton,
            data.store.class_names,
            data.train.lengths,
            setup.trained_on,
        ) | {"stage_epochs": schedule.share_epochs}
        if cfg.resume and schedule.trained:
            lines += resume_lines(folder, progress, schedule.epochs, schedule.stages)
        if not cfg.resume:
            _lock(folder, stack)
        if trainer.is_global_zero:
            create_run_dir(folder, cfg, trainer, data, overrides)
            stack.enter_context(log_file(folder / "train.log"))
            lines += resume_history(folder, progress)
            log_setup(cfg, data, method, lines)
            if batch := data.batch_line(trainer.world_size, trainer.accumulate_grad_batches):
                log.info("batch      %s", batch)
            log_requirements(cfg, trainer, method, data, schedule.epochs)
        if cfg.compile:
            method.compile_backbone()
        if trainer.world_size > 1:
            DeadRank.report(folder)

        checkpoint = None if progress is None else progress.path
        with tracked(trainer.loggers, folder, to_container(cfg)):
            metrics = fit_and_test(trainer, method, data, folder, checkpoint, schedule)
        if trainer.is_global_zero:
            best = describe_best(metrics, schedule, monitor)
            log_result(folder, metrics, best, cfg.clip.classes)
        return metrics.get(cfg.objective)


@rank_zero_only
def _lock(folder: Path, stack: ExitStack) -> None:
    """Lock a run folder until the stack is closed; the first process does it for all."""
    stack.enter_context(locked_folder(folder))
