"""A synthetic data set in which the informative joints of each action are known.

An articulated body is moved by joint angles and observed by a simulated pose estimator. Each action
has a *strong* cue, a large movement of one or two limbs, and *weak* cues, small postures and sways
of other joints that vary between clips. The strong cue alone identifies the action; the weak cues
together do so, too, with less certainty. A model that relies only on the strong cue fails if those
joints are missing, one that also uses the weak cues need not.

These are toy data: results on them do not transfer to benchmarks.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import SKELETONS

SKELETON = SKELETONS["coco17"]
FRAME_SIZE = (720, 1280)
_FPS = 30.0


class Motion(NamedTuple):
    """One angle over time: offset + amplitude * sin(2 pi (frequency t + phase)), in rad and Hz."""

    offset: float = 0.0
    amplitude: float = 0.0
    frequency: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Action:
    """An action: the joint angles of its strong cue and of its weak cues."""

    name: str
    strong: Mapping[str, Motion]
    weak: Mapping[str, Motion]


_WEAK_SIZES = {  # small postures and sways; any two actions differ in at least three of the six
    "head_turn": 0.45,
    "torso_side": 0.11,
    "left_knee": 0.5,
    "right_knee": 0.5,
    "torso_sway": 0.05,
    "head_nod": 0.14,
}


def _weak_cues(code: str) -> dict[str, Motion]:
    """Return the weak cues for a sign, + or -, of each entry of `_WEAK_SIZES`."""
    weak = {}
    for (angle, size), sign in zip(_WEAK_SIZES.items(), code, strict=True):
        value = size if sign == "+" else -size
        if angle.endswith("_knee"):
            weak[angle] = Motion(offset=max(value, 0.0))
        elif angle == "torso_sway":
            weak["torso_lean"] = Motion(amplitude=size if sign == "+" else 0.0, frequency=0.8)
        elif angle == "head_nod":
            weak[angle] = Motion(amplitude=size if sign == "+" else 0.0, frequency=1.6)
        else:
            weak[angle] = Motion(offset=value)
    return weak


def _arms(sides: str, **motions: Motion) -> dict[str, Motion]:
    """Return the same motions for the arms in `sides` ("left", "right" or "left right")."""
    return {
        f"{side}_{angle}": motion for side in sides.split() for angle, motion in motions.items()
    }


_WAVE = {"abduct": Motion(1.9), "elbow": Motion(0.9, 0.6, 2.0)}
_PUNCH = {"flex": Motion(1.2, 0.3, 1.3), "elbow": Motion(1.2, 0.9, 1.3, 0.5)}
_DRINK = {"flex": Motion(0.8, 0.15, 0.4), "elbow": Motion(2.1, 0.25, 0.4)}
_CLAP = {"flex": Motion(1.2), "elbow": Motion(0.7, 0.35, 1.6)}
_RAISE = {"abduct": Motion(1.4, 0.8, 0.7)}

ACTIONS: tuple[Action, ...] = (
    Action("wave right", _arms("right", **_WAVE), _weak_cues("------")),
    Action("wave left", _arms("left", **_WAVE), _weak_cues("--+-++")),
    Action("punch right", _arms("right", **_PUNCH), _weak_cues("-+-+-+")),
    Action("punch left", _arms("left", **_PUNCH), _weak_cues("-++++-")),
    Action("drink right", _arms("right", **_DRINK), _weak_cues("+--++-")),
    Action("drink left", _arms("left", **_DRINK), _weak_cues("+-++-+")),
    Action("clap", _arms("left right", **_CLAP), _weak_cues("++--++")),
    Action("raise both arms", _arms("left right", **_RAISE), _weak_cues("+++---")),
)

_MOVES = {  # which joints an angle moves
    "flex": ("elbow", "wrist"),
    "abduct": ("elbow", "wrist"),
    "elbow": ("wrist",),
    "knee": ("knee", "ankle"),
}


def cue_joints(action: Action, cue: str) -> tuple[int, ...]:
    """Return the joints (COCO indices) moved by the `strong` or `weak` cue of an action."""
    names: set[str] = set()
    for angle in getattr(action, cue):
        side, _, kind = angle.partition("_")
        if kind in _MOVES:
            names.update(f"{side}_{joint}" for joint in _MOVES[kind])
        elif angle.startswith("head"):
            names.update(SKELETON.joints[:5])
        else:
            names.update(joint for joint in SKELETON.joints[:11])
    return tuple(i for i, joint in enumerate(SKELETON.joints) if joint in names)


class SyntheticSource:
    """Recordings of the synthetic data set, reproducible for the same arguments.

    Args:
        clips: Number of recordings, distributed evenly over actions and subjects.
        subjects: Number of simulated persons; the last third is the test split.
        frames: Frames of the shortest and the longest recording.
        weak_spread: Standard deviation of a weak cue between clips, relative to its size.
        jitter: Noise of the simulated estimator, in pixels.
        dropout: Share of joints that the estimator misses, in bursts.
        bystander: Share of clips with an idle second person.
        seed: Seed of the data set.
    """

    def __init__(
        self,
        clips: int = 1200,
        subjects: int = 12,
        frames: Sequence[int] = (40, 90),
        weak_spread: float = 0.5,
        jitter: float = 1.5,
        dropout: float = 0.02,
        bystander: float = 0.15,
        seed: int = 0,
    ):
        settings = (clips, subjects, *frames, weak_spread, jitter, dropout, bystander, seed)
        self.hash = hashlib.sha256(repr(settings).encode()).hexdigest()
        subjects = max(2, min(subjects, clips // len(ACTIONS)))
        self.clips, self.frames = clips, frames
        self.weak_spread, self.jitter, self.dropout = weak_spread, jitter, dropout
        self.bystander, self.seed = bystander, seed
        plan = [(i, i % len(ACTIONS), i // len(ACTIONS) % subjects) for i in range(clips)]
        self._names = {i: f"synthetic_s{s:02d}_a{a:02d}_{i:05d}" for i, a, s in plan}
        self._plan = plan
        first_test = subjects - max(1, subjects // 3)
        self.splits = {
            "train": [self._names[i] for i, _, s in plan if s < first_test],
            "test": [self._names[i] for i, _, s in plan if s >= first_test],
        }

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[Recording]:
        for index, label, subject in self._plan:
            rng = np.random.default_rng((self.seed, index))
            style = np.random.default_rng((self.seed, 1_000_000 + subject))
            frames = int(rng.integers(self.frames[0], self.frames[1], endpoint=True))
            angles = self._angles(ACTIONS[label], frames, rng, style)
            bodies = [_place(_body(angles, _proportions(style)), 0.0, rng)]
            if rng.random() < self.bystander:
                idle = self._angles(_IDLE, frames, rng, rng)
                side = rng.choice((-1.0, 1.0)) * rng.uniform(1.0, 1.6)
                bodies.append(_place(_body(idle, _proportions(rng)), side, rng))
            keypoint, score = self._estimate(np.stack(bodies), rng)
            yield Recording(self._names[index], label, keypoint, score, FRAME_SIZE, subject=subject)

    def _angles(
        self, action: Action, frames: int, rng: np.random.Generator, style: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Return the angles (T,) of a clip: cues, which vary between clips, and idle sway."""
        time = np.arange(frames) / _FPS
        tempo, reach = style.uniform(0.85, 1.15), style.uniform(0.9, 1.1)
        start = rng.uniform()
        angles = {
            angle: 0.04 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.5) * time + rng.uniform()))
            + rng.normal(0, 0.05)
            for angle in _ANGLES
        }
        for cue, spread in ((action.strong, 0.12), (action.weak, self.weak_spread)):
            for angle, motion in cue.items():
                size = reach * (1 + spread * rng.normal())
                beat = tempo * rng.uniform(0.9, 1.1) * motion.frequency * time
                swing = motion.amplitude * np.sin(2 * np.pi * (beat + start + motion.phase))
                # a weak posture of size 0 varies like the others, so that its variance is not a cue
                unit = _WEAK_SIZES.get(angle, 0.0) if cue is action.weak else 0.0
                drift = spread * unit * rng.normal() if motion.offset == 0 else 0.0
                angles[angle] = angles[angle] + size * (motion.offset + swing) + drift
        return angles

    def _estimate(
        self, joints: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Simulate an estimator: (M, T, V, 3) meters to (M, T, V, 2) pixels and confidence."""
        height, width = FRAME_SIZE
        depth = 4.0 - joints[..., 2]
        scale = 0.95 * height / depth
        pixels = np.stack(
            (width / 2 + scale * joints[..., 0], height * 0.52 - scale * joints[..., 1]), axis=-1
        )
        noise = rng.normal(0, self.jitter * rng.lognormal(0, 0.3), pixels.shape)
        error = np.linalg.norm(noise, axis=-1) / max(self.jitter, 1e-6)
        score = np.clip(0.97 - 0.08 * error + rng.normal(0, 0.03, error.shape), 0.05, 1.0)
        missing = rng.random(score.shape) < self.dropout / 4
        for _ in range(2):  # a joint is missing for about four frames
            missing[:, 1:] |= missing[:, :-1] & (rng.random(missing[:, 1:].shape) < 0.8)
            missing[:, 2:] |= missing[:, :-2] & (rng.random(missing[:, 2:].shape) < 0.5)
        outside = (pixels < 0).any(-1) | (pixels[..., 0] >= width) | (pixels[..., 1] >= height)
        score[missing | outside] = 0
        pixels = (pixels + noise) * (score > 0)[..., None]
        return pixels.astype(np.float16), score.astype(np.float16)


_IDLE = Action("idle", MappingProxyType({}), MappingProxyType({}))
_ANGLES = (
    "torso_lean", "torso_side", "head_turn", "head_nod",
    "left_flex", "left_abduct", "left_elbow", "left_knee",
    "right_flex", "right_abduct", "right_elbow", "right_knee",
)  # fmt: skip


def _proportions(rng: np.random.Generator) -> dict[str, float]:
    """Draw the limb lengths of a person in meters."""
    size = rng.uniform(0.9, 1.1)
    lengths = {"torso": 0.5, "shoulder": 0.19, "hip": 0.11, "upper_arm": 0.29, "forearm": 0.26,
               "thigh": 0.43, "shin": 0.42, "neck": 0.22}  # fmt: skip
    return {part: size * length * rng.uniform(0.95, 1.05) for part, length in lengths.items()}


def _rotation(axis: int, angle: np.ndarray | float) -> np.ndarray:
    """Return rotations (T, 3, 3) about one axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*np.shape(angle), 3, 3))
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[..., axis, axis] = 1
    matrix[..., a, a] = matrix[..., b, b] = cos
    matrix[..., a, b], matrix[..., b, a] = -sin, sin
    return matrix


def _body(angles: Mapping[str, np.ndarray], length: Mapping[str, float]) -> np.ndarray:
    """Return joints (T, V, 3) in meters, COCO order; x to the left, y up, z to the camera."""
    down = np.array([0.0, -1.0, 0.0])
    torso = _rotation(2, -angles["torso_side"]) @ _rotation(0, angles["torso_lean"])
    head = torso @ _rotation(1, angles["head_turn"]) @ _rotation(0, angles["head_nod"])
    neck = length["torso"] * (torso @ -down)
    joints: dict[str, np.ndarray] = {}
    face = {"nose": (0, 0, 0.1), "eye": (0.03, 0.035, 0.08), "ear": (0.075, 0.02, 0.0)}
    skull = neck + length["neck"] * (head @ -down)
    joints["nose"] = skull + head @ np.array(face["nose"])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for part in ("eye", "ear"):
            joints[f"{side}_{part}"] = skull + head @ (np.array(face[part]) * (sign, 1, 1))
        shoulder = neck + torso @ np.array([sign * length["shoulder"], 0, 0])
        arm = torso @ _rotation(2, sign * angles[f"{side}_abduct"])
        arm = arm @ _rotation(0, -angles[f"{side}_flex"])
        elbow = shoulder + length["upper_arm"] * (arm @ down)
        forearm = arm @ _rotation(0, -angles[f"{side}_elbow"])
        hip = np.broadcast_to([sign * length["hip"], 0.0, 0.0], shoulder.shape)
        bend = np.abs(angles[f"{side}_knee"])
        thigh, shin = _rotation(0, -bend), _rotation(0, bend * 0.6)
        knee = hip + length["thigh"] * (thigh @ down)
        joints |= {
            f"{side}_shoulder": shoulder,
            f"{side}_elbow": elbow,
            f"{side}_wrist": elbow + length["forearm"] * (forearm @ down),
            f"{side}_hip": hip,
            f"{side}_knee": knee,
            f"{side}_ankle": knee + length["shin"] * (shin @ down),
        }
    return np.stack([joints[name] for name in SKELETON.joints], axis=1)


def _place(body: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """Turn the body by up to 35 degrees and place it in front of the camera."""
    turned = body @ _rotation(1, rng.uniform(-0.6, 0.6)).T
    shift = (side + rng.uniform(-0.4, 0.4), rng.uniform(-0.1, 0.1), rng.uniform(-0.6, 0.4))
    return turned + np.array(shift)
