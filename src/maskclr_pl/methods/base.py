"""The base class of all methods."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeVar

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.distributed import gather_objects, shared_draws
from maskclr_pl.heads import pool_persons
from maskclr_pl.masking import Masking
from maskclr_pl.methods.stages import Stage
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch, Features, InputError


def clip_features(
    tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
) -> Float[Tensor, "B D"]:
    """Average the tokens of each clip over steps, joints and persons (see `Method.embed`)."""
    return pool_persons(tokens.mean((1, 2)), clip_index, batch_size)


def visible_persons(clip: Float[Tensor, "B M T V C"]) -> Bool[Tensor, "B M"]:
    """Return which persons have any nonzero value in a clip."""
    # channel by channel, as clips lie in memory
    return (clip.movedim(-1, 0) != 0).flatten(3).any(-1).any(0)


_M = TypeVar("_M", bound="Method")


def rank_invariant(
    step: Callable[[_M, Batch, int], dict[str, Any]],
) -> Callable[[_M, Batch, int], dict[str, Any]]:
    """Make the draws of a training step independent of the process (see `shared_draws`)."""

    @functools.wraps(step)
    def wrapped(self: _M, batch: Batch, batch_idx: int) -> dict[str, Any]:
        with shared_draws(batch, self.step_seed(batch_idx)):
            return step(self, batch, batch_idx)

    return wrapped


class Method(L.LightningModule):
    """A way of learning; subclasses implement `training_step`.

    The base class holds what all methods share: backbone, optimizer, augmentation, packing of
    persons, random state. The class attributes below and the `check_...` methods describe a method
    to the rest of the package; a new method needs no change anywhere else. A method with a masked
    pathway has an attribute `masking`, which `callbacks.MaskingCallback` fills.

    Args:
        backbone: Encoder of person sequences.
        optim: Optimizer and schedule.
        skeleton: Joint layout that the backbone sees.
        augment: Transform of training clips.
        preprocess: Transform of validation and test clips.
        persons: `packed`: only present persons are encoded and averaged. `padded`: absent persons
            are included as zeros, as in the training of the published checkpoints.
    """

    protocol: ClassVar[str] = "full"
    """Evaluation protocol, a column of the results table."""
    views: ClassVar[tuple[str, ...]] = ()
    """Additional transforms of `augment=` that the constructor takes, such as `extreme`."""
    validates: ClassVar[bool] = False
    """Reports val/top1, by which a checkpoint can be chosen."""
    trains_backbone: ClassVar[bool] = True
    needs_exemplars: ClassVar[bool] = False
    """Classifies by exemplars of the data module."""
    makes_streams: ClassVar[bool] = False
    """Computes bone and motion streams from the joints itself."""

    def __init__(
        self,
        backbone: Backbone,
        optim: Optim,
        skeleton: Skeleton,
        augment: nn.Module,
        preprocess: nn.Module,
        persons: Literal["packed", "padded"] = "packed",
    ):
        super().__init__()
        self.stages: tuple[Stage, ...] = ()
        if persons not in ("packed", "padded"):
            raise ValueError(f"persons must be packed or padded, got {persons!r}")
        self.backbone, self.optim, self.skeleton = backbone, optim, skeleton
        self.augment, self.preprocess, self.persons = augment, preprocess, persons
        self.metadata: dict[str, Any] = {}
        """Plain values that make a checkpoint self-contained (see `maskclr_pl.checkpoint.load`)."""
        self._random_states: list[dict[str, Tensor]] = []
        """Random state of each rank of a resumed run."""

    @classmethod
    def row_name(cls, config: Mapping[str, Any]) -> str | None:
        """Name of the method in the results table.

        Args:
            config: Saved configuration of a run.

        Returns:
            None where the row is named after the origin of the backbone (protocols).
        """
        return cls.__name__

    def check_clips(self, clips: int) -> None:
        """Raise InputError if the method cannot train on so few clips."""
        if clips == 1 and any(isinstance(module, nn.BatchNorm1d) for module in self.modules()):
            raise InputError(
                "there is 1 training clip, and a BatchNorm needs two; pass another "
                "data.train_split, or monitor_split=last to hold none out"
            )

    def check_masking(self, strategy: Masking | None, start_epoch: float, frames: int) -> None:
        """Raise InputError if the method cannot use a masking strategy.

        Args:
            strategy: None without masking.
            start_epoch: First epoch with masking.
            frames: Length of the clips.
        """
        if strategy is not None and not hasattr(self, "masking"):
            raise InputError(f"{type(self).__name__} has no masked pathway; pass masking=none")

    def pack(
        self, clip: Float[Tensor, "B M T V C"], batch: Batch
    ) -> tuple[Float[Tensor, "N T V C"], Int[Tensor, " N"]]:
        """Collect the sequences of the present persons, and the clip index of each.

        A present person can fall outside a crop and then be all zeros. Removing such sequences
        would need their number on the host and stall the GPU. Instead each is replaced by another
        person of its clip (BatchNorms see no zeros) and assigned to clip B, which no head reads.

        Args:
            clip: Clips after their transforms.
            batch: The batch that they come from.
        """
        batch_size, persons = clip.shape[:2]
        sequences = clip.flatten(0, 1)  # (B * M, T, V, C)
        if self.persons == "padded":
            index = torch.arange(len(sequences), device=clip.device)
            return sequences.contiguous(), index // persons
        sequence = batch["sequence"]  # (N,)
        clip_index = sequence // persons
        visible = visible_persons(clip)  # (B, M)
        is_visible = visible.flatten().index_select(0, sequence)
        first_visible = visible.int().argmax(1).index_select(0, clip_index)
        substitute = clip_index * persons + first_visible
        packed = sequences.index_select(0, torch.where(is_visible, sequence, substitute))
        return packed.contiguous(), torch.where(is_visible, clip_index, batch_size)

    def encode(
        self,
        x: Float[Tensor, "N T V C"],
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """Run the backbone on person sequences."""
        return self.backbone(x, mask=mask, with_importance=with_importance)

    def embed(self, batch: Batch) -> Float[Tensor, "B D"]:
        """Compute the clip features by which frozen encoders are compared.

        Tokens are averaged over steps, joints and present persons; a clip without persons gives
        zeros. Training mode and gradients are left to the caller.
        """
        x, clip_index = self.pack(self.preprocess(batch["clip"]), batch)
        return clip_features(self.encode(x).tokens, clip_index, len(batch["label"]))

    def step_seed(self, batch_idx: int) -> int:
        """Return the seed of a training step: equal on all ranks, by run, epoch and batch."""
        run = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # kept by Lightning for its processes
        key = (run, self.current_epoch, batch_idx)
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

    def log_step(self, values: Mapping[str, Tensor], batch_size: int) -> None:
        """Log epoch means over all ranks; ranks are synchronized only at the end of the epoch.

        Args:
            values: By name, without `train/`.
            batch_size: Clips of this rank.
        """
        logged = {f"train/{name}": value.detach() for name, value in values.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True, batch_size=batch_size)

    def compile_backbone(self, **options: Any) -> None:
        """Compile every backbone, key networks and streams included, each as one graph.

        The number of persons is dynamic. The pass over visible tokens is a second graph.

        Args:
            options: Of `torch.compile`.
        """
        for module in self.modules():
            if isinstance(module, Backbone):
                if module.drops_masked_tokens:
                    visible = torch.compile(module.encode_visible, fullgraph=True, **options)
                    module.encode_visible = visible  # type: ignore[method-assign]
                module.compile(fullgraph=True, **options)

    def configure_optimizers(self) -> Any:
        """Build the optimizer over all parameters; its schedule advances after every batch."""
        others = [module for name, module in self.named_children() if name != "backbone"]
        trainer = self.trainer
        steps = int(trainer.estimated_stepping_batches)
        if trainer.train_dataloader is None:  # with max_steps alone Lightning needs no loader
            trainer.fit_loop.setup_data()
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        fused = "mixed" not in str(trainer.precision)
        optimizer, schedule = self.optim.build(self.backbone, others, steps, per_epoch, fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Restore the random state of this rank, or start an independent one."""
        if self.global_rank < len(self._random_states):
            state = self._random_states[self.global_rank]
            torch.set_rng_state(state["cpu"])
            if self.device.type == "cuda" and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"], self.device)
        elif self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank + self.global_step)
        # Lightning skips this hook in a run resumed in the middle of an epoch
        self.on_train_epoch_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store metadata and the torch generators that masks and augmentation draw from."""
        checkpoint["maskclr_pl"] = self.metadata
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["random_states"] = gather_objects(state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts."""
        self._random_states = checkpoint.get("random_states", [])
