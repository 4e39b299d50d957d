"""Joint layouts and the conversion between them.

A layout is a list of joint names with a parent for each; bones, mirror pairs and body parts are
derived. A joint of another layout is a mean of joints, so a conversion is one matrix.
Joint orders: COCO, MotionBERT (H36M), Kinect, OpenPose and AlphaPose (Halpe) documentation.
"""

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskclr_pl.types import InputError

MAX_JOINTS = 1000
"""Of a layout; whole bodies with hands and faces have 133."""
_MOST_STEPS, _DEEPEST = 20_000, 50  # of building joints from joints that are built in turn
_LIMBS = {
    "leg": ("hip", "knee", "ankle", "foot", "toe", "heel", "leg", "thigh", "shin", "calf"),
    "arm": (
        *("shoulder", "elbow", "wrist", "hand", "thumb", "finger", "clavicle", "arm", "collar"),
        *("palm", "index", "pinky"),  # after the leg: the tip of a foot is called foot_index, too
    ),
}
ROOT_NAMES = ("root", "hip_center", "spine_base", "mid_hip", "pelvis", "hips", "hip", "torso")
"""Names of joints that are taken for the root, the first one first."""


@dataclass(frozen=True)
class Skeleton:
    """A joint layout.

    Args:
        name: Short name of the layout.
        joints: One name per joint. The two sides of a pair are `left_x` and `right_x`.
        parents: Index of the joint that each joint hangs on, -1 for a root.
        composed: For a joint that other layouts may lack, the ways to build it as the mean of
            others, in order of preference: {joint: ((ingredient, ...), ...)}. An ingredient is a
            joint of the source layout, else a joint of this layout that is built in turn.
        bone_parents: The parents that the bone stream uses, where a published bone list is not the
            tree of `parents`; None if it is.

    Raises:
        InputError: If names repeat, or parents do not form a forest over the joints.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    composed: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    bone_parents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_count(self.name, self.joints)
        [(joint, times)] = Counter(self.joints).most_common(1)
        if times > 1:
            raise InputError(
                f"skeleton {self.name}: {times} joints are named {joint!r}; joint names must differ"
            )
        self._check_forest("parents", self.parents)
        if self.bone_parents is not None:
            self._check_forest("bone_parents", self.bone_parents)

    def _check_forest(self, what: str, parents: tuple[int, ...]) -> None:
        if len(parents) != len(self.joints):
            raise InputError(
                f"skeleton {self.name}: {len(self.joints)} joints but {len(parents)} {what}"
            )
        for joint, name in enumerate(self.joints):
            seen, node = set(), joint
            while node != -1:
                if node in seen or not -1 <= node < len(self.joints):
                    raise InputError(
                        f"skeleton {self.name}: the {what} of {name} do not end in a root"
                    )
                seen.add(node)
                node = parents[node]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the root joint (of several, the one with most children)."""
        roots = [joint for joint, parent in enumerate(self.parents) if parent < 0]
        return max(roots, key=lambda joint: self.parents.count(joint))

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) pairs."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) pairs that mirror each other."""
        index = {name: i for i, name in enumerate(self.joints)}
        return tuple(
            (i, index["right_" + name.removeprefix("left_")])
            for i, name in enumerate(self.joints)
            if name.startswith("left_") and "right_" + name.removeprefix("left_") in index
        )

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Joint indices of trunk (with the head), arms and legs; empty parts are left out."""
        parts: dict[str, list[int]] = {
            part: [] for part in ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")
        }
        for i, name in enumerate(self.joints):
            side, _, rest = name.partition("_")
            named = (limb for limb, words in _LIMBS.items() if any(w in rest for w in words))
            limb = next(named, "")
            parts[f"{side}_{limb}" if limb and side in ("left", "right") else "trunk"].append(i)
        return {part: tuple(joints) for part, joints in parts.items() if joints}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, readable by `from_dict` (stored in data files and checkpoints)."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Skeleton":
        """Rebuild a skeleton from `to_dict`; files of older versions have no `bone_parents`."""
        composed = {
            str(joint): tuple(tuple(map(str, recipe)) for recipe in recipes)
            for joint, recipes in values.get("composed", {}).items()
        }
        bone_parents = values.get("bone_parents")
        return cls(
            str(values["name"]),
            tuple(map(str, values["joints"])),
            tuple(map(int, values["parents"])),
            composed,
            None if bone_parents is None else tuple(map(int, bone_parents)),
        )

    @classmethod
    def from_edges(
        cls,
        name: str,
        joints: Sequence[str],
        edges: Iterable[Sequence[int]],
        root: str | None = None,
    ) -> "Skeleton":
        """A skeleton from undirected edges; extra edges (cycles) are dropped.

        Args:
            name: Name of the layout.
            joints: Joint names.
            edges: Pairs of joint indices.
            root: Name of the root; by default a joint named like one (hip_center, ...), else the
                joint in the middle of the graph.

        Raises:
            InputError: If an edge or the root names no joint.
        """
        joints = tuple(joints)
        _check_count(name, joints)
        near: list[list[int]] = [[] for _ in joints]
        for edge in edges:
            if len(edge) != 2 or not all(0 <= int(end) < len(joints) for end in edge):
                raise InputError(
                    f"skeleton {name}: edge {list(edge)} is not a pair of joints, which are "
                    f"numbered from 0 to {len(joints) - 1}"
                )
            near[int(edge[0])].append(int(edge[1]))
            near[int(edge[1])].append(int(edge[0]))
        if root is not None and root not in joints:
            raise InputError(f"skeleton {name}: the root {root!r} is not among its joints")
        named = root or next((joint for joint in ROOT_NAMES if joint in joints), None)
        start = (
            joints.index(named)
            if named
            else max(range(len(joints)), key=lambda i: _centrality(near, i))
        )
        parents = [-1] * len(joints)
        reached: set[int] = set()
        for top in [start, *range(len(joints))]:
            if top in reached:
                continue
            reached.add(top)
            queue = deque([top])
            while queue:
                node = queue.popleft()
                for other in near[node]:
                    if other not in reached:
                        reached.add(other)
                        parents[other] = node
                        queue.append(other)
        return cls(name, joints, tuple(parents))


def _check_count(name: str, joints: Sequence[str]) -> None:
    if not 0 < len(joints) <= MAX_JOINTS:
        count = "no" if not joints else len(joints)
        raise InputError(f"skeleton {name}: it has {count} joints, expected 1 to {MAX_JOINTS}")


def _centrality(near: list[list[int]], start: int) -> tuple[int, int]:
    """How many joints can be reached, and minus the distance of the farthest of them."""
    distances, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in near[node]:
            if other not in distances:
                distances[other] = distances[node] + 1
                queue.append(other)
    return len(distances), -max(distances.values())


def conversion_matrix(source: Skeleton, target: Skeleton) -> tuple[np.ndarray, tuple[str, ...]]:
    """How to build the joints of `target` from those of `source`.

    Returns:
        weights: (V_target, V_source) float64; each row is a mean over joints of the source, or all
            zeros where the joint cannot be built.
        missing: Names of the joints that cannot be built.
    """
    if source.joints == target.joints:
        return np.eye(len(source)), ()
    index = {name: i for i, name in enumerate(source.joints)}
    calls = itertools.count()

    def build(joint: str, pending: tuple[str, ...]) -> np.ndarray | None:
        if next(calls) > _MOST_STEPS or len(pending) > _DEEPEST:
            raise InputError(f"skeleton {target.name}: its composed joints are without end")
        if joint in pending:  # the joint itself: only the source can have it
            return np.eye(len(source))[index[joint]] if joint in index else None
        for recipe in target.composed.get(joint, ((joint,),)):
            rows = [
                np.eye(len(source))[index[part]]
                if part in index
                else build(part, (*pending, joint))
                if part in target.composed
                else None
                for part in recipe
            ]
            if all(row is not None for row in rows):
                return np.mean(np.array(rows), axis=0)
        return None

    rows = [build(joint, ()) for joint in target.joints]
    weights = np.stack([np.zeros(len(source)) if row is None else row for row in rows])
    missing = tuple(joint for joint, row in zip(target.joints, rows, strict=True) if row is None)
    return weights, missing


def _named() -> dict[str, Skeleton]:
    text = Path(__file__).with_name("layouts.yaml").read_text()
    return {
        name: Skeleton.from_dict({"name": name, **values})
        for name, values in yaml.safe_load(text).items()
    }


SKELETONS = _named()
"""The named layouts: coco17, h36m17, ntu25, kinect20, openpose18, halpe26."""
