"""Joint layouts by name or from YAML files, and the limits of a layout."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.errors import InputError
from maskclr_pl.reading import read_yaml
from maskclr_pl.skeletons.joint_names import canonical_names
from maskclr_pl.skeletons.skeleton import ROOT_NAMES, SKELETONS, Skeleton
from maskclr_pl.text import list_names

_LIMBS = ("left_arm", "right_arm", "left_leg", "right_leg")
_LISTED = 4  # joints in a message


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """Load a named layout, or one from a YAML file; see `read_layout`.

    Example:
        >>> len(load_skeleton("coco17"))
        17
    """
    return read_layout(name_or_path)[0]


def read_layout(name_or_path: str | Path) -> tuple[Skeleton, list[str]]:
    """Load a named layout, or one from a YAML file with `joints` and `edges` (indices or names).

    A file with the joints of a named layout is read as that layout and needs no edges; with the
    same joints in another order it gets the root and the bones of the named layout. Joint names may
    be spelled in other ways, see `canonical_names`.

    Returns:
        skeleton: The layout.
        notes: Assumptions about the file, a line each.

    Raises:
        InputError: If there is no such name or file, or the file has no joints and edges.
    """
    if str(name_or_path) in SKELETONS:
        return SKELETONS[str(name_or_path)], []
    path = Path(str(name_or_path))
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise _unknown_name(str(name_or_path))
    values = read_yaml(path)
    if not isinstance(values.get("joints"), list):
        raise _not_a_layout(path)
    written = [str(joint) for joint in values["joints"]]
    joints = canonical_names(written)
    changed = [f"{old} is {new}" for old, new in zip(written, joints, strict=True) if old != new]
    notes = [f"joint names of {path}: {list_names(changed, _LISTED)}"] if changed else []
    edges = _read_edges(path, values.get("edges"), written, joints)
    root = values.get("root")
    if root is not None:
        root = dict(zip(written, joints, strict=True)).get(str(root), str(root))
    name = str(values.get("name", path.name.removesuffix(path.suffix).removesuffix(".meta")))
    skeleton = Skeleton.from_edges(name, joints, edges or [], root)  # also validates unused edges
    named = next((one for one in SKELETONS.values() if sorted(one.joints) == sorted(joints)), None)
    if named is not None and root in (None, named.joints[named.root]):
        note = f"{path} has the joints of {named.name}"
        if named.joints == joints:
            return named, [*notes, f"{note} and is read as {named.name}"]
        note += " in another order: root and bones are the same"
        return _reorder(named, name, joints), [*notes, note]
    if edges is None:
        raise _not_a_layout(path)
    return skeleton, [*notes, *_assumptions(path, skeleton, root)]


def layout_notes(skeleton: Skeleton, pairs: Sequence[Sequence[int]] | None = None) -> list[str]:
    """List the features that the joint names of a layout do not support, a line each.

    Args:
        skeleton: The layout.
        pairs: The (left, right) joints in use; by default those of the layout.
    """
    if not (skeleton.pairs if pairs is None else pairs):
        return [
            f"{skeleton.name} has no pairs of left and right joints (names such as left_wrist and "
            "right_wrist): flips swap no joints, and evaluate skips corruptions of sides, arms and "
            "legs"
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
        notes.append(f"{skeleton.name} has no opposite joint for {list_names(alone, _LISTED)}")
    if absent:
        notes.append(f"no joint names of {skeleton.name} belong to a {', '.join(absent)}")
    return notes


def _unknown_name(name: str) -> InputError:
    close = difflib.get_close_matches(name, SKELETONS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return InputError(
        f"no skeleton named {name!r}{hint}; pass {', '.join(SKELETONS)}, or a YAML file with "
        "joints and edges"
    )


def _not_a_layout(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a list `joints` (names) and a list `edges` (pairs); for a known layout "
        f"pass its name instead: {', '.join(SKELETONS)}"
    )


def _read_edges(
    path: Path, values: Any, written: Sequence[str], joints: Sequence[str]
) -> list[tuple[int, int]] | None:
    """Return edges as pairs of joint indices; None if the file has no edges."""
    if values is None:
        return None
    if not isinstance(values, list):
        raise _not_a_layout(path)
    index = {name: i for names in (joints, written) for i, name in enumerate(names)}
    edges: list[tuple[int, int]] = []
    for edge in values:
        ends = edge if isinstance(edge, list) else []
        match [index.get(end) if isinstance(end, str) else end for end in ends]:
            case [int(first), int(second)]:
                edges.append((first, second))
            case _:
                unknown = [end for end in ends if isinstance(end, str) and end not in index]
                reason = f"; no joint is named {unknown[0]!r}" if unknown else ""
                raise InputError(
                    f"{path}: edge {edge}: expected a pair of joint indices or names{reason}"
                )
    return edges


def _reorder(named: Skeleton, name: str, joints: tuple[str, ...]) -> Skeleton:
    """Return a named layout with its joints in another order."""

    def reorder(parents: Sequence[int]) -> tuple[int, ...]:
        old = [parents[named.joints.index(joint)] for joint in joints]
        return tuple(-1 if parent < 0 else joints.index(named.joints[parent]) for parent in old)

    bones = None if named.bone_parents is None else reorder(named.bone_parents)
    return Skeleton(name, joints, reorder(named.parents), named.composed, bones)


def _assumptions(path: Path, skeleton: Skeleton, root: str | None) -> list[str]:
    notes = []
    root_name = skeleton.joints[skeleton.root]
    if root is None and root_name not in ROOT_NAMES:
        notes.append(
            f"{path} names no root: {root_name}, in the middle of the edges, is the root; add "
            "`root: JOINT` to the file to use another"
        )
    loose = [
        name
        for joint, name in enumerate(skeleton.joints)
        if skeleton.parents[joint] < 0 and joint != skeleton.root
    ]
    if loose:
        notes.append(f"no edge of {path} connects {list_names(loose, _LISTED)} with {root_name}")
    return notes
