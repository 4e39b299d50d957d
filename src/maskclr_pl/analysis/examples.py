"""Clips as a model sees them, for pictures."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.methods import Method
from maskclr_pl.transforms import Stream
from maskclr_pl.types import Batch


def example_clips(part: ClipDataset, number: int) -> list[int]:
    """Clips that show a person, of classes spread over all, in the order of the classes.

    Of the clips of a class the first 20 are looked at; fewer than `number` may be found.
    """
    by_class = [list(np.flatnonzero(part.labels == k)[:20]) for k in np.unique(part.labels)]
    spread = np.linspace(0, len(by_class) - 1, number).round().astype(int)
    chosen: list[int] = []
    for k in spread:
        while by_class[k]:
            index = int(by_class[k].pop(0))
            if part[index]["present"].any():
                chosen.append(index)
                break
    return chosen


def model_poses(
    method: Method, batch: Batch, coordinates: str
) -> tuple[Float[np.ndarray, "N T V 2"], Bool[np.ndarray, "N T V"]]:
    """The poses that a model sees of clips, before a stream is made of them.

    Args:
        method: Of which the preparation is used.
        batch: On the device of the method.
        coordinates: Of the store, `pixels` or `metres`.

    Returns:
        Points (x, y) with y up, and which joints are there; N is all persons of all clips.
    """
    steps = [step for step in method.preprocess.children() if not isinstance(step, Stream)]
    poses = nn.Sequential(*steps)(batch["clip"]).flatten(0, 1).cpu()
    flat = coordinates == "pixels"  # then y points down
    visible = poses[..., 2] > 0 if flat else (poses != 0).any(-1)
    points = poses[..., :2] * torch.tensor([1.0, -1.0 if flat else 1.0])
    return points.numpy(), visible.numpy()


def example_pose(method: Method, part: ClipDataset) -> Float[np.ndarray, "V 2"]:
    """A pose to draw values on, y down: the frame with most visible joints in the first clips."""
    batch = collate([part[i] for i in range(min(16, len(part)))])
    batch = method.transfer_batch_to_device(batch, method.device, 0)
    points, visible = model_poses(method, batch, part.store.coordinates)
    best = np.unravel_index(visible.sum(-1).argmax(), visible.shape[:2])
    pose: np.ndarray = points[best] * (1, -1)
    return pose
