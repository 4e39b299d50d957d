"""Joint layouts by name or from YAML files, and what a layout cannot be used for."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.reading import read_yaml
from maskclr_pl.skeletons.joint_names import canonical_names
from maskclr_pl.skeletons.skeleton import ROOT_NAMES, SKELETONS, Skeleton
from maskclr_pl.types import InputError

_LIMBS = ("left_arm", "right_arm", "left_leg", "right_leg")
_NAMED = 4  # joints in a line


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """A named layout, or one from a YAML file; see `read_layout`."""
    return read_layout(name_or_path)[0]


def read_layout(name_or_path: str | Path) -> tuple[Skeleton, list[str]]:
    """A named layout, or one from a YAML file with `joints` and `edges` (indices or names).

    A file with the joints of a named layout is that layout, and needs no edges; with the same
    joints in another order it has the root and the bones of the named layout. Joint names may be
    spelled in other ways, see `canonical_names`.

    Returns:
        skeleton: The layout.
        notes: What was read into the file, a line each.

    Raises:
        InputError: If there is no such name or file, or the file has no joints and edges.
    """
    if str(name_or_path) in SKELETONS:
        return SKELETONS[str(name_or_path)], []
    path = Path(str(name_or_path))
    if path.suffix.lower() not in (".yaml", ".yml"):
        close = difflib.get_close_matches(str(name_or_path), SKELETONS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(
            f"no skeleton named {str(name_or_path)!r}{hint}; known: {', '.join(SKELETONS)}, "
            "or a YAML file with joints and edges"
        )
    values = read_yaml(path)
    given = values.get("joints")
    if not isinstance(given, list):
        raise _no_layout(path)
    written = [str(joint) for joint in given]
    joints = canonical_names(written)
    notes = _renamed(path, written, joints)
    edges = _edges(path, values.get("edges"), written, joints)
    root = values.get("root")
    if root is not None:
        root = dict(zip(written, joints, strict=True)).get(str(root), str(root))
    name = str(values.get("name", path.name.removesuffix(path.suffix).removesuffix(".meta")))
    own = Skeleton.from_edges(name, joints, edges or [], root)  # also checks what is not used
    known = next((one for one in SKELETONS.values() if sorted(one.joints) == sorted(joints)), None)
    if known is not None and root in (None, known.joints[known.root]):
        if known.joints == joints:
            note = f"{path} has the joints of {known.name} and is read as {known.name}"
            return known, [*notes, note]
        note = (
            f"{path} has the joints of {known.name} in another order: root and bones are the same"
        )
        return _reordered(known, name, joints), [*notes, note]
    if edges is None:
        raise _no_layout(path)
    return own, [*notes, *_derived(path, own, root)]


def layout_notes(skeleton: Skeleton, pairs: Sequence[Sequence[int]] | None = None) -> list[str]:
    """What the joint names of a layout do not allow, a line each.

    Args:
        skeleton: The layout.
        pairs: The (left, right) joints that are used; by default those of the layout.
    """
    if not (skeleton.pairs if pairs is None else pairs):
        return [
            f"{skeleton.name} has no pairs of left and right joints (names such as left_wrist and "
            "right_wrist): flips exchange no joints, and corruptions of sides, arms and legs are "
            "left out of evaluate"
        ]
    paired = {joint for pair in skeleton.pairs for joint in pair}
    alone = [
        name
        for joint, name in enumerate(skeleton.joints)
        if name.startswith(("left_", "right_")) and joint not in paired
    ]
    absent = [limb.replace("_", " ") for limb in _LIMBS if limb not in skeleton.parts]
    notes = []
    if alone:
        notes.append(f"{skeleton.name}: no joint on the other side of {_few(alone)}")
    if absent:
        notes.append(f"the joint names of {skeleton.name} tell no {', '.join(absent)}")
    return notes


def _no_layout(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a list `joints` (names) and a list `edges` (pairs); for a known "
        f"layout pass its name instead: {', '.join(SKELETONS)}"
    )


def _edges(
    path: Path, given: Any, written: Sequence[str], joints: Sequence[str]
) -> list[tuple[int, int]] | None:
    """Pairs of joint indices; None if the file has no edges."""
    if given is None:
        return None
    if not isinstance(given, list):
        raise _no_layout(path)
    index = {name: i for names in (joints, written) for i, name in enumerate(names)}
    edges: list[tuple[int, int]] = []
    for edge in given:
        ends = edge if isinstance(edge, list) else []
        match [index.get(end) if isinstance(end, str) else end for end in ends]:
            case [int(first), int(second)]:
                edges.append((first, second))
            case _:
                unknown = [end for end in ends if isinstance(end, str) and end not in index]
                reason = f"; no joint is named {unknown[0]!r}" if unknown else ""
                raise InputError(
                    f"{path}: edge {edge}: each edge must be a pair of joint indices or "
                    f"names{reason}"
                )
    return edges


def _renamed(path: Path, written: Sequence[str], joints: Sequence[str]) -> list[str]:
    changed = [f"{old} is {new}" for old, new in zip(written, joints, strict=True) if old != new]
    return [f"joint names of {path}: {_few(changed)}"] if changed else []


def _reordered(known: Skeleton, name: str, joints: tuple[str, ...]) -> Skeleton:
    """A named layout with its joints in another order."""

    def parents(of_known: Sequence[int]) -> tuple[int, ...]:
        old = [of_known[known.joints.index(joint)] for joint in joints]
        return tuple(-1 if parent < 0 else joints.index(known.joints[parent]) for parent in old)

    bones = None if known.bone_parents is None else parents(known.bone_parents)
    return Skeleton(name, joints, parents(known.parents), known.composed, bones)


def _derived(path: Path, skeleton: Skeleton, root: str | None) -> list[str]:
    """Assumptions about what the file does not state."""
    notes = []
    top = skeleton.joints[skeleton.root]
    if root is None and top not in ROOT_NAMES:
        notes.append(
            f"no joint of {path} is named like a root: {top}, in the middle of the edges, is the "
            "root; add `root: JOINT` to the file to use another"
        )
    loose = [
        name
        for joint, name in enumerate(skeleton.joints)
        if skeleton.parents[joint] < 0 and joint != skeleton.root
    ]
    if loose:
        notes.append(f"no edge of {path} connects {_few(loose)} with {top}")
    return notes


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
