"""Detect collapsed features in pre-training, which the loss does not show."""

import logging
from collections import deque
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskclr_pl.distributed import gather_objects, rank_and_world_size
from maskclr_pl.methods import FeatureQueue

log = logging.getLogger("maskclr_pl")


class CollapseCallback(L.Callback):
    """Measures the unit-normalized embeddings of the last clips of each epoch.

    For any method whose training step returns an `embedding` (rows, E):

    * `train/feature_std`: standard deviation averaged over coordinates, times sqrt(E). 0 for a
      single point, about 1 for isotropic directions (SimSiam, Chen and He 2021).
    * `train/effective_rank`: exp of the entropy of the singular values divided by their sum. 1 for
      a single direction, at most min(rows, E) (Roy and Vetterli 2007; RankMe).
    * `train/queue_age`: mean age of the entries of a queue, in steps.

    A step only stores its embedding; the values are computed at the end of the epoch, on the CPU in
    double precision. A warning is logged if one of the first two is below its threshold.

    Args:
        samples: Number of rows, over all ranks.
        min_std: Threshold of the standard deviation; 0.05 corresponds to a mean cosine of about
            0.997 between clips.
        min_rank: Threshold of the effective rank.

    Raises:
        ValueError: If there are fewer than two samples.
    """

    def __init__(self, samples: int = 1024, min_std: float = 0.05, min_rank: float = 2.0):
        if samples < 2:
            raise ValueError(f"samples must be at least 2, got {samples}")
        self.samples, self.min_std, self.min_rank = samples, min_std, min_rank
        self._last: deque[Tensor] = deque()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clear the embeddings of the previous epoch."""
        self._last.clear()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Store the embedding; drop older ones that are not needed."""
        embedding = outputs.get("embedding")
        if embedding is None or not len(embedding):
            return
        self._last.append(embedding)
        while sum(map(len, self._last)) - len(self._last[0]) >= self.samples:
            self._last.popleft()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the values, and a warning if the features collapse."""
        for module in pl_module.modules():
            if isinstance(module, FeatureQueue):
                pl_module.log("train/queue_age", module.age.float().mean())
        if not self._last:  # a method without embeddings
            return
        local = torch.cat(tuple(self._last))[-(self.samples // rank_and_world_size()[1]) :].cpu()
        rows = torch.cat(gather_objects(local))
        if not rows.isfinite().all():
            log.warning("features of epoch %d are not finite", trainer.current_epoch + 1)
            return
        std, rank = feature_std(rows), effective_rank(rows)
        values = {"train/feature_std": std, "train/effective_rank": rank}
        pl_module.log_dict(values, sync_dist=True)  # equal on all ranks
        if (
            trainer.is_global_zero
            and len(rows) > 1
            and (std < self.min_std or rank < self.min_rank)
        ):
            log.warning(
                "features collapse in epoch %d: standard deviation %.3f (isotropic: 1, threshold "
                "%g), effective rank %.1f of %d (threshold %g)",
                trainer.current_epoch + 1,
                std,
                self.min_std,
                rank,
                min(rows.shape),
                self.min_rank,
            )


def feature_std(embedding: Float[Tensor, "B E"]) -> float:
    """Scaled standard deviation of unit-normalized rows, see `CollapseCallback`; 0 for one row."""
    unit = F.normalize(embedding.double(), dim=-1)
    return float(unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5)


def effective_rank(embedding: Float[Tensor, "B E"]) -> float:
    """Effective rank of the unit-normalized rows, see `CollapseCallback`; 1 if all are zero."""
    values = torch.linalg.svdvals(F.normalize(embedding.double(), dim=-1))
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(share).sum().exp())
