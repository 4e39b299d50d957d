"""Features of a whole data set, computed once by a frozen encoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.distributed import gather_objects
from maskclr_pl.methods.base import Method
from maskclr_pl.types import Batch


class FeatureBank(nn.Module):
    """Reference features (n, D) and labels (n,), part of the checkpoint."""

    features: Tensor
    label: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.empty(0, 0))
        self.register_buffer("label", torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.label)

    def fill(self, features: Float[Tensor, "n D"], label: Int[Tensor, " n"]) -> None:
        """Replace the content."""
        self.features, self.label = features, label

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, buffer in tuple(self.named_buffers()):  # sizes are known only now
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@torch.no_grad()
def embed_all(
    method: Method, clips: ClipDataset, embed: Callable[[Batch], Float[Tensor, "B E"]]
) -> tuple[Float[Tensor, "n E"], Int[Tensor, " n"]]:
    """Compute features and labels of every clip, in order, on the device of the method.

    Clips are prepared as at test time, without augmentation or random numbers. Each rank computes
    its share and receives all. The caller sets the mode (train or eval) of the modules.

    Args:
        method: Attached to a trainer with our data module.
        clips: A split of that data module.
        embed: Batch to features, such as `Method.embed`.
    """
    trainer = method.trainer
    device = trainer.strategy.root_device
    method.to(device)
    batches: list[tuple[Tensor, ...]] = []
    for batch in trainer.datamodule.sequential_loader(clips.eval_view()):  # type: ignore[attr-defined]
        batch = method.transfer_batch_to_device(batch, device, 0)
        with trainer.precision_plugin.forward_context():
            features = embed(batch).float()
        batches.append((batch["index"], batch["label"], features))
    index, label, features = gather_columns(batches)
    order = index.argsort()
    return features[order].to(device), label[order].to(device)


def gather_columns(batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Concatenate the columns of all batches and ranks, on the CPU."""
    columns = [torch.cat(column).cpu() for column in zip(*batches, strict=True)]
    ranks = gather_objects(columns)
    return [torch.cat(column) for column in zip(*ranks, strict=True)] if len(ranks) > 1 else columns


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the context."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
