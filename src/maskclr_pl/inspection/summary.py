"""Summary of a store: its contents and its problems."""

from collections.abc import Sequence

import numpy as np

from maskclr_pl.data.contents import Inspection, exclusive_splits
from maskclr_pl.data.coverage import class_notes, empty_split_notes, number, split_notes
from maskclr_pl.data.store.reader import Store
from maskclr_pl.inspection.image_fit import too_large
from maskclr_pl.inspection.measure import measure_store
from maskclr_pl.sources.format_detection import find_format_problem
from maskclr_pl.text import list_names

_MIN_FRAMES = 8  # fewer hardly show an action
_SIZES = (0.3, 3.0)  # meters: from a crouching child to a tall person who stretches
_ROWS, _COLUMNS = 20, 6  # of a table in the short form of the summary
_NAMES = 10  # clips in a line


def inspect_store(store: Store) -> Inspection:
    """Measure a store in one pass; memory does not grow with its size (see `measure_store`)."""
    values = measure_store(store)
    bodies = values.pop("bodies").sum()
    score = (float(values.pop("score_low").min()), float(values.pop("score_high").max()))
    format_problem = find_format_problem(store)
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
        missing=values.pop("missing").sum(0) / (bodies if bodies else np.nan),
        low=values.pop("low").min(0),
        high=values.pop("high").max(0),
        score=score if np.isfinite(score).all() else None,
        remarks=(format_problem,) if format_problem else tuple(too_large(store)),
        **values,
    )


def find_problems(contents: Inspection) -> list[str]:
    """List problems of a store: a line each, with the first ten clips and what to do."""
    return [
        *class_notes(contents.label, contents.class_names),
        *split_notes(contents.label, contents.class_names, contents.splits),
        *empty_split_notes(contents.splits),
        *_overlap_problems(contents),
        *_copy_problems(contents),
        *_unit_problems(contents),
        *_clip_problems(contents),
    ]


def summary_lines(contents: Inspection, full: bool = False) -> list[str]:
    """Describe a store as aligned text; `full` shows all rows and columns of the tables."""
    layout = f"{contents.skeleton}, {len(contents.joints)} joints, {contents.coordinates}"
    facts = {"store": contents.path, "layout": layout}
    facts |= _clip_facts(contents) | _pose_facts(contents)
    lines = [f"{name:<10} {text}" for name, text in facts.items()]
    lines += ["", *_class_table(contents, full)]
    if full:
        rows = zip(contents.joints, map(_percent, contents.missing), strict=True)
        lines += ["", *_align([("joint", "not visible"), *rows])]
    return lines


def _overlap_problems(contents: Inspection) -> list[str]:
    original = contents.original()
    clips = {}
    for a, b in (*exclusive_splits(contents.splits), *exclusive_splits(contents.splits, "val")):
        shared = np.intersect1d(contents.splits[a], contents.splits[b])
        others = np.setdiff1d(contents.splits[b], shared)
        copies = others[np.isin(original[others], original[contents.splits[a]])]
        clips[f"in {a} and in {b}"] = shared
        clips[f"in {b}, with the poses of a clip in {a}"] = copies
    return [
        f"{text}: {_list_clips(contents, rows)}; take them out of one of the two"
        for text, rows in clips.items()
        if len(rows)
    ]


def _copy_problems(contents: Inspection) -> list[str]:
    original, names, label = contents.original(), contents.names, contents.label
    copies = np.flatnonzero(original != np.arange(len(original)))
    if not len(copies):
        return []
    relabeled = np.count_nonzero(label[copies] != label[original[copies]])
    labels = f" ({relabeled} with another label)" if relabeled else ""
    pairs = list_names([f"{names[i]} of {names[original[i]]}" for i in copies], _NAMES)
    return [f"copies of other clips{labels}: {number(len(copies), 'clip')}: {pairs}; keep one"]


def _unit_problems(contents: Inspection) -> list[str]:
    problems = []
    in_image = contents.coordinates == "pixels"
    count = int(np.isfinite(contents.drop).sum())
    if count and contents.y_down != in_image:
        wrong = int(((contents.drop < 0) if in_image else (contents.drop > 0)).sum())
        problems.append(
            f"heads below feet in {wrong} of {number(count, 'clip')}: y points "
            f"{'up, expected down in pixels' if in_image else 'down, expected up in metres'}; "
            "change its sign"
        )
    problems += contents.remarks
    if contents.score is not None and contents.score[0] < 0:
        problems.append(
            f"scores down to {contents.score[0]:.3g}, expected 0 (not visible) or more; correct "
            "them"
        )
    if contents.skipped:
        names = list_names([name for name, _ in contents.skipped], _NAMES)
        problems.append(
            f"{number(len(contents.skipped), 'clip')} could not be used: {names}; correct them, "
            "or go on without them"
        )
    return problems


def _clip_problems(contents: Inspection) -> list[str]:
    visible, low, high = contents.visible, *_SIZES
    is_metric = contents.coordinates == "metres"
    checks = {
        "no joint visible": (visible == 0, "take them out of the splits"),
        "NaN or infinite values": (contents.not_finite > 0, "prepare them again"),
        "nothing moves": (contents.frozen, "check whether the pose estimator hung"),
        "no body in more than half of the frames": (
            (visible > 0) & (2 * contents.empty > contents.frames),
            "check whether the pose estimator failed",
        ),
        f"fewer than {_MIN_FRAMES} frames": (
            contents.frames < _MIN_FRAMES,
            "check whether they were cut short",
        ),
        "outside the image unless height and width are swapped": (
            contents.swapped,
            "img_shape and frame_size are [HEIGHT,WIDTH]",
        ),
        "more than a quarter of the joints outside the image": (
            (4 * contents.outside > visible) & ~contents.swapped,
            "check whether the poses belong to images of that size",
        ),
        f"bodies smaller than {low} m or larger than {high} m": (
            is_metric & ((contents.size < low) | (contents.size > high)),
            "check whether the coordinates are metres",
        ),
    }
    return [
        f"{text}: {_list_clips(contents, np.flatnonzero(clips))}; {advice}"
        for text, (clips, advice) in checks.items()
        if clips.any()
    ]


def _clip_facts(contents: Inspection) -> dict[str, str]:
    counts, persons = contents.counts(), np.bincount(contents.persons).tolist()
    most, fewest = int(counts.argmax()), int(counts.argmin())
    frames, names = contents.frames, contents.class_names
    short = int((frames < _MIN_FRAMES).sum())
    unused = len(contents.names) - len(set().union(*contents.splits.values()))
    facts = {
        "clips": f"{len(contents.names):,}; {number(unused, 'clip')} in no split",
        "classes": f"{len(counts)}, from {counts[fewest]:,} ({names[fewest]}) to "
        f"{counts[most]:,} clips ({names[most]})",
        "persons": ", ".join(f"{i} in {number(n, 'clip')}" for i, n in enumerate(persons) if n),
        "frames": f"{frames.min()} to {frames.max():,}, median {np.median(frames):g}, "
        f"{frames.sum():,} in all; fewer than {_MIN_FRAMES} in {number(short, 'clip')}",
        "no body": _share(contents.empty, frames, "frames"),
    }
    gaps = np.flatnonzero(contents.returns)
    if len(gaps):
        facts["gaps"] = f"a person leaves and comes back in {_list_clips(contents, gaps)}"
    return facts


def _pose_facts(contents: Inspection) -> dict[str, str]:
    if not contents.visible.any():
        return {}
    unit = "px" if contents.coordinates == "pixels" else "m"
    facts = {
        axis: f"{low:.6g} to {high:.6g} {unit}"
        for axis, low, high in zip("xyz", contents.low, contents.high, strict=False)
    }
    if unit == "m":
        low, median, high = (f(contents.size) for f in (np.nanmin, np.nanmedian, np.nanmax))
        facts["body size"] = f"{low:.3g} to {high:.3g} m, median {median:.3g} m"
    else:
        facts["outside"] = _share(contents.outside, contents.visible, "visible joints")
    if contents.score is not None:
        facts["score"] = "{:.3g} to {:.3g}".format(*contents.score)
    missing = contents.missing
    worst = [i for i in np.argsort(-missing, kind="stable")[:3] if missing[i]]
    joints = [f"{contents.joints[i]} {_percent(missing[i])}" for i in worst]
    facts["missing"] = ", ".join([f"{_percent(missing.mean())} of the joints of a body", *joints])
    return facts


def _share(part: np.ndarray, whole: np.ndarray, noun: str) -> str:
    share = part.sum() / max(1, whole.sum())
    return f"{_percent(share)} of the {noun}, in {number(int(np.count_nonzero(part)), 'clip')}"


def _class_table(contents: Inspection, full: bool) -> list[str]:
    splits, names = list(contents.splits), contents.class_names
    shown_splits, shown_names = (splits, names) if full else (splits[:_COLUMNS], names[:_ROWS])
    counts = np.stack([contents.counts(), *map(contents.counts, shown_splits)])
    rows = [(str(i), name, *map(str, counts[:, i])) for i, name in enumerate(shown_names)]
    total = ("", "all", *map(str, counts.sum(1)))
    lines = _align([("class", "name", "clips", *shown_splits), *rows, total])
    hidden = {"class": len(names) - len(shown_names), "split": len(splits) - len(shown_splits)}
    more = " and ".join(number(count, noun) for noun, count in hidden.items() if count)
    return [*lines, f"... and {more} more"] if more else lines


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad columns to their widest cell; columns of numbers are aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_number = [cell.strip("%").replace(".", "").replace(" ", "").isdigit() for cell in rows[-1]]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _list_clips(contents: Inspection, rows: np.ndarray) -> str:
    names = list_names([contents.names[i] for i in rows], _NAMES)
    return f"{number(len(rows), 'clip')}: {names}"
