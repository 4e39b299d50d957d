"""What every method shares: backbone, optimiser, augmentation, person packing, random state."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl import draws
from maskclr_pl.backbones import Backbone, Transformer
from maskclr_pl.distributed import gather_objects
from maskclr_pl.heads import pool_persons
from maskclr_pl.methods.stages import Stage
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch, Features


def clip_features(
    tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], clips: int
) -> Float[Tensor, "B D"]:
    """Features of clips: the mean of their tokens, see `Method.embed`."""
    return pool_persons(tokens.mean((1, 2)), clip_index, clips)


def visible_persons(clip: Float[Tensor, "B M T V C"]) -> Bool[Tensor, "B M"]:
    """Persons of whom a clip shows something: not all of their values are zero."""
    # channel by channel, as clips lie in memory
    return (clip.movedim(-1, 0) != 0).flatten(3).any(-1).any(0)


_P = TypeVar("_P", bound="Method")


def per_clip(
    step: Callable[[_P, Batch, int], dict[str, Any]],
) -> Callable[[_P, Batch, int], dict[str, Any]]:
    """A training step whose augmentation and masks do not depend on the process (see `draws`)."""

    @functools.wraps(step)
    def wrapped(self: _P, batch: Batch, batch_idx: int) -> dict[str, Any]:
        with draws.per_clip(batch, self.step_seed(batch_idx)):
            return step(self, batch, batch_idx)

    return wrapped


class Method(L.LightningModule):
    """Knows nothing about learning.

    A method that does its main work from some epoch on only lists its `stages`.

    Args:
        backbone: Turns person sequences into tokens.
        optim: Optimiser and schedule.
        skeleton: Joints of the clips that the backbone sees.
        augment: Transform of training clips.
        preprocess: Transform of clips at validation and test time.
        persons: `packed`: only persons that are there reach the backbone and are averaged over.
            `padded`: absent ones do as well, as zeros, which is how the published
            checkpoints were trained.
    """

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
        """Of each rank, where a training is resumed."""

    def pack(
        self, clip: Float[Tensor, "B M T V C"], batch: Batch
    ) -> tuple[Float[Tensor, "N T V C"], Int[Tensor, " N"]]:
        """The sequences of the persons that are there, and the clip that each belongs to.

        A person of the recording can be outside of the crop that a transform made: all zeros. How
        many there are is known on the device alone, and asking it would stop the step, so their
        places are not closed. In each stands another person of the clip (BatchNorms see no zeros)
        and belongs to clip B, which no head reads.

        Args:
            clip: Clips after their transforms.
            batch: The batch that they were made from.
        """
        clips, persons = clip.shape[:2]
        sequences = clip.flatten(0, 1)
        if self.persons == "padded":
            index = torch.arange(len(sequences), device=clip.device)
            return sequences.contiguous(), index // persons
        sequence = batch["sequence"]
        clip_index = sequence // persons
        visible = visible_persons(clip)
        shown = visible.flatten().index_select(0, sequence)
        other = clip_index * persons + visible.int().argmax(1).index_select(0, clip_index)
        chosen = sequences.index_select(0, torch.where(shown, sequence, other))
        return chosen.contiguous(), torch.where(shown, clip_index, clips)

    def encode(
        self,
        x: Float[Tensor, "N T V C"],
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """The backbone on person sequences."""
        return self.backbone(x, mask=mask, with_importance=with_importance)

    def embed(self, batch: Batch) -> Float[Tensor, "B D"]:
        """Features of clips as frozen encoders are compared by.

        The mean over steps and joints of the tokens, and over the persons that are there; zeros
        for a clip without any. Neither training mode nor gradients are changed here.
        """
        x, clip_index = self.pack(self.preprocess(batch["clip"]), batch)
        return clip_features(self.encode(x).tokens, clip_index, len(batch["label"]))

    def step_seed(self, batch_idx: int) -> int:
        """Seed of a training step, the same on all ranks: by the run, the epoch and the batch."""
        run = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # kept by Lightning for its processes
        key = (run, self.current_epoch, batch_idx)
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

    def log_step(self, values: Mapping[str, Tensor], clips: int) -> None:
        """Log values of a training step; those of an epoch are the means over all ranks.

        Nothing is sent or waited for before the end of the epoch.

        Args:
            values: By name, without `train/`.
            clips: Of this rank.
        """
        logged = {f"train/{name}": value.detach() for name, value in values.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True, batch_size=clips)

    def check_clips(self, clips: int) -> str | None:
        """Why a number of training clips does not fit, in one line; None if it does."""
        norms = any(isinstance(module, nn.BatchNorm1d) for module in self.modules())
        if clips > 1 or not norms:
            return None
        return (
            f"there is {clips} training clip, and a BatchNorm needs two; pass another "
            "data.train_split, or monitor_split=last to hold none out"
        )

    def compile_backbone(self, **options: Any) -> None:
        """Compile every backbone, those of keys and streams too, each as one graph.

        Any number of persons runs through it. The pass over visible tokens alone is another graph.

        Args:
            options: Of `torch.compile`.
        """
        for module in self.modules():
            if isinstance(module, Transformer):
                visible = torch.compile(module.encode_visible, fullgraph=True, **options)
                module.encode_visible = visible  # type: ignore[method-assign]
            if isinstance(module, Backbone):
                module.compile(fullgraph=True, **options)

    def configure_optimizers(self) -> Any:
        """The optimiser of `optim` over all parameters, stepped after every batch."""
        others = [module for name, module in self.named_children() if name != "backbone"]
        trainer = self.trainer
        steps = int(trainer.estimated_stepping_batches)
        if trainer.train_dataloader is None:  # of max_steps alone Lightning asks no loader
            trainer.fit_loop.setup_data()
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        fused = "mixed" not in str(trainer.precision)
        optimizer, schedule = self.optim.build(self.backbone, others, steps, per_epoch, fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Continue this rank's random state of a resumed run, or start one of its own."""
        if self.global_rank < len(self._random_states):
            state = self._random_states[self.global_rank]
            torch.set_rng_state(state["cpu"])
            if self.device.type == "cuda" and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"], self.device)
        elif self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank + self.global_step)
        # a run continued in the middle of an epoch has no start of that epoch
        self.on_train_epoch_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Masks and augmentation draw from torch's generators, which go into the checkpoint."""
        checkpoint["maskclr_pl"] = self.metadata
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["random_states"] = gather_objects(state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the random states until training starts."""
        self._random_states = checkpoint.get("random_states", [])
