"""Features of all clips of a part, computed once and kept."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.distributed import gather_objects
from maskclr_pl.methods.base import Method
from maskclr_pl.types import Batch


class FeatureBank(nn.Module):
    """Clips that others are compared with: features (n, D) and label (n,), in the checkpoint."""

    features: Tensor
    label: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.empty(0, 0))
        self.register_buffer("label", torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.label)

    def fill(self, features: Float[Tensor, "n D"], label: Int[Tensor, " n"]) -> None:
        """Keep these instead."""
        self.features, self.label = features, label

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, buffer in tuple(self.named_buffers()):  # how many there are is known only now
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@torch.no_grad()
def embed_all(
    method: Method, part: ClipDataset, embed: Callable[[Batch], Float[Tensor, "B E"]]
) -> tuple[Float[Tensor, "n E"], Int[Tensor, " n"]]:
    """Features and labels of every clip of a part, in its order, on the device of the method.

    Clips are as at test time, without augmentation. Each rank computes its share; all have the
    whole. Random numbers are not drawn. The caller sees to the mode (train or eval) of the modules.

    Args:
        method: Being run by a trainer with our data module.
        part: Of that data module.
        embed: Batch to features, such as `Method.embed`.
    """
    trainer = method.trainer
    device = trainer.strategy.root_device
    method.to(device)
    rows: list[tuple[Tensor, ...]] = []
    for batch in trainer.datamodule.in_order(part.as_tested()):  # type: ignore[attr-defined]
        batch = method.transfer_batch_to_device(batch, device, 0)
        with trainer.precision_plugin.forward_context():
            features = embed(batch).float()
        rows.append((batch["index"], batch["label"], features))
    columns = gather_columns(rows)
    order = columns[0].argsort()
    return columns[2][order].to(device), columns[1][order].to(device)


def gather_columns(rows: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Batches of columns as whole columns, of all ranks, on the CPU."""
    columns = [torch.cat(column).cpu() for column in zip(*rows, strict=True)]
    ranks = gather_objects(columns)
    return [torch.cat(column) for column in zip(*ranks, strict=True)] if len(ranks) > 1 else columns
