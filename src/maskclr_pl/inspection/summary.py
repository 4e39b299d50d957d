"""Looking into a store: what is in it, and what is wrong with it."""

from collections.abc import Sequence

import numpy as np

from maskclr_pl.data.contents import Inspection, exclusive_splits
from maskclr_pl.data.coverage import class_notes, empty_split_notes, split_notes
from maskclr_pl.data.coverage import few as _few
from maskclr_pl.data.coverage import number as _number
from maskclr_pl.data.store.reader import Store
from maskclr_pl.inspection.image_fit import too_large
from maskclr_pl.inspection.measure import measure_store
from maskclr_pl.sources.format_detection import find_format_problem

_SHORT = 8  # frames: fewer hardly show an action
_SIZES = (0.3, 3.0)  # metres: from a child that crouches to a tall person who stretches
_ROWS, _COLUMNS = 20, 6  # of a table in the short form of the report


def inspect_store(store: Store) -> Inspection:
    """Measure a store in one pass; memory does not grow with the poses (see `measure`)."""
    found = measure_store(store)
    bodies = found.pop("bodies").sum()
    score = (float(found.pop("score_low").min()), float(found.pop("score_high").max()))
    return Inspection(
        path=str(store.path),
        skeleton=store.skeleton.name,
        joints=store.skeleton.joints,
        coordinates=store.coordinates,
        class_names=tuple(store.class_names),
        splits=store.splits,
        skipped=tuple(store.skipped()),
        names=tuple(store.name(i) for i in range(len(store))),
        label=store.label,
        frames=store.frames,
        digest=store.digest,
        missing=found.pop("missing").sum(0) / (bodies if bodies else np.nan),
        low=found.pop("low").min(0),
        high=found.pop("high").max(0),
        score=score if np.isfinite(score).all() else None,
        remarks=_remarks(store),
        **found,
    )


def _remarks(store: Store) -> tuple[str, ...]:
    unlike = find_format_problem(store)
    return (unlike,) if unlike else tuple(too_large(store))


def find_problems(found: Inspection) -> list[str]:
    """What is wrong with a store: a line each, with the clips (the first ten) and what to do."""
    return [
        *class_notes(found.label, found.class_names),
        *split_notes(found.label, found.class_names, found.splits),
        *_split_problems(found),
        *_copy_problems(found),
        *_unit_problems(found),
        *_clip_problems(found),
    ]


def summary_lines(found: Inspection, full: bool = False) -> list[str]:
    """What is in a store, as aligned text; `full` for all rows and columns of the tables."""
    facts = [
        ("store", found.path),
        ("layout", f"{found.skeleton}, {len(found.joints)} joints, {found.coordinates}"),
        *_clip_facts(found),
        *_pose_facts(found),
    ]
    result = [f"{name:<10} {text}" for name, text in facts]
    result += ["", *_class_table(found, full)]
    if full:
        joints = zip(found.joints, found.missing, strict=True)
        rows = [(joint, f"{_percent(share)}") for joint, share in joints]
        result += ["", *_table([("joint", "not visible"), *rows])]
    return result


def _split_problems(found: Inspection) -> list[str]:
    result = empty_split_notes(found.splits)
    original = found.original()
    for a, b in (*exclusive_splits(found.splits), *exclusive_splits(found.splits, "val")):
        both = np.intersect1d(found.splits[a], found.splits[b])
        rest = np.setdiff1d(found.splits[b], both)
        leaked = rest[np.isin(original[rest], original[found.splits[a]])]
        for what, clips in (
            (f"in {a} and in {b}", both),
            (f"in {b}, with the poses of a clip in {a}", leaked),
        ):
            if len(clips):
                result.append(f"{what}: {_clips(found, clips)}; take them out of one of the two")
    return result


def _copy_problems(found: Inspection) -> list[str]:
    original = found.original()
    copies = np.flatnonzero(original != np.arange(len(original)))
    if not len(copies):
        return []
    mixed = np.count_nonzero(found.label[copies] != found.label[original[copies]])
    labels = f" ({mixed} with another label)" if mixed else ""
    pairs = _few([f"{found.names[i]} of {found.names[original[i]]}" for i in copies])
    return [f"copies of other clips{labels}: {_number(len(copies), 'clip')}: {pairs}; keep one"]


def _unit_problems(found: Inspection) -> list[str]:
    result = []
    pixels = found.coordinates == "pixels"
    known = int(np.isfinite(found.drop).sum())
    if known and found.y_down != pixels:
        wrong = int(((found.drop < 0) if pixels else (found.drop > 0)).sum())
        result.append(
            f"heads below feet in {wrong} of {_number(known, 'clip')}: y points "
            f"{'up, expected down in pixels' if pixels else 'down, expected up in metres'}; "
            "change its sign"
        )
    result += found.remarks
    if found.score is not None and found.score[0] < 0:
        result.append(f"scores down to {found.score[0]:.3g}, expected 0 or more; 0 is not visible")
    if found.skipped:
        result.append(
            f"{_number(len(found.skipped), 'clip')} could not be used: "
            f"{_few([name for name, _ in found.skipped])}; correct them, or go on without them"
        )
    return result


def _clip_problems(found: Inspection) -> list[str]:
    seen, metres = found.visible > 0, found.coordinates == "metres"
    small, large = _SIZES
    checks = [
        ("no joint visible", ~seen, "take them out of the splits"),
        ("NaN or infinite values", found.not_finite > 0, "prepare them again"),
        ("nothing moves", found.frozen, "see whether the pose estimator hung"),
        (
            "no body in more than half of the frames",
            seen & (2 * found.empty > found.frames),
            "see whether the pose estimator failed",
        ),
        (f"fewer than {_SHORT} frames", found.frames < _SHORT, "see whether they were cut short"),
        (
            "outside the image unless height and width are exchanged",
            found.swapped,
            "img_shape and frame_size are [HEIGHT,WIDTH]",
        ),
        (
            "more than a quarter of the joints outside the image",
            (4 * found.outside > found.visible) & ~found.swapped,
            "see whether the poses are of images of that size",
        ),
        (
            f"bodies smaller than {small} m or larger than {large} m",
            metres & ((found.size < small) | (found.size > large)),
            "see whether the coordinates are metres",
        ),
    ]
    return [
        f"{what}: {_clips(found, np.flatnonzero(which))}; {advice}"
        for what, which, advice in checks
        if which.any()
    ]


def _clip_facts(found: Inspection) -> list[tuple[str, str]]:
    counts, persons = found.counts(), np.bincount(found.persons).tolist()
    most, fewest = int(counts.argmax()), int(counts.argmin())
    short = int((found.frames < _SHORT).sum())
    unused = len(found.names) - len(set().union(*found.splits.values()))
    facts = [
        ("clips", f"{len(found.names):,}; {_number(unused, 'clip')} in no split"),
        (
            "classes",
            f"{len(counts)}, from {counts[fewest]:,} ({found.class_names[fewest]}) to "
            f"{counts[most]:,} clips ({found.class_names[most]})",
        ),
        ("persons", ", ".join(f"{i} in {_number(n, 'clip')}" for i, n in enumerate(persons) if n)),
        (
            "frames",
            f"{found.frames.min()} to {found.frames.max():,}, median {np.median(found.frames):g}, "
            f"{found.frames.sum():,} in all; fewer than {_SHORT} in {_number(short, 'clip')}",
        ),
        ("no body", _where(found, found.empty, found.frames, "frames")),
    ]
    back = np.flatnonzero(found.returns)
    if len(back):
        facts.append(("gaps", f"a person leaves and comes back in {_clips(found, back)}"))
    return facts


def _pose_facts(found: Inspection) -> list[tuple[str, str]]:
    if not found.visible.any():
        return []
    unit = "px" if found.coordinates == "pixels" else "m"
    facts = [
        (axis, f"{low:.6g} to {high:.6g} {unit}")
        for axis, low, high in zip("xyz", found.low, found.high, strict=False)
    ]
    if unit == "m":
        low, middle, high = (f(found.size) for f in (np.nanmin, np.nanmedian, np.nanmax))
        facts.append(("body size", f"{low:.3g} to {high:.3g} m, median {middle:.3g} m"))
    else:
        facts.append(("outside", _where(found, found.outside, found.visible, "visible joints")))
    if found.score is not None:
        facts.append(("score", "{:.3g} to {:.3g}".format(*found.score)))
    worst = [i for i in np.argsort(-found.missing, kind="stable")[:3] if found.missing[i]]
    most = [f"{found.joints[i]} {_percent(found.missing[i])}" for i in worst]
    share = f"{_percent(found.missing.mean())} of the joints of a body"
    return [*facts, ("missing", ", ".join([share, *most]))]


def _where(found: Inspection, part: np.ndarray, whole: np.ndarray, what: str) -> str:
    share = part.sum() / max(1, whole.sum())
    return f"{_percent(share)} of the {what}, in {_number(int(np.count_nonzero(part)), 'clip')}"


def _class_table(found: Inspection, full: bool) -> list[str]:
    splits = list(found.splits) if full else list(found.splits)[:_COLUMNS]
    counts = np.stack([found.counts(), *map(found.counts, splits)])
    shown = len(found.class_names) if full else _ROWS
    rows = [
        (str(i), name, *map(str, counts[:, i])) for i, name in enumerate(found.class_names[:shown])
    ]
    total = ("", "all", *map(str, counts.sum(1)))
    result = _table([("class", "name", "clips", *splits), *rows, total])
    hidden = [
        _number(len(every) - len(some), noun)
        for noun, every, some in (
            ("class", found.class_names, rows),
            ("split", found.splits, splits),
        )
        if len(every) > len(some)
    ]
    return [*result, f"... and {' and '.join(hidden)} more"] if hidden else result


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; numbers stand at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [cell.strip("%").replace(".", "").replace(" ", "").isdigit() for cell in rows[-1]]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _clips(found: Inspection, rows: np.ndarray) -> str:
    return f"{_number(len(rows), 'clip')}: {_few([found.names[i] for i in rows])}"
