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

from maskclr_pl.errors import InputError

MAX_JOINTS = 1000
"""Joints of a layout; whole bodies with hands and faces have 133."""
_MAX_STEPS, _MAX_DEPTH = 20_000, 50  # of building joints from joints that are built in turn
_LIMBS = {
    "leg": ("hip", "knee", "ankle", "foot", "toe", "heel", "leg", "thigh", "shin", "calf"),
    # after the leg, because the tip of a foot is also called foot_index
    "arm": (
        "shoulder", "elbow", "wrist", "hand", "thumb", "finger", "clavicle", "arm", "collar",
        "palm", "index", "pinky",
    ),
}  # fmt: skip
ROOT_NAMES = ("root", "hip_center", "spine_base", "mid_hip", "pelvis", "hips", "hip", "torso")
"""Names of root joints, in order of preference."""


@dataclass(frozen=True)
class Skeleton:
    """A joint layout.

    Args:
        name: Short name of the layout.
        joints: One name per joint. The two sides of a pair are `left_x` and `right_x`.
        parents: Index of the parent of each joint, -1 for a root.
        composed: For a joint that other layouts may lack, the ways to build it as the mean of
            others, in order of preference: {joint: ((ingredient, ...), ...)}. An ingredient is a
            joint of the source layout, else a joint of this layout that is built in turn.
        bone_parents: Parents in the bone stream, where a published bone list differs from
            `parents`; None if it does not.

    Raises:
        InputError: If names repeat, or parents do not form a forest over the joints.

    Example:
        >>> arm = Skeleton("arm", ("left_shoulder", "left_elbow", "left_wrist"), (-1, 0, 1))
        >>> arm.bones, arm.parts
        (((1, 0), (2, 1)), {'left_arm': (0, 1, 2)})
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    composed: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    bone_parents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_count(self.name, self.joints)
        [(joint, count)] = Counter(self.joints).most_common(1)
        if count > 1:
            raise InputError(
                f"skeleton {self.name}: {count} joints are named {joint!r}; names must be unique"
            )
        self._check_forest("parents", self.parents)
        if self.bone_parents is not None:
            self._check_forest("bone_parents", self.bone_parents)

    def _check_forest(self, key: str, parents: tuple[int, ...]) -> None:
        if len(parents) != len(self.joints):
            raise InputError(
                f"skeleton {self.name}: {len(self.joints)} joints but {len(parents)} {key}"
            )
        for joint, name in enumerate(self.joints):
            path, node = set(), joint
            while node != -1:
                if node in path or not -1 <= node < len(self.joints):
                    raise InputError(
                        f"skeleton {self.name}: the {key} of {name} do not lead to a root"
                    )
                path.add(node)
                node = parents[node]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the root joint (of several, the one with most children)."""
        roots = [joint for joint, parent in enumerate(self.parents) if parent < 0]
        return max(roots, key=self.parents.count)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) pairs."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) pairs that mirror each other."""
        index = {name: i for i, name in enumerate(self.joints)}
        return tuple(
            (left, index[opposite])
            for name, left in index.items()
            if name.startswith("left_")
            and (opposite := "right_" + name.removeprefix("left_")) in index
        )

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Joint indices of trunk (with the head), arms and legs; empty parts are omitted."""
        parts: dict[str, list[int]] = {
            part: [] for part in ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")
        }
        for i, name in enumerate(self.joints):
            side, _, rest = name.partition("_")
            limbs = (limb for limb, words in _LIMBS.items() if any(word in rest for word in words))
            parts.get(f"{side}_{next(limbs, '')}", parts["trunk"]).append(i)
        return {part: tuple(joints) for part, joints in parts.items() if joints}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values (stored in data files and checkpoints), see `from_dict`."""
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
            name=str(values["name"]),
            joints=tuple(map(str, values["joints"])),
            parents=tuple(map(int, values["parents"])),
            composed=composed,
            bone_parents=None if bone_parents is None else tuple(map(int, bone_parents)),
        )

    @classmethod
    def from_edges(
        cls,
        name: str,
        joints: Sequence[str],
        edges: Iterable[Sequence[int]],
        root: str | None = None,
    ) -> "Skeleton":
        """Build a skeleton from undirected edges; edges that close a cycle are dropped.

        Args:
            name: Name of the layout.
            joints: Joint names.
            edges: Pairs of joint indices.
            root: Name of the root; by default a joint of `ROOT_NAMES`, else the joint in the middle
                of the graph.

        Raises:
            InputError: If an edge or the root is not among the joints.

        Example:
            >>> Skeleton.from_edges("leg", ["ankle", "hip", "knee"], [(0, 2), (2, 1)]).parents
            (2, -1, 1)
        """
        joints = tuple(joints)
        _check_count(name, joints)
        neighbors: list[list[int]] = [[] for _ in joints]
        for edge in edges:
            if len(edge) != 2 or not all(0 <= int(end) < len(joints) for end in edge):
                raise InputError(
                    f"skeleton {name}: edge {list(edge)}: expected a pair of joints from 0 to "
                    f"{len(joints) - 1}"
                )
            first, second = map(int, edge)
            neighbors[first].append(second)
            neighbors[second].append(first)
        if root is not None and root not in joints:
            raise InputError(f"skeleton {name}: the root {root!r} is not among its joints")
        root = root or next((joint for joint in ROOT_NAMES if joint in joints), None)

        def centrality(
            joint: int,
        ) -> tuple[int, int]:  # reachable joints, -distance of the farthest
            depths = [depth for _, depth in _breadth_first(neighbors, joint).values()]
            return len(depths), -max(depths)

        start = joints.index(root) if root else max(range(len(joints)), key=centrality)
        parents: dict[int, int] = {}
        for top in (start, *range(len(joints))):  # further roots where the graph is not connected
            if top not in parents:
                tree = _breadth_first(neighbors, top)
                parents |= {joint: parent for joint, (parent, _) in tree.items()}
        return cls(name, joints, tuple(parents[joint] for joint in range(len(joints))))


def _check_count(name: str, joints: Sequence[str]) -> None:
    if not 0 < len(joints) <= MAX_JOINTS:
        count = len(joints) or "no"
        raise InputError(f"skeleton {name}: it has {count} joints, expected 1 to {MAX_JOINTS}")


def _breadth_first(neighbors: list[list[int]], start: int) -> dict[int, tuple[int, int]]:
    """Return (parent, depth) of each joint that can be reached; the parent of `start` is -1."""
    tree, queue = {start: (-1, 0)}, deque([start])
    while queue:
        node = queue.popleft()
        for other in neighbors[node]:
            if other not in tree:
                tree[other] = node, tree[node][1] + 1
                queue.append(other)
    return tree


def conversion_matrix(source: Skeleton, target: Skeleton) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return how to build the joints of `target` from those of `source`.

    Returns:
        weights: (V_target, V_source) float64; each row is a mean over joints of the source, or all
            zeros where the joint cannot be built.
        missing: Names of the joints that cannot be built.

    Raises:
        InputError: If composed joints refer to each other too deeply.

    Example:
        >>> weights, missing = conversion_matrix(SKELETONS["coco17"], SKELETONS["h36m17"])
        >>> weights.shape, missing
        ((17, 17), ())
    """
    units = np.eye(len(source))
    if source.joints == target.joints:
        return units, ()
    rows = {name: units[i] for i, name in enumerate(source.joints)}
    calls = itertools.count()

    def build(joint: str, pending: tuple[str, ...]) -> np.ndarray | None:
        if next(calls) > _MAX_STEPS or len(pending) > _MAX_DEPTH:
            raise InputError(f"skeleton {target.name}: composed joints are nested too deeply")
        if joint in pending:  # a recipe refers to the joint itself: only the source can have it
            return rows.get(joint)
        for recipe in target.composed.get(joint, ((joint,),)):
            ingredients = [
                build(name, (*pending, joint))
                if name not in rows and name in target.composed
                else rows.get(name)
                for name in recipe
            ]
            if all(row is not None for row in ingredients):
                return np.mean(np.array(ingredients), axis=0)
        return None

    built = {joint: build(joint, ()) for joint in target.joints}
    missing = tuple(joint for joint, row in built.items() if row is None)
    zeros = np.zeros(len(source))
    return np.stack([zeros if row is None else row for row in built.values()]), missing


SKELETONS = {
    name: Skeleton.from_dict({"name": name, **values})
    for name, values in yaml.safe_load(Path(__file__).with_name("layouts.yaml").read_text()).items()
}
"""The named layouts: coco17, h36m17, ntu25, kinect20, openpose18, halpe26, body25."""
