"""Figures during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import lightning as L

from maskclr_pl.analysis.model_figures import check_figure_names, draw_model_figures
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.methods import Method
from maskclr_pl.types import InputError


class FiguresCallback(L.Callback):
    """Draws figures of the model on validation clips.

    They are written after every n-th epoch and the last one to `figures/epoch_<epoch>/` of the run
    folder (the trainer's `default_root_dir`), with their tables. Process 0 draws; with several
    processes, counts such as `confusion` cover its share of the clips. Drawing does not change the
    training.

    Args:
        every_n_epochs: Interval; 0 draws nothing.
        names: Names from `model_figures.FIGURES`.

    Raises:
        InputError: If the interval is negative or a name is unknown.
    """

    def __init__(self, every_n_epochs: int = 0, names: Sequence[str] = ("attention",)):
        if every_n_epochs < 0:
            raise InputError(
                f"callbacks.figures.every_n_epochs={every_n_epochs}: expected 0 (off) or more"
            )
        check_figure_names(names)
        self.every_n_epochs, self.names = every_n_epochs, tuple(names)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse figures that this method does not have, before the first epoch."""
        if stage == "fit" and self.every_n_epochs and isinstance(pl_module, Method):
            if pl_module.needs_exemplars:
                raise InputError(
                    "callbacks.figures: one-shot recognition has exemplars only after an epoch; "
                    "pass callbacks.figures.every_n_epochs=0, and draw with `python -m "
                    "maskclr_pl.evaluate ckpt_path=RUN figures=[...]`"
                )
            check_figure_names(self.names, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw in every n-th epoch and the last one."""
        epoch = trainer.current_epoch + 1
        due = self.every_n_epochs and (
            epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        )
        data: SkeletonDataModule | None = getattr(trainer, "datamodule", None)
        if not due or not trainer.is_global_zero or data is None or not len(data.val):
            return
        folder = Path(trainer.default_root_dir) / "figures" / f"epoch_{epoch:03d}"
        method = cast(Method, pl_module)
        with trainer.precision_plugin.forward_context():
            draw_model_figures(
                method, data, method.device, folder, self.names, split="val", into=folder
            )
