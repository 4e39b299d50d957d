"""Example clips and poses for figures, as the model sees them."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.methods import Method
from maskclr_pl.transforms import Stream
from maskclr_pl.types import Batch
from maskclr_pl.visibility import visible_in_clip


def example_clips(clips: ClipDataset, number: int) -> list[int]:
    """Return indices of clips that show a person, of evenly spaced classes, sorted by class.

    Only the first 20 clips of each class are searched, so fewer than `number` may be returned.
    """
    by_class = [list(np.flatnonzero(clips.labels == k)[:20]) for k in np.unique(clips.labels)]
    selected: list[int] = []
    for k in np.linspace(0, len(by_class) - 1, number).round().astype(int):
        while by_class[k]:
            index = int(by_class[k].pop(0))
            if clips[index]["present"].any():
                selected.append(index)
                break
    return selected


def model_poses(
    method: Method, batch: Batch, coordinates: str
) -> tuple[Float[np.ndarray, "N T V 2"], Bool[np.ndarray, "N T V"]]:
    """Return the preprocessed poses of all persons, before streams (bone, motion) are computed.

    Args:
        method: Model whose preprocessing is used.
        batch: Batch on the device of the model.
        coordinates: `pixels` or `metres`, as in the store.

    Returns:
        Points (x, y) with y up, and visible joints, of N = B * M persons.
    """
    steps = [step for step in method.preprocess.children() if not isinstance(step, Stream)]
    poses = nn.Sequential(*steps)(batch["clip"]).flatten(0, 1).cpu()
    in_image = coordinates == "pixels"  # y points down
    visible = visible_in_clip(poses, coordinates)
    points = poses[..., :2] * torch.tensor([1.0, -1.0 if in_image else 1.0])
    return points.numpy(), visible.numpy()


def example_pose(method: Method, clips: ClipDataset) -> Float[np.ndarray, "V 2"]:
    """Return the pose with most visible joints in the first 16 clips, with y down."""
    batch = collate([clips[i] for i in range(min(16, len(clips)))])
    batch = method.transfer_batch_to_device(batch, method.device, 0)
    points, visible = model_poses(method, batch, clips.store.coordinates)
    best = np.unravel_index(visible.sum(-1).argmax(), visible.shape[:2])
    pose: np.ndarray = points[best] * (1, -1)
    return pose
