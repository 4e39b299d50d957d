"""Pre-training by lifting corrupted 2D poses to 3D: MotionBERT.

Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023,
section 3.3.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.distributed import mean_count
from maskclr_pl.methods.base import Method, rank_invariant
from maskclr_pl.transforms import project
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import visible_joints


class Lift(Method):
    """Predict 3D joints relative to the root from simulated 2D detections (x, y, confidence).

    On 3D clips the loss is MPJPE + 0.5 N-MPJPE + 20 * velocity error. On 2D clips it is the
    reprojection error in x and y, weighted by confidence. Published are 30 epochs on 3D clips, then
    alternating 3D and 2D; here a run uses one kind of data and passes its weights on
    (`init_from`). A missing joint, or one whose root is missing, has no loss.

    Args:
        backbone: One token per joint and frame. See `Method`, likewise keyword arguments not listed
            here.
        view: Transform of augmented 3D clips to image units.
        noise: Simulated detection noise on the 2D projection of 3D clips.
        drop: Transform that hides joints and frames from the backbone.
        n_mpjpe: Weight of N-MPJPE.
        velocity: Weight of the velocity error.
        coordinates: Units of the clips: `pixels` (x, y, confidence) or `metres` (x, y, z).

    Raises:
        InputError: If the backbone's tokens span several frames.
        ValueError: If `coordinates` is unknown.
    """

    def __init__(
        self,
        backbone: Backbone,
        view: nn.Module,
        noise: nn.Module,
        drop: nn.Module,
        n_mpjpe: float = 0.5,
        velocity: float = 20.0,
        coordinates: Literal["pixels", "metres"] = "metres",
        **shared: Any,
    ):
        super().__init__(backbone, **shared)
        if coordinates not in ("pixels", "metres"):
            raise ValueError(f"coordinates must be pixels or metres, got {coordinates!r}")
        if backbone.stride != 1:
            raise InputError(
                f"method=lift predicts every frame, but a token of {type(backbone).__name__} spans "
                f"{backbone.stride}; pass backbone=dstformer"
            )
        self.view, self.noise, self.drop = view, noise, drop
        self.weights = {"mpjpe": 1.0, "n_mpjpe": n_mpjpe, "velocity": velocity, "projection": 1.0}
        self.coordinates = coordinates
        self.head = nn.Linear(backbone.dim, 3)

    @classmethod
    def row_name(cls, config: Mapping[str, Any]) -> str | None:
        """See `Method.row_name`."""
        return "MotionBERT"

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Project, corrupt, lift, compare."""
        clip = self.augment(batch["clip"])
        if self.coordinates == "metres":
            clip = self.view(clip)
            image = self.noise(project(clip))
        else:
            image = clip
        # packed together: a person whose joints were all dropped still has a target
        both, _ = self.pack(torch.cat((self.drop(image), clip), dim=-1), batch)
        x, truth = (part.contiguous() for part in both.split(3, dim=-1))
        tokens = self.encode(x).tokens
        with torch.autocast(x.device.type, enabled=False):  # velocities are small differences
            pose = self.head(tokens.float())
        losses = self.losses(pose, truth)
        loss = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        terms = {f"loss_{name}": value for name, value in losses.items()}
        self.log_step({**terms, "loss": loss}, len(batch["label"]))
        return {"loss": loss, "mask": None, "embedding": tokens.detach().mean((1, 2))}

    def losses(
        self, pose: Float[Tensor, "N T V 3"], truth: Float[Tensor, "N T V 3"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the unweighted errors by name."""
        root = self.skeleton.root
        target = truth - truth[:, :, root : root + 1]
        if self.coordinates == "pixels":
            score = truth[..., 2] * (truth[:, :, root : root + 1, 2] > 0)
            return {"projection": projection_error(pose[..., :2], target[..., :2], score)}
        visible = visible_joints(truth)
        visible &= visible[:, :, root : root + 1]
        return {
            "mpjpe": mpjpe(pose, target, visible),
            "n_mpjpe": n_mpjpe(pose, target, visible),
            "velocity": velocity_error(pose, target, visible),
        }


def mpjpe(
    pose: Float[Tensor, "N T V c"], target: Float[Tensor, "N T V c"], visible: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """MPJPE: mean distance over the visible joints; 0 if none is visible."""
    distance = torch.linalg.vector_norm(pose - target, dim=-1)
    return (distance * visible).sum() / mean_count(visible.sum())


def n_mpjpe(
    pose: Float[Tensor, "N T V 3"], target: Float[Tensor, "N T V 3"], visible: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """N-MPJPE: MPJPE after scaling each predicted pose to the best fit.

    Rhodin et al., "Unsupervised Geometry-Aware Representation for 3D Human Pose Estimation", ECCV
    2018; one scale per frame.
    """
    weight = visible.unsqueeze(-1)
    product = (pose * target * weight).sum((2, 3), keepdim=True)  # (N, T, 1, 1)
    square = (pose.square() * weight).sum((2, 3), keepdim=True)
    return mpjpe(pose * (product / square.clamp_min(1e-8)), target, visible)


def velocity_error(
    pose: Float[Tensor, "N T V 3"], target: Float[Tensor, "N T V 3"], visible: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """Mean distance between velocities (frame differences); 0 for a single frame."""
    both = visible[:, 1:] & visible[:, :-1]
    return mpjpe(pose.diff(dim=1), target.diff(dim=1), both)


def projection_error(
    pose: Float[Tensor, "N T V 2"], target: Float[Tensor, "N T V 2"], score: Float[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """Image distance weighted by confidence, averaged over all joints; 0 without persons."""
    distance = torch.linalg.vector_norm(pose - target, dim=-1)
    joints = torch.full((), distance.numel(), device=distance.device)
    return (distance * score).sum() / mean_count(joints)
