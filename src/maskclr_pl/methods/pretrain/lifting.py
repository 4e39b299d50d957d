"""Pre-training by lifting corrupted 2D poses to 3D: MotionBERT.

Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023,
section 3.3.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.distributed import mean_count
from maskclr_pl.methods.base import Method, per_clip
from maskclr_pl.transforms import project
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import visible_joints


class Lift(Method):
    """From (x, y, confidence) as an estimator would give them to 3D joints relative to the root.

    On 3D clips the truth is known: the loss is MPJPE + 0.5 N-MPJPE + 20 * velocity error. On 2D
    clips the predicted x and y must be those that were seen, weighted by confidence. Published is
    30 epochs on 3D clips, then both kinds in turn; here a run has one kind, and the next one takes
    its weights (`init_from`). A joint that is missing, or whose root is, has no loss.

    Args:
        backbone: One token per joint and frame. See `Method`; so are the keyword arguments not
            listed here.
        view: Augmented 3D clips to 3D clips in image units.
        noise: What an estimator adds to the 2D projection of 3D clips.
        drop: What is hidden from the backbone.
        n_mpjpe: Weight of the error after the best scale.
        velocity: Weight of the error of the differences between frames.
        coordinates: What the clips hold: `pixels` (x, y, confidence) or `metres` (x, y, z).

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
                f"{backbone.stride}; type backbone=dstformer"
            )
        self.view, self.noise, self.drop = view, noise, drop
        self.weights = {"mpjpe": 1.0, "n_mpjpe": n_mpjpe, "velocity": velocity, "projection": 1.0}
        self.coordinates = coordinates
        self.head = nn.Linear(backbone.dim, 3)

    @per_clip
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Project, corrupt, lift, compare."""
        clip = self.augment(batch["clip"])
        if self.coordinates == "metres":
            clip = self.view(clip)
            image = self.noise(project(clip))
        else:
            image = clip
        # packed together: what is hidden from the backbone is no reason to leave a person out
        both, _ = self.pack(torch.cat((self.drop(image), clip), dim=-1), batch)
        x, truth = (part.contiguous() for part in both.split(3, dim=-1))
        tokens = self.encode(x).tokens
        with torch.autocast(x.device.type, enabled=False):  # velocities are small differences
            pose = self.head(tokens.float())
        losses = self.losses(pose, truth)
        loss = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        clips = len(batch["label"])
        terms = {f"loss_{name}": value for name, value in losses.items()}
        self.log_step({**terms, "loss": loss}, clips)
        return {"loss": loss, "mask": None, "embedding": tokens.detach().mean((1, 2))}

    def losses(
        self, pose: Float[Tensor, "N T V 3"], truth: Float[Tensor, "N T V 3"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The errors by name, unweighted."""
        root = self.skeleton.root
        target = truth - truth[:, :, root : root + 1]
        if self.coordinates == "pixels":
            score = truth[..., 2] * (truth[:, :, root : root + 1, 2] > 0)
            return {"projection": projection_error(pose[..., :2], target[..., :2], score)}
        there = visible_joints(truth)
        there &= there[:, :, root : root + 1]
        return {
            "mpjpe": mpjpe(pose, target, there),
            "n_mpjpe": n_mpjpe(pose, target, there),
            "velocity": velocity_error(pose, target, there),
        }


def mpjpe(
    pose: Float[Tensor, "N T V c"], target: Float[Tensor, "N T V c"], there: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """MPJPE: mean distance over the joints that are there; 0 if none is."""
    distance = torch.linalg.vector_norm(pose - target, dim=-1)
    return (distance * there).sum() / mean_count(there.sum())


def n_mpjpe(
    pose: Float[Tensor, "N T V 3"], target: Float[Tensor, "N T V 3"], there: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """N-MPJPE: the same after each predicted pose was given the scale that fits best.

    Rhodin et al., "Unsupervised Geometry-Aware Representation for 3D Human Pose Estimation", ECCV
    2018; the scale is that of a frame.
    """
    known = there.unsqueeze(-1)
    match = (pose * target * known).sum((2, 3), keepdim=True)
    size = (pose.square() * known).sum((2, 3), keepdim=True)
    return mpjpe(pose * (match / size.clamp_min(1e-8)), target, there)


def velocity_error(
    pose: Float[Tensor, "N T V 3"], target: Float[Tensor, "N T V 3"], there: Bool[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """Mean distance of the differences between frames; 0 with a single one."""
    both = there[:, 1:] & there[:, :-1]
    return mpjpe(pose.diff(dim=1), target.diff(dim=1), both)


def projection_error(
    pose: Float[Tensor, "N T V 2"], target: Float[Tensor, "N T V 2"], score: Float[Tensor, "N T V"]
) -> Float[Tensor, ""]:
    """Mean over all joints of confidence times distance in the image; 0 for nobody."""
    distance = torch.linalg.vector_norm(pose - target, dim=-1)
    joints = torch.full((), distance.numel(), device=distance.device)
    return (distance * score).sum() / mean_count(joints)
